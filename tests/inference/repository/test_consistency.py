"""A manifest whose parts contradict each other is refused, though every digest holds: a stranger can compute them."""

import json

import pytest
from paths import MODEL_REPOSITORY
from strangers import ARCHIVED, seal, stranger

from causcell import Generator
from causcell.errors import CorruptFileError, DigestError
from causcell.preprocessing import gene_digest
from causcell.repository.manifest import Manifest

TEXT = (ARCHIVED / "manifest.json").read_text()


def set_in(*path_and_value):
    """Return an edit of a manifest's fields."""
    *path, last, value = path_and_value

    def edit(fields):
        node = fields
        for key in path:
            node = node[key]
        node[last] = value(node[last]) if callable(value) else value

    return edit


def rename_panel(change):
    def edit(fields):
        fields["genes"]["names"] = names = change(fields["genes"]["names"])
        fields["genes"]["digest"] = gene_digest(tuple(names))

    return edit


CONTRADICTIONS = {
    "genes fewer": (rename_panel(lambda names: names[:-1]), r"dimensions\.genes is for 40 genes, genes\.names has 39"),
    "genes twice": (rename_panel(lambda names: [names[0], *names[:-1]]), r"genes\.names has '.*' twice"),
    "no genes": (rename_panel(lambda names: []), r"genes\.names is empty"),
    "dimensions": (set_in("dimensions", "genes", 41), r"dimensions\.genes is for 41 genes"),
    "means": (set_in("expression", "mean", lambda old: old[:-1]), r"expression\.mean is for 39 genes"),
    "deviations": (
        set_in("expression", "deviation", lambda old: [*old, 1.0]),
        r"expression\.deviation is for 41 genes",
    ),
    "a deviation of 0": (set_in("expression", "deviation", lambda old: [0.0, *old[1:]]), r"has 0\.0; deviations are"),
    "a mean of 1e300": (set_in("expression", "mean", lambda old: [1e300, *old[1:]]), r"more than a float32 holds"),
    "target": (set_in("expression", "target_sum", -1.0), r"target_sum is -1\.0; for counts it is a number above 0"),
    "normalisation twice": (
        set_in("expression", "normalisation_genes", lambda old: [*old, old[0]]),
        r"expression\.normalisation_genes has '.*' twice",
    ),
    "no normalisation": (set_in("expression", "normalisation_genes", []), r"normalisation_genes is empty; for counts"),
    "concepts": (set_in("dimensions", "concepts", 2), r"dimensions\.concepts is 2, concepts has 4"),
    "labels": (set_in("concepts", 0, "labels", lambda old: [*old, "more"]), r"graphs\.scm states float32 .*'logits_"),
    "an edge to nowhere": (set_in("edges", 0, "child", "nothing"), r"edge .*names 'nothing', which is no concept"),
    "a cycle": (
        set_in("edges", lambda old: [*old, {"parent": old[0]["child"], "child": old[0]["parent"], "weight": 1.0}]),
        r"the concept graph has a cycle",
    ),
    "schedule": (set_in("schedule", "timesteps", 10**9), r"schedule\.timesteps is 1e\+09; it is at most 100000"),
    "default": (
        set_in("default_preset", "fastest"),
        r"default_preset is 'fastest', which presets lacks; it has 'draw'",
    ),
    "too many steps": (set_in("presets", "draw", "solver", "steps", 10**6), r"1000000 steps are not possible"),
    "solver": (set_in("presets", "draw", "solver", "solver", "magic"), r"solver 'magic' is not known"),
    "speed": (set_in("speed", {"fast": 1.0}), r"speed has 'fast', which presets lacks"),
    "no sampler": (
        set_in("graphs", lambda old: {k: v for k, v in old.items() if k != "sampler"}),
        "graphs lacks 'sampler'",
    ),
    "tensor": (
        set_in("graphs", "decoder", "outputs", "expression", "shape", [39]),
        r"states float32 \[39\] for 'expression'",
    ),
    "type": (set_in("graphs", "decoder", "outputs", "expression", "dtype", "int64"), r"states int64 \[40\] for 'expr"),
    "no output": (
        set_in("graphs", "denoiser", "outputs", {"y": {"dtype": "float32", "shape": [40]}}),
        "nothing for 'x0'",
    ),
    "an input more": (
        set_in("graphs", "decoder", "inputs", lambda old: {**old, "more": {"dtype": "float32", "shape": [1]}}),
        r"graphs\.decoder takes 'endogenous', 'uniforms', 'more', where a model's takes 'endogenous', 'uniforms'",
    ),
    "a graph's name": (
        lambda fields: fields["graphs"].update({"../x": fields["graphs"]["decoder"]}),
        r"graphs has '\.\./x'",
    ),
    "parity": (
        lambda fields: fields["parity"].update(vae=fields["parity"]["decoder"]),
        r"parity has 'vae', which graphs",
    ),
    "a file's digest": (
        set_in("files", "reference.npz", "x"),
        r"files has 'x' for 'reference\.npz', which is no SHA-256",
    ),
    "count of cells": (set_in("training_cells", "count", 7), r"training_cells\.digests does not hold 7 digests"),
    "cells not in base64": (set_in("training_cells", "digests", "%%%"), r"training_cells\.digests does not hold"),
    "cells not sorted": (
        set_in("training_cells", lambda old: {"count": 2, "digests": "AQAAAAAAAAAAAAAAAAAAAA=="}),
        r"training_cells\.digests is not sorted",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_parts_that_contradict_each_other(name):
    edit, message = CONTRADICTIONS[name]
    fields = json.loads(TEXT)
    edit(fields)
    with pytest.raises(
        CorruptFileError, match=rf"^manifest\.json is not a valid manifest: .*{message}.*; export again$"
    ):
        Manifest.from_json(json.dumps(seal(fields)), "manifest.json")


def test_a_manifest_as_it_was_written_is_read():
    assert Manifest.from_json(json.dumps(seal(json.loads(TEXT))), "manifest.json").dimensions.genes == 40


def test_an_edit_without_a_new_digest_is_told_as_such():
    fields = json.loads(TEXT)
    fields["dimensions"]["genes"] = 41
    with pytest.raises(DigestError, match="was edited after export"):
        Manifest.from_json(json.dumps(fields), "manifest.json")


def test_a_repository_of_a_stranger_opens_if_it_agrees_with_itself(tmp_path):
    copy = stranger(tmp_path / "models", change=lambda fields: fields["provenance"].update(device="a stranger's"))
    with Generator.open(copy, threads=1) as generator:
        assert generator.manifest.provenance["device"] == "a stranger's"


def test_reference_cells_of_another_model_are_refused(tmp_path):
    """Their digest holds, and their shape does not fit."""
    other = (MODEL_REPOSITORY / "reference.npz").read_bytes()
    copy = stranger(tmp_path / "models", {"reference.npz": other})
    with pytest.raises(CorruptFileError, match=r"reference\.npz holds no reference cells \(.* in place of float32"):
        Generator.open(copy)
