"""``causcell materialize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from causcell.cli import options


def materialize(
    embeddings: Annotated[
        Path, typer.Argument(help="Atlas made with --store embeddings (also s3://, gs://).", show_default=False)
    ],
    models: options.Models,
    out: Annotated[Path, typer.Option(help="Atlas to write, .zarr (also s3://, gs://).", show_default=False)],
    dtype: options.DType = "float32",
    layout: options.Layout = None,
    chunk_size: options.ChunkSize = "2MB",
    shard_size: options.ShardSize = "128MB",
    threads: Annotated[
        int | None, typer.Option(help="Compute threads. [default: those that made the embeddings]")
    ] = None,
    provider: options.Provider = None,
    connection: options.ConnectionFile = None,
    progress: options.Progress = True,
    as_json: options.AsJson = False,
) -> None:
    r"""Generate the expression that an atlas of embeddings stands for, bit for bit as if it had been stored.

    Examples
    --------
    causcell materialize embeddings.zarr --models models --out atlas.zarr
    causcell materialize embeddings.zarr --models models --out small.zarr \
        --dtype float16
    """
    from causcell._internal.choices import check_choice
    from causcell._internal.remote import any_path
    from causcell._internal.units import parse_size
    from causcell.atlas.journal import Journal
    from causcell.atlas.materialize import materialize_atlas
    from causcell.cli.events import print_summary
    from causcell.counterfactual.request import DTYPES
    from causcell.engine.open import is_address
    from causcell.generator import Generator

    place = any_path(out)
    options.require_suffix(place, ".zarr")
    stored = Journal(any_path(embeddings, "embeddings")).require_plan()
    if threads is None and not is_address(models):
        threads = stored.threads or 1
    link = options.read_connection(connection)
    with Generator.open(
        models, threads=threads, provider=provider, batch_size=stored.batch_size, connection=link
    ) as generator:
        plan, summary = materialize_atlas(
            generator.model,
            embeddings,
            place,
            dtype=check_choice(dtype, DTYPES, "dtype"),
            layout=layout,
            chunk_size=parse_size(chunk_size),
            shard_size=parse_size(shard_size),
            progress=progress,
        )
    print_summary(plan, summary, place, as_json)
