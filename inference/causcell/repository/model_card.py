"""Model card of a shared model: ``README.md`` with the front matter that a hub reads, made from the manifest alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from causcell.concepts import Concept
from causcell.errors import ConfigurationError
from causcell.repository.hub import HubName
from causcell.repository.manifest import Manifest
from causcell.repository.preset_table import PRESET_HEADER, describe_presets, held_out_cells, preset_rows
from causcell.repository.verdicts import Verdict

CARD_FILE = "README.md"
"""Name of the card in a repository."""

TAGS = ("biology", "single-cell", "transcriptomics", "causal-inference", "counterfactual", "onnx")

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_FRONT_MATTER = re.compile(r"\A---\r?\n(?P<fields>.*?)^---\s*$", re.MULTILINE | re.DOTALL)

_MOST_LABELS = 24
"""Labels of a concept that the card names; the manifest has all."""

_KINDS = {"categorical": "labels"}
"""Words for kinds that files call by other names."""


def check_license(name: str) -> str:
    """Return a licence's name as hubs write it; raises `ConfigurationError` for one of another form.

    Examples
    --------
    >>> check_license("cc-by-4.0")
    'cc-by-4.0'
    """
    if not _LICENSE.fullmatch(name):
        raise ConfigurationError(
            f"license={name!r} is no licence as a hub names it: lower case, such as cc-by-4.0, cc0-1.0 or apache-2.0; "
            "other for one that has no such name"
        )
    return name


def card_license(card: str) -> str | None:
    r"""Return the licence that a card's front matter names; `None` if it names none.

    Examples
    --------
    >>> card_license("---\nlicense: cc-by-4.0\n---\n# Kang")
    'cc-by-4.0'
    """
    matter = _FRONT_MATTER.match(card)
    found = re.search(r"^license:[ \t]*['\"]?([^\s'\"]+)", matter["fields"], re.MULTILINE) if matter else None
    return found[1] if found else None


def model_card(manifest: Manifest, name: HubName, license: str, data: str | None = None) -> str:
    """Write a model's card: what it is, how to open it, concepts and graph, verdicts, quality, data, licence.

    Parameters
    ----------
    manifest
        What the model is.
    name
        Where it is shared; the card opens it by this name.
    license
        The licence's name on hubs, such as ``cc-by-4.0``.
    data
        What the model was trained on, in the words of who shares it; the card says so where nothing is said.

    Returns
    -------
    Markdown with YAML front matter.

    Raises
    ------
    ConfigurationError
        The licence's name has another form.
    """
    parts = [
        _front_matter(check_license(license)),
        f"# {_text(name.name)}\n\n{_summary(manifest)}",
        f"## Open it\n\n{_usage(manifest, name)}",
        f"## Concepts and graph\n\n{_concepts(manifest)}",
        f"## Verdicts\n\n{_verdicts(manifest.verdicts)}",
        f"## Quality\n\n{_quality(manifest)}",
        f"## Training\n\n{_training(manifest, data)}",
        f"## Licence\n\n`{license}`, as chosen by who shares this model.",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(license: str) -> str:
    fields = [("license", license), ("library_name", "causcell")]
    lines = [f"{key}: {json.dumps(value)}" for key, value in fields]  # every JSON string is one of YAML
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in TAGS), "---"])


def _summary(manifest: Manifest) -> str:
    values = "counts" if manifest.expression.scale == "counts" else "log1p expression"
    return (
        "A model of CausCell (the package `causcell`): what would a single cell express, had its "
        f"{' or '.join(_code(each.name) for each in manifest.concepts)} been another, all else equal and with the "
        f"consequences carried along the graph below? It reads {values} of {len(manifest.genes.names):,} genes and "
        "generates cells of them. Answers are the model's: they hold as far as the graph does and as far as the "
        "verdicts below say."
    )


def _usage(manifest: Manifest, name: HubName) -> str:
    do = _worthy_intervention(manifest)
    call = f"model.counterfactual(adata, do={do}, seed=0)" if do else "model.reconstruct(adata, seed=0)"
    return (
        "```\npip install 'causcell[cpu,hub]'\n"
        f"causcell inspect {name}\n```\n\n"
        "```python\nfrom causcell import Generator\n\n"
        f'with Generator.open("{name}") as model:\n    result = {call}\n```\n\n'
        "`adata` is an `AnnData` with the same genes and scale. Every file is checked against the digests of "
        f"`manifest.json`; this model's digest is `{manifest.digest[:12]}`."
    )


def _worthy_intervention(manifest: Manifest) -> str | None:
    """Return an intervention to show as Python: on a concept that is judged usable, or not judged."""
    usable = {each.concept: each.usable for each in manifest.verdicts if each.combinations == "seen"}
    concepts = [each for each in manifest.concepts if usable.get(each.name) is not False]
    concepts.sort(key=lambda each: usable.get(each.name) is not True)
    if not concepts:
        return None
    chosen = concepts[0]
    value: Any = chosen.labels[-1]
    if chosen.value is not None and chosen.value.kind == "continuous":
        value = chosen.value.numbers[-1]
    return "{" + f"{json.dumps(chosen.name)}: {json.dumps(value)}" + "}"


def _concepts(manifest: Manifest) -> str:
    causes: dict[str, list[str]] = {each.name: [] for each in manifest.concepts}
    for edge in manifest.edges:
        causes[edge.child].append(_code(edge.parent))
    rows = [
        [_code(each.name), _kind(each), _listed(causes[each.name]) or "none", _values(each)]
        for each in manifest.concepts
    ]
    mechanism = f" Causes act by a {manifest.mechanism} mechanism." if manifest.edges else ""
    learned = " Edges were learned from the data, not given." if "edges" in manifest.provenance else ""
    return (
        _table(["concept", "kind", "caused by", "labels or values"], rows)
        + "\n\nWhat no concept explains is in one more, `unexplained`, which is not intervened on."
        + mechanism
        + learned
    )


def _kind(concept: Concept) -> str:
    return concept.value.kind if concept.value is not None else _KINDS.get(concept.kind, concept.kind)


def _values(concept: Concept) -> str:
    value = concept.value
    if value is not None and value.kind == "continuous":
        return f"{value.low:g} to {value.high:g}"
    labels = [_code(each) for each in concept.labels[:_MOST_LABELS]]
    rest = len(concept.labels) - len(labels)
    return ", ".join(labels) + (f" and {rest} more" if rest else "")


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return "None: this model was exported without cells to judge it on. Judge it on your own: `causcell evaluate`."

    def say(verdict: bool | None) -> str:
        return {True: "yes", False: "**no**", None: "not judged"}[verdict]

    def number(value: float | None, form: str = ".2f") -> str:
        return "" if value is None else format(value, form)

    rows = [
        [
            _text(each.title),
            say(each.usable),
            number(each.score),
            number(each.resolution),
            _text(each.trivial),
            say(each.read),
            number(each.accuracy),
            number(each.majority),
        ]
        for each in verdicts
    ]
    head = ["concept", "do() usable", "score", "resolution", "baseline", "label read", "accuracy", "majority"]
    reasons = "\n".join(f"- {_text(str(each))}" for each in verdicts)
    return (
        f"{_table(head, rows)}\n\nFrom cells that were not trained on. The score of effects is 0 for the baseline, the "
        "best trivial predictor, and 1 for the ceiling, a replicate of the real cells; resolution is how far a "
        "replicate varies on that scale. A label is read from its concept's embedding where accuracy is clearly above "
        f"that of always naming the most frequent one.\n\n{reasons}"
    )


def _quality(manifest: Manifest) -> str:
    cells = held_out_cells(manifest)
    if not cells:
        return "Not measured: no cells were held out."
    return (
        _table(PRESET_HEADER, preset_rows(describe_presets(manifest)))
        + f"\n\nGenerated cells beside {cells:,} held-out ones, by solver preset (default: "
        f"`{manifest.default_preset}`); the row `real` is what other real cells reach, the ceiling. Energy distance: "
        "lower is better; correlations, variance ratio and nonzero: the closer to real cells (1 for the ratio) the "
        "better; PCC higher and MSE lower is better. Cells per second: one thread of the machine that exported."
    )


def _training(manifest: Manifest, data: str | None) -> str:
    facts = manifest.provenance
    said = _text(data) if data else "Who shares this model did not say what it was trained on."
    finished = str(facts.get("finished") or "").partition("T")[0]
    lines = [
        f"Data: {said}",
        f"- cells trained on: {manifest.training_cells.count:,}",
        *([f"- finished: {_text(finished)}"] if finished else []),
        *(["- stopped before it was finished"] if facts.get("unfinished") else []),
        f"- model: head `{manifest.head}`, precision `{manifest.precision}`, schema version {manifest.schema_version}",
        f"- versions: {_listed(f'{key} {value}' for key, value in manifest.versions.items())}",
    ]
    return "\n".join([lines[0], "", *lines[1:]]) + (
        "\n\nThe repository holds no measured expression. It holds exogenous embeddings and labels of training cells "
        "(`reference.npz`), of which the decoder makes cells much like them, and digests of training cells' names."
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(texts)


def _text(text: str) -> str:
    """Return a text of the model's maker as Markdown that shows it as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Return a name or label as code, which a table can hold."""
    return "`" + " ".join(text.replace("`", "'").replace("|", "\\|").split()) + "`"
