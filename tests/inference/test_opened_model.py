"""A model that is open shows what it is, lends its parts, and still answers to the names that it had."""

import warnings
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from simulation import CONCEPTS, EDGES

from causcell.counterfactual.model import CounterfactualModel
from causcell.errors import RuntimeUnavailableError
from causcell.generator import Generator

SVG = "{http://www.w3.org/2000/svg}"


def test_the_repr_tells_what_the_model_is(generator):
    text = repr(generator)
    title, *facts = text.splitlines()
    assert title == f"Generator of model {generator.manifest.digest[:12]}"
    told = dict(line.strip().split(": ", 1) for line in facts)
    assert told["genes"] == "50, trained on counts"
    assert told["concept stim"] == "IFN, ctrl"
    assert told["concept cell_type"] == "B, NK, T"
    assert told["edges"] == ", ".join(edge.replace(":", " -> ") for edge in EDGES)
    assert told["presets"].split(", ")[0].startswith("draw")
    assert f"{generator.manifest.default_preset} (default)" in told["presets"].split(", ")
    assert told["trained on"].endswith(" cells")
    assert told["engine"].startswith("ONNX Runtime")


def test_notebooks_draw_the_graph_of_the_model(generator):
    """Well-formed XML: a box a concept, an arrow an edge, and the facts of the repr."""
    root = ElementTree.fromstring(generator._repr_html_())
    assert root.find("b").text == f"Model {generator.manifest.digest[:12]}"
    assert [text.text for text in root.iter(f"{SVG}text")] == list(CONCEPTS)
    assert len(list(root.iter(f"{SVG}polyline"))) == len(EDGES)
    facts = {row[0].text: row[1].text for row in root.iter("tr")}
    assert facts == generator.model.describe()


def test_many_labels_are_counted_and_not_listed(generator, monkeypatch):
    concept = generator.manifest.concepts[0]
    many = replace(concept, labels=tuple(f"guide_{i}" for i in range(500)))
    changed = generator.manifest.model_copy(update={"concepts": (many, *generator.manifest.concepts[1:])})
    monkeypatch.setattr(generator.engine, "manifest", changed)
    assert "guide_5 and 494 more" in repr(generator)
    assert "guide_6" not in repr(generator)


def test_its_parts_are_those_of_the_model(generator):
    assert generator.schema is generator.model.schema
    assert generator.preprocessing is generator.model.preprocessing
    assert generator.manifest is generator.engine.manifest
    assert (generator.batch_size, generator.threads) == (64, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("causal_graph", "scm"),
        ("decode", "decode"),
        ("build_solver", "build_solver"),
        ("array_widths", "output_widths"),
        ("provenance", "provenance"),
    ],
)
def test_old_attributes_warn_and_work(generator, old, new):
    """The warning names the new one, and points at who uses the old one."""
    with pytest.warns(DeprecationWarning, match=f"^Generator.{old} is deprecated; use Generator.model.{new}$") as told:
        found = getattr(generator, old)
    assert found == getattr(generator.model, new)
    assert [each.filename for each in told] == [__file__]


def test_an_attribute_that_there_never_was(generator):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AttributeError, match="'Generator' object has no attribute 'colour'"):
            _ = generator.colour
        assert not hasattr(generator, "colour")


def test_a_block_closes_the_engine(repository, monkeypatch):
    with Generator.open(repository, threads=1) as generator:
        closed = []
        monkeypatch.setattr(generator.engine, "close", lambda: closed.append(True))
    assert closed == [True]


def test_its_source_opens_the_same_model_anywhere(repository, monkeypatch, tmp_path):
    """What workers are sent: a place that is good in any folder, and the provider that was asked for."""
    monkeypatch.chdir(repository.parent)
    with Generator.open(repository.name, threads=1, provider="cpu") as generator:
        source, digest = generator.source, generator.manifest.digest
    monkeypatch.chdir(tmp_path)
    assert source.provider == "cpu"
    model = source.open(threads=1, batch_size=32)
    assert (model.manifest.digest, model.batch_size) == (digest, 32)
    model.engine.close()


def test_a_provider_that_is_not_there_is_refused_with_what_to_install(repository):
    with pytest.raises(RuntimeUnavailableError, match=r"no CUDAExecutionProvider; it has .*install causcell\[gpu\]"):
        Generator.open(repository, provider="cuda")


@pytest.mark.parametrize(("old", "new"), [("reader", "Generator.bind"), ("blocks", "stream_blocks")])
def test_old_methods_that_took_another_form_name_what_took_their_place(generator, old, new):
    with pytest.raises(AttributeError, match=f"no longer there; use .*{new}"):
        getattr(generator, old)


def test_batches_are_as_full_as_may_be(generator):
    """Batch sizes are multiples of 16; the engine, and what is kept of its answers, are shared."""
    model = generator.model  # of batches of 64
    full = [model.with_full_batches(count) for count in (0, 1, 64, 65, 90, 129)]
    assert [each.batch_size for each in full] == [16, 16, 64, 48, 48, 48]
    assert all(each.engine is model.engine and each.scm is model.scm for each in full)
    assert CounterfactualModel(model.engine, batch_size=20).with_full_batches(19).batch_size == 20


@pytest.mark.parametrize("count", [1, 10, 70])
@pytest.mark.parametrize("preset", ["draw", "mean"])
def test_cells_are_evaluated_in_batches_that_they_fill_and_have_the_same_values(
    generator, cells, monkeypatch, count, preset
):
    encode, sizes = CounterfactualModel.encode, []
    monkeypatch.setattr(CounterfactualModel, "encode", lambda self, x: (sizes.append(len(x)), encode(self, x))[1])
    some = cells[:count].copy()
    made, embedded = generator.counterfactual(some, {"stim": "IFN"}, preset=preset, seed=3), generator.embed(some)
    assert max(sizes) < 64
    sizes.clear()
    with monkeypatch.context() as context:
        context.setattr(CounterfactualModel, "with_full_batches", lambda self, cells: self)
        whole, read = generator.counterfactual(some, {"stim": "IFN"}, preset=preset, seed=3), generator.embed(some)
    assert set(sizes) == {64}
    assert (made.X != whole.X).sum() == 0
    np.testing.assert_array_equal(embedded.obsm["X_causcell"], read.obsm["X_causcell"])
