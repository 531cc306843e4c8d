"""Messages of errors in the words of the command line: they name arguments as Python does, which are flags here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import typer

_VALUE = r"""(?P<value>'[^']*'|"[^"]*"|[\w.+-]*)"""


def command_flags(app: typer.Typer, words: Sequence[str]) -> dict[str, str]:
    """Return flags by the names of arguments in Python: those of the command that the words name go before others'.

    Other commands' are there for messages that speak of them: materialize asks for an atlas made with
    ``--store embeddings``.

    Parameters
    ----------
    app
        The command line.
    words
        Words of the call.

    Examples
    --------
    >>> app = typer.Typer()
    >>> @app.command()
    ... def train(match_parents: bool = False): ...
    >>> @app.command()
    ... def export(precision: str = "fp32"): ...
    >>> command_flags(app, ["export", "--precision", "fp8"])["precision"]
    '--precision'
    """
    group: Any = typer.main.get_command(app)
    commands = getattr(group, "commands", {})
    named = next((commands[word] for word in words if word in commands), group)
    return {
        parameter.name: max(parameter.opts, key=len)
        for command in (*commands.values(), named)
        for parameter in command.params
        if parameter.param_type_name == "option"
    }


def name_flags(message: str, flags: Mapping[str, str]) -> str:
    """Replace arguments in a message (``steps=20``) by flags (``--steps 20``); others are left as they are.

    What stands in quotes or in a path is the user's: a label or folder ``'seed=3'`` is no argument.

    Parameters
    ----------
    message
        Text of an error.
    flags
        Flags by the names of arguments.

    Examples
    --------
    >>> flags = {"solver": "--solver", "match_parents": "--match-parents"}
    >>> name_flags("name one (solver='ddim') or set match_parents=True", flags)
    'name one (--solver ddim) or set --match-parents'
    """
    if not flags:
        return message

    def flag(match: re.Match[str]) -> str:
        name, value = flags[match["name"]], match["value"]
        if value in ("", "True"):
            return name
        plain = re.fullmatch(r"'[\w.+-]+'", value)
        return f"{name} {value[1:-1] if plain else value}"

    names = "|".join(map(re.escape, flags))
    return re.sub(rf"(?<![\w.\[=/;:'\"-])(?P<name>{names})={_VALUE}", flag, message)
