"""CellFlow: flow matching that carries a control population to each perturbed one, in principal components.

Its tutorial's architecture is for ten million cells on an A100. On a GPU it is used as it stands
there; on a CPU its widths and its batch are quartered, and the row says so.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import os
import warnings
from typing import Any

import anndata
import numpy as np
import pandas as pd
from packages import import_package
from rivals_shared import labels_of, log_values, repeated, single_concept, trained

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
_cellflow = import_package("cellflow")
_preprocessing = import_package("cellflow.preprocessing")
_utils = import_package("cellflow.utils")

COMPONENTS = 50
CONTROL, LABELS, NAME = "is_control", "labels", "population"
LEARNING_RATE, ACCUMULATED = 5e-5, 20
NETWORKS = {"cuda": 1, "cpu": 4}
"""By how much its tutorial's widths (and its batch of 1,024) are divided."""
ITERATIONS = {"cuda": 10_000, "cpu": 6_000}
BATCH = 1024


class Adapter:
    """CellFlow's flow between conditions, one a source label, populations split by type of cells."""

    name, version, licence = "CellFlow", importlib.metadata.version("cellflow-tools"), "PolyForm-Noncommercial-1.0.0"
    lines = 18

    def __init__(self, job: Any) -> None:
        warnings.filterwarnings("ignore")
        self.job = job
        self.divided = NETWORKS["cuda" if job.device != "cpu" else "cpu"]
        self.iterations = job.epochs or ITERATIONS["cuda" if job.device != "cpu" else "cpu"]
        self.notes = (
            "no model of the cell as it is: its estimate is the cell's projection on 50 principal components",
            "reads no label at test time but that a cell is a control; carries control cells alone; deterministic",
            f"its tutorial's networks{f', widths divided by {self.divided}' if self.divided > 1 else ''},"
            f" {self.iterations:,} iterations (500,000 there, on 9.6 million cells)",
            "its updates average as many batches as there are populations, 20 at most (20 there); labels are given as"
            " one-hot representations, types of cells as none (split covariate)",
        )

    def fit(self, cells: Any) -> None:
        """Train a flow for each label that cells are to be carried from."""
        cells = trained(cells)
        self.frame = anndata.AnnData(log_values(cells), obs=labels_of(cells, self.job.concepts))
        self.frame.obs_names = cells.obs_names.astype(str)
        _preprocessing.centered_pca(self.frame, n_comps=min(COMPONENTS, cells.n_obs - 1), keep_centered_data=False)
        self.centre = np.asarray(self.frame.varm["X_mean"], dtype=np.float32).ravel()
        self.components = np.asarray(self.frame.varm["PCs"], dtype=np.float32)
        self.flows = {pair: self._fit_flow(*pair) for pair in self._pairs()}
        self.facts = {"iterations": self.iterations, "flows": len(self.flows)}

    def _pairs(self) -> list[tuple[str, str]]:
        """List the concepts that are set, each with the label of the cells that it is set for."""
        pairs = []
        for each in self.job.interventions:
            concept, _ = single_concept(each["do"], self.name)
            if concept not in each["where"]:
                raise SystemExit(f"{self.name} carries cells of one control label: none is given for {concept}")
            pairs.append((concept, each["where"][concept]))
        return list(dict.fromkeys(pairs))

    def _fit_flow(self, concept: str, control: str) -> Any:
        import jax
        import optax

        frame = self.frame.copy()
        split = [self.job.strata] if self.job.strata not in (None, concept) else []
        frame.obs[CONTROL] = (frame.obs[concept] == control).to_numpy()
        populations = frame.obs[[*split, CONTROL]].drop_duplicates()
        known = frame.obs.loc[~frame.obs[CONTROL], split[0]].unique() if split else []
        if split:  # a population without a perturbed one has nothing to be carried to
            frame = frame[frame.obs[split[0]].isin(known)].copy()
            populations = frame.obs.loc[~frame.obs[CONTROL], [*split, concept]].drop_duplicates()
        for column in (concept, *split):
            frame.obs[column] = frame.obs[column].astype("category")
        labels = sorted(self.frame.obs[concept].unique())
        frame.uns[LABELS] = dict(zip(labels, np.eye(len(labels), dtype=np.float32), strict=True))
        flow = _cellflow.model.CellFlow(frame, solver="otfm")
        batch, width = BATCH // self.divided, 1024 // self.divided
        with contextlib.redirect_stdout(io.StringIO()):
            flow.prepare_data(
                sample_rep="X_pca",
                control_key=CONTROL,
                perturbation_covariates={"perturbation": (concept,)},
                perturbation_covariate_reps={"perturbation": LABELS},
                split_covariates=split or None,
                max_combination_length=1,
            )
        flow.prepare_model(
            layers_before_pool={"perturbation": {"layer_type": "mlp", "dims": [width] * 2, "dropout_rate": 0.5}},
            layers_after_pool={"layer_type": "mlp", "dims": [width] * 2, "dropout_rate": 0.0},
            condition_embedding_dim=256 // self.divided,
            time_encoder_dims=[width] * 3,
            hidden_dims=[2 * width] * 3,
            decoder_dims=[4 * width] * 3,
            probability_path={"constant_noise": 0.5},
            match_fn=functools.partial(_utils.match_linear, epsilon=0.5, tau_a=1.0, tau_b=1.0),
            optimizer=optax.MultiSteps(optax.adam(LEARNING_RATE), max(1, min(ACCUMULATED, len(populations)))),
            seed=self.job.seed,
        )
        flow.train(num_iterations=self.iterations, batch_size=batch)
        self.parameters = sum(each.size for each in jax.tree.leaves(flow.solver.vf_state.params))
        return flow

    def size_on_disk(self) -> int:
        """Return the bytes of the flows' weights and of the components."""
        return int(4 * (len(self.flows) * self.parameters + self.components.size + self.centre.size))

    def mean(self, cells: Any) -> np.ndarray:
        """Project the cells."""
        return self._expression(self._project(cells))

    def sample(self, cells: Any, draws: int = 1, seed: int = 0) -> np.ndarray:
        """Project the cells."""
        return repeated(self.mean(cells), draws)

    def counterfactual_mean(self, cells: Any, do: dict[str, str]) -> np.ndarray:
        """Carry the cells."""
        concept, label = single_concept(do, self.name)
        labels = labels_of(cells, self.job.concepts).reset_index(drop=True)
        moved = self._project(cells)
        for source, rows in labels.groupby(concept).indices.items():
            if (concept, source) in self.flows and source != label:
                moved[rows] = self._carry(self.flows[concept, source], labels.iloc[rows], moved[rows], concept, label)
        return self._expression(moved)

    def counterfactual_sample(self, cells: Any, do: dict[str, str], draws: int = 1, seed: int = 0) -> np.ndarray:
        """Carry the cells: the flow has no noise."""
        return repeated(self.counterfactual_mean(cells, do), draws)

    def _carry(self, flow: Any, labels: pd.DataFrame, codes: np.ndarray, concept: str, label: str) -> np.ndarray:
        """Call its `predict` on cells of one control label, a population a type."""
        frame = anndata.AnnData(np.zeros((len(codes), 1), dtype=np.float32), obs=labels.reset_index(drop=True))
        frame.obs_names = frame.obs_names.astype(str)
        frame.obsm["X_pca"], frame.uns = codes, {LABELS: flow.adata.uns[LABELS]}
        frame.obs[CONTROL] = True
        asked = pd.DataFrame({concept: [label], CONTROL: [False]})
        split = [each for each in [self.job.strata] if each not in (None, concept)]
        if split:
            asked = asked.merge(frame.obs[split].drop_duplicates(), how="cross")
        asked[NAME] = asked[split[0]] if split else "all"
        for column in (concept, *split):
            frame.obs[column], asked[column] = frame.obs[column].astype("category"), asked[column].astype("category")
        with contextlib.redirect_stdout(io.StringIO()):
            found = flow.predict(adata=frame, covariate_data=asked, sample_rep="X_pca", condition_id_key=NAME)
        carried = np.empty_like(codes)
        for name, values in found.items():
            carried[(frame.obs[split[0]] == name).to_numpy() if split else slice(None)] = values
        return carried

    def _project(self, cells: Any) -> np.ndarray:
        return (log_values(cells) - self.centre) @ self.components

    def _expression(self, codes: np.ndarray) -> np.ndarray:
        return np.maximum(codes @ self.components.T + self.centre, 0).astype(np.float32)
