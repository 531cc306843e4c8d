"""Train, export and compare variants of the settings on the same cells: heads, losses, widths, over several seeds.

What is printed was measured by export on the held-out cells to report on, and stands in each manifest. Repositories are
kept (``--out``), so that a rerun goes on where it was, and ``causcell bench`` can time them.

    python tests/benchmarks/variants.py kang.h5ad --split kang.split.csv --concept stim --concept donor \\
        --concept cell_type --edge donor:cell_type --seeds 3 --out variants \\
        --variant plain:model.head=plain --variant likelihood:objective.reconstruction=0 --variant default:

``pbmc68k`` in place of a file takes scanpy's bundled cells, with the demo's settings and three tenths held out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from causcell.repository.folder import open_repository
from causcell_export import export
from causcell_export.demo import demo_cells, demo_config
from causcell_training import fit
from causcell_training.config import load_config, parse_overrides

MEASURES = (
    "energy_distance", "correlations", "variance_ratio", "nonzero", "nonzero_mean", "pcc", "mse",
)  # fmt: skip


def main() -> None:
    """Parse the command line, train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--split")
    parser.add_argument("--concept", action="append", default=[])
    parser.add_argument("--edge", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--variant", action="append", required=True, help="NAME:SECTION.KEY=VALUE,...")
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    bundled = arguments.data == "pbmc68k"
    data = demo_cells() if bundled else arguments.data
    common = demo_config().model_dump(exclude_unset=True) | {"optimisation": {"batch_size": 64, "held_out": 0.3}}
    common = common if bundled else {"concept": arguments.concept, "edge": arguments.edge}
    for variant in arguments.variant:
        name, _, settings = variant.partition(":")
        overrides = parse_overrides([each for each in settings.split(",") if each])
        found = []
        for seed in range(arguments.seeds):
            models = arguments.out / f"{name}-{seed}"
            if not models.exists():
                config = load_config(overrides={**_flatten(common), **overrides, "seed": seed})
                export(fit(data, arguments.out / f"{name}-{seed}-run", config=config, split=arguments.split), models)
            found.append(open_repository(models).manifest)
        print(f"{name} ({settings or 'defaults'}), {np.mean([m.provenance['seconds'] for m in found]):.0f} s to train")
        for preset in found[0].presets:
            rows = [manifest.presets[preset].quality or {} for manifest in found]
            columns = [
                f"  {m} {_format_spread([row[m] for row in rows])}" for m in MEASURES if all(m in row for row in rows)
            ]
            print(f"  {preset:<9}" + "".join(columns), flush=True)
        quality = found[0].presets["mean"].quality or {}
        print("  real     " + "".join(f"  {m} {quality[f'{m}_real']:.3f}" for m in MEASURES if f"{m}_real" in quality))


def _flatten(settings: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in settings.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _format_spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f}+-{np.std(values):.3f}"


if __name__ == "__main__":
    main()
