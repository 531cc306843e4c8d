from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repository():
    return Path("/tmp/atlas_x/fixture_repo")
