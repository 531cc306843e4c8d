"""Entry point of ``causcell``: its own commands, and those that other packages add by the group ``causcell.commands``.

Exit status:

- 0: done, or done already;
- 1: ``verify`` found damage or something missing, or a server ended by itself;
- 2: the input, options or environment can't be used: one message says why (with ``--debug`` a traceback and status 1),
  or ``check`` found what training would refuse;
  an atlas that a full disk or lost workers stopped goes on when the same command is run again;
- 3: ``evaluate --fail-below`` found the scores of effects below, or nothing that could be judged;
- 130 after Ctrl-C, 143 after SIGTERM: one message says how to go on; an atlas does when the same command is run again.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
import warnings
from importlib import metadata
from typing import Annotated, Any

import typer

from causcell import __version__
from causcell._internal.files import remove_own_scratch
from causcell._internal.interrupts import Terminated, exit_status, raise_on_sigterm
from causcell.cli.bench import bench
from causcell.cli.check import check
from causcell.cli.embed import embed
from causcell.cli.evaluate import evaluate
from causcell.cli.flags import command_flags, name_flags
from causcell.cli.folding import say
from causcell.cli.generate import generate
from causcell.cli.help import Command, Group
from causcell.cli.inspect import inspect
from causcell.cli.materialize import materialize
from causcell.cli.push import push
from causcell.cli.serve import serve
from causcell.cli.trial import trial
from causcell.cli.verify import verify
from causcell.errors import CausCellError, CausCellWarning

GROUP = "causcell.commands"

_EXTRA = {
    **dict.fromkeys(("lightning", "safetensors", "tomli_w", "torch"), "train"),
    **dict.fromkeys(("scanpy", "sklearn"), "evaluate"),
    **dict.fromkeys(("google", "onnx", "onnx_ir", "onnxscript", "tritonclient"), "export"),
    "distributed": "dask",
    "huggingface_hub": "hub",
    "matplotlib": "plot",
}
"""Extras by package, as in pyproject.toml."""


_RESUMABLE = ("generate", "materialize")
"""Commands that go on where they were stopped."""


class _Commands(Group):
    """The commands; one that is stopped says how to go on."""

    def invoke(self, context: Any) -> Any:
        with raise_on_sigterm() as stop:
            try:
                return super().invoke(context)
            except KeyboardInterrupt as error:
                interrupt = error
            except Exception:
                if stop.interrupt is None:
                    raise
                interrupt = stop.interrupt
        remove_own_scratch()
        how = str(interrupt) or _describe_stop(context.invoked_subcommand)
        cause = "ended by SIGTERM" if isinstance(interrupt, Terminated) else "interrupted"
        say(f"{cause}: {how}", err=True)
        raise typer.Exit(exit_status(interrupt))


def _describe_stop(command: str | None) -> str:
    if command in _RESUMABLE:
        return "what is finished is kept, and the same command goes on with it"
    return "nothing is left half written; run the same command again"


def _version(show: bool) -> None:
    if show:
        typer.echo(f"causcell {__version__}")
        raise typer.Exit


def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logging.")] = False,
) -> None:
    """Causal counterfactuals of single cells: train, export, generate, measure."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def build_app() -> typer.Typer:
    """Build the command line with every command that is installed."""
    app = typer.Typer(
        name="causcell",
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        callback=_options,
        cls=_Commands,
    )
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        app.command(entry.name, cls=Command)(entry.load())
    for command in (check, inspect, embed, generate, verify, materialize, trial, evaluate, bench, serve, push):
        app.command(command.__name__, cls=Command)(command)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]  # allowed in any place
    atexit.register(
        gc.freeze
    )  # a process that ends needs no search of all its objects: a second where torch was loaded
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s: %(message)s")
    _tame_downloads("--no-progress" not in words and sys.stderr.isatty())
    warnings.simplefilter("always", CausCellWarning)
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    app = build_app()
    try:
        app(words, prog_name="causcell")
    except CausCellError as error:
        if debug:
            raise
        say(f"error: {name_flags(str(error), command_flags(app, words))}", err=True)
        sys.exit(2)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if debug or package not in _EXTRA:
            raise
        say(f"error: this command needs the package {package!r}; install causcell[{_EXTRA[package]}]", err=True)
        sys.exit(2)
    except OSError as error:  # a place that can't be written, a full disk
        if debug:
            raise
        say(f"error: {error}", err=True)
        sys.exit(2)


def _tame_downloads(progress: bool) -> None:
    """Have huggingface_hub, which reads this when it is imported, show progress where other commands do."""
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own
    if not progress:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    if issubclass(category, CausCellWarning):
        say(f"warning: {message}", err=True)
    else:
        logging.getLogger("causcell").debug("%s: %s", category.__name__, message)


if __name__ == "__main__":
    main()
