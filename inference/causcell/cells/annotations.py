"""Annotations of cells and genes that travel into results: which do, in what form, and their values by rows."""

from __future__ import annotations

import hashlib
from collections.abc import Collection as Names
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.choices import suggest
from causcell._internal.telling import warn
from causcell.cells.collection import AnyCells, Cells
from causcell.cells.columns import (
    Form,
    Uncarried,
    describe_form,
    digest_texts,
    join_forms,
    missing_column,
    take_form,
)
from causcell.cells.gene_columns import read_gene_table
from causcell.errors import ConfigurationError, format_list

if TYPE_CHECKING:
    import pandas as pd

COORDINATES = ("spatial",)
"""Elements of ``obsm`` that travel unless others are chosen."""

NOTHING = "none"
"""What is given for no column."""

_RESERVED = ("_index", "zarr.json", ".", "..")
_PIECE = 65536
_FEW = 512
_SAMPLED_CELLS = 256
_TOLD = 20


@dataclass(frozen=True)
class Kept:
    """Which annotations travel.

    Attributes
    ----------
    obs, obsm
        Columns and elements by name; `None` for those that travel by default: all columns, and the coordinates in
        ``obsm["spatial"]``. ``none`` for no column.
    """

    obs: str | Sequence[str] | None = None
    obsm: str | Sequence[str] | None = None

    @property
    def chosen(self) -> bool:
        """Tell whether anything was chosen."""
        return self.obs is not None or self.obsm is not None


@dataclass(frozen=True)
class Annotations:
    """Annotations of cells that travel into results.

    Attributes
    ----------
    cells
        The cells.
    obs
        Form of each column of ``obs``, a pandas or numpy dtype, by name.
    obsm
        Columns k and type of each element of ``obsm``, by name.
    var
        Columns of ``var`` for the panel's genes, [G x columns].
    left_out
        What does not travel, though it was not chosen against: sentences that name it.
    """

    cells: AnyCells
    obs: Mapping[str, Form]
    obsm: Mapping[str, tuple[int, np.dtype[Any]]]
    var: pd.DataFrame
    left_out: tuple[str, ...] = ()

    def warn_of_left_out(self) -> None:
        """Warn of what does not travel."""
        if self.left_out:
            warn(
                f"the result does not have all annotations of the cells: {'; '.join(self.left_out[:_TOLD])}"
                + (f"; and {len(self.left_out) - _TOLD} more" if len(self.left_out) > _TOLD else "")
            )

    def read(self, rows: slice) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """Read consecutive cells: columns of ``obs`` [n x columns], and elements of ``obsm`` [n x k] by name."""
        pieces = [self._read_part(part, within) for _, part, within in self.cells.split_rows(rows)]
        return self._join(pieces)

    def only(self, obs: Iterable[str], obsm: Iterable[str], var: Iterable[str]) -> Annotations:
        """Return those of the annotations that are named, if there are such."""
        return replace(
            self,
            obs={name: self.obs[name] for name in obs if name in self.obs},
            obsm={name: self.obsm[name] for name in obsm if name in self.obsm},
            var=self.var[[name for name in var if name in self.var]],
        )

    def describe(self) -> dict[str, dict[str, str]]:
        """Describe forms by name, and of ``var`` values by their digests too, for plans."""
        return {
            "obs": {name: describe_form(form) for name, form in self.obs.items()},
            "obsm": {name: f"{width} of {dtype}" for name, (width, dtype) in self.obsm.items()},
            "var": {
                str(name): f"{describe_form(column.dtype)}, {digest_texts(column)[:12]}"
                for name, column in self.var.items()
            },
        }

    def digest_sample(self) -> str:
        """Return the digest of the annotations of up to 256 cells, evenly spaced."""
        count = len(self.cells)
        places = np.unique(np.linspace(0, count - 1, min(_SAMPLED_CELLS, count)).astype(int))
        pieces, start = [], 0
        for part in self.cells.parts:
            within = places[(places >= start) & (places < start + len(part))] - start
            pieces += [self._read_part(part, within)] if len(within) else []
            start += len(part)
        obs, obsm = self._join(pieces)
        digest = hashlib.sha256()
        for name in obs:
            digest.update(digest_texts(obs[name].astype(object)).encode())
        for values in obsm.values():
            digest.update(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    def _join(
        self, pieces: list[tuple[pd.DataFrame, dict[str, np.ndarray]]]
    ) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        import pandas as pd

        if len(pieces) == 1:
            return pieces[0]
        obs = pd.concat([obs for obs, _ in pieces], ignore_index=True)
        return obs, {name: np.concatenate([found[name] for _, found in pieces]) for name in self.obsm}

    def _read_part(self, part: Cells, rows: slice | np.ndarray) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """Read cells of one file, window by window where ``where`` scatters them: memory is that of a window."""
        import pandas as pd

        places = part.places(rows)
        count = len(range(*places.indices(len(part))) if isinstance(places, slice) else places)
        here = [name for name in self.obs if name in part.columns]
        found = [part.file.read_columns(here, window).iloc[inside] for window, inside in _windows(places)]
        read = pd.concat(found, ignore_index=True) if len(found) > 1 else found[0].reset_index(drop=True)
        columns = {
            name: take_form(read[name], form) if name in here else missing_column(form, count)
            for name, form in self.obs.items()
        }
        obsm = {}
        for name, (width, dtype) in self.obsm.items():
            values = part.file.embedding(name) if name in part.file.embeddings else None
            if values is None:
                obsm[name] = np.full((count, width), np.nan, dtype=dtype)
            else:
                taken = [_take(values, window)[inside] for window, inside in _windows(places)]
                obsm[name] = np.concatenate(taken).astype(dtype, copy=False)
        return pd.DataFrame(columns, index=range(count)), obsm


def _windows(places: slice | np.ndarray) -> list[tuple[slice | np.ndarray, Any]]:
    """Split ascending places into what is read at once, and which of that is wanted."""
    if isinstance(places, slice) or len(places) <= _FEW:
        return [(places, slice(None))]
    windows = places // _PIECE
    found: list[tuple[slice | np.ndarray, Any]] = []
    for window in np.unique(windows):
        wanted = places[windows == window]
        found.append((slice(int(wanted[0]), int(wanted[-1]) + 1), wanted - wanted[0]))
    return found


def _take(values: Any, rows: slice | np.ndarray) -> np.ndarray:
    return np.asarray(values.read(rows)[0] if hasattr(values, "read") else values[rows])


def select_annotations(
    cells: AnyCells,
    genes: Sequence[str],
    kept: Kept,
    *,
    own: Names[str] = (),
    concepts: Names[str] = (),
    places: Names[str] = (),
) -> Annotations:
    """Select the annotations that travel from cells into a result.

    Parameters
    ----------
    cells
        The cells.
    genes
        The panel.
    kept
        Which are wanted.
    own
        Columns of ``obs`` that the result has of its own; one of the same name is left out.
    concepts
        Columns of which the result has its own form, so that nobody misses them: they are left out without a word.
    places
        Elements of ``obsm`` that the result has of its own.

    Raises
    ------
    ConfigurationError
        A column or element that is chosen by name, and is not there or can't travel.
    """
    parts, left_out = cells.parts, []
    known = list(dict.fromkeys(name for part in parts for name in part.columns))
    wanted = _choose(kept.obs, known, "keep_obs=", "columns of obs")
    obs: dict[str, Form] = {}
    for name in known if wanted is None else wanted:
        if name in concepts:
            continue
        form = Uncarried("is a column of the result's own") if name in own else _form_of(parts, name)
        if not isinstance(form, Uncarried):
            obs[name] = form
            left_out += _lost_order(parts, name, form)
        elif wanted is None:
            left_out.append(f"obs[{name!r}] {form.reason}")
        else:
            raise ConfigurationError(f"keep_obs= names obs[{name!r}], which {form.reason}; leave it out or rename it")
    known = list(dict.fromkeys(name for part in parts for name in part.file.embeddings))
    wanted = _choose(kept.obsm, known, "keep_obsm=", "elements of obsm")
    obsm: dict[str, tuple[int, np.dtype[Any]]] = {}
    for name in [each for each in COORDINATES if each in known] if wanted is None else wanted:
        shape = Uncarried("is an element of the result's own") if name in places else _shape_of(parts, name)
        if not isinstance(shape, Uncarried):
            obsm[name] = shape
        elif wanted is None:
            left_out.append(f"obsm[{name!r}] {shape.reason}")
        else:
            raise ConfigurationError(f"keep_obsm= names obsm[{name!r}], which {shape.reason}; leave it out")
    var, others = read_gene_table(parts, genes)
    return Annotations(cells, obs, obsm, var, (*left_out, *others))


def _choose(keep: str | Sequence[str] | None, known: Sequence[str], option: str, what: str) -> list[str] | None:
    """Return the names that are chosen, `None` where nothing is; raises `ConfigurationError` for one that is not."""
    if keep is None:
        return None
    names = [keep] if isinstance(keep, str) else list(dict.fromkeys(keep))
    if names == [NOTHING] and NOTHING not in known:
        return []
    for name in names:
        if name not in known:
            there = f"the {what} are {format_list(known, 40)}" if known else f"there are no {what}"
            raise ConfigurationError(
                f"{option} names {name!r}, which is not there; {suggest(name, known)}{there} ({NOTHING!r} keeps none)"
            )
    return names


def _form_of(parts: Sequence[Cells], name: str) -> Form | Uncarried:
    """Find the form of a column that some of the files have."""
    if "/" in name or name in _RESERVED or name.startswith("__") or not name.strip("."):
        return Uncarried("has a name that stores can't have: rename it")
    forms = {part.key: part.file.column_form(name) if name in part.columns else None for part in parts}
    for form in forms.values():
        if isinstance(form, Uncarried):
            return form
    return next(iter(forms.values())) if len(forms) == 1 else join_forms({str(key): f for key, f in forms.items()})


def _lost_order(parts: Sequence[Cells], name: str, form: Form) -> list[str]:
    """Say where labels that have an order in a file have none in the result."""
    if len(parts) == 1 or getattr(form, "ordered", True):
        return []
    forms = [part.file.column_form(name) for part in parts if name in part.columns]
    if not any(getattr(each, "ordered", False) for each in forms):
        return []
    return [f"the order of the labels of obs[{name!r}], which differs between the files"]


def _shape_of(parts: Sequence[Cells], name: str) -> tuple[int, np.dtype[Any]] | Uncarried:
    """Find columns and type of an element of ``obsm`` that some of the files have."""
    if "/" in name or name in _RESERVED or name.startswith("__") or not name.strip("."):
        return Uncarried("has a name that stores can't have: rename it")
    arrays = [part.file.embedding(name) for part in parts if name in part.file.embeddings]
    for part, array in zip([part for part in parts if name in part.file.embeddings], arrays, strict=True):
        if array is None or len(array.shape) != 2 or np.dtype(array.dtype).kind not in "iuf":
            return Uncarried("is no table of numbers with a row for each cell")
        if array.shape[0] != part.file.count or not array.shape[1]:
            return Uncarried(f"has shape {tuple(array.shape)}, and obs has {part.file.count} cells")
    widths = sorted({array.shape[1] for array in arrays})
    if len(widths) > 1:
        return Uncarried(f"has {widths[0]} columns in one file and {widths[1]} in another")
    dtype = np.result_type(*(array.dtype for array in arrays)).newbyteorder("=")
    if len(arrays) < len(parts) and dtype.kind in "iu":
        dtype = np.dtype(np.float64)
    return widths[0], dtype
