"""Training data: cells with labels, who of them is held out, and the genes that the model reads."""

from causcell._deprecation import moved_names

__getattr__ = moved_names(
    __name__,
    (
        "causcell_training.data.cells",
        "causcell_training.data.split",
        "causcell_training.data.genes",
        "causcell_training.data.components",
        "causcell_training.loop.batches",
    ),
)
