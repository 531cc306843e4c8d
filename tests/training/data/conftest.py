"""Training data that tests share."""

import anndata
import pytest
from short_runs import small_config

from causcell_training.data.cells import TrainingData, prepare


@pytest.fixture(scope="session")
def prepared(cells: anndata.AnnData) -> TrainingData:
    """50 highly variable genes of 60, cells held out at random."""
    return prepare(cells, small_config())
