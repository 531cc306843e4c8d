"""A model's graph: every concept with its verdict, every edge once."""

from types import SimpleNamespace

import pytest
from matplotlib.colors import to_hex

import causcell
from causcell.repository.verdicts import Verdict

plt = pytest.importorskip("matplotlib.pyplot")


def test_concepts_stand_with_their_verdicts(generator):
    schema = generator.schema
    verdicts = [
        Verdict(concept="stim", usable=True, read=True, accuracy=0.97, majority=0.5, reason="good"),
        Verdict(concept="donor", usable=False, read=False, accuracy=0.3, majority=0.34, reason="bad"),
        Verdict(concept="stim", combinations="unseen", usable=False, reason="of unseen combinations"),
    ]
    ax = causcell.pl.graph(SimpleNamespace(schema=schema, manifest=SimpleNamespace(verdicts=verdicts)))
    texts = [text.get_text() for text in ax.texts]
    assert dict(zip(texts[::2], texts[1::2], strict=True)) == {
        "stim": ".97 read right, most frequent .50\nusable",
        "donor": ".30 read right, most frequent .34\nnot usable",
        "cell_type": "not judged",
        "state": "not judged",
    }
    boxes = [patch for patch in ax.patches if hasattr(patch, "get_width")]
    assert len(boxes) == len(schema.names)
    assert len(ax.patches) - len(boxes) == len(schema.edges)
    assert to_hex(boxes[0].get_edgecolor()) == "#009e73"


def test_it_draws_on_the_axes_given(generator):
    ax = plt.subplots()[1]
    assert causcell.pl.graph(generator, ax=ax) is ax
