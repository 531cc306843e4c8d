"""The objective: each term against an independent formula, its weight, its mask, and whom its gradient reaches."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from probes import variance_explained_by_probe
from torch import Tensor, nn

from causcell.concepts import UNLABELLED, Concept, ConceptSchema, Edge
from causcell.preprocessing import Preprocessing
from causcell_training.config import ModelConfig, ObjectiveConfig
from causcell_training.model import CausCell
from causcell_training.objective import Objective, masked_cross_entropy

SIZES = (2, 3, 4)
CELLS, GENES, EMBEDDING = 24, 12, 4
TERMS = ("reconstruction", "classification", "exogenous_kl", "endogenous_kl", "adversary", "independence")

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
"""Terms are float32 means of a few hundred numbers of size one; the references are float64."""

SCHEMA = ConceptSchema(
    tuple(Concept(name, tuple(map(str, range(size)))) for name, size in zip("abc", SIZES, strict=True)),
    (Edge("a", "b"), Edge("b", "c", 0.5)),
)


@pytest.fixture
def model() -> CausCell:
    """Untrained, in evaluation mode: without dropout the encoder's answer is a function of the cells alone."""
    rng = np.random.default_rng(0)
    mean, deviation = rng.random(GENES).astype(np.float32), (0.5 + rng.random(GENES)).astype(np.float32)
    genes = tuple(f"g{i}" for i in range(GENES))
    with seeded(0):
        config = ModelConfig(head="plain", embedding=EMBEDDING, encoder_width=16, width=16, blocks=1)
        model = CausCell(SCHEMA, Preprocessing(genes, "counts", genes, mean, deviation), config).eval()
        nn.init.normal_(model.encoder.projection)  # training sets it: until then the encoder reads nothing
        for parameter in model.label_mean:
            nn.init.normal_(parameter, std=0.5)
        return model


@pytest.fixture
def expression() -> Tensor:
    return torch.rand(CELLS, GENES, generator=torch.Generator().manual_seed(1)) * 3


@pytest.fixture
def labels() -> Tensor:
    """Every label of every concept, at unequal frequencies, all cells labelled."""
    rng = np.random.default_rng(2)
    drawn = np.stack([(rng.random(CELLS) ** 2 * size).astype(np.int64) for size in SIZES], axis=1)
    drawn[:4] = np.stack([np.arange(4) % size for size in SIZES], axis=1)
    return torch.from_numpy(drawn)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def objective_of(labels: Tensor, **weights: float) -> Objective:
    """An objective whose label priors are not standard normals and whose discriminators are at work."""
    with seeded(3):
        objective = Objective(SCHEMA, EMBEDDING, labels, ObjectiveConfig(**weights))
        for parameter in objective.label_logvar:
            nn.init.normal_(parameter, std=0.5)
    return objective


def terms_of(objective: Objective, model: CausCell, expression: Tensor, labels: Tensor) -> dict[str, Tensor]:
    with seeded(4):
        return objective(model, expression, labels)


def gradients(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """Gradient of a loss by parameter; zeros where it does not reach."""
    parameters = dict(module.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
    }


def reached(loss: Tensor, module: nn.Module) -> set[str]:
    """Parameters on which a loss depends."""
    return {name for name, gradient in gradients(loss, module).items() if gradient.abs().max() > 0}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@contextmanager
def outputs_of(modules: list[nn.Module]) -> Iterator[list[list[np.ndarray]]]:
    """What each module answers while the block runs, float64."""
    answers: list[list[np.ndarray]] = [[] for _ in modules]
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, into=into: into.append(out.detach().double().numpy()))
        for module, into in zip(modules, answers, strict=True)
    ]
    try:
        yield answers
    finally:
        for hook in hooks:
            hook.remove()


def cross_entropy(logits: np.ndarray, codes: np.ndarray) -> float:
    """Mean over labelled cells of -log softmax(logits)[label]."""
    labelled = codes != UNLABELLED
    return float(-log_softmax(logits)[labelled, codes[labelled]].mean())


# -- names and weights -------------------------------------------------------------------------------------------------


def test_every_term_is_reported_and_finite(model: CausCell, expression: Tensor, labels: Tensor) -> None:
    terms = terms_of(objective_of(labels), model, expression, labels)
    assert set(terms) == {*TERMS, "discriminators", "total"}
    assert all(term.shape == () and torch.isfinite(term) for term in terms.values())


def test_every_term_has_a_weight() -> None:
    others = {"likelihood", "edges", "independence_cells"}  # of some heads, of learned graphs, and no term
    assert set(ObjectiveConfig.model_fields) == {*TERMS, *others}


def test_total_is_the_weighted_sum_and_the_discriminators_loss(
    model: CausCell, expression: Tensor, labels: Tensor
) -> None:
    weights = {name: 0.3 + 0.7 * i for i, name in enumerate(TERMS)}
    terms = terms_of(objective_of(labels, **weights), model, expression, labels)
    expected = sum(weights[name] * terms[name].item() for name in TERMS) + terms["discriminators"].item()
    np.testing.assert_allclose(terms["total"].item(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", TERMS[1:])  # reconstruction can't be turned off: without it there is no model
def test_a_zero_weight_takes_the_terms_gradient_from_the_model(
    model: CausCell, expression: Tensor, labels: Tensor, name: str
) -> None:
    """What is left is the gradient of all the others, and it is not what it was."""
    default = ObjectiveConfig()
    with_it = terms_of(objective_of(labels), model, expression, labels)
    others = sum(getattr(default, each) * with_it[each] for each in TERMS if each != name)
    without = terms_of(objective_of(labels, **{name: 0.0}), model, expression, labels)
    assert torch.isfinite(without[name])  # it is logged whatever its weight
    full, left, expected = (gradients(loss, model) for loss in (with_it["total"], without["total"], others))
    for parameter, gradient in left.items():
        torch.testing.assert_close(gradient, expected[parameter], rtol=1e-4, atol=1e-6)  # another order of summation
    assert any(not torch.allclose(full[each], left[each], rtol=1e-3, atol=1e-6) for each in full)


def test_without_classification_the_classifiers_get_no_gradient(
    model: CausCell, expression: Tensor, labels: Tensor
) -> None:
    assert reached(terms_of(objective_of(labels), model, expression, labels)["total"], model.classifiers)
    without = terms_of(objective_of(labels, classification=0.0), model, expression, labels)
    assert not reached(without["total"], model.classifiers)


# -- terms against formulas --------------------------------------------------------------------------------------------


def test_reconstruction_is_the_squared_error_on_the_log_scale_over_the_genes_mean_variance(
    model: CausCell, expression: Tensor, labels: Tensor
) -> None:
    with outputs_of([model.denoiser.head.output]) as (answers,):
        terms = terms_of(objective_of(labels), model, expression, labels)
    deviation = model.preprocessing.deviation.astype(np.float64)
    error = answers[0] * deviation + model.preprocessing.mean - expression.double().numpy()
    expected = (error**2).mean() / (deviation**2).mean()
    np.testing.assert_allclose(terms["reconstruction"].item(), expected, **TOLERANCE)


@pytest.mark.parametrize("unlabelled", [0, 7], ids=["all labelled", "some unlabelled"])
def test_classification_is_the_cross_entropy_of_logits_over_labelled_cells(
    model: CausCell, expression: Tensor, labels: Tensor, unlabelled: int
) -> None:
    labels[:unlabelled, 1] = UNLABELLED
    with outputs_of(list(model.classifiers)) as answers:
        terms = terms_of(objective_of(labels), model, expression, labels)
    expected = sum(cross_entropy(logits[0], labels[:, i].numpy()) for i, logits in enumerate(answers))
    np.testing.assert_allclose(terms["classification"].item(), expected, **TOLERANCE)


def test_cross_entropy_is_torchs_over_the_labelled_cells() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(30, 4, generator=generator)
    codes = torch.randint(4, (30,), generator=generator)
    codes[::3] = UNLABELLED
    expected = nn.functional.cross_entropy(logits[codes >= 0], codes[codes >= 0])
    torch.testing.assert_close(masked_cross_entropy(logits, codes), expected)
    # logits, not probabilities: a constant added to a cell's logits says nothing
    torch.testing.assert_close(masked_cross_entropy(logits + 3, codes), expected)


def test_exogenous_kl_is_that_of_a_diagonal_gaussian_per_gene(
    model: CausCell, expression: Tensor, labels: Tensor
) -> None:
    mean, logvar = (each.detach().double().numpy() for each in model.encode(expression))
    assert mean.shape == (CELLS, len(SIZES) + 1, EMBEDDING)  # the unexplained concept included
    divergence = 0.5 * (np.exp(logvar) + mean**2 - 1 - logvar)
    expected = divergence.sum(axis=(1, 2)).mean() / GENES
    terms = terms_of(objective_of(labels), model, expression, labels)
    np.testing.assert_allclose(terms["exogenous_kl"].item(), expected, **TOLERANCE)


@pytest.mark.parametrize("unlabelled", [0, 7], ids=["all labelled", "some unlabelled"])
def test_endogenous_kl_is_that_between_gaussians_of_a_concept_and_its_label(
    model: CausCell, expression: Tensor, labels: Tensor, unlabelled: int
) -> None:
    """KL(N(m, v) || N(m', v')) = (log(v' / v) + (v + (m - m')^2) / v' - 1) / 2, with variances over ancestors."""
    labels[:unlabelled, 1] = UNLABELLED
    objective = objective_of(labels)
    mean, logvar = (each.detach().double().numpy() for each in model.encode(expression))
    effect = np.linalg.inv(np.eye(SCHEMA.size) - SCHEMA.adjacency().T)
    z_mean = np.einsum("ij,bjk->bik", effect, mean)
    z_variance = np.einsum("ij,bjk->bik", effect**2, np.exp(logvar))
    expected = 0.0
    for i in range(len(SIZES)):
        prior_mean = model.label_mean[i].detach().double().numpy()
        prior_variance = np.exp(objective.label_logvar[i].detach().double().numpy())
        cells = []
        for cell in range(CELLS):
            code = int(labels[cell, i])
            if code == UNLABELLED:
                continue
            v, v_prior = z_variance[cell, i], prior_variance[code]
            squared = (z_mean[cell, i] - prior_mean[code]) ** 2
            cells.append(0.5 * (np.log(v_prior / v) + (v + squared) / v_prior - 1).sum())
        expected += np.mean(cells)
    terms = terms_of(objective, model, expression, labels)
    np.testing.assert_allclose(terms["endogenous_kl"].item(), expected / GENES, **TOLERANCE)


def test_adversary_is_the_divergence_of_answers_from_label_frequencies(
    model: CausCell, expression: Tensor, labels: Tensor
) -> None:
    labels[:5, 2] = UNLABELLED  # frequencies are those among labelled cells
    objective = objective_of(labels)
    unexplained = model.encode(expression)[0][:, -1]
    expected = 0.0
    for i, discriminator in enumerate(objective.discriminators):
        codes = labels[labels[:, i] >= 0, i].numpy()
        frequency = np.bincount(codes, minlength=SIZES[i]) / len(codes)
        log_answer = log_softmax(discriminator(unexplained).detach().double().numpy())
        expected += (frequency * (np.log(frequency) - log_answer)).sum(axis=1).mean()
    terms = terms_of(objective, model, expression, labels)
    np.testing.assert_allclose(terms["adversary"].item(), expected, **TOLERANCE)


# -- missing labels ----------------------------------------------------------------------------------------------------


def test_unlabelled_cells_change_nothing_for_the_others(model: CausCell, expression: Tensor, labels: Tensor) -> None:
    """The terms that read labels are those of the labelled cells alone."""
    objective = objective_of(labels)
    masked = labels.clone()
    masked[:9] = UNLABELLED
    with outputs_of(list(model.classifiers)) as answers:
        terms = terms_of(objective, model, expression, masked)
    rest = terms_of(objective, model, expression[9:], labels[9:])
    for name in ("endogenous_kl", "discriminators"):  # these do not depend on random numbers
        np.testing.assert_allclose(terms[name].item(), rest[name].item(), **TOLERANCE)
    expected = sum(cross_entropy(logits[0][9:], labels[9:, i].numpy()) for i, logits in enumerate(answers))
    np.testing.assert_allclose(terms["classification"].item(), expected, **TOLERANCE)


@pytest.mark.parametrize("concepts", [(1,), (0, 1, 2)], ids=["one concept", "all concepts"])
def test_a_batch_without_labels_of_a_concept_is_finite_and_teaches_its_classifier_nothing(
    model: CausCell, expression: Tensor, labels: Tensor, concepts: tuple[int, ...]
) -> None:
    objective = objective_of(labels)
    batch = labels.clone()
    batch[:, concepts] = UNLABELLED
    terms = terms_of(objective, model, expression, batch)
    assert all(torch.isfinite(term) for term in terms.values())
    for i in concepts:
        assert not reached(terms["total"], model.classifiers[i])
        assert not reached(terms["total"], objective.discriminators[i])
    for gradient in gradients(terms["total"], model).values():
        assert torch.isfinite(gradient).all()


# -- the adversary's game ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_adversary_is_bounded_below_by_zero(model: CausCell, expression: Tensor, labels: Tensor, scale: float) -> None:
    objective = objective_of(labels)
    with seeded(5), torch.no_grad():
        for parameter in objective.discriminators.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    assert terms_of(objective, model, expression, labels)["adversary"].item() > 0


def test_adversary_is_zero_where_the_discriminators_answer_the_frequencies(
    model: CausCell, expression: Tensor, labels: Tensor
) -> None:
    objective = objective_of(labels)
    for i, discriminator in enumerate(objective.discriminators):
        frequency = torch.bincount(labels[:, i], minlength=SIZES[i]) / CELLS
        with torch.no_grad():
            discriminator[-1].weight.zero_()
            discriminator[-1].bias.copy_(frequency.log() + 2)
    adversary = terms_of(objective, model, expression, labels)["adversary"]
    np.testing.assert_allclose(adversary.item(), 0, atol=1e-6)  # three float32 divergences of equal distributions


def test_adversary_reaches_the_encoder_alone(model: CausCell, expression: Tensor, labels: Tensor) -> None:
    objective = objective_of(labels)
    adversary = terms_of(objective, model, expression, labels)["adversary"]
    assert not reached(adversary, objective)
    names = reached(adversary, model)
    assert names
    assert all(name.startswith("encoder.") for name in names)
    # and of the encoder's last layer, only what makes the mean of the unexplained embedding
    rows = gradients(adversary, model)["encoder.output.bias"].unflatten(0, (2, SCHEMA.size, EMBEDDING))
    assert (rows[0, -1] != 0).all()
    assert rows[0, :-1].abs().max() == 0
    assert rows[1].abs().max() == 0


def test_discriminators_loss_reaches_the_discriminators_alone(
    model: CausCell, expression: Tensor, labels: Tensor
) -> None:
    objective = objective_of(labels)
    loss = terms_of(objective, model, expression, labels)["discriminators"]
    assert not reached(loss, model)
    names = reached(loss, objective)
    assert {name.split(".")[1] for name in names} == {"0", "1", "2"}
    assert all(name.startswith("discriminators.") for name in names)


def test_discriminators_loss_is_their_cross_entropy(model: CausCell, expression: Tensor, labels: Tensor) -> None:
    objective = objective_of(labels)
    unexplained = model.encode(expression)[0][:, -1]
    expected = sum(
        cross_entropy(discriminator(unexplained).detach().double().numpy(), labels[:, i].numpy())
        for i, discriminator in enumerate(objective.discriminators)
    )
    terms = terms_of(objective, model, expression, labels)
    np.testing.assert_allclose(terms["discriminators"].item(), expected, **TOLERANCE)


# -- independence of exogenous embeddings ------------------------------------------------------------------------------


def test_independence_is_the_sum_over_what_should_not_be_explained(
    model: CausCell, expression: Tensor, labels: Tensor
) -> None:
    """a -> b -> c, and the unexplained one."""
    mean = model.encode(expression)[0]

    def explained(i: int, *concepts: int, given: int | None = None) -> Tensor:
        codes = labels[:, concepts[0]]
        for j in concepts[1:]:
            codes = codes * SIZES[j] + labels[:, j]
        groups = None if given is None else nn.functional.one_hot(labels[:, given], SIZES[given])
        return variance_explained_by_probe(
            mean[:, i], nn.functional.one_hot(codes, math.prod(SIZES[j] for j in concepts)), groups
        )

    expected = explained(1, 0) + explained(2, 0, 1) + explained(3, 0, 1) + explained(3, 0, 2) + explained(3, 1, 2)
    expected += explained(0, 0, 1, given=0) + explained(0, 0, 2, given=0) + explained(1, 1, 2, given=1)
    found = terms_of(objective_of(labels), model, expression, labels)["independence"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_independence_reaches_the_encoder_alone(model: CausCell, expression: Tensor, labels: Tensor) -> None:
    term = terms_of(objective_of(labels), model, expression, labels)["independence"]
    names = reached(term, model)
    assert names
    assert all(name.startswith("encoder.") for name in names)


def test_independence_can_be_taken_in_mixed_precision(model: CausCell, expression: Tensor, labels: Tensor) -> None:
    """As on GPUs. Embeddings are rounded to 8 bits, which moves correlations by hundredths at most."""
    full = terms_of(objective_of(labels), model, expression, labels)["independence"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = terms_of(objective_of(labels), model, expression, labels)["independence"]
    torch.testing.assert_close(mixed, full, rtol=0.05, atol=0)


def batches_of(count: int) -> tuple[list[Tensor], list[Tensor]]:
    """Batches of one size, and their labels."""
    generator = torch.Generator().manual_seed(5)
    expression = [3 * torch.rand(CELLS, GENES, generator=generator) for _ in range(count)]
    labels = [
        torch.stack([torch.randint(size, (CELLS,), generator=generator) for size in SIZES], dim=1) for _ in range(count)
    ]
    return expression, labels


def independence_gradient(objective: Objective, model: CausCell, expression: Tensor, labels: Tensor) -> Tensor:
    term = terms_of(objective, model, expression, labels)["independence"]
    return torch.cat([each.flatten() for each in gradients(term, model.encoder).values()])


def test_independence_is_taken_over_the_cells_of_batches_before_too(model: CausCell) -> None:
    """Its value is that of all cells in one batch."""
    expression, labels = batches_of(4)
    objective = objective_of(labels[0], independence_cells=4 * CELLS)
    found = [terms_of(objective, model, x, y)["independence"] for x, y in zip(expression, labels, strict=True)]
    together = objective_of(labels[0], independence_cells=0)
    for count, value in enumerate(found, start=1):
        whole = terms_of(together, model, torch.cat(expression[:count]), torch.cat(labels[:count]))["independence"]
        torch.testing.assert_close(value, whole, rtol=1e-4, atol=1e-5)


def test_the_gradients_of_batches_add_up_to_that_of_all_their_cells(model: CausCell) -> None:
    """With a model that stands still; so the same weight means the same, whatever the number of cells."""
    expression, labels = batches_of(4)
    objective = objective_of(labels[0], independence_cells=4 * CELLS)
    for x, y in zip(expression, labels, strict=True):
        terms_of(objective, model, x, y)
    by_batch = [independence_gradient(objective, model, x, y) for x, y in zip(expression, labels, strict=True)]
    whole = independence_gradient(
        objective_of(labels[0], independence_cells=0), model, torch.cat(expression), torch.cat(labels)
    )
    torch.testing.assert_close(torch.stack(by_batch).mean(dim=0), whole, rtol=1e-3, atol=1e-5)


def test_no_earlier_cell_is_kept_twice_or_for_ever(model: CausCell) -> None:
    expression, labels = batches_of(4)
    objective = objective_of(labels[0], independence_cells=2 * CELLS)
    found = [terms_of(objective, model, x, y)["independence"] for x, y in zip(expression, labels, strict=True)]
    together = objective_of(labels[0], independence_cells=0)
    whole = terms_of(together, model, torch.cat(expression[2:]), torch.cat(labels[2:]))["independence"]
    torch.testing.assert_close(found[-1], whole, rtol=1e-4, atol=1e-5)


# -- what is decoded ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abduction", ["informed", "expression"])
def test_classifiers_read_embeddings_that_labels_were_not_told_to(
    model: CausCell, expression: Tensor, labels: Tensor, abduction: str
) -> None:
    """Else they would be told what they should read; what is decoded depends on labels where it is informed."""
    model.config = model.config.model_copy(update={"abduction": abduction})
    others = (labels + 1) % torch.tensor(SIZES)
    with outputs_of([*model.classifiers, model.denoiser.head.output]) as answers:
        for codes in (labels, others):
            terms_of(objective_of(labels), model, expression, codes)
    *read, decoded = map(list, answers)
    for logits in read:
        np.testing.assert_array_equal(logits[0], logits[-1])
    assert np.array_equal(*decoded) == (abduction == "expression")
