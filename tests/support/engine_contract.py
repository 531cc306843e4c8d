"""What every engine promises, whichever runtime it has: `EngineContract` is run on each of them.

A test module subclasses it and gives a fixture ``engine``, and ``embedded``: ONNX Runtime on the same model.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from causcell.engine.protocol import Engine
from causcell.errors import EngineError

GRAPHS = ("encoder_scm", "abduction", "scm", "denoiser")


def zero_inputs(engine: Engine, graph: str, batch: int = 3) -> dict[str, np.ndarray]:
    """Inputs of a graph that fit it."""
    return {
        name: np.zeros((batch, *tensor.shape), dtype=tensor.dtype)
        for name, tensor in engine.manifest.graphs[graph].inputs.items()
    }


def reference_inputs(engine: Engine, rows: int = 5) -> dict[str, np.ndarray]:
    """Inputs of graph ``scm``: reference cells, nothing forced."""
    exogenous = engine.reference.exogenous[:rows]
    mask = np.zeros(exogenous.shape[:2], dtype=np.float32)
    return {"exogenous": exogenous, "forced": np.zeros_like(exogenous), "mask": mask}


class EngineContract:
    """Tests of the protocol `causcell.engine.protocol.Engine`."""

    def test_it_knows_its_model(self, engine: Engine, embedded: Engine) -> None:
        assert engine.manifest == embedded.manifest
        for name in ("exogenous", "labels", "combinations"):
            np.testing.assert_array_equal(
                getattr(engine.reference, name), getattr(embedded.reference, name), strict=True
            )

    def test_it_says_what_it_is(self, engine: Engine) -> None:
        """A line for provenance; threads where they are this process's; places as mappings that JSON can hold."""
        assert "\n" not in engine.description
        assert engine.concurrency >= 1
        endpoints = engine.status()
        assert json.loads(json.dumps(endpoints)) == endpoints
        for endpoint in endpoints:
            assert endpoint["ready"]
            assert endpoint["runtime"] in engine.description
            assert endpoint["version"] in engine.description
            assert endpoint.get("threads") == engine.threads

    @pytest.mark.parametrize("graph", GRAPHS)
    def test_graphs_take_and_give_what_the_manifest_says(self, engine: Engine, graph: str) -> None:
        outputs = engine.run(graph, zero_inputs(engine, graph))
        stated = engine.manifest.graphs[graph].outputs
        assert {name: (3, *tensor.shape) for name, tensor in stated.items()} == {k: v.shape for k, v in outputs.items()}
        assert {name: tensor.dtype for name, tensor in stated.items()} == {k: str(v.dtype) for k, v in outputs.items()}

    def test_it_computes_what_the_embedded_engine_does(self, engine: Engine, embedded: Engine) -> None:
        inputs = reference_inputs(embedded, 96)
        found, expected = engine.run("scm", inputs), embedded.run("scm", inputs)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4)

    def test_only_the_outputs_that_are_asked_for_are_answered(self, engine: Engine, embedded: Engine) -> None:
        z = embedded.run("scm", reference_inputs(embedded))["endogenous"]
        inputs = zero_inputs(engine, "denoiser", len(z)) | {"timestep": np.full((len(z), 1), 999), "endogenous": z}
        whole = embedded.run("denoiser", inputs)
        found = engine.run("denoiser", inputs, ("slab_mean",))
        assert list(found) == ["slab_mean"]
        np.testing.assert_allclose(found["slab_mean"], whole["slab_mean"], rtol=1e-4, atol=1e-4)

    def test_a_graph_that_is_not_there(self, engine: Engine) -> None:
        with pytest.raises(EngineError, match=r"no graph 'vae'; this model has .*'denoiser'"):
            engine.run("vae", {})

    def test_an_output_that_is_not_there(self, engine: Engine) -> None:
        with pytest.raises(EngineError, match=r"graph 'scm' has no output 'vae'; it has 'endogenous'"):
            engine.run("scm", zero_inputs(engine, "scm"), ("endogenous", "vae"))

    def test_inputs_of_other_names(self, engine: Engine) -> None:
        inputs = zero_inputs(engine, "scm")
        inputs["masks"] = inputs.pop("mask")
        with pytest.raises(
            EngineError,
            match="graph 'scm' takes 'exogenous', 'forced', 'mask', and was given 'exogenous', 'forced', 'masks'",
        ):
            engine.run("scm", inputs)
        with pytest.raises(EngineError, match="graph 'encoder_scm' takes 'expression', and was given"):
            engine.run("encoder_scm", {})

    def test_an_input_of_another_dtype(self, engine: Engine) -> None:
        expression = zero_inputs(engine, "encoder_scm")["expression"].astype(np.float64)
        with pytest.raises(
            EngineError, match=r"input 'expression' of graph 'encoder_scm' is float64 \[3, 50\]; it takes float32"
        ):
            engine.run("encoder_scm", {"expression": expression})

    @pytest.mark.parametrize("shape", [(3, 49), (3,), (3, 50, 1)])
    def test_an_input_of_another_shape(self, engine: Engine, shape: tuple[int, ...]) -> None:
        with pytest.raises(EngineError, match=r"is float32 \[3.*it takes float32 \[batch, 50\]"):
            engine.run("encoder_scm", {"expression": np.zeros(shape, dtype=np.float32)})

    @pytest.mark.parametrize("shape", [(3, 5), (3, 7, 4), (3, 2, 5, 1)])
    def test_another_shape_beside_a_free_axis(self, engine: Engine, shape: tuple[int, ...]) -> None:
        inputs = {
            "endogenous": zero_inputs(engine, "scm")["exogenous"],
            "noise": zero_inputs(engine, "encoder_scm")["expression"],
            "solver": np.zeros(shape, dtype=np.float32),
        }
        with pytest.raises(EngineError, match=r"'solver' of graph 'sampler' is .*; it takes float32 \[batch, any, 5\]"):
            engine.run("sampler", inputs)

    def test_inputs_of_different_batch_sizes(self, engine: Engine) -> None:
        inputs = zero_inputs(engine, "scm")
        inputs["mask"] = inputs["mask"][:2]
        with pytest.raises(EngineError, match=r"inputs of graph 'scm' are of different batch sizes: \[2, 3\]"):
            engine.run("scm", inputs)

    def test_a_graph_that_fails(self, engine: Engine) -> None:
        """A timestep beyond the table can't be seen from outside: what the runtime says is passed on."""
        inputs = zero_inputs(engine, "denoiser") | {"timestep": np.full((3, 1), 100_000, dtype=np.int64)}
        with pytest.raises(EngineError, match=r"100000|out of (data )?bounds"):
            engine.run("denoiser", inputs)
        assert engine.run("denoiser", zero_inputs(engine, "denoiser"))
