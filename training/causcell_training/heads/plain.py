"""Regression of x0: the paper's objective (Gao et al., bioRxiv 2024.12.11.628077)."""

from __future__ import annotations

from torch import Tensor, nn

from causcell_training.heads.base import Head


class PlainHead(Head):
    """x0 = W h + b, by squared error.

    Parameters
    ----------
    width
        Hidden width d.
    zero
        Standardised zero expression, float32 [G].
    """

    def __init__(self, width: int, zero: Tensor) -> None:
        super().__init__(width, zero)
        self.output = nn.Linear(width, len(zero))

    def x0(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """Return the posterior mean of x0, float32 [B x G]."""
        answer: Tensor = self.output(hidden)
        return answer.to(x_t.dtype)

    def losses(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Return the squared error of x0, float32 [B x G]."""
        return {"reconstruction": (self.x0(hidden, x_t, alpha_bar) - x) ** 2}
