"""Digests are those of the standard, and tell names and files apart."""

import hashlib

import numpy as np

from causcell._internal.digests import file_digest, name_digests


def test_the_digest_of_a_file_is_its_sha256(tmp_path):
    content = bytes(range(256)) * 9000
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    (tmp_path / "empty").touch()
    assert file_digest(tmp_path / "empty") == hashlib.sha256(b"").hexdigest()


def test_names_are_told_apart_and_equal_ones_are_equal():
    names = [f"cell_{i}" for i in range(1000)] + ["cell_0", "Zelle_ä", ""]
    digests = name_digests(names)
    assert digests.dtype == np.uint64
    assert len(set(digests.tolist())) == 1002
    assert digests[1000] == digests[0]


def test_a_digest_does_not_depend_on_the_other_names_or_the_machine():
    """Plans of atlases hold digests of names: they must be the same everywhere, for good."""
    assert name_digests(["cell_1"])[0] == name_digests(["cell_0", "cell_1"])[1]
    expected = int.from_bytes(hashlib.blake2b(b"cell_1", digest_size=8).digest(), "little")
    assert int(name_digests(iter(["cell_1"]))[0]) == expected
    assert len(name_digests([])) == 0
