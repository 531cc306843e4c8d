"""Export the model that tests share, for environments without training: ``python .../shared_model.py OUT``."""

import sys
import tempfile
from pathlib import Path

from short_runs import small_config
from simulation import simulated_cells

from causcell_export import export
from causcell_training import fit


def main(out: str) -> None:
    """Train and export the model of the fixture `repository`."""
    with tempfile.TemporaryDirectory() as folder:
        run = fit(simulated_cells(), Path(folder) / "run", config=small_config())
        export(run, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
