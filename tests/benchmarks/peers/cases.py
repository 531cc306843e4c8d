"""Cases: cells, the part of each cell, what is asked of a system, and by which cells it is judged.

Every system gets the same genes, chosen once by the product's own selection on the cells that are not tested, the same
training and validation cells, and the same questions. Totals are over all genes of a data set's file.

``kang``: the Kang split; stimulated B cells are left out of training, and asked for.
``kang-leave-TYPE-LABEL``: of one of the seven cell types the stimulated (or the control) cells are left out.
``gbm-PATIENT``: of one patient the treated cells are left out.
``lines-LINE``: of one of McFaline's lines every perturbed cell is left out; its control cells are trained on.
``pairs``: of five doubles of perturbations both singles are trained on, and the double is left out.
``simulator``: cells whose counterfactuals are known.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from causcell.cells.collection import Cells
from causcell.concept_columns import schema_from_obs
from causcell.evaluation.simulator import SCHEMA, Noise, World
from causcell_training.config import TrainConfig
from causcell_training.data.genes import choose_panel

PANEL = 2000
VALIDATION_SHARE = 0.08
SIMULATED, SIMULATED_NEW = 2000, 600
SIMULATOR_DO = {"treatment": "treated", "donor": "d3", "cell_type": "C", "state": "active"}
KANG_TYPES = (
    "B cells", "CD14+ Monocytes", "CD4 T cells", "CD8 T cells", "Dendritic cells", "FCGR3A+ Monocytes", "NK cells",
)  # fmt: skip
GBM_PATIENTS = ("PW030", "PW032", "PW034", "PW036", "PW040")
LINES = ("A172", "T98G", "U87MG")
_KANG, _GBM, _PERTURBATIONS = (
    "kang2018_ifnb_main.h5ad",
    "gbm_panobinostat_300genes.h5ad",
    "perturbench_norman_mcfaline_500genes.h5ad",
)

Intervention = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Case:
    """A case with its cells.

    Attributes
    ----------
    name
        As listed above.
    concepts, edges, strata
        Columns of ``obs``, causal edges, and the concept within whose labels effects are judged.
    cells
        The panel's counts (float32 CSR), ``layers["log1p"]``, ``obs`` with the concepts, ``total`` (of counts, over all
        genes), ``part`` (``train``, ``validation``, ``test``) and ``source`` (whether it is a source cell of the
        combination that is left out: predicted, even where it was trained on).
    interventions
        What is asked: ``{"where": ..., "do": ...}`` each.
    held_out
        Combinations of labels that are judged though their source cells carry labels beside the strata.
    truth
        World, noise of the new cells, of the simulator.
    """

    name: str
    concepts: tuple[str, ...]
    edges: tuple[str, ...]
    strata: str | None
    cells: anndata.AnnData
    interventions: list[Intervention]
    held_out: list[dict[str, str]] = field(default_factory=list)
    truth: tuple[World, Noise] | None = None

    @property
    def training(self) -> anndata.AnnData:
        """Training cells, those to stop by marked in ``obs["validation"]``."""
        chosen = self.cells[(self.cells.obs["part"] != "test").to_numpy()].copy()
        chosen.obs["validation"] = (chosen.obs["part"] == "validation").to_numpy()
        return _with_trained_labels(chosen, self.concepts)

    @property
    def asked(self) -> anndata.AnnData:
        """Cells that are predicted."""
        return self.cells[(self.cells.obs["part"] == "test").to_numpy() | self.cells.obs["source"].to_numpy()].copy()

    def write(self, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Write the cells into a folder, and return the job of `adapter.Job` with further settings."""
        folder.mkdir(parents=True, exist_ok=True)
        self.training.write_h5ad(folder / "cells.h5ad", compression="lzf")
        self.asked.write_h5ad(folder / "test.h5ad", compression="lzf")
        return {
            "train": "cells.h5ad",
            "test": "test.h5ad",
            "interventions": self.interventions,
            "concepts": list(self.concepts),
            "edges": list(self.edges),
            "strata": self.strata,
            "data_kind": "transcriptome" if self.truth is None else "simulator",
            **settings,
        }


def list_cases() -> list[str]:
    """Return the names of all cases."""
    return [
        "kang",
        *(f"kang-leave-{name}-{label}" for name in KANG_TYPES for label in ("stim", "ctrl")),
        *(f"gbm-{patient}" for patient in GBM_PATIENTS),
        *(f"lines-{line}" for line in LINES),
        "pairs",
        "simulator",
    ]


def make_case(name: str, data: Path, seed: int) -> Case:
    """Make a case from the files of a folder; the seed draws the validation cells (and the simulator's world)."""
    makers: dict[str, Callable[[str, Path, int], Case]] = {
        "kang": lambda rest, data, seed: _leave_kang("B cells", "stim", data, seed, name, "cell_type"),
        "kang-leave": lambda rest, data, seed: _leave_kang(
            *rest.rsplit("-", 1), data, seed, name, "cell_type_source"
        ),
        "gbm": _leave_patient,
        "lines": _leave_line,
        "pairs": _leave_pairs,
        "simulator": lambda rest, data, seed: _simulate(seed),
    }  # fmt: skip
    if name not in list_cases():
        raise SystemExit(f"there is no case {name!r}; there are {', '.join(list_cases())}")
    kind = "kang-leave" if name.startswith("kang-leave") else name.partition("-")[0]
    return makers[kind](name.removeprefix(kind).removeprefix("-"), data, seed)


def _leave_kang(cell_type: str, label: str, data: Path, seed: int, name: str, column: str) -> Case:
    """Leave the cells of one type with one label of stimulation out of training.

    The other label's cells of that type are source cells: those that were not trained on in one view, all in the other,
    which is how scCBGM's authors ask.
    """
    cells = anndata.read_h5ad(data / _KANG)
    cells.obs["cell_type"] = cells.obs[column].astype(str).astype("category")
    split = pd.read_csv(data / _KANG.replace(".h5ad", ".split.csv"), index_col=0)["split"].reindex(cells.obs_names)
    in_type = (cells.obs["cell_type"] == cell_type).to_numpy()
    held_out = in_type & (cells.obs["stim"] == label).to_numpy()
    sources = in_type & (cells.obs["stim"] != label).to_numpy()
    tested = (split == "test").to_numpy() | held_out
    other = "ctrl" if label == "stim" else "stim"
    return _finish(
        name,
        cells,
        tested,
        concepts=("stim", "donor", "cell_type"),
        edges=("donor:cell_type",),
        strata="cell_type",
        interventions=[{"where": {"stim": other}, "do": {"stim": label}}],
        sources=sources,
        seed=seed,
    )


def _leave_patient(patient: str, data: Path, seed: int) -> Case:
    """Leave one patient's treated cells out; a fifth of all other cells is tested too."""
    cells = anndata.read_h5ad(data / _GBM)
    chosen = (cells.obs["patient"] == patient).to_numpy()
    held_out = chosen & (cells.obs["condition"] == "panobinostat").to_numpy()
    tested = held_out | (np.random.default_rng(0).random(cells.n_obs) < 0.2)
    return _finish(
        f"gbm-{patient}",
        cells,
        tested,
        concepts=("condition", "patient"),
        edges=(),
        strata="patient",
        interventions=[{"where": {"condition": "ctrl"}, "do": {"condition": "panobinostat"}}],
        sources=chosen & ~held_out,
        seed=seed,
    )


def _read_perturbations(data: Path) -> anndata.AnnData:
    """Read perturbed cells with counts in place of logarithms."""
    cells = anndata.read_h5ad(data / _PERTURBATIONS)
    counts = sparse.csr_matrix(cells.X)
    total = cells.obs["ncounts"].to_numpy(dtype=np.float64)
    counts.data = np.rint(np.expm1(counts.data) / 10_000 * np.repeat(total, np.diff(counts.indptr)))
    counts.eliminate_zeros()
    obs = pd.DataFrame(
        {
            "perturbation": cells.obs["perturbation"].astype(str).astype("category"),
            "cell_type": cells.obs["cell_type"].astype(str).astype("category"),
            "dataset": cells.obs["dataset"].astype(str),
            "total": total,
        },
        index=cells.obs_names.astype(str),
    )
    return anndata.AnnData(counts.astype(np.float32), obs=obs, var=pd.DataFrame(index=cells.var_names.astype(str)))


def _leave_line(line: str, data: Path, seed: int) -> Case:
    """Leave every perturbed cell of one of McFaline's lines out; a fifth of all other cells is tested too."""
    cells = _read_perturbations(data)
    cells = cells[(cells.obs["dataset"] == "mcfaline23").to_numpy()].copy()
    held_out = ((cells.obs["cell_type"] == line) & (cells.obs["perturbation"] != "control")).to_numpy()
    tested = held_out | (np.random.default_rng(0).random(cells.n_obs) < 0.2)
    labels = [each for each in cells.obs["perturbation"].unique() if each != "control"]
    return _finish(
        f"lines-{line}",
        cells,
        tested,
        concepts=("perturbation", "cell_type"),
        edges=(),
        strata="cell_type",
        interventions=[{"where": {"perturbation": "control"}, "do": {"perturbation": each}} for each in sorted(labels)],
        sources=((cells.obs["cell_type"] == line) & (cells.obs["perturbation"] == "control")).to_numpy(),
        seed=seed,
    )


def _leave_pairs(rest: str, data: Path, seed: int) -> Case:
    """Leave out the doubles of K562 whose singles are there: each single is a concept of its own, present or not."""
    cells = _read_perturbations(data)
    cells = cells[(cells.obs["cell_type"] == "k562").to_numpy()].copy()
    named = cells.obs["perturbation"].astype(str)
    singles = {each for each in named.unique() if "+" not in each and each != "control"}
    doubles = sorted(each for each in named.unique() if "+" in each and set(each.split("+")) <= singles)
    parts = sorted({single for double in doubles for single in double.split("+")})
    kept = named.isin([*doubles, *parts, "control"]).to_numpy()
    cells, named = cells[kept].copy(), named[kept]
    for single in parts:
        present = [single in each.split("+") for each in named]
        cells.obs[single] = pd.Categorical(np.where(present, "yes", "no"), categories=["no", "yes"])
    held_out = named.isin(doubles).to_numpy()
    tested = held_out | (np.random.default_rng(0).random(cells.n_obs) < 0.2)
    asked = [
        {"where": {"perturbation": first}, "do": {second: "yes"}}
        for double in doubles
        for first, second in (double.split("+"), double.split("+")[::-1])
    ]
    case = _finish(
        "pairs",
        cells,
        tested,
        concepts=tuple(parts),
        edges=(),
        strata=None,
        interventions=asked,
        sources=named.isin(parts).to_numpy(),
        seed=seed,
    )
    return replace(case, held_out=[dict.fromkeys(double.split("+"), "yes") for double in doubles])


def _simulate(seed: int) -> Case:
    """Simulate cells to train on, and new ones that every concept is intervened on."""
    world = World.make(seed=seed)
    noise = world.noise(SIMULATED_NEW, seed=seed + 200)
    trained, new = world.cells(world.noise(SIMULATED, seed=seed + 100)), world.cells(noise)
    new.obs_names = [f"new_{name}" for name in new.obs_names]
    cells = anndata.concat([trained, new])
    tested = np.arange(cells.n_obs) >= trained.n_obs
    case = _finish(
        "simulator",
        cells,
        tested,
        concepts=SCHEMA.names,
        edges=tuple(f"{edge.parent}:{edge.child}" for edge in SCHEMA.edges),
        strata="cell_type",
        interventions=[{"where": {}, "do": {concept: label}} for concept, label in SIMULATOR_DO.items()],
        sources=np.zeros(cells.n_obs, dtype=bool),
        seed=seed,
    )
    return replace(case, truth=(world, noise))


def _finish(
    name: str,
    cells: anndata.AnnData,
    tested: np.ndarray,
    *,
    concepts: tuple[str, ...],
    edges: tuple[str, ...],
    strata: str | None,
    interventions: list[Intervention],
    sources: np.ndarray,
    seed: int,
) -> Case:
    """Draw validation cells, choose the panel, count totals, and say who is asked and judged."""
    trained = np.flatnonzero(~tested)
    validation = np.random.default_rng((seed, 5)).choice(trained, round(VALIDATION_SHARE * len(trained)), replace=False)
    part = np.full(cells.n_obs, "train", dtype=object)
    part[tested], part[validation] = "test", "validation"
    for concept in concepts:
        cells.obs[concept] = cells.obs[concept].astype(str).astype("category")
    if "total" not in cells.obs:
        cells.obs["total"] = np.asarray(cells.X.sum(axis=1)).ravel().astype(np.float64)
    panel = _choose_genes(cells, concepts, trained)
    kept = [*concepts, "total", *(["perturbation"] if "perturbation" in cells.obs else [])]
    counts = sparse.csr_matrix(cells[:, panel].X, dtype=np.float32)
    logged = counts.astype(np.float64)
    logged.data = np.log1p(10_000 * logged.data / np.repeat(cells.obs["total"].to_numpy(), np.diff(logged.indptr)))
    made = anndata.AnnData(
        counts,
        obs=cells.obs[list(dict.fromkeys(kept))].copy(),
        var=pd.DataFrame(index=panel),
        layers={"log1p": logged.astype(np.float32)},
    )
    made.obs["part"] = part
    made.obs["source"] = sources
    return Case(name, concepts, edges, strata, made, interventions)


def _choose_genes(cells: anndata.AnnData, concepts: tuple[str, ...], trained: np.ndarray) -> list[str]:
    if cells.n_vars <= PANEL:
        return [str(gene) for gene in cells.var_names]
    schema = schema_from_obs(cells.obs, concepts, ())
    config = TrainConfig(concept=concepts, genes=PANEL)
    return choose_panel(Cells(cells), schema.encode(cells.obs), trained, config, np.random.default_rng(0))


def _with_trained_labels(cells: anndata.AnnData, concepts: tuple[str, ...]) -> anndata.AnnData:
    for concept in concepts:
        cells.obs[concept] = cells.obs[concept].cat.remove_unused_categories()
    return cells


def main() -> None:
    """Write a case's cells and its job into a folder, to try an adapter on."""
    parser = argparse.ArgumentParser(description="Write a case's cells and JOB.json into a folder.")
    parser.add_argument("case", choices=list_cases())
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    case = make_case(arguments.case, arguments.data, arguments.seed)
    job = case.write(arguments.out, {"seed": arguments.seed, "out": "out"})
    (arguments.out / "JOB.json").write_text(json.dumps(job, indent=1) + "\n")


if __name__ == "__main__":
    main()
