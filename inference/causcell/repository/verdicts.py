"""Verdicts on a model's concepts: whether to intervene on one of them, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from causcell._internal.telling import warn

Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=2000)]


class Verdict(BaseModel):
    """Judgement of a concept: whether it is read and to be intervened on, as seen on held-out cells.

    Attributes
    ----------
    concept
        Name of the concept.
    combinations
        Whether the effects judged are those of combinations of labels that the model was trained on.
    usable
        Whether effects of an intervention on it are better than the best trivial predictor, and its label is read from
        its embedding; `None` where that could not be judged.
    read
        Whether the label is read; `None` where there is no reading.
    accuracy, majority
        Share of the judged cells whose label is read right, and share of the most frequent label.
    score, resolution
        Average over the measures that can be trusted, from the best trivial predictor (0) to a replicate of the real
        cells (1), and how far a replicate varies on it; see `causcell.evaluation.scores`.
    trivial
        Name of the best trivial predictor.
    reason
        All of it in a sentence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    concept: Text
    combinations: Literal["seen", "unseen"] = "seen"
    usable: bool | None = None
    read: bool | None = None
    accuracy: Number | None = None
    majority: Number | None = None
    score: Number | None = None
    resolution: Number | None = None
    trivial: Text = ""
    reason: Text

    @property
    def title(self) -> str:
        """The concept, and whether unseen combinations were judged."""
        return self.concept if self.combinations == "seen" else f"{self.concept} (unseen combinations)"

    def __str__(self) -> str:
        return f"{self.title}: {self.reason}"


def warn_of_unusable(verdicts: Sequence[Verdict], concepts: Iterable[str]) -> None:
    """Warn, once, of concepts that are intervened on although their effects were judged not usable.

    Parameters
    ----------
    verdicts
        Those of the model.
    concepts
        Names of the concepts that are intervened on; a name may come more than once.
    """
    named = set(concepts)
    doubtful = [str(each) for each in verdicts if each.usable is False and each.concept in named]
    if doubtful:
        warn(
            f"judged on held-out cells when the model was exported, effects of these interventions are not usable: "
            f"{'; '.join(doubtful)}"
        )
