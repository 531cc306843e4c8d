"""The structural causal model over an engine: a cell's concepts, and what an intervention makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from causcell._internal.batching import batches
from causcell.concepts import UNLABELLED, ConceptSchema
from causcell.counterfactual.interventions import Intervention, Mode
from causcell.counterfactual.prior import VALUES, ConceptPrior
from causcell.engine.protocol import Engine
from causcell.repository.manifest import ABDUCTION, INFORMED, logits_name, value_name

_REFERENCE_BATCH = 1024


@dataclass(frozen=True)
class Intervened:
    """Cells after an intervention.

    Attributes
    ----------
    endogenous
        Endogenous embeddings, float32 [B x M x k].
    labels
        Codes after the intervention, int32 [B x m]: the target's own, the model's prediction for a descendant that
        changed, the cell's own otherwise.
    unmatched
        Cells for which no reference cell carried the parents' labels, bool [B].
    numbers
        Likewise standardised numbers of the concepts that have some, float32 [B x c]; `None` where none do.
    """

    endogenous: np.ndarray
    labels: np.ndarray
    unmatched: np.ndarray
    numbers: np.ndarray | None = None


@dataclass(frozen=True)
class _Own:
    """The cells' own exogenous and endogenous embeddings, label codes, keys, and numbers (or `None`)."""

    exogenous: np.ndarray
    endogenous: np.ndarray
    labels: np.ndarray
    keys: np.ndarray
    numbers: np.ndarray | None


class StructuralCausalModel:
    """Evaluate z = A^T z + eps (the paper's SCM layer) over an engine, as it is and under interventions.

    Parameters
    ----------
    engine
        Evaluates the ONNX graph ``scm``.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.schema: ConceptSchema = engine.manifest.concept_schema
        self.prior = ConceptPrior(engine)
        self._means: dict[tuple[int, bool], np.ndarray] = {}

    def inform(self, exogenous: np.ndarray, labels: np.ndarray, numbers: np.ndarray | None = None) -> np.ndarray:
        """Tell exogenous embeddings what the cells' known labels or values are: from q(eps | x) to q(eps | x, y).

        Parameters
        ----------
        exogenous
            Exogenous embeddings read from expression, float32 [B x M x k].
        labels
            Label codes, int32 [B x m]; -1 is unlabelled, and such a concept's embedding stays.
        numbers
            Standardised numbers of the concepts that have some, float32 [B x c]; those of the labels, if not given.

        Returns
        -------
        float32 [B x M x k]; what was given, by a model that abducts from expression alone.
        """
        if ABDUCTION not in self.engine.manifest.graphs:
            return exogenous
        given = {"exogenous": exogenous}
        if VALUES in self.engine.manifest.graphs[ABDUCTION].inputs:
            given[VALUES] = self.prior.encode_values(labels, numbers)
        else:
            given["labels"] = labels.astype(np.int64)
        return self.engine.run(ABDUCTION, given, (INFORMED,))[INFORMED]

    def factual(self, exogenous: np.ndarray, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Return ``endogenous`` [B x M x k] and each concept's logits of exogenous embeddings [B x M x k].

        Parameters
        ----------
        exogenous
            The embeddings.
        outputs
            Those that are wanted; all, if not given.
        """
        forced, mask = np.zeros_like(exogenous), np.zeros(exogenous.shape[:2], dtype=np.float32)
        return self.engine.run("scm", {"exogenous": exogenous, "forced": forced, "mask": mask}, outputs)

    @cached_property
    def _reference_endogenous(self) -> np.ndarray:
        exogenous = self.engine.reference.exogenous
        rows, wanted = batches(len(exogenous), _REFERENCE_BATCH), ("endogenous",)
        return np.concatenate([self.factual(exogenous[some], wanted)["endogenous"] for some in rows])

    def intervene(
        self,
        intervention: Intervention,
        *,
        exogenous: np.ndarray,
        endogenous: np.ndarray,
        labels: np.ndarray,
        keys: np.ndarray,
        numbers: np.ndarray | None = None,
        mode: Mode = "do",
        match_parents: bool = False,
        draw: int = 0,
        keep_own: bool = False,
    ) -> Intervened:
        """Act on cells whose exogenous embeddings were abducted, and predict what follows.

        ``do``: z_i becomes that of a drawn reference cell with the target label, edges into i are cut, descendants are
        recomputed from their own exogenous embeddings. ``exogenous``: eps_i becomes the reference cell's, then the SCM
        runs. ``isolated``: z_i is replaced and all others stay. A cell that carries the target label already keeps its
        own z_i (its own eps_i in mode ``exogenous``). The embedding of a value, not a label, is drawn from the
        concept's prior in place of a reference cell's; see `causcell.counterfactual.targets`.

        Parameters
        ----------
        intervention
            Concepts and labels to set.
        exogenous, endogenous
            The cells' own embeddings, float32 [B x M x k].
        labels
            The cells' own label codes, int32 [B x m]; -1 is unlabelled.
        keys
            The cells' keys, uint64 [B x 2].
        numbers
            The cells' own standardised numbers of the concepts that have some, float32 [B x c]; NaN is unlabelled.
        mode
            ``do``, ``exogenous`` or ``isolated``.
        match_parents
            Draw reference cells that carry the same labels of the target's parents.
        draw
            Index of the draw.
        keep_own
            Draw nothing for cells whose own label or value is known: move their embedding by the mean of the target
            less the mean of their own; see ``own`` in `causcell.counterfactual.targets`.

        Raises
        ------
        InterventionError
            No reference cell carries a target label, and the model has no prior.
        """
        if numbers is None and self.prior.numeric:
            numbers = self.prior.label_numbers(labels)
        own = _Own(exogenous, endogenous, labels, keys, numbers)
        after, numbers_after = self._set_labels(intervention, own)
        acted, forced, mask, unmatched = self._act(intervention, own, after, mode, match_parents, draw, keep_own)
        targets = {concept for concept, _ in intervention.targets}
        descendants = self.schema.descendants(targets) - targets
        if mode == "isolated" or not targets or (mode == "do" and not descendants):
            return Intervened(forced, after, unmatched, numbers_after)  # nothing follows from what was set
        outputs = self.engine.run("scm", {"exogenous": acted, "forced": forced, "mask": mask})
        for concept in descendants:
            moved = (outputs["endogenous"][:, concept] != endogenous[:, concept]).any(axis=1)
            after[moved, concept] = outputs[logits_name(self.schema.names[concept])].argmax(axis=1)[moved]
            if numbers_after is not None and concept in self.prior.numeric:
                numbers_after[moved, self.prior.numeric.index(concept)] = self.predict_numbers(concept, outputs)[moved]
        return Intervened(outputs["endogenous"], after, unmatched, numbers_after)

    def predict_numbers(self, concept: int, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the standardised numbers, float32 [B], that graph ``scm`` reads from a concept's embeddings.

        Of a continuous concept those of its regression, of an ordinal one that of the label with the largest logit.
        """
        found = self.schema.concepts[concept]
        if found.kind == "continuous":
            return outputs[value_name(found.name)][:, 0]
        return np.asarray(found.values[outputs[logits_name(found.name)].argmax(axis=1), 0])

    def _set_labels(self, intervention: Intervention, own: _Own) -> tuple[np.ndarray, np.ndarray | None]:
        """Return label codes and numbers with the targets' own; a cell that carries a target keeps its own."""
        after = own.labels.copy()
        numbers = None if own.numbers is None else own.numbers.copy()
        texts = dict(intervention.values)
        for concept, label in intervention.targets:
            after[:, concept] = label
            if numbers is None or concept not in self.prior.numeric:
                continue
            changes = ~self._carry(own, concept, label, texts.get(concept))
            numbers[changes, self.prior.numeric.index(concept)] = (
                self.prior.vector(concept, texts[concept])[0]
                if concept in texts
                else self.schema.concepts[concept].values[label, 0]
            )
        return after, numbers

    def _carry(self, own: _Own, concept: int, label: int, text: str | None) -> np.ndarray:
        """Tell which cells carry a target already: its label, or its number where that is what is set; bool [B]."""
        if text is not None and own.numbers is not None and concept in self.prior.numeric:
            number = self.prior.vector(concept, text)[0]
            return np.asarray(own.numbers[:, self.prior.numeric.index(concept)] == number)
        return np.asarray(own.labels[:, concept] == label)

    def _act(
        self,
        intervention: Intervention,
        own: _Own,
        after: np.ndarray,
        mode: Mode,
        match_parents: bool,
        draw: int,
        keep_own: bool,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Set the targets' embeddings: exogenous, forced [B x M x k], mask of what is forced [B x M], unmatched [B]."""
        reference, texts = self.engine.reference, dict(intervention.values)
        acted, forced = own.exogenous.copy(), own.endogenous.copy()
        mask = np.zeros(acted.shape[:2], dtype=np.float32)
        unmatched = np.zeros(len(acted), dtype=bool)
        place = acted if mode == "exogenous" else forced  # of a concept without parents the two are one
        for concept, label in intervention.targets:
            text = texts.get(concept)
            changes = np.flatnonzero(~self._carry(own, concept, label, text))
            mask[:, concept] = mode != "exogenous"
            if keep_own:
                moves = self._differences(own, concept, label, text, mode)[changes]
                known = np.isfinite(moves).all(axis=1)
                place[changes[known], concept] += moves[known]
                changes = changes[~known]
            if text is not None:
                place[changes, concept] = self.prior.draw(concept, text, own.keys[changes], draw)
                continue
            parents = self.schema.parents(concept) if match_parents else ()
            rows, missed = reference.draw(
                concept, label, own.keys[changes], draw=draw, parent_labels=after[changes][:, parents], parents=parents
            )
            unmatched[changes] |= missed
            table = reference.exogenous if mode == "exogenous" else self._reference_endogenous
            place[changes, concept] = table[rows, concept]
        return acted, forced, mask, unmatched

    def _differences(self, own: _Own, concept: int, label: int, text: str | None, mode: Mode) -> np.ndarray:
        """Return the target's mean embedding less that of each cell's own label or value, float32 [B x k].

        NaN for a cell that is not labelled, or whose label has no reference cell.
        """
        found: np.ndarray
        if text is None:
            means = self._label_means(concept, mode)
            found = means[label] - means[own.labels[:, concept]]
        else:
            found = self.prior.evaluate(concept, text)[0] - self.prior.own_means(own.labels, own.numbers)[:, concept]
        found[own.labels[:, concept] == UNLABELLED] = np.nan
        return found

    def _label_means(self, concept: int, mode: Mode) -> np.ndarray:
        """Return the mean embedding of each label's reference cells, float32 [labels x k], NaN of one without any."""
        key = concept, mode == "exogenous"
        if key not in self._means:
            reference = self.engine.reference
            embeddings = (reference.exogenous if key[1] else self._reference_endogenous)[:, concept]
            codes = reference.labels[:, concept]
            means = np.full((len(self.schema.concepts[concept].labels), embeddings.shape[1]), np.nan, dtype=np.float32)
            for label in np.unique(codes[codes != UNLABELLED]):
                means[label] = embeddings[codes == label].mean(axis=0, dtype=np.float64)
            self._means[key] = means
        return self._means[key]
