"""Regression of what x_t does not tell of x0 (Karras et al. 2022, table 1, without its scale of the input)."""

from __future__ import annotations

from torch import Tensor

from causcell_training.heads.plain import PlainHead


class SkipHead(PlainHead):
    """x0 = sqrt(abar) x_t + sqrt(1 - abar) (W h + b), by squared error.

    Parameters
    ----------
    width
        Hidden width d.
    zero
        Standardised zero expression, float32 [G].
    """

    def x0(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """Return the posterior mean of x0, float32 [B x G]."""
        return alpha_bar.sqrt() * x_t + (1 - alpha_bar).sqrt() * super().x0(hidden, x_t, alpha_bar)
