"""Options that commands can't use: each is named by its flag, with the value and the remedy."""

from dataclasses import replace
from pathlib import Path

import pytest
import typer
from commands import generate_words, generated, refused, says

from causcell.cli.main import build_app
from causcell.repository.manifest import Manifest


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["--do", "stim=IL2"], ["'stim'", "'IL2'", "'IFN', 'ctrl'"]),
        (["--do", "dose=3"], ["no concept 'dose'", "'stim', 'donor', 'cell_type', 'state'"]),
        (["--do", "stim"], ["'stim'", "CONCEPT=LABEL"]),
        (["--do", "=IFN"], ["'=IFN'", "CONCEPT=LABEL"]),
        (["--do", "stim="], ["'stim='", "CONCEPT=LABEL"]),
        (["--do", "stim=IFN", "--do", "stim=ctrl"], ["'stim'", "'IFN'", "'ctrl'", "--grid"]),
        (["--do", "stim=IFN", "--grid", "stim"], ["'stim'", "--do and --grid", "leave one"]),
        (["--grid", "stim", "--grid", "stim"], ["'stim'", "twice"]),
        (["--grid", "dose"], ["no concept 'dose'", "'stim'"]),
        (["--mode", "undo"], ["mode", "'undo'", "'do', 'exogenous', 'isolated'"]),
        (["--preset", "best"], ["preset", "'best'", "'mean'", "'balanced'", "'accurate'"]),
        (["--steps", "5"], ["steps", "--solver"]),
        (["--eta", "0.5"], ["eta", "--solver"]),
        (["--spacing", "uniform"], ["spacing", "--solver"]),
        (["--solver", "euler", "--steps", "5"], ["'euler'", "'ddim'", "'ddpm'", "'mean'"]),
        (["--solver", "euler"], ["'euler'", "'ddim'", "'ddpm'", "'mean'"]),
        (["--solver", "ddim"], ["'ddim'", "--steps"]),
        (["--solver", "ddim", "--steps", "0"], ["0 steps", "1 to 1000"]),
        (["--solver", "ddim", "--steps", "-3"], ["-3 steps", "1 to 1000"]),
        (["--solver", "ddim", "--steps", "1001"], ["1001 steps", "1 to 1000"]),
        (["--solver", "ddim", "--steps", "5", "--eta", "1.5"], ["eta", "1.5", "0", "1"]),
        (["--solver", "ddim", "--steps", "5", "--spacing", "log"], ["spacing", "'log'", "'trailing', 'uniform'"]),
        (["--solver", "mean", "--steps", "5"], ["mean", "5", "leave it out"]),
        (["--solver", "ddpm", "--steps", "5", "--eta", "0.5"], ["eta", "ddpm", "leave it out"]),
        (["--solver", "ddim", "--steps", "5", "--preset", "mean"], ["'mean'", "'ddim'", "leave one out"]),
        (["--draws", "0"], ["draws", "0", "at least 1"]),
        (["--seed", "-1"], ["--seed -1", "at least 0"]),
        (["--batch-size", "0"], ["--batch-size 0", "at least 1"]),
        (["--threads", "0"], ["threads", "0", "at least 1"]),
        (["--dtype", "int8"], ["dtype", "'int8'", "'float32', 'float16'"]),
        (["--expression", "cpm"], ["'cpm'", "'counts', 'log1p'"]),
        (["--layer", "spliced"], ["'spliced'", "there are none"]),
        (["--allow-missing-genes", "1.5"], ["--allow-missing-genes 1.5", "below 1"]),
        (["--where", "dose == 3"], ["--where", "'dose == 3'", "dose", "'stim', 'donor'"]),
        (["--where", "stim =="], ["--where", "'stim =='", "the columns are"]),
        (["--where", "stim"], ["--where stim ", "yes or no"]),
        (["--where", "stim == 'nothing'"], ["no cells", "stim == 'nothing'"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_options_that_generation_can_not_use(
    folder: Path,
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    fragments: list[str],
) -> None:
    says(
        refused(capsys, *generate_words(folder / "good.h5ad", repository, tmp_path / "atlas.zarr", *words)), *fragments
    )
    assert list(tmp_path.iterdir()) == []


def test_counts_for_a_model_of_log1p_values(
    folder: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How such values were normalised is not known: counts can't be brought to their scale."""
    as_trained = Manifest.preprocessing.fget
    assert as_trained is not None
    monkeypatch.setattr(Manifest, "preprocessing", property(lambda self: replace(as_trained(self), scale="log1p")))
    words = generate_words(folder / "good.h5ad", repository, tmp_path / "atlas.zarr", "--expression", "counts")
    says(refused(capsys, *words), "trained on log1p", "give log1p values")


# -- where graphs are evaluated ----------------------------------------------------------------------------------------


def commands_that_open_a_model() -> list[str]:
    """The commands that take a model repository by its folder or address, or an exported model by ``--models``."""
    group = typer.main.get_command(build_app())
    return [
        name
        for name, command in group.commands.items()
        if {"models", "location"} & {parameter.name for parameter in command.params}
    ]


def words_of(command: str, data: Path, models: Path, stored: Path, out: Path) -> list[object]:
    """The least that a command takes; one that is not known here has to be added."""
    words: dict[str, list[object]] = {
        "inspect": [models],
        "bench": [models, "--out", out.with_suffix(".json")],
        "embed": [data, "--models", models, "--out", out.with_suffix(".h5ad")],
        "generate": [data, "--models", models, "--out", out.with_suffix(".zarr")],
        "materialize": [stored, "--models", models, "--out", out.with_suffix(".zarr")],
        "trial": [data, "--models", models, "--out", out.with_suffix(".h5ad"), "--concept", "stim"],
        "evaluate": [data, "--models", models, "--out", out],
    }
    return [command, *words[command]]


@pytest.fixture(scope="module")
def stored(data: Path, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An atlas of embeddings."""
    path = tmp_path_factory.mktemp("stored") / "stored.zarr"
    generated(data, made, path, "--store", "embeddings", "--where", "donor == 'd1'")
    return path


@pytest.mark.parametrize("command", commands_that_open_a_model())
def test_every_command_that_opens_a_model_takes_a_provider(
    data: Path, made: Path, stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Without a GPU ``cuda`` is refused with what there is and what to install; nothing falls back or is written."""
    capsys.readouterr()
    words = words_of(command, data, made / "models", stored, tmp_path / "out")
    told = refused(capsys, *words, "--provider", "cuda")
    says(told, "no CUDAExecutionProvider; it has ", "install causcell[gpu] in place of causcell[cpu]")
    says(refused(capsys, *words, "--provider", "tpu"), "provider 'tpu' is not known", "'cpu', 'cuda'")
    assert list(tmp_path.iterdir()) == []


# -- how servers are talked to -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (None, ["can't be read"]),
        (b"deadline = [", ["can't be read"]),
        (b"\x89HDF\xff\xfe", ["can't be read"]),
        (b"dead_line = 3\n", ["dead_line", "known are 'deadline', 'patience'"]),
        (b'deadline = "soon"\n', ["deadline", "known are 'deadline'"]),
    ],
    ids=["absent", "bad TOML", "binary", "unknown setting", "not a number"],
)
def test_a_connection_that_can_not_be_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, fragments: list[str]
) -> None:
    """Before any server is asked."""
    settings = tmp_path / "connection.toml"
    if content is not None:
        settings.write_bytes(content)
    out = tmp_path / "atlas.zarr"
    words = generate_words(folder / "good.h5ad", Path("models"), out, "--connection", settings)
    words[words.index(Path("models"))] = "grpc://127.0.0.1:1"
    says(refused(capsys, *words), f"--connection '{settings}'", *fragments)
    assert not out.exists()


def test_a_connection_is_for_servers(
    folder: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "connection.toml").write_text("deadline = 3\n")
    words = generate_words(folder / "good.h5ad", repository, tmp_path / "atlas.zarr")
    says(refused(capsys, *words, "--connection", tmp_path / "connection.toml"), "is a folder", "for servers")
    assert not (tmp_path / "atlas.zarr").exists()
