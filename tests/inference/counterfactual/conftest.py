"""What tests of interventions share."""

import pytest

from causcell.concepts import ConceptSchema
from causcell.generator import Generator


@pytest.fixture(scope="session")
def schema(generator: Generator) -> ConceptSchema:
    """Concepts and graph of the model that tests share."""
    return generator.schema
