"""The error of a model's effects, as export measures it and a manifest holds it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Size = Annotated[float, Field(ge=0, le=1e6)]


class ErrorSize(BaseModel):
    """Mean square of the error of an effect: ``constant * deviation**2 + relative * effect**2``.

    Attributes
    ----------
    constant
        Part that all genes have, in squares of a gene's standard deviation over the training cells.
    relative
        Part that grows with the effect, in squares of its size.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    constant: Size
    relative: Size


class EffectError(BaseModel):
    """Error of the effects of one concept's labels, measured against the cells' own differences between labels.

    It is that of a model with the right graph: where causes are missing or edges are wrong, real differences are no
    effects either, and no error of this kind shows it.

    Attributes
    ----------
    strata
        Concepts within whose labels cells were compared: the parents, or what takes their place.
    shifts
        Number of differences between two labels, within strata, that it was measured on.
    stratum
        Error of the average effect in one stratum whose labels were trained on together with the target.
    shared
        The part of it that all strata have in common, which averaging over strata does not lower.
    unseen
        Error in a stratum whose cells never carried the target label in training; `None` where it can't be measured.
    coverage
        Share of the test cells' differences that 90 % intervals held; `None` where too few were held out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    strata: tuple[str, ...]
    shifts: Annotated[int, Field(ge=1)]
    stratum: ErrorSize
    shared: ErrorSize
    unseen: ErrorSize | None = None
    coverage: Annotated[float, Field(ge=0, le=1)] | None = None
