"""The ONNX graphs against the trained model on real cells, and what stands in their files."""

import tempfile
from pathlib import Path

import anndata
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exported import GRAPHS

from causcell.cells.panel import PanelReader
from causcell.diffusion.schedule import NoiseSchedule
from causcell.diffusion.solvers import ddim, dpmpp
from causcell.preprocessing import gene_digest
from causcell.repository.manifest import PLAIN_SCHEMA_VERSION
from causcell_export.onnx_file import IR_VERSION
from causcell_export.translation import OPSET
from causcell_training import CausCell, Run

SOLVERS = np.stack([solver(NoiseSchedule(), 4).table for solver in (ddim, dpmpp)])

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
"""What the repository promises; float32 sums in another order differ by about 1e-6."""


def inputs_of(model: CausCell, cells: anndata.AnnData, batch: int) -> dict[str, dict[str, torch.Tensor]]:
    """Inputs of each graph for a batch of cells: every cell its own time and its own set of forced concepts."""
    rng = np.random.default_rng(batch)
    rows = rng.integers(cells.n_obs, size=batch)
    reader = PanelReader(model.preprocessing, cells.var_names)
    expression = torch.from_numpy(reader.read(cells.X[rows], cells.obs_names[rows]))
    exogenous = model.encode(expression)[0]
    forced = torch.from_numpy(rng.standard_normal(exogenous.shape).astype(np.float32))
    mask = torch.from_numpy(rng.integers(2, size=exogenous.shape[:2]).astype(np.float32))
    x_t = torch.from_numpy(rng.standard_normal(expression.shape).astype(np.float32))
    timestep = torch.from_numpy(rng.integers(model.schedule.timesteps, size=(batch, 1)))
    return {
        "encoder_scm": {"expression": expression},
        "abduction": {"exogenous": exogenous, "labels": torch.from_numpy(rng.integers(-1, 2, size=mask.shape)[:, 1:])},
        "scm": {"exogenous": exogenous, "forced": forced, "mask": mask},
        "denoiser": {"x_t": x_t, "timestep": timestep, "endogenous": model.scm(exogenous)},
        "sampler": {
            "endogenous": model.scm(exogenous),
            "noise": x_t,
            "solver": torch.from_numpy(rng.permutation(np.resize(SOLVERS, (batch, 4, 5))).astype(np.float32)),
        },
        "slab": {"endogenous": model.scm(exogenous)},
        "decoder": {
            "endogenous": model.scm(exogenous),
            "uniforms": torch.from_numpy(rng.random(expression.shape).astype(np.float32)).clamp(1e-6, 1 - 1e-6),
        },
    }


def answers_of(model: CausCell, graph: str, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The trained model's own answers, by name of the graph's output."""
    if graph == "encoder_scm":
        mean, logvar = model.encode(inputs["expression"])
        return {"exogenous_mean": mean, "exogenous_logvar": logvar, "endogenous": model.scm(mean)}
    if graph == "abduction":
        return {"informed": model.inform(inputs["exogenous"], inputs["labels"])}
    if graph == "scm":
        endogenous = model.scm(inputs["exogenous"], inputs["forced"], inputs["mask"])
        logits = zip(model.schema.names, model.label_logits(endogenous), strict=True)
        return {"endogenous": endogenous} | {f"logits_{name}": values for name, values in logits}
    denoiser, z = model.denoiser, inputs["endogenous"]
    if graph in ("decoder", "slab"):
        prior = denoiser.head.prior(denoiser.hidden_at_noise(denoiser.time_table()[-1], z))
        if graph == "slab":
            return {f"slab_{name}": value for name, value in prior._asdict().items()}
        u = inputs["uniforms"]
        quantile = torch.special.ndtri((u.double() / prior.probability).clamp(max=1 - 2**-24)).float()
        slab = (prior.mean + prior.deviation * quantile) * model.deviation + model.mean
        expression = torch.where(u < prior.probability, slab.clamp(min=0), 0.0)
        return {"expression": expression, "expression_float16": expression.half()}
    if graph == "sampler":
        x, x0_previous = inputs["noise"], torch.zeros_like(inputs["noise"])
        for t, a, b, c in inputs["solver"].permute(1, 2, 0)[:, :4, :, None]:
            x0 = denoiser(x, t[:, 0].long(), z)
            x, x0_previous = a * x + b * x0 + c * x0_previous, x0
        expression = (x * model.deviation + model.mean).clamp(min=0)
        return {"expression": expression, "expression_float16": expression.half()}
    timestep = inputs["timestep"][:, 0]
    alpha_bar = denoiser.alpha_bar[timestep, None]
    hidden = denoiser.hidden(inputs["x_t"], denoiser.time_table()[timestep], alpha_bar, z)
    posterior = denoiser.head.posterior(hidden, inputs["x_t"], alpha_bar)._asdict()
    return {"x0": denoiser(inputs["x_t"], timestep, z)} | {f"slab_{name}": each for name, each in posterior.items()}


def session_of(repository: Path, graph: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = repository / graph / "1" / "model.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def evaluate(session: onnxruntime.InferenceSession, inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {k: v.numpy() for k, v in inputs.items()}), strict=True))


def check_close(found: np.ndarray, expected: np.ndarray, name: str) -> None:
    """To the tolerance; where both were rounded to float16, to the next such number, 2^-10 away."""
    tolerance = TOLERANCE if found.dtype == np.float32 else {"rtol": 1e-3, "atol": 1e-4}
    if name.startswith("expression"):
        # near the threshold of a uniform number quantiles are steep, and at it a value flips: one more than 1 in 1,000
        # beyond the tolerance, and than 1 in 10,000 beyond ten times as much
        for limits, share in ((tolerance, 1e-3), ({"rtol": 1e-3, "atol": 1e-3}, 1e-4)):
            assert (~np.isclose(found, expected, **limits)).sum() <= 1 + share * found.size, name
    else:
        np.testing.assert_allclose(found, expected, **tolerance, err_msg=name)


@pytest.mark.parametrize("batch", [1, 7, 256])
@pytest.mark.parametrize("graph", GRAPHS)
@torch.no_grad()
def test_a_graph_gives_the_trained_models_values(
    run: Run, repository: Path, cells: anndata.AnnData, graph: str, batch: int
) -> None:
    inputs = inputs_of(run.model, cells, batch)[graph]
    expected = answers_of(run.model, graph, inputs)
    found = evaluate(session_of(repository, graph), inputs)
    assert list(found) == list(expected)
    for name, values in expected.items():
        check_close(found[name], values.numpy(), name)


@pytest.mark.parametrize("graph", ["decoder", "sampler"])
@torch.no_grad()
def test_the_float16_answer_is_the_float32_one_rounded(
    run: Run, repository: Path, cells: anndata.AnnData, graph: str
) -> None:
    found = evaluate(session_of(repository, graph), inputs_of(run.model, cells, 256)[graph])
    rounded = found["expression"].astype(np.float16)
    np.testing.assert_array_equal(found["expression_float16"], rounded, strict=True)


@pytest.mark.parametrize("graph", GRAPHS)
@torch.no_grad()
def test_a_cells_answer_does_not_depend_on_its_batch(
    run: Run, repository: Path, cells: anndata.AnnData, graph: str
) -> None:
    session = session_of(repository, graph)
    inputs = inputs_of(run.model, cells, 256)[graph]
    together = evaluate(session, inputs)
    for row in (0, 100, 255):
        alone = evaluate(session, {name: values[row : row + 1] for name, values in inputs.items()})
        for name, values in alone.items():
            check_close(values[0], together[name][row], name)


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_batch_axis_is_free_and_the_others_are_fixed(run: Run, repository: Path, graph: str) -> None:
    """Every input and output has the same symbolic batch: an exporter's constant would be found here."""
    model = onnx.load(repository / graph / "1" / "model.onnx")
    batches = set()
    for tensor in (*model.graph.input, *model.graph.output):
        first, *rest = tensor.type.tensor_type.shape.dim
        assert not first.HasField("dim_value")
        batches.add(first.dim_param)
        assert [dim.HasField("dim_value") for dim in rest] == [tensor.name != "solver", True][: len(rest)]
    assert len(batches) == 1
    assert batches != {""}


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_file_is_for_runtimes_from_one_on_and_whole_in_itself(repository: Path, graph: str) -> None:
    """Opset 20 and IR 9 are read by ONNX Runtime 1.17 and newer, and so by Triton 24.03 and newer."""
    model = onnx.load(repository / graph / "1" / "model.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET == 20
    assert model.ir_version == IR_VERSION == 9
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}  # no operator of another's own
    assert not any(tensor.external_data for tensor in model.graph.initializer)


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_file_says_which_panel_and_schema_it_is_for(run: Run, repository: Path, graph: str) -> None:
    model = onnx.load(repository / graph / "1" / "model.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "causcell.gene_digest": gene_digest(run.model.preprocessing.genes),
        "causcell.schema_version": str(PLAIN_SCHEMA_VERSION),
    }


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_file_tells_nothing_of_the_machine_it_was_made_on(repository: Path, graph: str) -> None:
    content = (repository / graph / "1" / "model.onnx").read_bytes()
    here = Path(__file__).parents[2]
    places = ["site-packages", "causcell_export", ".py", tempfile.gettempdir(), str(here), str(Path.home())]
    assert [place for place in places if place.encode() in content] == []
