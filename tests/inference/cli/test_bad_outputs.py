"""Places that commands can't write to: what is there is kept, and named."""

import shutil
from pathlib import Path

import pytest
from commands import embed_words, generate_words, refused, says, train_words

from causcell_training import Run


def writers(folder: Path, repository: Path, run: Run, out: Path) -> dict[str, list[object]]:
    """Each command that writes, with ``out`` as its place but for the suffix."""
    good = folder / "good.h5ad"
    return {
        "train": train_words(good, out),
        "export": ["export", run.path, "--out", out],
        "embed": embed_words(good, repository, out.with_suffix(".h5ad")),
        "generate": generate_words(good, repository, out.with_suffix(".zarr")),
        "demo": ["demo", "--out", out, "--no-progress"],
    }


@pytest.mark.parametrize("command", ["train", "export", "embed", "generate", "demo"])
def test_a_place_that_holds_something_is_refused_and_kept(
    folder: Path, repository: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    words = writers(folder, repository, run, tmp_path / "taken")[command]
    place = Path(str(words[words.index("--out") + 1]))
    place.mkdir()
    (place / "mine").write_text("kept")
    says(refused(capsys, *words), str(place), "exists already", "remove it, or name another place")
    assert [path.relative_to(place).as_posix() for path in place.rglob("*")] == ["mine"]
    shutil.rmtree(place)
    place.write_text("mine, too")
    says(refused(capsys, *words), str(place), "exists already")
    assert place.read_text() == "mine, too"
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("command", ["train", "export", "embed", "generate", "demo"])
def test_a_place_inside_a_file_is_refused(
    folder: Path, repository: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "file").write_text("mine")
    words = writers(folder, repository, run, tmp_path / "file" / "out")[command]
    says(refused(capsys, *words), str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", ["train", "export", "embed", "generate", "demo"])
def test_a_place_that_can_not_be_made_is_refused(
    folder: Path, repository: Path, run: Run, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Nobody, root included, makes folders in /proc."""
    says(refused(capsys, *writers(folder, repository, run, Path("/proc/causcell/out"))[command]), "/proc/causcell")


@pytest.mark.parametrize(
    ("command", "fragment"), [("embed", "does not end in .h5ad"), ("generate", "ends neither in .zarr nor in .h5ad")]
)
def test_a_place_of_another_kind_is_refused(
    folder: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, fragment: str
) -> None:
    out = tmp_path / "result.csv"
    words = [command, folder / "good.h5ad", "--models", repository, "--out", out]
    says(refused(capsys, *words), str(out), fragment)
