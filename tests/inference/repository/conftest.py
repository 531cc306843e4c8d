"""A hub on loopback, which this process and the processes that it starts find."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from false_hub import FalseHub, run_hub, use_hub
from paths import MODEL_REPOSITORY

from causcell.repository.sharing import Pushed, push


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FalseHub]:
    """An empty one, and an empty cache."""
    pytest.importorskip("huggingface_hub", reason="takes causcell[hub]")
    with run_hub() as running:
        use_hub(monkeypatch, running.address, tmp_path / "home")
        yield running


@pytest.fixture
def shared(hub: FalseHub) -> Pushed:
    """The model of the checkout, shared as lab/pbmc."""
    return push(MODEL_REPOSITORY, "hf://lab/pbmc", license="cc-by-4.0", data="10x Genomics, PBMC")
