"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from causcell.engine.triton.connection import Connection

Data = Annotated[Path, typer.Argument(help="Cells: .h5ad or .zarr.", show_default=False)]
_LOCATION = "Model repository: its folder, or the address of a server (grpc://host:8001, http://host:8000)."
Location = Annotated[str, typer.Argument(help=_LOCATION, show_default=False)]
Models = Annotated[str, typer.Option(help=_LOCATION, show_default=False)]
ConnectionFile = Annotated[
    Path | None,
    typer.Option(
        "--connection",
        help="For servers: a TOML file with deadline, patience, in_flight, shared_memory, certificates, [headers].",
        show_default=False,
    ),
]
Expression = Annotated[
    str | None,
    typer.Option(help="What the values are: counts or log1p. They are checked. [default: as in training]"),
]
Layer = Annotated[str | None, typer.Option(help="Read this layer in place of X.")]
Where = Annotated[
    str | None, typer.Option(help="Only these cells: a pandas query over obs, such as 'cell_type == \"B cells\"'.")
]
MissingGenes = Annotated[
    float,
    typer.Option(
        "--allow-missing-genes", help="Share of the model's genes that may be absent; filled with the training mean."
    ),
]
BatchSize = Annotated[int, typer.Option(help="Cells a network evaluation.")]
Threads = Annotated[int | None, typer.Option(help="Compute threads in this process. [default: all CPUs allowed]")]
Seed = Annotated[int, typer.Option(help="Of all random numbers.")]
Progress = Annotated[bool, typer.Option(help="Show progress.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def read_connection(path: Path | None) -> Connection | None:
    """From a TOML file; raises `ConfigurationError`."""
    if path is None:
        return None
    import tomllib

    from pydantic import TypeAdapter, ValidationError

    from causcell.engine.triton.connection import Connection
    from causcell.errors import ConfigurationError, format_list

    try:
        return TypeAdapter(Connection).validate_python(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"--connection {str(path)!r} can't be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigurationError(
            f"--connection {str(path)!r}: {place}: {first['msg']}; known are "
            f"{format_list(Connection.__dataclass_fields__)}"
        ) from error
