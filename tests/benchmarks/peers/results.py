"""What is committed of the runs in one or more folders: measures and costs of every system, case and seed.

    python tests/benchmarks/peers/results.py OUT [OUT ...] --into tests/benchmarks/results/peers.json

Of a system, case and seed that stands in several folders the last one's is taken; what stands in the file already, of
others, stays there (``--anew`` leaves it out).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

from environments import find_pythons
from systems import SYSTEMS

from causcell.evaluation.report import run_environment

RESULT = "peers.json"
KEPT = ("costs", "tables", "not answered", "truth")
WITHIN = "Leakage within groups"


def main() -> None:
    """Join the folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="--out of run.py")
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--reason", action="append", default=[], help="SYSTEM=WHY it was not run")
    parser.add_argument("--anew", action="store_true", help="leave out what stands in the file already")
    arguments = parser.parse_args()
    before = {} if arguments.anew or not arguments.into.exists() else json.loads(arguments.into.read_text())
    reasons = find_pythons([each.adapter for each in SYSTEMS], {}, build=False)[1] | before.get("not run", {})
    reasons |= dict(each.split("=", 1) for each in arguments.reason)
    print(write_results(arguments.folders, arguments.into, reasons, before))


def read_jobs(folders: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Read the jobs that are done in some folders: by name, what was asked (``job``) and the result (``result``)."""
    found = {}
    for folder in folders:
        for path in sorted((folder / "jobs").glob("*.json")):
            content = json.loads(path.read_text())
            found[content["name"]] = content
    return found


def _identity(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return row["case"], row["seed"], row["system"]


def _order(row: Mapping[str, Any]) -> tuple[str, int, int, str]:
    systems = [each.adapter for each in SYSTEMS]
    place = systems.index(row["system"]) if row["system"] in systems else len(systems)
    return row["case"], row["seed"], place, row["system"]


def write_results(
    folders: Iterable[Path], into: Path, reasons: Mapping[str, str], before: Mapping[str, Any] | None = None
) -> str:
    """Write the results of some folders, a line a row, with why some systems were not run; say how many there are.

    Rows and references that a file had ``before`` stay, but those of the same system, case and seed.
    """
    before = before or {}
    rows: list[dict[str, Any]] = []
    references = dict(before.get("references", {}))
    for content in read_jobs(folders).values():
        job, result = content["job"], content["result"]
        case, seed = job["case"], job["seed"]
        name = Path(job["system"]).stem
        rows.append({"system": name, "case": case, "seed": seed, **_trim(result)})
        rows[-1]["variants"] = {variant: _trim(found) for variant, found in result["variants"].items()}
        found = _trim_tables(result["references"])
        if len(json.dumps(found)) > len(json.dumps(references.get(case, {}))):  # of the system that answers most
            references[case] = found
    anew = {_identity(row) for row in rows}
    rows += [row for row in before.get("rows", []) if _identity(row) not in anew]
    rows.sort(key=_order)
    run = {row["system"] for row in rows}
    content = {
        "versions": run_environment()["versions"],
        "systems": {each.adapter: {"title": each.title, "group": each.group} for each in SYSTEMS},
        "not run": {name: reason for name, reason in reasons.items() if name not in run},
        "references": references,
    }
    into.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row) for row in rows)
    into.write_text(json.dumps(content)[:-1] + ', "rows": [\n' + lines + "\n]}\n")
    return f"{into}: {len(rows)} rows"


def _trim(result: Mapping[str, Any]) -> dict[str, Any]:
    kept = {each: result[each] for each in KEPT if each in result}
    return kept | {"tables": _trim_tables(result["tables"])}


def _trim_tables(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what no table or figure asks: leakage within groups of the embeddings of concepts."""
    return {
        view: {
            title: {
                row: values
                for row, values in found.items()
                if title != WITHIN or row.startswith("embedding of unexplained")
            }
            for title, found in each.items()
        }
        for view, each in tables.items()
    }


if __name__ == "__main__":
    main()
