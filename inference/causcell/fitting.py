"""`causcell.fit`: from labelled cells to a model that generates counterfactuals, in one call.

Training and export are other packages of the same distribution, which the client does not import: they enter here as
the entry point ``fit`` of the group ``causcell.python``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from causcell.errors import RuntimeUnavailableError

if TYPE_CHECKING:
    import anndata

    from causcell.generator import Generator

GROUP = "causcell.python"
_REMEDY = "install what trains and exports: pip install 'causcell[cpu,export]'"


def fit(
    adata: anndata.AnnData | str | os.PathLike[str],
    *,
    concepts: Sequence[str] | str,
    edges: Sequence[str | tuple[str, str]] | str = (),
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
    threads: int | None = None,
    **settings: Any,
) -> Generator:
    """Train a model on labelled cells, export and verify it, and open it.

    Parameters
    ----------
    adata
        Cells with raw counts (or log1p values, with ``expression="log1p"``), or a path to them.
    concepts
        Columns of ``obs`` that the model knows, each with its kind or without (``"age:continuous"``).
    edges
        Causal edges between them, ``"PARENT:CHILD"`` or pairs.
    out
        Folder to make, with the run in ``run`` and the model in ``models``. If not given, both are in a temporary
        folder for as long as the result is there; keep it with its method ``save``.
    progress
        Show the progress of training and of the export.
    threads
        Compute threads of the opened model; the CPUs that this process may use, if not given.
    **settings
        As in `causcell_training.fit`: ``genes``, ``expression``, ``layer``, ``seed``, ``config``, ``split``, ...

    Returns
    -------
    Generator
        The opened model (`causcell_export.fitted.FittedModel`): a `causcell.Generator` whose ``counterfactual`` keeps
        all of ``obs``, ``obsm`` and ``var``, with the training run as ``run``, and ``save(folder)``.

    Raises
    ------
    RuntimeUnavailableError
        The packages that train and export are not installed.
    CausCellError
        What training finds in the data, the folder or the settings.
    """
    found = [entry for entry in metadata.entry_points(group=GROUP) if entry.name == "fit"]
    if not found:
        raise RuntimeUnavailableError(f"training is not installed here; {_REMEDY}")
    try:
        train = found[0].load()
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(f"training needs the package {error.name!r}; {_REMEDY}") from error
    model: Generator = train(
        adata, concepts=concepts, edges=edges, out=out, progress=progress, threads=threads, **settings
    )
    return model
