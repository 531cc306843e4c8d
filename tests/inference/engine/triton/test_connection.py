"""Addresses and connections, before any server is asked."""

import pytest

from causcell.engine.triton.connection import Connection, parse_location
from causcell.errors import ConfigurationError


def test_addresses():
    addresses = parse_location("grpc://a, https://b,http://[::1]:80,grpcs://c:9")
    assert [str(each) for each in addresses] == ["grpc://a:8001", "https://b:443", "http://[::1]:80", "grpcs://c:9"]
    assert [each.is_grpc for each in addresses] == [True, False, False, True]
    assert [each.is_secure for each in addresses] == [False, True, False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deadline": 0}, "deadline is 0; take seconds above 0"),
        ({"patience": -1}, "patience is -1; take seconds, at least 0"),
        ({"in_flight": 0}, "in_flight is 0; take at least 1"),
        ({"certificates": "/none"}, "certificates is '/none', where there is no file; name a PEM file"),
    ],
)
def test_connections_that_can_not_be(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Connection(**options)
