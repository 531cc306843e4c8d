"""Tables of the README and of docs/peers.md, made from the committed results between two markers of each.

python tests/benchmarks/peers/table.py           # write them anew
python tests/benchmarks/peers/table.py --check   # fail where a file says something else than the results
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from systems import SYSTEMS

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "tests" / "benchmarks" / "results" / "peers.json"
FILES = ("README.md", "docs/peers.md")
DASH = "-"
SEEN, UNSEEN = "Interventions: stim", "Unseen combinations: interventions: stim"
TESTED, TRAINED = "tested cells", "trained sources"
OWN = "causcell_given"

Row = dict[str, Any]
Cell = Callable[[Sequence[Row]], str]


def main() -> None:
    """Write the tables, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    tables = make_tables(json.loads(RESULTS.read_text()))
    for name in FILES:
        path = ROOT / name
        text = replace_tables(path.read_text(), tables)
        if check and text != path.read_text():
            sys.exit(f"{name} does not say what {RESULTS.name} says: run python tests/benchmarks/peers/table.py")
        path.write_text(text)


def replace_tables(text: str, tables: dict[str, str]) -> str:
    """Put each table between its markers, ``<!-- peers: NAME -->`` and ``<!-- end of peers: NAME -->``."""
    for name, table in tables.items():
        begin, end = f"<!-- peers: {name} -->", f"<!-- end of peers: {name} -->"
        if begin in text:
            before, _, rest = text.partition(begin)
            text = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
    return text


def make_tables(result: dict[str, Any]) -> dict[str, str]:
    """Make every table, by the name of its markers."""
    rows = spread_variants(result)
    tables = {
        "effects": table_of(rows, result, "kang", EFFECTS, replicate(result, "kang", EFFECTS)),
        "brief": brief_table(rows, result),
        "cells": table_of(rows, result, "kang", CELLS, replicate(result, "kang", CELLS)),
        "costs": table_of(_beside_own(rows), result, "kang", costs_columns(rows)),
        "ahead": list_ahead(rows),
        "notes": list_notes(rows),
        "not run": list_reasons(result),
        "run": describe_run(result),
    }
    for case, title in (("kang-leave", "stim"), ("gbm", "condition"), ("lines", "perturbation")):
        tables[case] = table_of(rows, result, f"{case}-*", left_out_columns(title))
    others = {"pairs": pairs_columns(), "simulator": simulator_columns()}
    return tables | {case: table_of(rows, result, case, columns) for case, columns in others.items()}


def spread_variants(result: dict[str, Any]) -> list[Row]:
    """Give each setting to predict by of a training a row of its own, after that of the training."""
    rows = []
    for row in result["rows"]:
        title = result["systems"].get(row["system"], {"title": row["system"]})["title"]
        rows.append({**row, "title": title})
        for variant, found in row["variants"].items():
            own = row["costs"]["variants"][variant]
            costs = {**row["costs"], "rates": own["rates"]}
            rows.append({**row, **found, "costs": costs, "title": f"{title}, {own['name'].partition(', ')[2]}"})
            rows[-1]["variant"] = variant
    return rows


def table_of(
    rows: Iterable[Row], result: dict[str, Any], cases: str, columns: dict[str, Cell], last: Sequence[str] = ()
) -> str:
    """Make a table of the systems that ran some cases (a pattern) and of those that can't, and name all others.

    Lines in ``last`` end the table.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        if fnmatch.fnmatch(row["case"], cases):
            found.setdefault(row["title"], []).append(row)
    lines = [f"| system | {' | '.join(name.strip() for name in columns)} |", f"|---|{'---|' * len(columns)}"]
    missing = []
    for system in SYSTEMS:
        titles = [title for title, each in found.items() if each[0]["system"] == system.adapter]
        for title in titles:
            lines.append(f"| {title} | {' | '.join(cell(found[title]) for cell in columns.values())} |")
        if not titles and system.adapter in result["not run"]:
            lines.append(f"| {system.title} (not run, see docs/peers.md) | {' | '.join([DASH] * len(columns))} |")
        elif not titles:
            missing.append(system.title)
    if not found:
        return "Not run yet."
    return "\n".join([*lines, *last, *(["", f"Not run yet on these cells: {'; '.join(missing)}."] if missing else [])])


def brief_table(rows: Iterable[Row], result: dict[str, Any]) -> str:
    """Make the README's table: systems that ran, by defaults and by the cells' own embeddings; the type's shift."""
    trivial = {each.title for each in SYSTEMS if each.group == "trivial" and each.adapter != "type_shift"}
    kept = [row for row in rows if row.get("variant", "own") == "own" and row["title"] not in trivial]
    ran = {row["title"] for row in kept}
    lines = table_of(kept, result, "kang", BRIEF).splitlines()
    shown = [line for line in lines[2:] if line.split(" | ")[0].removeprefix("| ") in ran]
    return "\n".join([*lines[:2], *shown])


REPLICATES = {
    "Mean estimate": ("another real cell with the same labels", "model, mean estimate"),
    "Samples": ("real cells (ceiling)", "model, samples"),
    "Marker": ("other real cells (ceiling)", "model, samples"),
    "Leakage": ("most frequent label", "embedding of unexplained"),
    "": ("real cells, one half against the other", "model, do"),
}
"""Rows of the references that stand for a replicate, by how their table begins, and the row of a system's like it."""


def replicate(result: dict[str, Any], case: str, columns: dict[str, Cell]) -> list[str]:
    """Make the line of a replicate: real cells in place of predicted ones."""
    tables: dict[str, dict[str, Any]] = {}
    for view, found in result["references"].get(case, {}).items():
        for title, rows in found.items():
            taken, as_row = next(names for start, names in REPLICATES.items() if title.startswith(start))
            if taken in rows:
                tables.setdefault(view, {})[title] = {as_row: rows[taken]}
    row = {"tables": tables, "seed": 0}
    cells = " | ".join(DASH if cell is _seeds else cell([row]) for cell in columns.values())
    return [f"| *half of the real cells (leakage: most frequent label)* | {cells} |"] if tables else []


def measure(view: str, table: str, row: str, name: str, digits: int = 3) -> Cell:
    """Make a column of one measure: the mean over seeds and cases, and the deviation over seeds."""

    def cell(rows: Sequence[Row]) -> str:
        return spread(rows, lambda each: each["tables"].get(view, {}).get(table, {}).get(row, {}).get(name), digits)

    return cell


def spread(rows: Sequence[Row], take: Callable[[Row], Any], digits: int = 3) -> str:
    """Format the mean over cases and seeds, and how far it varies from seed to seed."""
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        value = take(row)
        if value is not None:
            by_seed.setdefault(row["seed"], []).append(value[0] if isinstance(value, list) else value)
    means = [statistics.mean(values) for values in by_seed.values()]
    if not means:
        return DASH
    text = short(statistics.mean(means), digits)
    return f"{text} ± {short(statistics.stdev(means), digits)}" if len(means) > 1 else text


def short(value: float, digits: int) -> str:
    """Format a number without its leading zero."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and digits else text


def _pair(first: Cell, second: Cell) -> Cell:
    return lambda rows: DASH if first(rows) == DASH else f"{first(rows)} / {second(rows)}"


def _samples(name: str, digits: int = 3) -> Cell:
    return measure(TESTED, "Samples as a distribution", "model, samples", name, digits)


def _leakage(label: str, digits: int = 2) -> Cell:
    table = "Leakage: labels read from embeddings of other concepts"
    return measure(TESTED, table, "embedding of unexplained", label, digits)


def _effect(view: str, table: str, name: str, digits: int = 2) -> Cell:
    return measure(view, table, "model, do", name, digits)


def _estimate(name: str) -> Cell:
    return measure(TESTED, "Mean estimate of the judged cells", "model, mean estimate", name)


def _seeds(rows: Sequence[Row]) -> str:
    return str(len({row["seed"] for row in rows}))


EFFECTS: dict[str, Cell] = {
    "seeds": _seeds,
    "seen types: Pearson": _effect(TESTED, SEEN, "pcc", 3),
    "size": _effect(TESTED, SEEN, "size"),
    "squared error": _effect(TESTED, SEEN, "squared error"),
    "MMD ratio": _effect(TESTED, SEEN, "MMD ratio"),
    "recall up / down": _pair(_effect(TESTED, SEEN, "recall up"), _effect(TESTED, SEEN, "recall down")),
    "unseen B cells: Pearson": _effect(TRAINED, UNSEEN, "pcc", 3),
    "size ": _effect(TRAINED, UNSEEN, "size"),
    "squared error ": _effect(TRAINED, UNSEEN, "squared error"),
    "MMD ratio ": _effect(TRAINED, UNSEEN, "MMD ratio"),
    "recall up / down ": _pair(_effect(TRAINED, UNSEEN, "recall up"), _effect(TRAINED, UNSEEN, "recall down")),
}
BRIEF = {
    "seen types: Pearson": EFFECTS["seen types: Pearson"],
    "squared error": EFFECTS["squared error"],
    "MMD ratio": EFFECTS["MMD ratio"],
    "unseen B cells: Pearson": EFFECTS["unseen B cells: Pearson"],
    "squared error ": EFFECTS["squared error "],
    "MMD ratio ": EFFECTS["MMD ratio "],
}
CELLS: dict[str, Cell] = {
    "seeds": _seeds,
    "mean: PCC": _estimate("PCC"),
    "MSE": _estimate("MSE"),
    "samples: energy distance": _samples("energy distance"),
    "variance ratio": _samples("variance ratio", 2),
    "correlations": _samples("correlations", 2),
    "nonzero": _samples("nonzero"),
    "markers": measure(TESTED, "Marker genes", "model, samples", "overlap", 2),
    "leakage: stim": _leakage("stim"),
    "donor": _leakage("donor"),
    "cell type": _leakage("cell_type"),
}


BEST = {
    "Pearson": "higher", "PCC": "higher", "correlations": "real", "markers": "higher",
    "size": "one", "variance ratio": "one", "nonzero": "real",
    "squared error": "lower", "MMD ratio": "lower", "MSE": "lower", "energy distance": "lower",
}  # fmt: skip
"""Where a measure is best, by how its column ends; measures that are best at the real cells' value are not ranked."""


def list_ahead(rows: Sequence[Row]) -> str:
    """List, for each measure of Kang, CausCell's value and who is nearer to the best, by values as they are printed."""
    plain: dict[str, list[Row]] = {}
    for row in rows:
        if row["case"] == "kang" and "variant" not in row:
            plain.setdefault(row["title"], []).append(row)
    own = next(each.title for each in SYSTEMS if each.adapter == OWN)
    lines = ["| measure | CausCell | ahead of it |", "|---|---|---|"]
    group = ""
    for column, cell in (EFFECTS | CELLS).items():
        start, _, name = column.rpartition(": ")
        group = start or group
        kind = BEST.get(name.strip(), "")
        if kind in ("", "real") or own not in plain:
            continue
        values = {title: _distance(cell(found), kind) for title, found in plain.items()}
        mine = values[own]
        ahead = sorted((v, title) for title, v in values.items() if v is not None and mine is not None and v < mine)
        named = ", ".join(f"{title} {cell(plain[title])}" for _, title in ahead) or "none"
        lines.append(f"| {group}: {name.strip()} | {cell(plain[own])} | {named} |")
    return "\n".join(lines)


def _distance(text: str, kind: str) -> float | None:
    """Return how far a printed value is from the best, on a scale where less is better."""
    if text == DASH:
        return None
    value = float(text.split(" ")[0])
    return {"higher": -value, "lower": value, "one": abs(value - 1)}[kind]


def costs_columns(rows: Sequence[Row]) -> dict[str, Cell]:
    """Make the columns of costs; rates are relative to CausCell's of the same hardware, case and seed."""
    own = {(r["case"], r["seed"], hardware(r)): r for r in rows if r["system"] == OWN and "variant" not in r}

    def relative(name: str) -> Cell:
        def take(row: Row) -> float | None:
            mine = rate(row, name)
            theirs = own.get((row["case"], row["seed"], hardware(row)))
            base = None if theirs is None else rate(theirs, name)
            return None if mine is None or not base else mine / base

        return lambda rows: spread(rows, take, 2)

    def absolute(rows: Sequence[Row]) -> str:
        name = (
            "counterfactual_sample" if "counterfactual_sample" in rows[0]["costs"]["rates"] else "counterfactual_mean"
        )
        return spread(rows, lambda row: row["costs"]["rates"].get(name, {}).get("cells a CPU second"), 0)

    return {
        "training, CPU s": lambda rows: spread(rows, lambda row: row["costs"]["seconds"]["fit, CPU"], 0),
        "cells a CPU s: mean": relative("mean"),
        "sample": relative("sample"),
        "counterfactual": relative("counterfactual"),
        "counterfactual cells a CPU s": absolute,
        "peak memory, MB": lambda rows: spread(rows, lambda row: row["costs"]["peak memory, MB"].get("all"), 0),
        "on disk, MB": lambda rows: spread(rows, _megabytes, 1),
        "lines": lambda rows: str(rows[0]["costs"]["lines"] or DASH),
        "version": lambda rows: rows[0]["costs"]["version"],
        "licence": lambda rows: rows[0]["costs"]["licence"],
    }


def _beside_own(rows: Sequence[Row]) -> list[Row]:
    """Keep the rows that were measured on the hardware that CausCell was: costs of others do not compare."""
    own = {hardware(row) for row in rows if row["system"] == OWN}
    return [row for row in rows if hardware(row) in own]


def _megabytes(row: Row) -> float | None:
    size = row["costs"]["size on disk, bytes"]
    return None if size is None else size / 1e6


def rate(row: Row, name: str) -> float | None:
    """Return cells a CPU second over the speed of a matrix product beside it; of samples, or where none, of means."""
    rates = row["costs"]["rates"]
    found = rates.get(f"{name}_sample", rates.get(f"{name}_mean")) if name == "counterfactual" else rates.get(name)
    return None if found is None else found["cells a CPU second"] / found["matrix product, GFLOP a CPU second"]


def hardware(row: Row) -> str:
    """Return what a row was measured on."""
    environment = row["costs"]["environment"]
    return f"{environment['hardware']}, {environment['device']}"


def left_out_columns(concept: str) -> dict[str, Cell]:
    """Make the columns of cases that leave combinations out one at a time: seen ones, and those left out, two ways."""
    found: dict[str, Cell] = {"cases": lambda rows: str(len({row["case"] for row in rows}))}
    seen, unseen = f"Interventions: {concept}", f"Unseen combinations: interventions: {concept}"
    for view, table, title in (
        (TESTED, seen, "seen"),
        (TESTED, unseen, "unseen, tested sources"),
        (TRAINED, unseen, "unseen, all sources"),
    ):
        found[f"{title}: Pearson"] = _effect(view, table, "pcc", 3)
        for name in ("size", "squared error", "MMD ratio"):
            found[f"{title}: {name}"] = _effect(view, table, name)
    return found


def pairs_columns() -> dict[str, Cell]:
    """Make the columns of doubles of perturbations, averaged over what is set."""

    def cell(name: str, digits: int) -> Cell:
        def take(row: Row) -> float | None:
            tables = row["tables"].get(TRAINED, {})
            values = [t["model, do"][name][0] for t in tables.values() if name in t.get("model, do", {})]
            return statistics.mean(values) if values else None

        return lambda rows: spread(rows, take, digits)

    return {"Pearson": cell("pcc", 3), **{name: cell(name, 2) for name in ("size", "squared error", "MMD ratio")}}


def simulator_columns() -> dict[str, Cell]:
    """Make the columns of the simulator: error of single cells / of the average, for each concept."""

    def cell(concept: str) -> Cell:
        def taken(name: str) -> Cell:
            def take(row: Row) -> float | None:
                found = [t for k, t in row.get("truth", {}).items() if k.startswith(f"do({concept} ")]
                return found[0].get(name, found[0].get(f"{name}, samples")) if found else None

            return lambda rows: spread(rows, take)

        return _pair(taken("error of single cells"), taken("error of the average"))

    return {f"do({concept})": cell(concept) for concept in ("treatment", "donor", "cell_type", "state")}


def list_notes(rows: Sequence[Row]) -> str:
    """List what is to be known of each system for a fair reading."""
    notes = {row["title"]: row["costs"]["notes"] for row in rows if "variant" not in row}
    return "\n".join(f"- {title}: {'; '.join(each)}." for title, each in notes.items() if each)


def list_reasons(result: dict[str, Any]) -> str:
    """List what was not run, and why."""
    titles = {each.adapter: each.title for each in SYSTEMS}
    lines = [f"- {titles.get(name, name)}: {reason}." for name, reason in result["not run"].items()]
    return "\n".join(lines) or "All of them were run."


def describe_run(result: dict[str, Any]) -> str:
    """Describe the hardware, the seeds and the versions."""
    machines = sorted({hardware(row) for row in result["rows"]})
    seeds = sorted({row["seed"] for row in result["rows"]})
    return f"Machines: {'; '.join(machines)}. Seeds: {', '.join(map(str, seeds))}. One thread each."


if __name__ == "__main__":
    main()
