"""Annotations of an atlas: what travels from its cells, as the plan states it, and where it is read from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from causcell.cells.annotations import Annotations
from causcell.errors import DataError, format_list

if TYPE_CHECKING:
    import pandas as pd


class KeptAnnotations(BaseModel):
    """Annotations that an atlas keeps of its cells.

    Attributes
    ----------
    obs, obsm, var
        Form of each column or element, by name, as `causcell.cells.annotations.Annotations.describe` has it; that of
        labels, and of columns of ``var``, has a digest.
    values
        Digest of the annotations of up to 256 cells, evenly spaced.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    obs: dict[str, str]
    obsm: dict[str, str]
    var: dict[str, str]
    values: str

    @classmethod
    def of(cls, annotations: Annotations) -> KeptAnnotations | None:
        """State what travels; `None` where nothing does, as in plans of earlier versions."""
        described = annotations.describe()
        return cls(**described, values=annotations.digest_sample()) if any(described.values()) else None

    def find(self, annotations: Annotations, title: str) -> Annotations:
        """Return the annotations that are kept, from all that travel; raises `DataError` if their forms changed."""
        found = annotations.only(self.obs, self.obsm, self.var)
        here = found.describe()
        changed = [
            f"{table}[{name!r}]"
            for table in ("obs", "obsm", "var")
            for name, form in getattr(self, table).items()
            if here[table].get(name) != form
        ]
        if changed:
            raise DataError(
                f"{', '.join(changed)} changed since {title} was planned; restore the cells' file, or plan anew"
            )
        return found

    def describe(self) -> str:
        """Describe what is kept, for people."""
        return "; ".join(f"{table} {format_list(names)}" for table, names in self.names().items() if names)

    def names(self) -> dict[str, list[str]]:
        """Return the names of what is kept, by table."""
        return {"obs": list(self.obs), "obsm": list(self.obsm), "var": list(self.var)}


class AnnotationSource(Protocol):
    """Source of the annotations of an atlas's cells: the cells, or an atlas of embeddings."""

    @property
    def var(self) -> pd.DataFrame:
        """Columns of ``var`` for the panel's genes, [G x columns]."""
        ...

    def read(self, rows: slice) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """Read consecutive cells: columns of ``obs`` [n x columns], and elements of ``obsm`` [n x k] by name."""
        ...
