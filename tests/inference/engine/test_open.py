"""Which engine a location opens, and options that are not its own."""

import pytest

from causcell.engine.onnx import OnnxEngine
from causcell.engine.open import is_address, open_engine
from causcell.engine.providers import PROVIDERS
from causcell.engine.triton.connection import Connection
from causcell.errors import ConfigurationError, RuntimeUnavailableError

ADDRESS = "grpc://127.0.0.1:9"  # nobody is asked: options are looked at first


def test_a_folder_opens_in_this_process(repository):
    assert isinstance(open_engine(repository, threads=1), OnnxEngine)
    assert isinstance(open_engine(str(repository), threads=1, provider="cpu"), OnnxEngine)


@pytest.mark.parametrize("scheme", ["grpc", "grpcs", "http", "https"])
def test_a_scheme_makes_an_address(scheme):
    assert is_address(f"{scheme}://host:1")
    assert not is_address(f"{scheme}/host:1")


@pytest.mark.parametrize("options", [{"threads": 1}, *({"provider": name} for name in PROVIDERS)], ids=str)
def test_threads_and_provider_are_the_servers(options):
    ((name, value),) = options.items()
    with pytest.raises(ConfigurationError, match=rf"{name} is {value!r}, but is chosen where {ADDRESS} is served"):
        open_engine(ADDRESS, **options)


def test_a_connection_is_for_servers(repository):
    with pytest.raises(ConfigurationError, match="a connection is for servers: leave it out"):
        open_engine(repository, connection=Connection())


def test_cuda_where_the_runtime_has_none(repository):
    """The CPU's runtime, which the tests run with, never takes CUDA's place."""
    with pytest.raises(RuntimeUnavailableError, match="CUDAExecutionProvider"):
        open_engine(repository, provider="cuda")


@pytest.mark.parametrize(
    "location",
    ["ftp://host:1", "grpc://", "grpc://host:port", "http://host:8000/models", "grpc://a:1,", "grpc://a:1,grpc://a:1"],
)
def test_a_location_that_is_no_address(location):
    with pytest.raises(ConfigurationError, match=r"is no address of a server|names a server twice"):
        open_engine(location)
