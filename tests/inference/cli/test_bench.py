"""``causcell bench``: it writes what it measured, once."""

import json
from pathlib import Path

import pytest
from commands import run_command

pytestmark = pytest.mark.slow  # figures are measured


def test_bench_writes_what_it_measured(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    assert run_command("bench", made / "models", "--out", out, "--batch", 2, "--batch", 5, "--seconds", 0.01) == 0
    told = json.loads(out.read_text())
    assert set(told["presets"]["draw"]["latency"]["1"]) == {"2", "5"}
    assert told["ratio_to_reference"] > 0
    assert "the reference design" in capsys.readouterr().out
    before = out.read_text()
    assert run_command("bench", made / "models", "--out", out) == 2  # a result is not overwritten
    assert out.read_text() == before


@pytest.mark.parametrize("options", [["--batch", 0], ["--seconds", 0]], ids=str)
def test_bench_of_nothing(
    made: Path, tmp_path: Path, options: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("bench", made / "models", "--out", tmp_path / "results.json", *options) == 2
    assert "take numbers above 0" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
