"""Pages of the site that other files and the code itself hold: written anew at each build into ``docs/generated``.

- ``command_line.md``: every command with its arguments and options, as ``causcell COMMAND --help`` has them;
- ``settings.md``: every setting of a training with its explanation, as ``causcell train --settings`` lists them;
- ``changes.md``, ``deployment.md``, ``how_to_add.md``: documents of the repository.

Links of pages to files outside ``docs`` become links to the repository.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer.main

from causcell.cli.help import by_subject, explain, split_examples
from causcell.cli.main import build_app

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_config_value("source_url", "", "env")
    app.connect("builder-inited", _write_pages)
    app.connect("source-read", _link_to_repository)
    return {"parallel_read_safe": True}


def pages() -> dict[str, str]:
    """Make the text of every generated page, by its name."""
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    how = contributing[contributing.index("## How to add\n") : contributing.index("## Names and prose\n")]
    return {
        "command_line.md": command_line(),
        "settings.md": settings(),
        "changes.md": _as_page((ROOT / "CHANGELOG.md").read_text(), "CHANGELOG.md"),
        "deployment.md": _as_page((ROOT / "model_repository" / "README.md").read_text(), "model_repository/README.md"),
        "how_to_add.md": _as_page(how.replace("## How to add\n", "# What to add, and where\n"), "CONTRIBUTING.md"),
    }


def _as_page(text: str, path: str) -> str:
    """Move a document of the repository into ``docs/generated``: its links start from where it was."""
    folder = (ROOT / path).parent

    def move(found: re.Match[str]) -> str:
        name, _, anchor = found[1].partition("#")
        target = (folder / name).resolve()
        home = target.relative_to(DOCS) if target.is_relative_to(DOCS) else Path("..") / target.relative_to(ROOT)
        return f"](../{home}{'#' if anchor else ''}{anchor})"

    return re.sub(r"\]\((?!https?:|#)([^)]+)\)", move, text)


def command_line() -> str:
    """Describe every command by its own help."""
    group = typer.main.get_command(build_app())
    lines = [
        "# Command line",
        "",
        "What `causcell COMMAND --help` says, of every command. What can't be carried out is one message",
        "and status 2; [all exit statuses](../reference/statuses.md).",
        "",
    ]
    for name, command in group.commands.items():
        does, examples = split_examples(command.help or "")
        lines += [f"## {name}", "", _plain(does), "", "```", *examples, "```", ""]
        for subject, parameters in by_subject(command.params):
            lines += [f"**{subject}**", "", "| | | default |", "|---|---|---|"]
            lines += [*map(_row, parameters), ""]
    return "\n".join(lines)


def _row(parameter: Any) -> str:
    names = " ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        names = f"`{parameter.name.upper()}`"
    help_, _, told = explain(parameter).partition("[default: ")
    default = "(required)" if parameter.required else told.rstrip("]")
    return f"| {names} | {_plain(help_).replace('|', chr(92) + '|')} | {default} |"


def settings() -> str:
    """Describe every setting of a training."""
    from causcell_training.settings import SECTIONS, describe_settings

    lines = [
        "# Settings of a training",
        "",
        "`--set SECTION.KEY=VALUE`, or a line in the file of `--config`, as `causcell train --settings` has it.",
        "Every run keeps all of them in its `config.toml`.",
        "",
    ]
    found = describe_settings()
    for section, title in SECTIONS.items():
        lines += [f"## {title}", "", "| setting | default | allowed | |", "|---|---|---|---|"]
        for each in found:
            if each.section == section:
                cells = (
                    f"`{each.name}`",
                    f"`{each.default}`",
                    each.allowed.replace("|", "\\|"),
                    _plain(each.explanation),
                )
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Turn docstrings' reStructuredText into Markdown on one line; what looks like a tag is code."""
    line = " ".join(text.replace("``", "`").replace("\f", "").split())
    return re.sub(r"(?<!`)<([^<>`]+)>(?!`)", r"`<\1>`", line)


def _write_pages(app: Any) -> None:
    folder = DOCS / "generated"
    folder.mkdir(exist_ok=True)
    for name, text in pages().items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _link_to_repository(app: Any, docname: str, source: list[str]) -> None:
    folder = (DOCS / docname).parent

    def replace(found: re.Match[str]) -> str:
        target = (folder / found[1]).resolve()
        return found[0] if target.is_relative_to(DOCS) else f"]({app.config.source_url}/{target.relative_to(ROOT)})"

    source[0] = re.sub(r"(?<!\!)\]\(((?:\.\./)+[^)#]+)\)", replace, source[0])
