"""Addresses and connections, before any server is asked."""

import math

import pytest

from causcell.engine.triton.connection import Connection, parse_location
from causcell.errors import ConfigurationError

ENDLESS = (math.inf, math.nan, 1e10)
"""Seconds that no socket waits for."""


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
        ({"in_flight": 0}, "in_flight=0: take at least 1"),
        ({"in_flight": 1.5}, "in_flight=1.5: take a whole number from 1 to 4096"),
        ({"certificates": "/none"}, "certificates is '/none', where there is no file; name a PEM file"),
        ({"certificates": __file__}, "which can't be read as certificates .*name a PEM file of authorities"),
        *[({"deadline": wrong}, f"deadline is {wrong}; take seconds above 0, at most") for wrong in (*ENDLESS, True)],
        *[({"patience": wrong}, f"patience is {wrong}; take seconds, at least 0, at most") for wrong in ENDLESS],
        ({"headers": {"a b": "c"}}, "headers has the name 'a b'; take letters"),
        ({"headers": {"a\r\nb": "c"}}, r"headers has the name 'a\\r\\nb'; take letters"),
        ({"headers": {"a": "c\r\nHost: other"}}, "header 'a' has a value that is not one line of ASCII text"),
        ({"headers": {"a": "\u00fc"}}, "header 'a' has a value that is not one line of ASCII text"),
        ({"headers": {"Content-Length": "1"}}, "headers has 'Content-Length', which the client sets itself"),
        ({"headers": {"grpc-timeout": "1"}}, "headers has 'grpc-timeout', which the client sets itself"),
    ],
)
def test_connections_that_can_not_be(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Connection(**options)


def test_a_header_that_can_not_be_sent_is_not_shown():
    """Its value may be a token."""
    with pytest.raises(ConfigurationError) as caught:
        Connection(headers={"authorization": "Bearer secret\n"})
    assert "secret" not in str(caught.value)
