"""Help of the command line as plain text: what a command does, two examples, and its options by subject.

A command's docstring is its help; what stands below ``Examples`` there are its examples.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_NARROWEST, _WIDEST = 60, 100
_COLUMN = 27
"""Where explanations begin."""

SUBJECTS = {
    "Cells": (
        *(
            "models",
            "expression",
            "layer",
            "raw",
            "totals",
            "round_counts",
            "where",
            "allow_missing_genes",
            "cache",
            "split",
        ),
        *("part", "predictions", "estimate", "predictions_expression", "predictions_totals", "predictions_layer"),
    ),
    "Concepts and genes": (
        *("concept", "concepts", "edge", "edges", "label_features", "set_control", "genes", "gene_selection"),
        *("batch_key", "include_genes", "finer"),
    ),
    "Intervention": ("do", "grid", "mode", "match_parents", "target", "baseline"),
    "Sampling": ("preset", "solver", "steps", "spacing", "eta", "draws", "seed"),
    "Statistics": ("replicate", "fdr", "min_effect", "interval", "scorer", "fail_below"),
    "Training": (
        *("config", "setting", "settings", "start_from", "freeze", "replay", "resume", "overwrite", "folds"),
        *("hold_out", "choose", "seeds"),
    ),
    "Result": (
        *(
            "store",
            "dtype",
            "layout",
            "library_size",
            "keep_obs",
            "keep_obsm",
            "table",
            "maps",
            "chunk_size",
            "shard_size",
        ),
        *("plan_only", "precision", "torchscript", "unfinished", "deploy"),
    ),
    "Machine": (
        *("workers", "dask", "threads", "batch_size", "provider", "connection", "instances", "threads_per_instance"),
        *("http_port", "grpc_port", "log", "batch", "seconds", "devices", "strategy"),
    ),
    "Sharing": ("license", "data", "card", "private", "dry_run"),
    "Output": ("progress", "as_json", "help"),
}
"""Options by subject; one that is in none stands under ``Options``."""

_WORDS = {
    **dict.fromkeys(("seed", "steps", "threads", "threads_per_instance", "http_port", "grpc_port", "devices"), "N"),
    **dict.fromkeys(("concept", "concepts"), "NAME[:KIND]"),
    **dict.fromkeys(("edge", "edges"), "PARENT:CHILD"),
    **dict.fromkeys(("config", "split", "connection", "table", "predictions", "log"), "FILE"),
    **dict.fromkeys(("finer", "replicate", "part"), "COLUMN"),
    **dict.fromkeys(("layer", "predictions_layer", "preset", "solver", "spacing", "scorer", "dtype", "store"), "NAME"),
    **dict.fromkeys(("eta", "fail_below", "fdr"), "X"),
    "data": "CELLS",
    "out": "PATH",
    "models": "LOCATION",
    "do": "CONCEPT=VALUE",
    "where": "CONDITION",
    "label_features": "NAME=FILE",
    "set_control": "NAME=LABEL",
    "hold_out": "COMBINATION",
    "start_from": "RUN",
    "setting": "KEY=VALUE",
    "dask": "ADDRESS",
    "baseline": "LABEL",
    "chunk_size": "SIZE",
    "shard_size": "SIZE",
}
"""What stands for a value, where the option does not say it."""

COMMANDS = {
    "From cells to a model": ("demo", "check", "train", "export"),
    "What a model says": ("inspect", "embed", "trial", "generate", "verify", "materialize"),
    "How good, how fast": ("evaluate", "benchmark", "bench"),
    "For others": ("serve", "push"),
}
"""Commands by subject; one that is in none stands under ``Other commands``."""


class Command(TyperCommand):
    """A command whose help is plain text for any terminal."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        text, examples = split_examples(self.help or "")
        lines = [
            f"{_bold('Usage:')} {ctx.command_path} [OPTIONS] {' '.join(map(_argument, _arguments(self)))}".rstrip()
        ]
        lines += ["", *_paragraphs(text)]
        if examples:
            lines += ["", _bold("Examples"), *(f"  {line}" for line in examples)]
        for title, parameters in by_subject(self.params):
            lines += ["", _bold(title)]
            lines += [line for each in parameters for line in _entry(_label(each), explain(each))]
        formatter.write("\n".join(lines) + "\n")


class Group(TyperGroup):
    """The commands, by subject."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        lines = [f"{_bold('Usage:')} {ctx.command_path} [OPTIONS] COMMAND [ARGS]...", "", *_paragraphs(self.help or "")]
        listed = {name for names in COMMANDS.values() for name in names}
        other = tuple(name for name in self.commands if name not in listed)
        for title, names in (*COMMANDS.items(), ("Other commands", other)):
            if there := [name for name in names if name in self.commands]:
                lines += ["", _bold(title)]
                for name in there:
                    lines += _entry(
                        f"{name} ", split_examples(self.commands[name].help or "")[0].partition("\n\n")[0], 15
                    )
        lines += ["", _bold("Options")]
        lines += [line for each in self.params for line in _entry(_label(each), explain(each))]
        lines += _entry("--help", "Show this message; causcell COMMAND --help says more of one.")
        formatter.write("\n".join(lines) + "\n")


def split_examples(text: str) -> tuple[str, list[str]]:
    """Split a command's help into what it does and its examples, a line each (a backslash continues one)."""
    does, _, below = textwrap.dedent(text).partition("\nExamples\n--------\n")
    return does.strip(), [line for line in below.strip().splitlines() if line.strip()]


def by_subject(parameters: Sequence[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Group a command's parameters: arguments and required options first, then options by subject."""
    shown = [each for each in parameters if not getattr(each, "hidden", False)]
    first = [each for each in shown if each.param_type_name == "argument" or each.required]
    yield from [("Required", first)] if first else []
    rest = [each for each in shown if each not in first]
    listed = {name: subject for subject, names in SUBJECTS.items() for name in names}
    for subject in (*SUBJECTS, "Options"):
        if found := [each for each in rest if listed.get(each.name, "Options") == subject]:
            yield subject, found


def explain(parameter: Any) -> str:
    """Return what a parameter is, with its default at the end."""
    text = " ".join((parameter.help or ("Show this message." if parameter.name == "help" else "")).split())
    default = parameter.default
    if "[default:" in text or default is None or parameter.required or isinstance(default, bool | tuple | list):
        return text
    return f"{text} [default: {default:g}]" if isinstance(default, float) else f"{text} [default: {default}]"


def _arguments(command: Any) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "argument"]


def _argument(parameter: Any) -> str:
    word = _WORDS.get(parameter.name, parameter.name.upper())
    return f"{word}..." if getattr(parameter, "nargs", 1) == -1 else word


def _label(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return _argument(parameter)
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.name == "help" or isinstance(parameter.default, bool) or getattr(parameter, "is_flag", False):
        return names
    number = {int: "N", float: "X"}.get(type(parameter.default), "NAME")
    return f"{names} {parameter.metavar or _WORDS.get(parameter.name) or number}"


def _entry(label: str, text: str, column: int = _COLUMN) -> list[str]:
    """Lay a label and its explanation out in two columns; a long label has a line of its own."""
    wrapped = textwrap.wrap(text, _width() - column - 2, break_on_hyphens=False) or [""]
    if len(label) > column - 2:
        return [f"  {label}", *(" " * (column + 2) + line for line in wrapped)]
    first, *others = wrapped
    return [f"  {label:<{column}}{first}", *(" " * (column + 2) + line for line in others)]


def _paragraphs(text: str) -> list[str]:
    paragraphs = [textwrap.wrap(" ".join(each.split()), _width()) for each in text.split("\n\n")]
    return "\n\n".join("\n".join(each) for each in paragraphs).splitlines()


def _width() -> int:
    return max(_NARROWEST, min(shutil.get_terminal_size().columns, _WIDEST))


def _bold(text: str) -> str:
    return typer.style(text, bold=True)
