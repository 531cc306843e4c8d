"""All that belongs to cells but their values: an AnnData without ``X`` and layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.telling import warn
from causcell.cells.collection import AnyCells, Cells

if TYPE_CHECKING:
    import anndata


def read_without_values(cells: AnyCells) -> anndata.AnnData:
    """Read all that belongs to cells but ``X`` and layers.

    Returns
    -------
    Of one file ``obs``, ``var``, ``obsm``, ``varm``, ``obsp`` and ``uns``. Of several ``obs`` and those elements of
    ``obsm`` that all have with as many columns; a warning names the others.
    """
    import anndata

    if len(cells.parts) == 1 and isinstance(cells, Cells):
        elements = cells.file.read_elements()
        wanted = cells.places(slice(0, len(cells)))
        obsm = {name: value[wanted] for name, value in _by_row(elements.get("obsm", {})).items()}
        obsp = {name: value[wanted][:, wanted] for name, value in elements.get("obsp", {}).items()}
        others = {name: elements.get(name) for name in ("var", "varm", "uns")}
        return anndata.AnnData(obs=cells.obs.copy(), obsm=obsm, obsp=obsp, **others)
    read = [part.file.read_elements().get("obsm", {}) for part in cells.parts]
    obsm, left_out = {}, []
    for name in dict.fromkeys(name for each in read for name in each):
        found = [
            np.asarray(each[name])[part.places(slice(0, len(part)))]
            for part, each in zip(cells.parts, read, strict=True)
            if name in each
        ]
        if len(found) == len(read) and len({values.shape[1:] for values in found}) == 1:
            obsm[name] = np.concatenate(found)
        else:
            left_out.append(name)
    if left_out:
        warn(
            f"obsm has {', '.join(map(repr, left_out))} not in all files, or not with as many columns; the result has "
            "none of them"
        )
    return anndata.AnnData(obs=cells.obs.copy(), obsm=obsm)


def _by_row(elements: Any) -> dict[str, Any]:
    """Return elements that are taken by rows as arrays are: tables by their places."""
    return {name: value.iloc if hasattr(value, "iloc") else value for name, value in elements.items()}
