"""The laws of interventions on concepts, on a trained model's engine.

The graph is donor -> cell_type -> state <- stim. Numbers on the left of an equation of the structural causal model are
sums of a few float32 numbers of order 1: tolerance 1e-5. Everything said to be kept is kept bit for bit.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from simulation import CONCEPTS

from causcell.cells.collection import open_cells
from causcell.counterfactual.interventions import MODES, Intervention
from causcell.randomness import cell_keys
from causcell.repository.manifest import logits_name

STIM, DONOR, CELL_TYPE, STATE, UNEXPLAINED = range(5)
DESCENDANTS = {STIM: {STATE}, DONOR: {CELL_TYPE, STATE}, CELL_TYPE: {STATE}, STATE: set()}
TARGETS = [("stim", "IFN"), ("donor", "d2"), ("cell_type", "T"), ("state", "active")]
TOLERANCE = 1e-5

modes = pytest.mark.parametrize("mode", MODES)
targets = pytest.mark.parametrize(("concept", "label"), TARGETS)


@dataclass(frozen=True)
class Batch:
    """Cells as `StructuralCausalModel.intervene` takes them."""

    exogenous: np.ndarray
    labels: np.ndarray
    keys: np.ndarray

    def __getitem__(self, rows):
        return Batch(self.exogenous[rows], self.labels[rows], self.keys[rows])


@pytest.fixture(scope="module")
def batch(generator, cells):
    with generator.bind(open_cells(cells[:64].copy())) as bound:
        chosen = bound.read(slice(0, 64))
        labels = bound.labels
    return Batch(generator.model.encode(chosen.expression).mean, labels, cell_keys(0, chosen.names))


@pytest.fixture(scope="module")
def act(generator):
    """``act(batch, mode, concept=label, ...)``: the intervened batch."""

    def act(batch, mode="do", match_parents=False, draw=0, keep_own=False, **labels):
        return generator.model.scm.intervene(
            Intervention.of(generator.schema, labels),
            exogenous=batch.exogenous,
            endogenous=generator.model.scm.factual(batch.exogenous)["endogenous"],
            labels=batch.labels,
            keys=batch.keys,
            mode=mode,
            match_parents=match_parents,
            draw=draw,
            keep_own=keep_own,
        )

    return act


@pytest.fixture(scope="module")
def factual(generator, batch):
    return generator.model.scm.factual(batch.exogenous)["endogenous"]


@pytest.fixture(scope="module")
def linear_scm(schema):
    """z of eps by linear algebra, (I - A^T)^-1 eps, in float64."""
    total_effect = np.linalg.inv(np.eye(schema.size) - schema.adjacency().T)
    return lambda exogenous: np.einsum("ij,bjk->bik", total_effect, exogenous.astype(float))


@pytest.fixture(scope="module")
def carries(schema, batch):
    """``carries(concept=label, ...)``: which cells carry all of these labels."""

    def carries(**labels):
        pairs = [(schema.index(concept), schema[concept].code(label)) for concept, label in labels.items()]
        return np.all([batch.labels[:, i] == code for i, code in pairs], axis=0)

    return carries


@pytest.fixture(scope="module")
def drawn_rows(generator):
    """Which reference cells' embeddings of one concept these are: the nearest, which must be within `TOLERANCE`."""

    def drawn_rows(embeddings, table, concept):
        distance = np.abs(embeddings[:, None] - table[None, :, concept]).max(axis=2)
        assert (distance.min(axis=1) < TOLERANCE).all()
        return distance.argmin(axis=1)

    return drawn_rows


# -- nothing changes where nothing should ------------------------------------------------------------------------------


@modes
def test_no_intervention_is_the_factual_cell(act, batch, factual, mode):
    result = act(batch, mode)
    np.testing.assert_array_equal(result.endogenous, factual)
    np.testing.assert_array_equal(result.labels, batch.labels)
    assert not result.unmatched.any()


def test_factual_embeddings_follow_the_graph(batch, factual, linear_scm):
    np.testing.assert_allclose(factual, linear_scm(batch.exogenous), atol=TOLERANCE)


@modes
@targets
def test_a_cell_that_carries_the_label_keeps_everything(act, batch, factual, carries, mode, concept, label):
    result = act(batch, mode, **{concept: label})
    carrier = carries(**{concept: label})
    assert 0 < carrier.sum() < 64
    np.testing.assert_array_equal(result.endogenous[carrier], factual[carrier])
    np.testing.assert_array_equal(result.labels[carrier], batch.labels[carrier])


@modes
def test_cells_that_carry_all_labels_of_a_joint_intervention_keep_everything(act, batch, factual, carries, mode):
    labels = {"stim": "IFN", "donor": "d2"}
    result = act(batch, mode, **labels)
    assert carries(**labels).any()
    np.testing.assert_array_equal(result.endogenous[carries(**labels)], factual[carries(**labels)])


@modes
@targets
def test_others_change(act, batch, factual, carries, mode, concept, label):
    """The counterpart of consistency: cells with another label get another embedding."""
    result = act(batch, mode, **{concept: label})
    moved = (result.endogenous != factual)[:, CONCEPTS.index(concept)].any(axis=1)
    np.testing.assert_array_equal(moved, ~carries(**{concept: label}))


@modes
@targets
def test_non_descendants_never_change(act, batch, factual, schema, mode, concept, label):
    i = CONCEPTS.index(concept)
    assert schema.descendants([i]) == DESCENDANTS[i]
    kept = sorted(set(range(5)) - {i} - DESCENDANTS[i])
    assert UNEXPLAINED in kept
    result = act(batch, mode, **{concept: label})
    np.testing.assert_array_equal(result.endogenous[:, kept], factual[:, kept])
    np.testing.assert_array_equal(result.labels[:, kept[:-1]], batch.labels[:, kept[:-1]])


@modes
def test_the_cells_given_are_left_alone(act, batch, mode):
    given = Batch(batch.exogenous.copy(), batch.labels.copy(), batch.keys.copy())
    act(given, mode, stim="IFN", cell_type="B")
    np.testing.assert_array_equal(given.exogenous, batch.exogenous)
    np.testing.assert_array_equal(given.labels, batch.labels)


# -- what each mode does -----------------------------------------------------------------------------------------------


@targets
def test_do_takes_the_embedding_of_a_reference_cell_with_the_label(
    act, batch, generator, schema, carries, linear_scm, drawn_rows, concept, label
):
    i, reference = schema.index(concept), generator.engine.reference
    changed = ~carries(**{concept: label})
    result = act(batch, **{concept: label})
    rows = drawn_rows(result.endogenous[changed, i], linear_scm(reference.exogenous), i)
    assert (reference.labels[rows, i] == schema[concept].code(label)).all()
    np.testing.assert_array_equal(rows, reference.draw(i, schema[concept].code(label), batch.keys, draw=0)[0][changed])
    assert len(set(rows)) > changed.sum() / 2  # not one cell for all
    assert (result.labels[:, i] == schema[concept].code(label)).all()


def test_do_cuts_the_edges_into_its_target(act, batch, carries):
    """What the cell inherits from its donor has no say in a cell type that was set."""
    exogenous = batch.exogenous.copy()
    exogenous[:, [DONOR, CELL_TYPE]] += 3
    changed = ~carries(cell_type="T")
    before, after = act(batch, cell_type="T"), act(replace(batch, exogenous=exogenous), cell_type="T")
    np.testing.assert_array_equal(
        after.endogenous[changed][:, [CELL_TYPE, STATE]], before.endogenous[changed][:, [CELL_TYPE, STATE]]
    )


@pytest.mark.parametrize("mode", ["do", "exogenous"])
@targets
def test_descendants_are_recomputed_from_their_own_exogenous_embeddings(act, batch, mode, concept, label):
    z = act(batch, mode, **{concept: label}).endogenous
    eps = batch.exogenous
    if concept != "cell_type":
        np.testing.assert_allclose(z[:, CELL_TYPE], z[:, DONOR] + eps[:, CELL_TYPE], atol=TOLERANCE)
    if concept != "state":
        np.testing.assert_allclose(z[:, STATE], z[:, CELL_TYPE] + z[:, STIM] + eps[:, STATE], atol=TOLERANCE)


@targets
def test_exogenous_replaces_the_exogenous_embedding_and_runs_the_graph(
    act, batch, generator, schema, carries, linear_scm, concept, label
):
    i, code = schema.index(concept), schema[concept].code(label)
    rows, _ = generator.engine.reference.draw(i, code, batch.keys, draw=0)
    changed = ~carries(**{concept: label})
    exogenous = batch.exogenous.copy()
    exogenous[changed, i] = generator.engine.reference.exogenous[rows[changed], i]
    result = act(batch, "exogenous", **{concept: label})
    np.testing.assert_allclose(result.endogenous, linear_scm(exogenous), atol=TOLERANCE)


@targets
def test_isolated_changes_its_target_alone(act, batch, factual, concept, label):
    i = CONCEPTS.index(concept)
    isolated, done = act(batch, "isolated", **{concept: label}), act(batch, "do", **{concept: label})
    others = [j for j in range(5) if j != i]
    np.testing.assert_array_equal(isolated.endogenous[:, others], factual[:, others])
    np.testing.assert_array_equal(isolated.endogenous[:, i], done.endogenous[:, i])
    np.testing.assert_array_equal(np.delete(isolated.labels, i, axis=1), np.delete(batch.labels, i, axis=1))


@pytest.mark.parametrize(("concept", "label"), TARGETS[:2])
def test_do_and_exogenous_agree_for_a_concept_without_parents(act, batch, concept, label):
    """Tolerance 1e-6: the same numbers, added up once more."""
    a, b = (act(batch, mode, **{concept: label}) for mode in ("do", "exogenous"))
    np.testing.assert_allclose(a.endogenous, b.endogenous, atol=1e-6)
    np.testing.assert_array_equal(a.labels, b.labels)


def test_do_and_exogenous_differ_for_a_concept_with_parents(act, batch, carries):
    a, b = (act(batch, mode, cell_type="T") for mode in ("do", "exogenous"))
    changed = ~carries(cell_type="T")
    assert (a.endogenous != b.endogenous)[changed, CELL_TYPE].any(axis=1).all()


# -- draws -------------------------------------------------------------------------------------------------------------


@modes
def test_a_draw_does_not_depend_on_the_other_interventions(act, batch, mode):
    alone, joint = act(batch, mode, stim="IFN"), act(batch, mode, stim="IFN", donor="d2")
    np.testing.assert_array_equal(joint.endogenous[:, STIM], alone.endogenous[:, STIM])


def test_a_draw_of_a_concept_with_parents_does_not_depend_on_theirs(act, batch, carries):
    changed = ~carries(cell_type="T")
    alone, joint = act(batch, cell_type="T"), act(batch, cell_type="T", donor="d2")
    np.testing.assert_array_equal(joint.endogenous[changed, CELL_TYPE], alone.endogenous[changed, CELL_TYPE])


@modes
def test_a_draw_depends_on_the_cell_and_not_on_the_batch(act, batch, mode):
    """1e-6: the sums are the same; only their place in the batch differs."""
    whole = act(batch, mode, stim="IFN", cell_type="B")
    order = np.random.default_rng(0).permutation(64)[:40]
    part = act(batch[order], mode, stim="IFN", cell_type="B")
    np.testing.assert_allclose(part.endogenous, whole.endogenous[order], atol=1e-6)
    np.testing.assert_array_equal(part.labels, whole.labels[order])


def test_draws_are_of_different_reference_cells(act, batch, carries):
    first, second = act(batch, stim="IFN", draw=0), act(batch, stim="IFN", draw=1)
    same = (first.endogenous == second.endogenous)[~carries(stim="IFN"), STIM].all(axis=1)
    assert same.mean() < 0.2  # by chance: 1 in some hundred


def test_matching_takes_reference_cells_with_the_parents_labels(
    act, batch, generator, schema, carries, linear_scm, drawn_rows
):
    """No cell of donor d1 is an NK cell (see the simulation): those fall back, and are counted."""
    reference, code = generator.engine.reference, schema["cell_type"].code("NK")
    changed, matchless = ~carries(cell_type="NK"), carries(donor="d1")
    seen = set(reference.labels[reference.labels[:, CELL_TYPE] == code, DONOR])
    assert seen == {schema["donor"].code("d2"), schema["donor"].code("d3")}
    result = act(batch, cell_type="NK", match_parents=True)
    rows = drawn_rows(result.endogenous[:, CELL_TYPE][changed], linear_scm(reference.exogenous), CELL_TYPE)
    assert (reference.labels[rows, CELL_TYPE] == code).all()
    same_donor = reference.labels[rows, DONOR] == batch.labels[changed, DONOR]
    np.testing.assert_array_equal(same_donor, ~matchless[changed])
    np.testing.assert_array_equal(result.unmatched, matchless)
    np.testing.assert_array_equal(result.endogenous[matchless], act(batch, cell_type="NK").endogenous[matchless])


def test_matching_goes_by_the_parents_labels_after_the_intervention(act, batch):
    result = act(batch, cell_type="NK", donor="d3", match_parents=True)
    assert not result.unmatched.any()


def test_only_cells_that_change_can_be_unmatched(act, batch, schema):
    """A cell that carries the label already needs no reference cell."""
    labels = batch.labels.copy()
    labels[:32, DONOR], labels[:32, CELL_TYPE] = schema["donor"].code("d1"), schema["cell_type"].code("NK")
    result = act(replace(batch, labels=labels), cell_type="NK", match_parents=True)
    assert not result.unmatched[:32].any()


# -- labels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["do", "exogenous"])
@targets
def test_descendants_of_changed_cells_have_the_predicted_label_and_others_their_own(
    act, batch, generator, schema, carries, mode, concept, label
):
    """Logits are read from the intervened embeddings themselves: all of them forced, the graph returns them."""
    result = act(batch, mode, **{concept: label})
    mask = np.ones((64, schema.size), dtype=np.float32)
    logits = generator.engine.run("scm", {"exogenous": batch.exogenous, "forced": result.endogenous, "mask": mask})
    changed = ~carries(**{concept: label})
    for j in DESCENDANTS[CONCEPTS.index(concept)]:
        predicted = logits[logits_name(CONCEPTS[j])].argmax(axis=1)
        np.testing.assert_array_equal(result.labels[:, j], np.where(changed, predicted, batch.labels[:, j]))
    assert result.labels.dtype == np.int32


def test_an_unlabelled_cell_is_changed_and_gets_the_target_label(act, batch, factual, schema):
    labels = batch.labels.copy()
    labels[:, STIM] = -1
    result = act(replace(batch, labels=labels), stim="IFN")
    assert (result.labels[:, STIM] == schema["stim"].code("IFN")).all()
    assert (result.endogenous != factual)[:, STIM].any(axis=1).all()


def test_an_unlabelled_concept_stays_unlabelled_unless_it_is_a_changed_descendant(act, batch, carries):
    labels = batch.labels.copy()
    labels[:, [DONOR, STATE]] = -1
    result = act(replace(batch, labels=labels), stim="IFN")
    assert (result.labels[:, DONOR] == -1).all()
    np.testing.assert_array_equal(result.labels[:, STATE] == -1, carries(stim="IFN"))


@modes
def test_labels_do_not_change_the_factual_cell(act, batch, factual, mode):
    labels = np.full_like(batch.labels, -1)
    np.testing.assert_array_equal(act(replace(batch, labels=labels), mode).endogenous, factual)


# -- joint interventions -----------------------------------------------------------------------------------------------


def test_a_joint_intervention_sets_each_target(act, batch, schema, carries):
    result = act(batch, donor="d2", cell_type="T")
    assert (result.labels[:, DONOR] == schema["donor"].code("d2")).all()
    assert (result.labels[:, CELL_TYPE] == schema["cell_type"].code("T")).all()
    changed = ~carries(cell_type="T")
    z, eps = result.endogenous, batch.exogenous
    np.testing.assert_array_equal(z[changed, CELL_TYPE], act(batch, cell_type="T").endogenous[changed, CELL_TYPE])
    np.testing.assert_allclose(z[:, STATE], z[:, CELL_TYPE] + z[:, STIM] + eps[:, STATE], atol=TOLERANCE)


def test_a_joint_intervention_does_not_depend_on_the_order_of_its_targets(act, batch):
    a, b = act(batch, stim="IFN", donor="d2"), act(batch, donor="d2", stim="IFN")
    np.testing.assert_array_equal(a.endogenous, b.endogenous)


@pytest.mark.parametrize("mode", ["do", "isolated"])
def test_a_label_carried_already_keeps_its_embedding_when_a_parent_is_set_too(act, batch, factual, carries, mode):
    """do(donor, cell_type) holds the cell type as it is: the new donor has no way into it."""
    held = carries(cell_type="T") & ~carries(donor="d2")
    assert held.any()
    result = act(batch, mode, donor="d2", cell_type="T")
    np.testing.assert_array_equal(result.endogenous[held, CELL_TYPE], factual[held, CELL_TYPE])


def test_a_descendant_behind_a_held_target_keeps_its_embedding(act, batch, factual, carries):
    """donor reaches state through cell_type alone, which do(cell_type) holds at the cell's own."""
    held = carries(cell_type="T") & ~carries(donor="d2")
    result = act(batch, donor="d2", cell_type="T")
    np.testing.assert_array_equal(result.endogenous[held, STATE], factual[held, STATE])


def test_a_descendant_behind_a_held_target_keeps_its_label(act, batch, carries):
    """Its own, whatever the model would predict: one of the two labels tried is not the prediction."""
    held = carries(cell_type="T") & ~carries(donor="d2")
    for state in (0, 1):
        labels = batch.labels.copy()
        labels[:, STATE] = state
        result = act(replace(batch, labels=labels), donor="d2", cell_type="T")
        assert (result.labels[held, STATE] == state).all()


def test_a_descendant_that_another_target_reaches_changes(act, batch, factual, carries):
    """stim reaches state directly, so that holding the cell type does not hold the state."""
    held = carries(cell_type="T") & ~carries(donor="d2") & ~carries(stim="IFN")
    assert held.any()
    result = act(batch, stim="IFN", donor="d2", cell_type="T")
    assert (result.endogenous != factual)[held, STATE].any(axis=1).all()


def test_exogenous_embeddings_let_change_pass_through_a_target(act, batch, generator, schema, carries):
    """No edge is cut there: a new donor reaches the state through the cell type, whose own eps stays."""
    held = carries(cell_type="T") & ~carries(donor="d2")
    result = act(batch, "exogenous", donor="d2", cell_type="T")
    expected = act(batch, "exogenous", donor="d2")
    np.testing.assert_array_equal(result.endogenous[held], expected.endogenous[held])
    np.testing.assert_array_equal(result.labels[held, STATE], expected.labels[held, STATE])
    assert (expected.labels != batch.labels)[held, STATE].any()


# -- the cell's own embedding, moved ---------------------------------------------------------------------------------


@modes
@targets
def test_what_a_cell_has_of_its_own_is_kept(act, batch, factual, carries, generator, mode, concept, label):
    """z_i + m_i(target) - m_i(own): nothing is drawn, and what laws hold for draws hold for it."""
    i, reference = CONCEPTS.index(concept), generator.engine.reference
    result = act(batch, mode, keep_own=True, **{concept: label})
    own = batch.exogenous if mode == "exogenous" else factual
    table = (
        reference.exogenous if mode == "exogenous" else generator.model.scm.factual(reference.exogenous)["endogenous"]
    )
    means = np.stack(
        [
            table[reference.labels[:, i] == code, i].mean(axis=0)
            for code in range(len(np.unique(reference.labels[:, i])))
        ]
    )
    expected = own[:, i] + means[generator.schema[concept].code(label)] - means[batch.labels[:, i]]
    moved = ~carries(**{concept: label})
    if mode != "exogenous" or not generator.schema.parents(i):
        np.testing.assert_allclose(result.endogenous[moved, i], expected[moved], atol=TOLERANCE)
    np.testing.assert_array_equal(result.endogenous[~moved], factual[~moved])
    kept = sorted(set(range(5)) - {i} - DESCENDANTS[i])
    np.testing.assert_array_equal(result.endogenous[:, kept], factual[:, kept])
    again = act(batch, mode, keep_own=True, draw=3, **{concept: label})
    np.testing.assert_array_equal(again.endogenous, result.endogenous)


def test_there_and_back_is_the_cell_itself(act, batch, factual, generator):
    i = CONCEPTS.index("stim")
    there = act(batch, keep_own=True, stim="IFN")
    code = generator.schema["stim"].code("ctrl")
    controls = batch.labels[:, i] == code
    moved = Batch(batch.exogenous.copy(), there.labels, batch.keys)
    moved.exogenous[:, i] = there.endogenous[:, i]  # stim has no parents
    back = act(moved, keep_own=True, stim="ctrl")
    assert 0 < controls.sum() < 64
    np.testing.assert_allclose(back.endogenous[controls], factual[controls], atol=TOLERANCE)
    assert (np.abs(there.endogenous[controls, i] - factual[controls, i]).max(axis=1) > TOLERANCE).all()


def test_an_unlabelled_cell_has_nothing_to_be_moved_from_and_gets_a_draw(act, batch):
    i = CONCEPTS.index("stim")
    labels = batch.labels.copy()
    labels[:10, i] = -1
    unlabelled = Batch(batch.exogenous, labels, batch.keys)
    own, drawn = (act(unlabelled, keep_own=keep, stim="IFN").endogenous for keep in (True, False))
    np.testing.assert_array_equal(own[:10], drawn[:10])
    assert (own[10:, i] != drawn[10:, i]).any()
