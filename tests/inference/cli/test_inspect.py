"""``causcell inspect``: what is inside a model repository, for people and for machines."""

import json
import re
from pathlib import Path

import pytest
from commands import run_command


def test_inspect_tells_a_machine_what_is_inside(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("inspect", made / "models", "--json") == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    manifest = json.loads((made / "models" / "manifest.json").read_text())
    assert told["verified"] is True
    assert told["digest"] == manifest["digest"]
    assert told["concepts"] == {"stim": ["IFN", "ctrl"], "cell_type": ["B", "NK", "T"], "state": ["active", "rest"]}
    assert told["edges"] == ["stim:state", "cell_type:state"]
    assert told["genes"]["count"] == 40
    assert (told["presets"]["balanced"]["solver"], told["presets"]["balanced"]["steps"]) == ("draw", 10)
    assert told["presets"]["draw"]["pcc"] == manifest["presets"]["draw"]["quality"]["pcc"]
    assert told["expression"] == {"scale": "counts", "target_sum": 10000, "normalisation_genes": 60}
    assert set(told["graphs"]) == {"encoder_scm", "abduction", "scm", "denoiser", "decoder", "slab", "sampler"}
    assert err == ""


def test_inspect_tells_a_reader_the_same(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("inspect", made / "models") == 0
    out = capsys.readouterr().out
    assert "verified: True" in out
    assert re.search(
        r"  scm: maximum \S{1,8}; mean \S{1,8}; limit 0.0001; flips 0\n", out
    )  # short, and whole where whole
    assert "None" not in out
    assert "cell_type: B, NK, T" in out
    assert "edges: stim:state, cell_type:state" in out
    assert "error of effects, measured on training cells; intervals tried on held-out ones:" in out
    lines = out.splitlines()
    at = lines.index(next(line for line in lines if line.startswith("presets, measured on")))
    table = [line.split() for line in lines[at + 1 : at + 7]]
    ends = [{found.end() for found in re.finditer(r"\S+(?: \S+)*", line)} for line in lines[at + 1 : at + 7]]
    assert table[0][:2] == ["solver", "steps"]
    assert [row[0] for row in table[1:]] == ["draw", "balanced", "accurate", "mean", "real"]
    assert table[2][1:3] == ["draw", "10"]
    for line, places in zip(lines[at + 2 : at + 7], ends[1:], strict=True):
        first = len(line) - len(line.lstrip()) + len(line.split()[0])
        assert places - {first} <= ends[0]  # columns are in line
