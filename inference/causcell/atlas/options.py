"""Options of `Generator.plan_atlas` and `Generator.write_atlas`, which both spell alike."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar

from causcell._internal.confidence import LEVEL

F = TypeVar("F", bound=Callable[..., Any])

DEFAULTS: Mapping[str, Any] = {
    "mode": "do",
    "match_parents": False,
    "target": "reference",
    "preset": None,
    "solver": None,
    "steps": None,
    "spacing": None,
    "eta": None,
    "draws": 1,
    "seed": 0,
    "store": "expression",
    "dtype": "float32",
    "interval": LEVEL,
    "library_size": None,
    "keep_obs": None,
    "keep_obsm": None,
    "where": None,
    "layer": None,
    "raw": False,
    "expression": None,
    "totals": None,
    "round_counts": False,
    "allow_missing_genes": 0.0,
    "layout": None,
    "chunk_size": "2MB",
    "shard_size": "128MB",
}
"""Defaults of `AtlasOptions`."""


class AtlasOptions(TypedDict, total=False):
    """Options of how an atlas is generated, read and laid out; `DEFAULTS` has what is not given.

    Attributes
    ----------
    mode, match_parents, target, preset, solver, steps, spacing, eta, draws, seed, store, interval, library_size
        What is generated; see `causcell.generator.Generator.counterfactual`.
    dtype
        Type of the expression: ``float32``, or ``float16`` (half the bytes).
    keep_obs, keep_obsm
        Which annotations of the cells travel; see `causcell.generator.Generator.counterfactual`. An atlas that was
        begun goes on with what it keeps, unless something is chosen here.
    where, layer, raw, expression, totals, round_counts, allow_missing_genes
        How cells are read; see `causcell.generator.Generator.counterfactual`.
    layout
        ``csr``: ``X`` is a CSR matrix, which leaves out zeros; ``dense``. If not given, ``csr`` for float32 expression
        and counts of a solver whose last step draws, of which most values are zero, and ``dense`` for all else.
    chunk_size, shard_size
        Uncompressed bytes that readers fetch, and that are made and committed, at once: a number, or text such as
        ``64MB``. A chunk of a CSR matrix has an eighth of the values of a dense one.
    """

    mode: str
    match_parents: bool
    target: str
    preset: str | None
    solver: str | None
    steps: int | None
    spacing: str | None
    eta: float | None
    draws: int
    seed: int
    store: str
    dtype: str
    interval: float
    library_size: int | None
    keep_obs: str | Sequence[str] | None
    keep_obsm: str | Sequence[str] | None
    where: str | None
    layer: str | None
    raw: bool
    expression: str | None
    totals: str | None
    round_counts: bool
    allow_missing_genes: float
    layout: str | None
    chunk_size: str | int
    shard_size: str | int


def complete_options(options: AtlasOptions, function: str) -> dict[str, Any]:
    """Return all options, defaults where none was given.

    Raises
    ------
    TypeError
        An option that there is not, as for any function; the message names the nearest one.

    Examples
    --------
    >>> complete_options({"draws": 4}, "write_atlas")["draws"]
    4
    """
    for name in options:
        if name not in DEFAULTS:
            near = difflib.get_close_matches(name, DEFAULTS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{hint}")
    return {**DEFAULTS, **options}


def spell_out_options(function: F) -> F:
    """Show `AtlasOptions` and their defaults in the signature of a function that takes ``**options``.

    ``help`` and completion in notebooks then list them.
    """
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    spelled = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=AtlasOptions.__annotations__[name].__forward_arg__,
        )
        for name, default in DEFAULTS.items()
    ]
    function.__signature__ = signature.replace(parameters=[*own, *spelled])  # type: ignore[attr-defined]
    return function
