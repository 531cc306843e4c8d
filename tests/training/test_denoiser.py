"""The denoiser: absorbed attention, concept identity, and what it sees at pure noise."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from causcell.diffusion.schedule import NoiseSchedule
from causcell_training.denoiser import ConceptAttention, Denoiser
from causcell_training.run import Run

WIDTH, CONCEPTS, EMBEDDING, HEADS, GENES, CELLS = 16, 5, 6, 4, 20, 32
SCHEDULE = NoiseSchedule("linear", 1000)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def denoiser() -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Denoiser(
            torch.full((GENES,), -0.5),
            CONCEPTS,
            EMBEDDING,
            width=WIDTH,
            blocks=2,
            heads=HEADS,
            head="plain",
            schedule=SCHEDULE,
        ).eval()


def tokens_of(z: Tensor) -> Tensor:
    """[z_i, one-hot of i], [B x M x (k + M)]."""
    identity = torch.eye(z.shape[1], dtype=z.dtype).repeat(len(z), 1, 1)
    return torch.cat([z, identity], dim=2)


@torch.no_grad()
def test_attention_with_key_and_value_maps_folds_into_query_and_output_maps() -> None:
    """Textbook multi-head attention with its own key and value maps of any width equals the absorbed form."""
    token, inner = EMBEDDING + CONCEPTS, 7
    generator = torch.Generator().manual_seed(0)

    def weight(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    query, query_bias = weight(HEADS, inner, WIDTH), weight(HEADS, inner)
    key, value, output = weight(HEADS, inner, token), weight(HEADS, inner, token), weight(HEADS, WIDTH, inner)
    output_bias = weight(WIDTH)
    hidden, z = weight(CELLS, WIDTH), weight(CELLS, CONCEPTS, EMBEDDING)

    expected = output_bias.repeat(CELLS, 1)
    for head in range(HEADS):
        asked = hidden @ query[head].T + query_bias[head]
        keys, values = tokens_of(z) @ key[head].T, tokens_of(z) @ value[head].T
        scores = torch.einsum("bi,bmi->bm", asked, keys) / math.sqrt(token)
        attended = torch.einsum("bm,bmi->bi", scores.softmax(dim=1), values)
        expected = expected + attended @ output[head].T

    absorbed = ConceptAttention(WIDTH, CONCEPTS, EMBEDDING, HEADS).double()
    absorbed.query.weight.copy_(torch.cat([key[head].T @ query[head] for head in range(HEADS)]))
    absorbed.query.bias.copy_(torch.cat([key[head].T @ query_bias[head] for head in range(HEADS)]))
    absorbed.output.weight.copy_(torch.cat([output[head] @ value[head] for head in range(HEADS)], dim=1))
    absorbed.output.bias.copy_(output_bias)
    torch.testing.assert_close(absorbed(hidden, z), expected, rtol=1e-9, atol=1e-9)  # float64, another order of sums


@torch.no_grad()
def test_attention_is_multi_head_attention_over_tokens_as_keys_and_values() -> None:
    """The module's own weights in torch's functional attention; float32, so 1e-5."""
    attention = ConceptAttention(WIDTH, CONCEPTS, EMBEDDING, HEADS)
    hidden, z = normal(CELLS, WIDTH), normal(CELLS, CONCEPTS, EMBEDDING, seed=1)
    heads = attention.query(hidden).reshape(CELLS, HEADS, 1, EMBEDDING + CONCEPTS)
    tokens = tokens_of(z)[:, None].expand(-1, HEADS, -1, -1)
    attended = nn.functional.scaled_dot_product_attention(heads, tokens, tokens)
    expected = attention.output(attended.reshape(CELLS, -1))
    torch.testing.assert_close(attention(hidden, z), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_attention_tells_concepts_apart() -> None:
    """Without their identities it would be blind to a permutation of the concepts."""
    attention = ConceptAttention(WIDTH, CONCEPTS, EMBEDDING, HEADS)
    hidden, z = normal(CELLS, WIDTH), normal(CELLS, CONCEPTS, EMBEDDING, seed=1)
    moved = attention(hidden, z.roll(1, dims=1)) - attention(hidden, z)
    assert (moved.abs().amax(dim=1) > 1e-3).all()  # far above float32 rounding, 1e-6


@torch.no_grad()
def test_denoiser_tells_concepts_apart(denoiser: Denoiser) -> None:
    """The same embeddings under other concepts' names mean something else."""
    x_t, timestep, z = normal(CELLS, GENES), torch.full((CELLS,), 500), normal(CELLS, CONCEPTS, EMBEDDING, seed=1)
    moved = denoiser(x_t, timestep, z.roll(1, dims=1)) - denoiser(x_t, timestep, z)
    assert (moved.abs().amax(dim=1) > 1e-3).all()  # far above float32 rounding, 1e-6


@torch.no_grad()
def test_a_cell_does_not_depend_on_its_batch(denoiser: Denoiser) -> None:
    x_t, z = normal(CELLS, GENES), normal(CELLS, CONCEPTS, EMBEDDING, seed=1)
    timestep = torch.arange(CELLS) * 30
    together = denoiser(x_t, timestep, z)
    alone = torch.cat([denoiser(x_t[i, None], timestep[i, None], z[i, None]) for i in range(CELLS)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)  # float32 products in blocks of another size


@torch.no_grad()
def test_at_pure_noise_the_network_sees_the_concepts_alone(denoiser: Denoiser) -> None:
    """x_t enters scaled by sqrt(abar), which is 0.0066 at T - 1: what x_t changes there is a hundredth of that at 0."""
    z = normal(CELLS, CONCEPTS, EMBEDDING, seed=1)
    first, second = normal(CELLS, GENES, seed=2), normal(CELLS, GENES, seed=3)

    def moved_by_noise(t: int) -> float:
        timestep = torch.full((CELLS,), t)
        return float((denoiser(first, timestep, z) - denoiser(second, timestep, z)).square().mean().sqrt())

    def moved_by_concepts(t: int) -> float:
        timestep = torch.full((CELLS,), t)
        return float((denoiser(first, timestep, z) - denoiser(first, timestep, z.flip(0))).square().mean().sqrt())

    last = SCHEDULE.timesteps - 1
    assert moved_by_noise(last) < 0.03 * moved_by_noise(0)
    assert moved_by_noise(last) < 0.1 * moved_by_concepts(last)


@torch.no_grad()
def test_loss_is_the_squared_error_of_x0_at_the_noised_cell(denoiser: Denoiser) -> None:
    x, noise, z = normal(CELLS, GENES), normal(CELLS, GENES, seed=1), normal(CELLS, CONCEPTS, EMBEDDING, seed=2)
    timestep = torch.arange(CELLS) * 31
    alpha_bar = torch.from_numpy(SCHEDULE.alpha_bar[timestep.numpy()]).float()[:, None]
    x_t = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise
    expected = (denoiser(x_t, timestep, z) - x) ** 2
    torch.testing.assert_close(denoiser.losses(x, timestep, noise, z)["reconstruction"], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_mean_estimate_is_the_answer_to_zeros_at_the_last_time(run: Run) -> None:
    model = run.model
    z = normal(CELLS, model.schema.size, model.config.embedding)
    genes, last = len(model.preprocessing.genes), model.schedule.timesteps - 1
    x0 = model.denoiser(torch.zeros(CELLS, genes), torch.full((CELLS,), last), z).numpy()
    expected = np.maximum(x0 * model.preprocessing.deviation + model.preprocessing.mean, 0)
    before = torch.get_rng_state()
    estimate = model.mean_estimate(z)
    assert torch.equal(torch.get_rng_state(), before)  # it takes no random number
    np.testing.assert_allclose(estimate.numpy(), expected, rtol=1e-5, atol=1e-5)
    assert estimate.min() >= 0


@torch.no_grad()
def test_what_a_concept_does_to_the_last_hidden_state_does_not_depend_on_the_size_of_the_others(
    denoiser: Denoiser,
) -> None:
    """Without the blocks' changes it is a sum over concepts; a norm of it would divide each by the size of all."""
    for block in denoiser.blocks:
        for last in (block.attention.output, block.contract):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    time, z = normal(1, WIDTH), normal(CELLS, CONCEPTS, EMBEDDING)
    acted = z.clone()
    acted[:, 1] += normal(EMBEDDING, seed=1)

    def effect(of_others: float) -> Tensor:
        scale = torch.full((CONCEPTS, 1), of_others)
        scale[1] = 1
        return denoiser.hidden_at_noise(time, scale * acted) - denoiser.hidden_at_noise(time, scale * z)

    torch.testing.assert_close(effect(3.0), effect(1.0))  # sums of float32 in another order
    torch.testing.assert_close(effect(1.0), effect(1.0)[:1].expand(CELLS, -1))
