"""A model from cells in one call: what `causcell.fit` gives."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causcell._internal.files import local_path, refuse_existing
from causcell.errors import ConfigurationError
from causcell.generator import Generator

# Early, so that a package that is missing is told before anything is made.
from causcell_export.exporter import export
from causcell_training.fitting import fit as train
from causcell_training.run import Run

if TYPE_CHECKING:
    import anndata


class FittedModel(Generator):
    """A model that was trained here, and is open.

    Attributes
    ----------
    run
        The training run, with its settings, measures and held-out cells.
    folder
        Where run and model are.
    """

    run: Run
    folder: Path
    _remove: Callable[[], object] | None = None

    def counterfactual(
        self,
        adata: anndata.AnnData | str | os.PathLike[str],
        do: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None,
        **options: Any,
    ) -> anndata.AnnData:
        """Generate what every cell would express, had its concepts been set; see `causcell.Generator.counterfactual`.

        All elements of ``obsm`` of an AnnData in memory travel into the result too, unless ``keep_obsm`` chooses.
        """
        held = list(getattr(adata, "obsm", ()))
        if held and options.get("keep_obsm") is None:
            options["keep_obsm"] = held
        return super().counterfactual(adata, do, **options)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Copy run and model into a new folder; ``Generator.open(folder / "models")`` opens the model again.

        Raises
        ------
        OutputExistsError
            Something is at ``folder``.
        """
        target = local_path(folder)
        refuse_existing(target)
        shutil.copytree(self.folder, target)
        return target

    def close(self) -> None:
        """Close the engine; what is in a temporary folder goes."""
        super().close()
        if self._remove is not None:
            self._remove()


def fit(
    adata: anndata.AnnData | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None,
    progress: bool,
    threads: int | None,
    **settings: Any,
) -> FittedModel:
    """Train, export, verify and open a model: what `causcell.fit`, which has the defaults, calls.

    ``settings`` are those of `causcell_training.fit`.
    """
    for name in ("resume", "overwrite"):
        if settings.get(name):
            raise ConfigurationError(f"causcell.fit does not take {name}=; call causcell_training.fit and export")
    if out is None:
        folder = Path(tempfile.mkdtemp(prefix="causcell-"))
    else:
        folder = local_path(out)
        refuse_existing(folder)
        folder.mkdir(parents=True, exist_ok=True)
    run = train(adata, folder / "run", progress=progress, **settings)
    model = FittedModel.open(export(run, folder / "models", progress=progress), threads=threads)
    model.run, model.folder = run, folder
    if out is None:
        model._remove = weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    return model
