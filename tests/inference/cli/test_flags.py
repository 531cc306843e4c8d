"""Messages name flags on the command line and arguments in Python, and leave the user's own words alone."""

import ast
import re
from pathlib import Path

import anndata
import pytest
import typer
from commands import generate_words, refused, says

import causcell
from causcell.cli.flags import command_flags, name_flags
from causcell.cli.main import build_app
from causcell.errors import CausCellError
from causcell.generator import Generator

PACKAGE = Path(causcell.__file__).parent


def every_flag() -> dict[str, set[str]]:
    """Flags of all commands, by the names of their arguments in Python."""
    group = typer.main.get_command(build_app())
    flags: dict[str, set[str]] = {}
    for command in group.commands.values():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                flags.setdefault(parameter.name, set()).update(parameter.opts)
    return flags


def spell(node: ast.expr) -> str | None:
    """Text of a literal; what is put into it is ``'x'``."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(spell(part) if isinstance(part, ast.Constant) else "'x'" for part in node.values)
    return None


STYLE = re.compile(r"var\(--|[{;]--")


def messages(file: Path) -> list[str]:
    """All text of a source file that has words in it, but docstrings, markup and style sheets."""
    tree = ast.parse(file.read_text())
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    inner |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [spell(node) for node in ast.walk(tree) if isinstance(node, ast.expr) and id(node) not in inner]
    return [text for text in texts if text and " " in text and "<" not in text and not STYLE.search(text)]


FLAGS = every_flag()
FILES = {str(file.relative_to(PACKAGE)): file for file in sorted(PACKAGE.rglob("*.py"))}
NAMES = "|".join(sorted(FLAGS, key=len, reverse=True))
ARGUMENT = re.compile(rf"(?<![\w.])({NAMES})=")
WITH_ARGUMENTS = [
    pytest.param(text, id=f"{name}: {text[:40]}")
    for name, file in FILES.items()
    for text in messages(file)
    if ARGUMENT.search(text)
]


def test_messages_with_arguments_are_found() -> None:
    """The search below is not empty: it finds those that every user meets."""
    found = " ".join(parameter.values[0] for parameter in WITH_ARGUMENTS)
    for argument in ("steps=", "solver=", "where=", "allow_missing_genes=", "do=", "grid=", "store=", "out="):
        assert argument in found


@pytest.mark.parametrize("text", WITH_ARGUMENTS)
def test_every_argument_that_a_message_names_becomes_a_flag(text: str) -> None:
    """On the command line no ``name=`` is left, whichever command ran."""
    flags = command_flags(build_app(), ["generate"])
    named = ARGUMENT.findall(text)
    told = name_flags(text, flags)
    assert not ARGUMENT.search(told)
    for name in named:
        assert flags[name] in told


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("cli")])
def test_no_message_outside_the_command_line_names_a_flag(name: str) -> None:
    """Python's users read it too."""
    flags = {flag for each in FLAGS.values() for flag in each}
    found = [text for text in messages(FILES[name]) if flags & set(re.findall(r"(?<![\w-])--[a-z-]+(?![\w-])", text))]
    assert found == []


@pytest.mark.parametrize("name", FILES)
def test_an_argument_of_several_words_is_named_as_one(name: str) -> None:
    """``batch_size`` alone would stay as it is; ``batch_size=`` becomes its flag. Names in quotes are columns."""
    several = "|".join(each for each in FLAGS if "_" in each)
    assert [text for text in messages(FILES[name]) if re.search(rf"(?<![\w.'])({several})(?![\w=])", text)] == []


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("needs a number of steps (steps=20)", "needs a number of steps (--steps 20)"),
        ("name one (solver='ddim') or leave it out", "name one (--solver ddim) or leave it out"),
        ("set match_parents=True", "set --match-parents"),
        ("named twice by do= and grid=; leave one out", "named twice by --do and --grid; leave one out"),
        ("where='stim ==' can't be evaluated", "--where 'stim ==' can't be evaluated"),
        ("where=\"stim == 'a'\" can't be evaluated", "--where \"stim == 'a'\" can't be evaluated"),
        ("allow it with allow_missing_genes=0.05", "allow it with --allow-missing-genes 0.05"),
        ("keep less (store=, dtype='float16')", "keep less (--store, --dtype float16)"),
        ("draws=-1: take at least 1", "--draws -1: take at least 1"),
    ],
)
def test_arguments_become_flags(message: str, told: str) -> None:
    assert name_flags(message, command_flags(build_app(), ["generate"])) == told


@pytest.mark.parametrize(
    "message",
    [
        "an intervention is given twice: 'seed=5'",
        "an intervention is given twice: 'stim=IFN;layer=IV'",
        "there is no file '/data/seed=3/cells.h5ad'",
        "there is no file 'draws=3/cells.h5ad'",
        "causcell[where=x]",
        "scanpy.pp.filter_cells(adata, min_counts=1)",
        "adata.layers=3",
        "nothing of the kind",
    ],
)
def test_what_is_no_argument_is_left_alone(message: str) -> None:
    """Labels, paths and other functions' arguments; and everything where a command has no flags."""
    assert name_flags(message, command_flags(build_app(), ["generate"])) == message
    assert name_flags("steps=20", {}) == "steps=20"


def test_the_flags_of_the_command_that_ran_go_before_others() -> None:
    app = typer.Typer()

    @app.command()
    def one(size: int = typer.Option(1, "--size")) -> None: ...

    @app.command()
    def two(size: int = typer.Option(1, "--extent")) -> None: ...

    assert command_flags(app, ["one"])["size"] == "--size"
    assert command_flags(app, ["two"])["size"] == "--extent"


# -- the same fault, by both doors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words", "in_python", "on_the_command_line"),
    [
        ({"solver": "ddim"}, ["--solver", "ddim"], "(steps=20)", "(--steps 20)"),
        ({"steps": 5}, ["--steps", "5"], "(solver='ddim')", "(--solver ddim)"),
        ({"store": "summary"}, ["--store", "summary"], "(store='summary')", "(--store summary)"),
        ({"store": "effects"}, ["--store", "effects"], "(do= or grid=)", "(--do or --grid)"),
        ({"where": "stim"}, ["--where", "stim"], "where='stim'", "--where stim"),
        ({"expression": "log1p"}, ["--expression", "log1p"], "(expression='counts')", "(--expression counts)"),
        ({"allow_missing_genes": 2.0}, ["--allow-missing-genes", "2.0"], "missing_genes=2.0", "missing-genes 2.0"),
        ({"grid": ["stim", "stim"]}, ["--grid", "stim", "--grid", "stim"], "do= and grid=", "--do and --grid"),
    ],
    ids=str,
)
def test_python_is_told_of_arguments_and_the_command_line_of_flags(
    generator: Generator,
    cells: anndata.AnnData,
    folder: Path,
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, object],
    words: list[str],
    in_python: str,
    on_the_command_line: str,
) -> None:
    with pytest.raises(CausCellError) as caught:
        generator.counterfactual(cells, **options)
    assert in_python in str(caught.value)
    assert "--" not in str(caught.value)
    told = refused(capsys, *generate_words(folder / "good.h5ad", repository, tmp_path / "atlas.zarr", *words))
    says(told, on_the_command_line)
    assert in_python not in told


def test_a_message_may_speak_of_another_command(
    made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``materialize`` has no ``--store``, and asks for an atlas that ``generate`` makes with it."""
    stored = tmp_path / "expression.zarr"
    with Generator.open(made / "models", threads=1) as generator:
        generator.write_atlas(data, stored, where="donor == 'd1'")
    words = ["materialize", stored, "--models", made / "models", "--out", tmp_path / "made.zarr", "--no-progress"]
    says(refused(capsys, *words), "give an atlas made with --store embeddings")
