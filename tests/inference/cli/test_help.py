"""Help that is read: at 80 columns, nothing eaten, by subject, with defaults and two examples that are commands."""

import re
import shlex
import subprocess

import pytest
import typer
from commands import COMMANDS, CONSOLE_SCRIPT, run_command

from causcell.cli.help import COMMANDS as SUBJECTS_OF_COMMANDS
from causcell.cli.help import SUBJECTS, explain, split_examples
from causcell.cli.main import build_app

GROUP = typer.main.get_command(build_app())


@pytest.fixture
def shown(monkeypatch, capsys):
    """The help of a command, as a terminal of 80 columns has it."""
    monkeypatch.setenv("COLUMNS", "80")

    def show(*words):
        assert run_command(*words, "--help") == 0
        return re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)

    return show


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_and_holds_every_option_whole(command, shown):
    out = shown(command)
    assert max(map(len, out.splitlines())) <= 80
    for parameter in GROUP.commands[command].params:
        if not getattr(parameter, "hidden", False):
            assert all(option in out for option in parameter.opts if option.startswith("--"))
            assert "".join(explain(parameter).split()) in "".join(out.split())  # every character, markup too


@pytest.mark.parametrize("command", COMMANDS)
def test_two_examples_that_are_commands(command, shown):
    """Each parses: its flags are there, what is required is given."""
    _, lines = split_examples(GROUP.commands[command].help)
    examples = "\n".join(lines).replace("\\\n", " ").splitlines()
    assert len(examples) == 2
    for example in examples:
        program, name, *words = shlex.split(example)
        assert (program, name) == ("causcell", command)
        GROUP.commands[command].make_context(name, words)
        assert example.split(" \\")[0][:40] in shown(command)


def test_commands_and_options_stand_under_a_subject():
    assert {name for names in SUBJECTS_OF_COMMANDS.values() for name in names} == set(COMMANDS)
    listed = {name for names in SUBJECTS.values() for name in names}
    there = {
        parameter.name
        for command in GROUP.commands.values()
        for parameter in command.params
        if parameter.param_type_name == "option" and not parameter.required and not getattr(parameter, "hidden", False)
    }
    assert there - listed - {"out", "concept"} == set()
    assert listed - there - {"help", "concepts", "edges", "concept", "models"} == set()


def test_defaults_are_told_as_they_are_written(shown):
    out = " ".join(shown("generate").split())
    assert "Cells of a network evaluation. [default: 256]" in out
    assert "checked. [default: as in training]" in out
    assert "are corrected. [default: 0]" in out


def test_the_list_of_commands_comes_in_the_order_of_their_use(shown):
    out = shown()
    places = [out.index(f"\n  {name} ") for names in SUBJECTS_OF_COMMANDS.values() for name in names]
    assert places == sorted(places)
    assert max(map(len, out.splitlines())) <= 80
    assert "--install-completion" in out


def test_help_is_there_in_half_a_second():
    """CPU seconds of the fastest of three processes: other work beside a test is not its own."""
    fastest = min(_cpu_seconds([CONSOLE_SCRIPT, "generate", "--help"]) for _ in range(3))
    assert fastest < 0.5


def _cpu_seconds(words):
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
