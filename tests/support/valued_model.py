"""A model whose concepts are of every kind, made of the shared model's network and of small functions in numpy.

Encoder and decoder are the shared model's, four concepts and the unexplained one; concepts, priors, abduction and the
structural causal model are of this file: ``stim`` (plain labels) and ``age`` (continuous) are causes of ``stage``
(ordinal), and ``perturbation`` is a set without parents. Every function is a sum row by row, so that a row's result
does not depend on the batch, bit for bit.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

import anndata
import numpy as np
import pandas as pd

from causcell.concept_values import ConceptValue
from causcell.concepts import Concept, ConceptSchema, Edge
from causcell.engine.protocol import Engine
from causcell.repository.manifest import GraphInfo, Manifest, TensorInfo, logits_name, value_name
from causcell.repository.reference_cells import ReferenceCells

AGES = (20.0, 30.0, 40.0, 60.0)
STAGES = ("0", "2", "4")
SETS = ("A", "A+B", "C", "ctrl")
CONCEPTS = ("stim", "age", "perturbation", "stage")

SCHEMA = ConceptSchema(
    (
        Concept("stim", ("IFN", "ctrl")),
        Concept(
            "age",
            ("[20, 30)", "[30, 40)", "[40, 60]"),
            "continuous",
            ConceptValue(
                "continuous",
                1,
                mean=(37.5,),
                deviation=(14.8,),
                low=20.0,
                high=60.0,
                numbers=(20.0, 30.0, 50.0),
                bounds=(30.0, 40.0),
            ),
        ),
        Concept("perturbation", SETS, "set", ConceptValue("set", 3, members=("A", "B", "C"), control="ctrl")),
        Concept(
            "stage",
            STAGES,
            "ordinal",
            ConceptValue("ordinal", 1, mean=(2.0,), deviation=(1.6,), low=0.0, high=4.0, numbers=(0.0, 2.0, 4.0)),
        ),
    ),
    (Edge("stim", "stage"), Edge("age", "stage", 0.5)),
)


def valued_cells(cells: anndata.AnnData) -> anndata.AnnData:
    """Return the cells with annotations of these concepts, every tenth cell without an age."""
    number = np.arange(cells.n_obs)
    ages = np.array(AGES)[number % len(AGES)]
    ages[number % 10 == 9] = np.nan
    obs = pd.DataFrame(
        {
            "stim": pd.Categorical(np.array(["ctrl", "IFN"])[number % 2]),
            "age": ages,
            "perturbation": pd.Categorical(np.array(["A", "B+A", "C", "ctrl"])[(number // 2) % 4]),
            "stage": np.array([0, 2, 4])[(number // 3) % 3],
        },
        index=cells.obs_names,
    )
    return anndata.AnnData(cells.X, obs=obs, var=cells.var[[]])


class ValuedEngine:
    """Evaluate the graphs of a model of these concepts; see `causcell.engine.protocol.Engine`.

    Parameters
    ----------
    engine
        The shared model's, whose encoder and decoder are used.

    Attributes
    ----------
    runs
        Number of evaluations by graph.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._lock = engine, threading.Lock()
        self.description, self.concurrency, self.threads = engine.description, engine.concurrency, engine.threads
        self.at_hand = engine.at_hand
        self.runs: Counter[str] = Counter()
        self.manifest = _manifest(engine.manifest)
        rng = np.random.default_rng(5)
        k, widths = self.manifest.dimensions.embedding, [place.stop - place.start for place in SCHEMA.value_slices]
        self._readers = [rng.normal(size=(k, len(each.labels))) for each in SCHEMA.concepts]
        self._numbers = rng.normal(size=(len(SCHEMA.concepts), k))
        self._means = [rng.normal(size=(width, k)) for width in widths]
        rows = len(engine.reference.exogenous)
        labels = np.stack([np.arange(rows) % len(each.labels) for each in SCHEMA.concepts], axis=1).astype(np.int32)
        self.reference = ReferenceCells(engine.reference.exogenous, labels, np.unique(labels, axis=0))

    def run(
        self, graph: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Evaluate a graph; see `causcell.engine.protocol.Engine.run`."""
        with self._lock:
            self.runs[graph] += 1
        own = {"prior": self._prior, "abduction": self._abduction, "scm": self._scm}
        if graph not in own:
            return self._engine.run(graph, inputs, outputs)
        found = own[graph](**inputs)
        assert all(np.isfinite(array).all() for array in found.values())
        return found if outputs is None else {name: found[name] for name in outputs}

    def status(self) -> list[object]:
        return list(self._engine.status())

    def close(self) -> None:
        """Leave the shared engine open."""

    def mean_of(self, concept: int, values: np.ndarray) -> np.ndarray:
        """Mean of a concept's prior, float64 [B x k], smooth in the value."""
        return np.sin(np.einsum("bv,vk->bk", values.astype(np.float64), self._means[concept]))

    def _prior(self, values: np.ndarray) -> dict[str, np.ndarray]:
        means = [self.mean_of(i, values[:, place]) for i, place in enumerate(SCHEMA.value_slices)]
        mean = np.stack(means, axis=1).astype(np.float32)
        return {"mean": mean, "logvar": np.full_like(mean, -2.0)}

    def _abduction(self, exogenous: np.ndarray, values: np.ndarray) -> dict[str, np.ndarray]:
        informed = exogenous.astype(np.float64)
        for i, place in enumerate(SCHEMA.value_slices):
            known = ~np.isnan(values[:, place]).any(axis=1)
            informed[known, i] += 0.3 * self.mean_of(i, values[known, place])
        return {"informed": informed.astype(np.float32)}

    def _scm(self, exogenous: np.ndarray, forced: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        endogenous = exogenous.astype(np.float64)
        for i in SCHEMA.order:
            for parent in SCHEMA.parents(i):
                endogenous[:, i] += SCHEMA.adjacency()[parent, i] * endogenous[:, parent]
            endogenous[:, i] = np.where(mask[:, [i]] > 0, forced[:, i], endogenous[:, i])
        kept = mask.astype(bool)
        z = endogenous.astype(np.float32)
        z[kept] = forced[kept]
        outputs = {"endogenous": z}
        for i, concept in enumerate(SCHEMA.concepts):
            outputs[logits_name(concept.name)] = np.einsum("bk,kl->bl", z[:, i], self._readers[i]).astype(np.float32)
        for i in SCHEMA.numeric:
            number = np.einsum("bk,k->b", z[:, i], self._numbers[i])[:, None]
            outputs[value_name(SCHEMA.names[i])] = np.tanh(number).astype(np.float32)
        return outputs


def _manifest(shared: Manifest) -> Manifest:
    concept = shared.graphs["scm"].inputs["exogenous"]
    observed = TensorInfo(dtype="float32", shape=(len(SCHEMA.concepts), concept.shape[1]))
    values = TensorInfo(dtype="float32", shape=(SCHEMA.value_slices[-1].stop,))
    told = {logits_name(each.name): TensorInfo(dtype="float32", shape=(len(each.labels),)) for each in SCHEMA.concepts}
    told |= {value_name(SCHEMA.names[i]): TensorInfo(dtype="float32", shape=(1,)) for i in SCHEMA.numeric}
    graphs = {
        **shared.graphs,
        "scm": GraphInfo(inputs=shared.graphs["scm"].inputs, outputs={"endogenous": concept, **told}),
        "abduction": GraphInfo(inputs={"exogenous": concept, "values": values}, outputs={"informed": concept}),
        "prior": GraphInfo(inputs={"values": values}, outputs={"mean": observed, "logvar": observed}),
    }
    changes = {
        "concepts": SCHEMA.concepts,
        "edges": SCHEMA.edges,
        "graphs": graphs,
        "effect_errors": {},
        "verdicts": (),
    }
    return shared.model_copy(update=changes).sealed()
