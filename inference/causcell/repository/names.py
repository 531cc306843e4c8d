"""Names of the files of a model repository, and of the tensors of its graphs."""

from __future__ import annotations

MANIFEST_FILE = "manifest.json"
REFERENCE_FILE = "reference.npz"

EXPRESSION_FLOAT16 = "expression_float16"
"""Output of ``decoder`` and ``sampler``: ``expression`` rounded to float16. Older exports have no such output."""

ABDUCTION = "abduction"
"""Graph that tells exogenous embeddings what a cell's known labels are. Older exports have no such graph, nor have
models that abduct from expression alone."""

INFORMED = "informed"
"""Output of `ABDUCTION`."""

PRIOR = "prior"
"""Graph of p(z_i | value of concept i), for all concepts at once. Models of plain labels have no such graph."""

SLAB = "slab"
"""Graph of what ``decoder`` draws from: probability, mean and deviation of each gene's slab at pure noise, on the
standardised scale. Older exports have no such graph, nor have heads that draw otherwise."""


def graph_file(graph: str) -> str:
    """Return the path of a graph's ONNX file in its repository, a key of `Manifest.files`.

    Examples
    --------
    >>> graph_file("scm")
    'scm/1/model.onnx'
    """
    return f"{graph}/1/model.onnx"


def logits_name(concept: str) -> str:
    """Return the name of the output of graph ``scm`` that holds a concept's label logits.

    Examples
    --------
    >>> logits_name("stim")
    'logits_stim'
    """
    return f"logits_{concept}"


def value_name(concept: str) -> str:
    """Return the name of the output of graph ``scm`` that holds a concept's standardised number.

    Examples
    --------
    >>> value_name("age")
    'value_age'
    """
    return f"value_{concept}"
