"""``causcell verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from causcell.cli import options


def verify(
    atlas: Annotated[Path, typer.Argument(help="Atlas, .zarr (also s3://, gs://).", show_default=False)],
    progress: options.Progress = True,
    as_json: options.AsJson = False,
) -> None:
    """Check every file of an atlas by its digest; what is damaged is made anew by the next generate.

    Examples
    --------
    causcell verify atlas.zarr
    causcell verify atlas.zarr --json
    """
    from causcell._internal.remote import any_path
    from causcell.atlas.verify import verify_atlas
    from causcell.cli.events import print_verification

    place = any_path(atlas, "atlas")
    found = verify_atlas(place, progress=progress)
    print_verification(found, place, as_json)
    if not found.sound:
        raise typer.Exit(1)
