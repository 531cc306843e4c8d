"""A model whose concepts were judged otherwise."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from causcell.repository.folder import open_repository
from causcell.repository.manifest import MANIFEST_FILE
from causcell.repository.served import CARRIER_CONFIG, manifest_parameter
from causcell.repository.verdicts import Verdict


def judge_again(repository: Path, out: Path, verdicts: Sequence[Verdict]) -> Path:
    """Copy a model repository, with other verdicts in its manifest."""
    shutil.copytree(repository, out)
    before = (out / MANIFEST_FILE).read_text()
    after = open_repository(out).manifest.model_copy(update={"verdicts": tuple(verdicts)}).sealed().to_json()
    (out / MANIFEST_FILE).write_text(after)
    carrier = (out / CARRIER_CONFIG).read_text()
    was, becomes = (_escape(manifest_parameter(json.loads(text))) for text in (before, after))
    assert was in carrier
    (out / CARRIER_CONFIG).write_text(carrier.replace(was, becomes))
    return out


def _escape(text: str) -> str:
    """Write ASCII text as protobuf's text format does."""
    for character in ("\\", '"', "'"):
        text = text.replace(character, f"\\{character}")
    return text
