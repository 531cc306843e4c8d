"""Where the modules of version 0.1 are today; see `causcell._deprecation`."""

from __future__ import annotations

MOVED = {
    "causcell_training.evaluation.concepts": ("causcell.evaluation.embeddings",),
    "causcell_training.evaluation.effects": ("causcell.evaluation.shifts",),
    "causcell_training.evaluation.evaluate": ("causcell.evaluation.evaluate",),
    "causcell_training.evaluation.expression": ("causcell.evaluation.expression",),
    "causcell_training.evaluation.known_truth": ("causcell.evaluation.known_truth",),
    "causcell_training.evaluation.probes": ("causcell.evaluation.probes",),
    "causcell_training.evaluation.report": ("causcell.evaluation.report",),
    "causcell_training.evaluation.simulator": ("causcell.evaluation.simulator",),
    "causcell_training.evaluation.subject": ("causcell.evaluation.data",),
    "causcell_training.evaluation.table": ("causcell.evaluation.table",),
    "causcell_training.plot": ("causcell_training.curves",),
}
"""By old module, the modules that hold its names today."""
