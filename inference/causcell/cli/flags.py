"""Messages of errors in the words of the command line: they name arguments as Python does, which are flags here."""

from __future__ import annotations

import re

import click

_VALUE = r"""(?P<value>'[^']*'|"[^"]*"|[\w.+-]*)"""


def name_flags(message: str, command: click.Command) -> str:
    """Replace arguments in a message (``steps=20``) by the flags of a command (``--steps 20``).

    Parameters
    ----------
    message
        Text of an error.
    command
        The command that ran; arguments that it does not have are left as they are.

    Examples
    --------
    >>> command = click.Command("train", params=[click.Option(["--solver"]), click.Option(["--match-parents"])])
    >>> name_flags("name one (solver='ddim') or set match_parents=True", command)
    'name one (--solver ddim) or set --match-parents'
    """
    flags = {
        parameter.name: max(parameter.opts, key=len)
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name
    }
    if not flags:
        return message

    def flag(match: re.Match[str]) -> str:
        name, value = flags[match["name"]], match["value"]
        if value in ("", "True"):
            return name
        plain = re.fullmatch(r"'[\w.+-]+'", value)
        return f"{name} {value[1:-1] if plain else value}"

    names = "|".join(map(re.escape, flags))
    return re.sub(rf"(?<![\w.\[=-])(?P<name>{names})={_VALUE}", flag, message)
