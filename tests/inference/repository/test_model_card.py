"""A card says what the manifest says, in Markdown that names and labels can't break, and shows nothing unusable."""

import re

import pytest
from paths import MODEL_REPOSITORY
from strangers import ARCHIVED
from valued_model import SCHEMA

from causcell import open_repository
from causcell.concepts import Concept, Edge
from causcell.errors import ConfigurationError
from causcell.repository.hub import HubName
from causcell.repository.manifest import Manifest
from causcell.repository.model_card import card_license, check_license, model_card
from causcell.repository.verdicts import Verdict

NAME = HubName("lab", "kang")
PLAIN = open_repository(ARCHIVED).manifest
CONCEPT = PLAIN.concepts[0].name


def card(manifest: Manifest = PLAIN, data: str | None = None, **changed: object) -> str:
    return model_card(manifest.model_copy(update=changed), NAME, "cc-by-4.0", data)


def section(text: str, title: str) -> str:
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_front_matter_is_yaml_that_a_hub_reads():
    yaml = pytest.importorskip("yaml", reason="takes causcell[hub]")
    _, matter, rest = card().split("---\n", 2)
    assert yaml.safe_load(matter) == {
        "license": "cc-by-4.0",
        "library_name": "causcell",
        "tags": ["biology", "single-cell", "transcriptomics", "causal-inference", "counterfactual", "onnx"],
    }
    assert rest.startswith("\n# kang\n")


def test_every_part_is_there_once():
    titles = re.findall(r"^## (.*)$", card(), re.MULTILINE)
    assert titles == ["Open it", "Concepts and graph", "Verdicts", "Quality", "Training", "Licence"]


def test_it_opens_the_model_by_its_name():
    usage = section(card(), "Open it")
    assert "causcell inspect hf://lab/kang\n" in usage
    code = re.search(r"```python\n(.*?)```", usage, re.DOTALL)
    assert code is not None
    compile(code[1], "card", "exec")
    assert 'Generator.open("hf://lab/kang")' in code[1]
    assert PLAIN.digest[:12] in usage


def test_concepts_labels_and_causes():
    concepts = (Concept("stim", ("IFN", "ctrl")), Concept("type", tuple(f"t{i}" for i in range(30))))
    found = section(card(concepts=concepts, edges=(Edge("stim", "type", 1.0),), verdicts=()), "Concepts and graph")
    assert "| `stim` | labels | none | `IFN`, `ctrl` |" in found
    assert "| `type` | labels | `stim` | `t0`, `t1`," in found
    assert "`t23` and 6 more |" in found
    assert "linear mechanism" in found


def test_kinds_and_their_values():
    found = section(card(concepts=SCHEMA.concepts, edges=SCHEMA.edges, verdicts=()), "Concepts and graph")
    assert "| `age` | continuous | none | 20 to 60 |" in found
    assert "| `perturbation` | set | none | `A`, `A+B`, `C`, `ctrl` |" in found
    assert "| `stage` | ordinal | `stim`, `age` |" in found


def test_names_and_labels_do_not_break_it():
    odd = "a|b`c\n## Licence\n<script>*_"
    concepts = (Concept("odd`concept", (odd, "ctrl")), *PLAIN.concepts)
    verdict = Verdict(concept="odd`concept", usable=True, reason=odd)
    text = card(concepts=concepts, verdicts=(verdict,), data=odd)
    assert text.count("\n## Licence\n") == 1
    assert "\n<script>" not in text
    assert "<script>" not in section(text, "Training").replace("\\<script\\>", "")
    rows = [line for line in section(text, "Concepts and graph").splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {5}


def test_a_verdict_that_is_bad_is_told_and_not_shown_as_an_example():
    bad = Verdict(concept=CONCEPT, usable=False, read=False, reason="not read: don't intervene on it")
    others = [each.name for each in PLAIN.concepts[1:]]
    text = card(verdicts=(bad,))
    assert f"{CONCEPT}: not read: don't intervene on it" in section(text, "Verdicts").replace("\\", "")
    assert "**no**" in section(text, "Verdicts")
    assert f'do={{"{CONCEPT}"' not in text
    assert any(f'do={{"{other}": ' in text for other in others)
    nothing = card(verdicts=tuple(bad.model_copy(update={"concept": each.name}) for each in PLAIN.concepts))
    assert "do=" not in section(nothing, "Open it")
    assert "model.reconstruct(adata, seed=0)" in nothing


def test_a_usable_concept_is_the_example():
    name = PLAIN.concepts[-1].name
    verdict = Verdict(concept=name, usable=True, score=0.8, resolution=0.1, trivial="no change", reason="usable")
    text = card(verdicts=(verdict,))
    assert f'do={{"{name}": "{PLAIN.concepts[-1].labels[-1]}"}}' in text
    assert f"| {name} | yes | 0.80 | 0.10 | no change | not judged |  |  |" in text.replace("\\", "")


def test_a_number_is_the_example_of_a_continuous_concept():
    verdict = Verdict(concept="age", usable=True, reason="usable")
    text = card(concepts=SCHEMA.concepts, edges=SCHEMA.edges, verdicts=(verdict,))
    assert 'do={"age": 50.0}' in text


def test_what_was_not_measured_is_said():
    presets = {name: preset.model_copy(update={"quality": None}) for name, preset in PLAIN.presets.items()}
    text = card(verdicts=(), presets=presets)
    assert "None: this model was exported without cells to judge it on" in section(text, "Verdicts")
    assert "Not measured: no cells were held out." in section(text, "Quality")


def test_quality_stands_beside_real_cells():
    manifest = open_repository(MODEL_REPOSITORY).manifest
    found = section(card(manifest), "Quality")
    rows = {line.split(" | ")[0].strip("| ") for line in found.splitlines() if line.startswith("| ")}
    assert rows >= {*manifest.presets, "real"}
    assert f"default: `{manifest.default_preset}`" in found


def test_data_is_as_given_or_said_to_be_missing():
    assert "Data: GSE96583, Kang et al. 2018" in section(card(data="GSE96583,\nKang et al. 2018"), "Training")
    assert "Who shares this model did not say what it was trained on." in section(card(), "Training")


def test_no_path_of_the_machine_is_in_it():
    provenance = PLAIN.provenance | {"config": {"layer": "/home/me/cells.h5ad"}, "finished": "2026-01-02T03:04:05"}
    text = card(provenance=provenance)
    assert "/home/me" not in text
    assert "- finished: 2026-01-02\n" in text


@pytest.mark.parametrize("name", ["cc-by-4.0", "apache-2.0", "other", "bsd-3-clause", "gpl-3.0+"])
def test_licences(name: str):
    assert check_license(name) == name
    assert card_license(model_card(PLAIN, NAME, name)) == name


def test_a_licence_of_another_form():
    with pytest.raises(ConfigurationError, match=r"license='CC-BY-4\.0' is no licence"):
        model_card(PLAIN, NAME, "CC-BY-4.0")


@pytest.mark.parametrize(
    ("text", "license"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\r\ntags:\r\n- x\r\nlicense: 'mit'\r\n---\r\n", "mit"),
        ('---\nlicense: "mit"\n---', "mit"),
        ("---\nlicense:\n- mit\n---\n", None),
        ("---\nlicense:\n---\n", None),
        ("---\ntags: x\n---\nlicense: mit\n", None),
        ("# A\n---\nlicense: mit\n---\n", None),
        ("---\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_the_licence_of_a_card(text: str, license: str | None):
    assert card_license(text) == license
