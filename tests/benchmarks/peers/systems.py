"""The systems that are compared: what they are called, where each runs, and why one cannot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
OWN = "product"
"""The environment of CausCell itself, which runs the harness."""


@dataclass(frozen=True)
class System:
    """A system.

    Attributes
    ----------
    adapter
        Name of its file in ``adapters``.
    title
        Name in tables.
    group
        ``own``, ``peer`` or ``trivial``; ``file`` for an adapter that is given by its path.
    checkout
        Whether it is on no index, and a path to its source is needed.
    """

    adapter: str
    title: str
    group: str
    checkout: bool = False


SYSTEMS = (
    System("causcell_given", "CausCell", "own"),
    System("causcell_ind", "CausCell_IND", "own"),
    System("scvi_vae", "scVI", "peer"),
    System("scgen", "scGen", "peer"),
    System("cpa", "CPA", "peer"),
    System("biolord", "Biolord", "peer"),
    System("scdisinfact", "scDisInFact", "peer", checkout=True),
    System("sccbgm", "scCBGM", "peer", checkout=True),
    System("sccbgm_flow", "scCBGM, flow matching", "peer", checkout=True),
    System("scpram", "scPRAM", "peer"),
    System("cellflow", "CellFlow", "peer"),
    System("michigan", "MichiGAN", "peer", checkout=True),
    System("no_change", "no change", "trivial"),
    System("label_means", "label means", "trivial"),
    System("global_shift", "one shift for all", "trivial"),
    System("type_shift", "shift within type", "trivial"),
    System("ridge", "additive ridge", "trivial"),
    System("interaction_ridge", "interaction ridge", "trivial"),
    System("pca_shift", "PCA-128 and shift", "trivial"),
)


def find_systems(names: list[str]) -> list[System]:
    """Find systems by adapter, by group (``own``, ``peer``, ``trivial``, ``all``), or by an adapter's own file."""
    files = [System(str(Path(name).resolve()), Path(name).stem, "file") for name in names if name.endswith(".py")]
    names = [name for name in names if not name.endswith(".py")]
    found = [each for each in SYSTEMS if "all" in names or {each.adapter, each.group} & set(names)]
    known = {each.adapter for each in SYSTEMS} | {each.group for each in SYSTEMS} | {"all"}
    strange = [name for name in names if name not in known]
    if strange:
        raise SystemExit(f"there is no system {strange[0]!r}; there are {', '.join(sorted(known))}")
    return found + files
