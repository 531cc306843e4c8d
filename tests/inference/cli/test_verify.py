"""``causcell verify``: damage is named, and told by the exit status."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import generated, run_command


def test_verify_names_damage_by_its_status(
    data: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "atlas.zarr"
    whole = generated(data, made, out, "--layout", "dense")
    assert run_command("verify", out, "--no-progress") == 0
    assert "is sound: 320 rows in 1 shard" in capsys.readouterr().out
    shard = out / "X" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-9] + b"something")
    assert run_command("verify", out, "--no-progress") == 1
    assert "shard 0 is damaged: X/c/0/0\nrun the command that made it again" in capsys.readouterr().out
    assert run_command("verify", out, "--no-progress", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["missing"], told["damaged"], told["sound"]) == ([0], {}, False)  # its record was taken back
    np.testing.assert_array_equal(generated(data, made, out, "--layout", "dense").X, whole.X)
    assert run_command("verify", out, "--no-progress") == 0
