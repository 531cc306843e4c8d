"""Options that several commands share, spelt alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from causcell._internal.remote import AnyPath
    from causcell.engine.triton.connection import Connection

_LOCATION = (
    "Model repository: its folder, its name on a hub (hf://OWNER/NAME), or the address of a server "
    "(grpc://host:8001, http://host:8000)."
)

# -- cells -------------------------------------------------------------------------------------------------------------

Data = Annotated[Path, typer.Argument(help="Cells: .h5ad or .zarr.", show_default=False)]
Files = Annotated[
    list[str],
    typer.Argument(
        help="Cells: .h5ad or .zarr. Several files are one collection, cells named KEY:NAME; a file's key is its name, "
        "or is given as KEY=PATH.",
        show_default=False,
    ),
]
Concepts = Annotated[
    list[str] | None,
    typer.Option(
        "--concept",
        help="Column of obs with a concept's labels, or NAME:KIND: labels, ordinal, continuous or set; repeat.",
        show_default=False,
    ),
]
LabelFeatures = Annotated[
    list[str] | None,
    typer.Option(
        "--label-features",
        help="NAME=FILE.csv, a table of labels' features: a header, then a label and its numbers a row; repeat.",
        show_default=False,
    ),
]
SetControl = Annotated[
    list[str] | None,
    typer.Option(
        "--set-control", help="NAME=LABEL, the label of cells without members of a set; repeat.", show_default=False
    ),
]
Edges = Annotated[
    list[str] | None, typer.Option("--edge", help="PARENT:CHILD, a causal edge; repeat.", show_default=False)
]
Expression = Annotated[
    str | None,
    typer.Option(help="What the values are: counts or log1p. They are checked. [default: as in training]"),
]
Genes = Annotated[
    str | None,
    typer.Option(
        metavar="N|all|highly_variable|FILE",
        help="A number of genes to choose, all, those that var['highly_variable'] marks, or a file with one name a "
        "line. [default: 2000]",
    ),
]
GeneSelection = Annotated[
    str | None,
    typer.Option(
        help="How a number of genes is chosen: dispersion, variance, seurat_v3, labels or variance_labels. "
        "[default: variance_labels]"
    ),
]
BatchKey = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Column of obs with batches: genes are chosen by what varies within them."),
]
IncludeGenes = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE|NAME,...", help="Genes that are on the panel anyhow: names, or a file of them; repeat."),
]
Cache = Annotated[
    str,
    typer.Option(
        metavar="auto|memory|disk|FOLDER",
        help="Where the panel's values are kept while a model is trained: in memory, in a file beside the run or in "
        "FOLDER (6 bytes a nonzero value, gone in the end); auto: in memory up to 128 MB.",
    ),
]
Layer = Annotated[str | None, typer.Option(help="Read this layer in place of X.")]
Raw = Annotated[bool, typer.Option("--raw", help="Read genes and values of adata.raw in place of X.")]
Totals = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column of obs with each cell's total of counts, such as n_counts: for files that were cut down to some "
        "genes.",
    ),
]
RoundCounts = Annotated[
    bool,
    typer.Option(
        "--round",
        help="Round counts that are not whole: floating point left a rest, or they were corrected for ambient RNA or "
        "estimated.",
    ),
]
Where = Annotated[
    str | None,
    typer.Option(help="Only these cells: a condition on columns of obs, such as 'cell_type == \"B cells\"'."),
]
MissingGenes = Annotated[
    float,
    typer.Option(
        "--allow-missing-genes",
        help="Share of the model's genes that may be absent, filled with the training mean, and of a cell's total that "
        "absent genes may carry, by which totals are corrected.",
    ),
]

# -- the model ---------------------------------------------------------------------------------------------------------

Location = Annotated[str, typer.Argument(help=_LOCATION, show_default=False)]
Models = Annotated[str, typer.Option(help=_LOCATION, show_default=False)]
ModelsOrNone = Annotated[str | None, typer.Option("--models", help=_LOCATION, show_default=False)]
BatchSize = Annotated[int, typer.Option(help="Cells of a network evaluation.")]
Threads = Annotated[int | None, typer.Option(help="Compute threads in this process. [default: all CPUs allowed]")]
WorkerThreads = Annotated[
    int | None,
    typer.Option(help="Compute threads of each worker; reading and writing have their own. [default: 1]"),
]
Provider = Annotated[
    str | None, typer.Option(help="Where graphs are evaluated: cpu or cuda. [default: cpu]", show_default=False)
]
ConnectionFile = Annotated[
    Path | None,
    typer.Option(
        "--connection",
        help="For servers: a TOML file with deadline, patience, in_flight, shared_memory, certificates, and headers in "
        "a table of that name.",
        show_default=False,
    ),
]

# -- what is generated -------------------------------------------------------------------------------------------------

Do = Annotated[
    list[str] | None,
    typer.Option(
        help="CONCEPT=LABEL, or =VALUE: a number (age=30), members of a set (perturbation=A+B), a label known by its "
        "features; several are one joint intervention. None: reconstruct.",
        show_default=False,
    ),
]
Grid = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONCEPT[=START:STOP:STEP]",
        help="Concept to take every label of, or a range of its numbers (dose=0:10:0.5); several multiply.",
        show_default=False,
    ),
]
Target = Annotated[
    str,
    typer.Option(
        help="Embeddings of labels: of drawn reference cells that carry them (reference); drawn from the concept's "
        "prior, as those of other values are (prior); the cell's own, moved by the difference of the labels' means "
        "(own)."
    ),
]
Mode = Annotated[str, typer.Option(help="do, exogenous or isolated.")]
MatchParents = Annotated[
    bool, typer.Option("--match-parents", help="Draw reference cells with the same labels of the target's parents.")
]
Preset = Annotated[str | None, typer.Option(help="Solver setting of the model. [default: the model's]")]
Solver = Annotated[str | None, typer.Option(help="draw, ddim, dpmpp, ddpm, mean or a plugin's, in place of a preset.")]
Steps = Annotated[int | None, typer.Option(help="Steps of the solver.")]
Spacing = Annotated[
    str | None, typer.Option(help="Spacing of the steps: trailing, uniform or log_snr. [default: trailing]")
]
Eta = Annotated[float | None, typer.Option(help="Noise of ddim, 0 to 1.")]
Draws = Annotated[int, typer.Option(help="Samples of a cell and intervention.")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]
Store = Annotated[
    str,
    typer.Option(
        help="What to keep: expression; counts (of the same samples); embeddings (see materialize); effects (less the "
        "factual cell with the same noise); summary (mean and deviation over draws; each effect with its interval)."
    ),
]
LibrarySize = Annotated[
    int | None,
    typer.Option(metavar="N", help="Total that every cell's counts are made for. [default: the cell's own]"),
]
Interval = Annotated[
    float,
    typer.Option(help="Level of intervals of effects: draws or cells, and the model's measured error."),
]
KeepObs = Annotated[
    list[str] | None,
    typer.Option(
        metavar="none|NAME",
        help="Column of the cells' obs that the result has too; repeat. [default: all]",
        show_default=False,
    ),
]
KeepObsm = Annotated[
    list[str] | None,
    typer.Option(
        metavar="none|KEY",
        help="Element of the cells' obsm that the result has too; repeat. [default: spatial]",
        show_default=False,
    ),
]

# -- the atlas ---------------------------------------------------------------------------------------------------------

DType = Annotated[str, typer.Option(help="Type of the expression: float32 or float16.")]
Layout = Annotated[
    str | None,
    typer.Option(
        help="X as a CSR matrix (csr), which leaves out zeros, or dense. [default: csr for float32 expression and "
        "counts that are drawn, else dense]"
    ),
]
ChunkSize = Annotated[str, typer.Option(help="What readers fetch at once, uncompressed.")]
ShardSize = Annotated[str, typer.Option(help="What is made and committed at once, uncompressed.")]

# -- the terminal ------------------------------------------------------------------------------------------------------

Progress = Annotated[bool, typer.Option(help="Show progress.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def name_files(data: list[str]) -> str | dict[str, str]:
    """Return a path, or paths by key; raises `ConfigurationError` for a key given twice."""
    from causcell._internal.remote import READABLE, any_path
    from causcell.errors import ConfigurationError

    pairs = []
    for text in data:
        key, equals, path = text.partition("=")
        named = equals and "://" not in key and not Path(text).exists()
        pairs.append((key, path) if named else (None, text))
    if len(pairs) == 1 and pairs[0][0] is None:
        return str(any_path(data[0], "data", READABLE).absolute())
    keyed = [(key or Path(path).stem, str(any_path(path, "data", READABLE).absolute())) for key, path in pairs]
    keys = [key for key, _ in keyed]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise ConfigurationError(
            f"several files have the key {sorted(twice)[0]!r}, which their cells' names begin with; give each its own: "
            "KEY=PATH"
        )
    return dict(keyed)


def read_genes(text: str) -> int | str:
    """Read ``--genes``: a number where it is one.

    Examples
    --------
    >>> read_genes("2000"), read_genes("all")
    (2000, 'all')
    """
    return int(text) if text.removeprefix("-").isdecimal() else text


def read_connection(path: Path | None) -> Connection | None:
    """Read how to talk to servers from a TOML file; raises `ConfigurationError`."""
    if path is None:
        return None
    from dataclasses import fields

    from pydantic import TypeAdapter, ValidationError

    from causcell._internal.toml import as_json, explain, read_toml
    from causcell.engine.triton.connection import Connection
    from causcell.errors import ConfigurationError

    settings = read_toml(path, "connection")
    try:
        return TypeAdapter(Connection).validate_json(as_json(settings), strict=True)
    except ValidationError as error:
        told = explain(error, [each.name for each in fields(Connection)])
        raise ConfigurationError(f"connection={str(path)!r}: {told}") from error


def require_suffix(out: AnyPath, suffix: str) -> None:
    """Raise `ConfigurationError` unless the output's name ends in ``suffix``."""
    from causcell.errors import ConfigurationError

    if out.suffix != suffix:
        raise ConfigurationError(f"out={str(out)!r} does not end in {suffix}")
