"""Registry of heads, those of this package and those from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causcell._internal.registry import Registry
from causcell.errors import ConfigurationError

if TYPE_CHECKING:
    from causcell_training.heads.base import Head

ENTRY_POINTS = "causcell.heads"
"""Entry-point group of heads from other packages; each names a subclass of `Head`."""

LOSSES = ("reconstruction", "likelihood")
"""Names that a head may give its losses: those that ``objective`` has weights for."""


def _check(name: str, found: object) -> type[Head]:
    from causcell_training.heads.base import Head

    if not (isinstance(found, type) and issubclass(found, Head)):
        raise ConfigurationError(f"head {name!r} is {found!r}; give a subclass of causcell_training.heads.Head")
    if not found.loss_names or not set(found.loss_names) <= set(LOSSES):
        raise ConfigurationError(
            f"head {name!r} has losses {found.loss_names}; take one or more of {LOSSES}, which the objective weighs"
        )
    return found


HEADS: Registry[type[Head]] = Registry(
    "head",
    ENTRY_POINTS,
    _check,
    {
        "plain": "causcell_training.heads.plain:PlainHead",
        "skip": "causcell_training.heads.skip:SkipHead",
        "spike_slab": "causcell_training.heads.spike_slab:SpikeSlabHead",
    },
)


def register_head(name: str, cls: type[Head], *, replace: bool = False) -> None:
    """Make a head known by name, to ``model.head``, the exporter and the manifest.

    It is known in this process. A package that brings heads to every process (the command line) has an entry point of
    the group ``causcell.heads`` for each, which names its class. Try a head by
    `causcell_training.heads.contract.check_head` first.

    Parameters
    ----------
    name
        Its name, an identifier.
    cls
        Subclass of `Head`.
    replace
        Take the place of a head of that name.

    Raises
    ------
    ConfigurationError
        A name that is taken, or no identifier; no subclass of `Head`; losses that the objective has no weights for.

    Examples
    --------
    Regression by absolute error, whose answer is the median of x0:

    >>> from causcell_training.heads import PlainHead, head_class
    >>> class MedianHead(PlainHead):
    ...     def losses(self, hidden, x_t, alpha_bar, x):
    ...         return {"reconstruction": (self.x0(hidden, x_t, alpha_bar) - x).abs()}
    >>> register_head("median", MedianHead)
    >>> head_class("median") is MedianHead
    True
    """
    HEADS.register(name, cls, replace=replace)


def head_class(name: str) -> type[Head]:
    """Return the class of a head; raises `ConfigurationError`, which lists the known ones and the nearest."""
    return HEADS[name]


def known_heads() -> tuple[str, ...]:
    """Return the names of all heads: of this package, registered, of installed plugins."""
    return HEADS.names()


def check_head_name(name: str) -> str:
    """Return a head's name if there is such a head, without importing it; raises `ConfigurationError`."""
    return HEADS.check_name(name)
