"""Settings of a training run; a TOML file of settings has the same names and sections."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from causcell._internal.choices import suggest
from causcell._internal.toml import as_json, read_toml
from causcell.diffusion.schedule import ScheduleKind
from causcell.errors import ConfigurationError, format_list
from causcell.preprocessing import Scale
from causcell_training.heads.registry import check_head_name, head_class

GeneSelection = Literal["dispersion", "variance", "seurat_v3", "labels", "variance_labels"]
"""Ways to choose a number of genes; see `causcell_training.data.gene_ranking`."""


_OF_VALUES = ("label_features", "set_control")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def listed(given: Any) -> Any:
    """Take one text for a list of it, and a list for a tuple."""
    if isinstance(given, str):
        return (given,)
    return tuple(given) if isinstance(given, list) else given  # a strict tuple is no list


class ModelConfig(_Section):
    """Shapes of the networks."""

    embedding: int = Field(32, ge=1, le=1024)
    """Numbers per concept, k."""
    components: int = Field(128, ge=1, le=16_384)
    """Principal components of expression that the encoder reads (fewer where genes or cells are fewer)."""
    encoder_width: int = Field(512, ge=8, le=16_384)
    """Hidden width of the encoder."""
    encoder_layers: int = Field(2, ge=1, le=64)
    """Hidden layers of the encoder."""
    encoder_dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout of the expression that the encoder reads and of its hidden layers: what keeps it from overfitting."""
    width: int = Field(128, ge=8, le=16_384)
    """Hidden width of the denoiser, d."""
    blocks: int = Field(2, ge=1, le=64)
    """Blocks of the denoiser, each cross-attention and feed-forward."""
    heads: int = Field(4, ge=1, le=256)
    """Attention heads of each block."""
    last_norm: bool = False
    """Normalise the denoiser's last hidden state, as models of earlier versions do. Then each concept's effect depends
    on the size of all others. Simulated doses, error of effects on single cells, of types' means: .73, .21 with it;
    .57, .13 without. Kang, squared error of do(stim) in cells not trained on, energy of draws: .16, .55; .13, .59.
    Glioblastoma, MSE of the mean estimate: 1.50; 1.58. ``tests/benchmarks/results/last_norm.md``."""
    head: str = "spike_slab"
    """Name of a registered head, which says what the denoiser's output is; see `causcell_training.heads`."""
    graph: Literal["given", "independent", "learned"] = "given"
    """``independent`` leaves the edges out: the paper's CausCell_IND, whose concepts have no causes. ``learned`` takes
    the edges for those that are allowed (none given: from each concept to all named after it) and keeps those that the
    cells ask for; ``docs/graph.md`` says what that can't tell."""
    edge_weights: Literal["fixed", "learned"] = "fixed"
    """Weights of the edges: 1 each, as in the paper, or learned."""
    mechanism: Literal["linear", "nonlinear"] = "linear"
    """How causes act on a concept: ``linear``, z_i = sum of theirs + eps_i, as in the paper; or ``nonlinear``, with a
    small network of all causes' embeddings beside the sum; see `causcell_training.scm.StructuralCausalModel`."""
    mechanism_width: int = Field(64, ge=1, le=16_384)
    """Hidden width of nonlinear mechanisms."""
    abduction: Literal["informed", "expression"] = "informed"
    """Source that a cell's embeddings are abducted from: ``informed`` by its known labels beside its expression,
    q(eps | x, y) as in the paper; or ``expression`` alone, q(eps | x). See
    `causcell_training.model.CausCell.inform`."""
    schedule: ScheduleKind = "linear"
    """Noise schedule of the diffusion; see `causcell.diffusion.schedule.NoiseSchedule`."""
    timesteps: int = Field(1000, ge=21, le=100_000)
    """Timesteps of the noise schedule, T."""

    @field_validator("head")
    @classmethod
    def _is_known(cls, head: str) -> str:
        try:
            return check_head_name(head)
        except ConfigurationError as error:  # a ValueError is told with the setting's name
            raise ValueError(str(error)) from error


class ObjectiveConfig(_Section):
    """Weight of each term of the objective; every term is logged whatever its weight."""

    reconstruction: float = Field(1.0, ge=0)
    """Squared error of x0 on the log scale, in units of the genes' mean variance."""
    likelihood: float = Field(3.0, ge=0)
    """Minus the log-likelihood of x0, nats per gene, of heads that have one, as ``spike_slab`` has. It makes posterior
    draws true, squared error makes the mean estimate exact: Kang, energy distance of one draw and MSE of the mean, by
    weights (likelihood, reconstruction): (0, 1) .120, .272; (3, 1) .054, .271; (3, 0) .052, .283."""
    classification: float = Field(0.1, ge=0)
    """Cross-entropy of each concept's label from its embedding."""
    exogenous_kl: float = Field(0.1, ge=0)
    """KL(q(eps|x) || N(0, I)), nats per gene."""
    endogenous_kl: float = Field(1.0, ge=0)
    """KL(q(z_i|x) || p(z_i|y_i)), nats per gene. Less of both makes the mean estimate more exact and effects less sure:
    a fifth of both, the demo's MSE .412 for .419, but HMGB2 8th and 22nd of 765 under do(phase=S), not 5th and 9th
    (two seeds)."""
    adversary: float = Field(0.1, ge=0)
    """Divergence of label frequencies from what discriminators that read the unexplained concept say; see
    `causcell_training.objective.Objective`."""
    independence: float = Field(0.1, ge=0)
    """Variance of labels, by two, that a linear reader explains from exogenous embeddings that should not tell them;
    see `causcell_training.objective.independencies`. Glioblastoma, squared error of do(panobinostat) on held-out cells
    over the true shift's square, by weight: 0.03 .28, 0.1 .24, 0.3 .22; but the simulator's average effects, error
    0.03 and few cells .095, 0.1 .082, 0.3 .129 (``tests/benchmarks/results/effects.md``)."""
    edges: float = Field(0.01, ge=0)
    """Expected number of open edges, of a learned graph."""
    independence_cells: int = Field(1024, ge=0)
    """Cells that it is taken over: those of the batch, and of batches before it. In a batch alone chance explains more
    than what is looked for, and its noise costs the mean estimate (MSE on Kang, 0.1 over a batch .276, over 1,024 cells
    .263)."""


class OptimisationConfig(_Section):
    """Optimiser, batches, and when training stops."""

    batch_size: int = Field(128, ge=2, le=10**9)
    """Cells of a batch."""
    accumulate: int = Field(1, ge=1, le=10**6)
    """Batches whose gradients are averaged for a step: steps of many cells, in the memory of a batch."""
    learning_rate: float = Field(1e-3, gt=0)
    """Learning rate of AdamW."""
    weight_decay: float = Field(1.0, ge=0)
    """Decay of the networks' matrices, times the learning rate a step: a decoder of few cells overfits their means.
    Kang, energy distance of one draw of held-out cells: .086 at .01, .076 at 1, .087 at 2; of training cells none is
    left."""
    head_decay: float = Field(1.0, ge=0)
    """Decay of the matrices of the head, which make genes of the decoder's last hidden state, in place of
    ``weight_decay``. With more of it, less of what few cells of a label have in common by chance is learned as its
    effect. Kang (1,832 cells, 2,000 genes), three seeds, at 4: squared error of do(stim) in seen types .10 for .16,
    energy distance of draws .72 for .64; on 5,000 cells of 300 genes nothing is gained."""
    gradient_clip: float = Field(1.0, gt=0)
    """Largest norm of a gradient."""
    epochs: int = Field(200, ge=1, le=10**9)
    """Largest number of epochs."""
    epoch_cells: int = Field(100_000, ge=2, le=10**12)
    """Most cells of an epoch: of more training cells, a pass over all of them is several epochs, so that ``epochs``,
    ``patience`` and ``validate_every`` are numbers of cells seen."""
    patience: int = Field(8, ge=1, le=10**9)
    """Validations without improvement on held-out cells before training stops."""
    validate_every: int = Field(5, ge=1, le=10**9)
    """Epochs between validations."""
    ema_decay: float = Field(0.99, ge=0, lt=1)
    """Decay, a step, of the moving average of the weights, which is what is validated and exported."""
    held_out: float = Field(0.1, gt=0, lt=0.9)
    """Share of cells held out, half to choose by (early stopping) and half to report on, if no split is given."""
    devices: int = Field(1, ge=1, le=1024)
    """GPUs, or processes on CPUs, of this machine that the cells of each batch are shared out among; their gradients
    are averaged. The same cells a step, and up to random numbers the same training."""
    strategy: Literal["auto", "ddp_spawn", "ddp_fork"] = "auto"
    """How several devices' processes start, by Lightning's names. ``ddp_spawn``, which ``auto`` takes: anew, on any
    device; ``ddp_fork``: as copies of this process, on CPUs alone, of one thread each: they start at once, and what
    `fit` is given need not be picklable."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Device to train on; ``auto`` takes a GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products. ``auto``: bfloat16 on a GPU, float32 on a CPU; ``float32``: on a GPU too, slower
    and as near to a training on a CPU as another order of sums allows; ``bfloat16``: on a CPU too, one that computes
    with it. Weights are float32 in any case."""


class DescentConfig(_Section):
    """Settings of a training that starts from a finished run."""

    freeze: tuple[Literal["encoder", "decoder", "graph"], ...] = ("encoder",)
    """Parts whose weights stay as they are: ``encoder``, ``decoder`` (the denoiser), ``graph`` (learned weights of
    edges); ``none`` of them. With the encoder as it was, Kang's new donors were learned better from as many steps
    (``docs/fine_tuning.md``), and cells are read as they were before."""
    replay: float = Field(0.5, ge=0, lt=1)
    """Share of the cells of each batch that are decoded from the run's reference cells by its own model: they stand for
    the cells it was trained on, which are not needed again."""
    steps: int | None = Field(None, ge=1, le=10**9)
    """Optimiser steps, to the end of an epoch, in place of ``optimisation.epochs``; where neither is given, 7 % of
    those of the training from nothing that the run descends from."""
    allow_missing_genes: float = Field(0.0, ge=0, lt=1)
    """Share of the panel's genes, and of a cell's total, that the new cells may lack; filled with the mean of the run's
    training cells."""

    @field_validator("freeze", mode="before")
    @classmethod
    def _one_is_a_list(cls, given: Any) -> Any:
        return () if listed(given) == ("none",) else listed(given)


class TrainConfig(_Section):
    """All settings of a run.

    The names at the top are those of the command line's flags.
    """

    concept: tuple[str, ...] = ()
    """Columns of ``obs`` with the concepts' labels, each as it is or with its kind: ``NAME:ordinal``,
    ``NAME:continuous``, ``NAME:set`` or ``NAME:labels``; see ``docs/concepts.md``."""
    label_features: tuple[str, ...] = ()
    """Tables of labels' features, ``NAME=FILE.csv`` each: a header, then a label and its numbers in each row."""
    set_control: tuple[str, ...] = ()
    """Label of the cells that carry no member of a set, ``NAME=LABEL`` each."""
    edge: tuple[str, ...] = ()
    """Causal edges between concepts, ``PARENT:CHILD`` each."""
    expression: Scale = "counts"
    """Scale of the values given: raw ``counts``, or ``log1p`` values."""
    genes: int | str = 2000
    """A number of highly variable genes, ``all``, ``highly_variable`` (those that this column of ``var`` marks), or a
    file with one gene name a line."""
    gene_selection: GeneSelection = "variance_labels"
    """How a number of genes is chosen, by the training cells. ``variance``: variance on the log scale. ``labels``:
    genes raised in a label of a concept, in turn. ``variance_labels``: by turns from both. ``dispersion``: normalised
    dispersion, as scanpy has it. ``seurat_v3``: variance of counts beyond its trend with the mean, clipped (needs
    scikit-misc). Of the squared shift of held-out Kang cells a panel of 2,000 holds, by dispersion .39, by
    ``variance_labels`` .997 (``docs/genes.md``)."""
    batch_key: str | None = None
    """Column of ``obs`` with batches: a number of genes is chosen by what varies within them, not between."""
    include_genes: tuple[str, ...] = ()
    """Genes that are on the panel whatever is chosen: names, or files of names. They count among a number of genes."""
    layer: str | None = None
    """Layer to read in place of ``X``."""
    raw: bool = False
    """Read genes and values of ``adata.raw`` in place of ``X``."""
    totals: str | None = None
    """Column of ``obs`` with each cell's total of counts, for a file that lacks genes which the total counts. The model
    then needs such a column wherever it reads counts: which genes the column counts is not known."""
    round_counts: bool = False
    """Round counts that are not whole: floating point left a rest, or they were corrected for ambient RNA or estimated
    from reads. Totals are those of the rounded counts."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of split, initial weights and every step."""
    model: ModelConfig = ModelConfig()
    """Shapes of the networks."""
    objective: ObjectiveConfig = ObjectiveConfig()
    """Weight of each term of the objective."""
    optimisation: OptimisationConfig = OptimisationConfig()
    """Optimiser, batches, and when training stops."""

    descent: DescentConfig | None = None
    """Settings of a training that starts from a finished run; none: it starts from nothing."""

    @field_validator("concept", "edge", "include_genes", "label_features", "set_control", mode="before")
    @classmethod
    def _one_is_a_list(cls, given: Any) -> Any:
        return listed(given)

    @model_serializer(mode="wrap")
    def _leave_out_options_not_used(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out options of values and of a descent where there are none: settings are written as they were."""
        fields: dict[str, Any] = dump(self)
        return {name: value for name, value in fields.items() if value or name not in (*_OF_VALUES, "descent")}

    @model_validator(mode="after")
    def _has_a_loss(self) -> TrainConfig:
        if self.objective.reconstruction and self.objective.likelihood:
            return self  # whatever the head's losses are, and without importing it
        names = head_class(self.model.head).loss_names
        if not any(getattr(self.objective, name) for name in names):
            weights = " and ".join(f"objective.{name}" for name in names)
            raise ValueError(
                f"{weights} can't {'both ' if len(names) > 1 else ''}be 0: nothing would train the denoiser, as head "
                f"{self.model.head!r} has no other loss"
            )
        return self


def load_config(path: str | os.PathLike[str] | None = None, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Load settings from a TOML file, with ``overrides`` on top.

    Parameters
    ----------
    path
        File with the names and sections of `TrainConfig`; the defaults, if not given.
    overrides
        Values by dotted name, such as ``model.width``.

    Raises
    ------
    ConfigurationError
        An unreadable file, an unknown name, a value out of range.

    Examples
    --------
    >>> config = load_config(overrides={"concept": ["stim"], "model.width": 64})
    >>> config.model.width, config.model.head
    (64, 'spike_slab')
    """
    fields: dict[str, Any] = {}
    if path is not None:
        fields = read_toml(path, "config")
    for name, value in (overrides or {}).items():
        *sections, key = name.split(".")
        target = fields
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigurationError(f"{name!r} is no setting: {section!r} is not a section")
        target[key] = value
    try:
        return TrainConfig.model_validate_json(as_json(fields), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigurationError(_unknown_setting(name, first["input"])) from error
        named = f"setting {name!r} = {repr(first['input'])[:200]}: " if name else ""
        raise ConfigurationError(named + first["msg"].removeprefix("Value error, ")) from error


def _unknown_setting(name: str, value: object) -> str:
    """Return the message for a setting that there is not, with the nearest one."""
    sections = {
        key: tuple(each.model_fields)
        for key, field in TrainConfig.model_fields.items()
        for each in (field.annotation, *get_args(field.annotation))
        if isinstance(each, type) and issubclass(each, _Section)
    }
    section, _, key = name.rpartition(".")
    known = sections.get(section, tuple(TrainConfig.model_fields))
    owner = next((other for other, keys in sections.items() if key in keys), None)
    near = suggest(key, known).replace("'", f"'{section}.", 1) if section in sections else suggest(key, known)
    hint = f"did you mean '{owner}.{key}'? " if owner else near
    place = section or "the top"
    return f"setting {name!r} = {repr(value)[:100]} is not known; {hint}{place} has {format_list(known, 20)}"


def parse_overrides(settings: list[str]) -> dict[str, Any]:
    """Parse ``SECTION.KEY=VALUE`` strings to a mapping; values are read as TOML where they can be, else as text.

    Raises
    ------
    ConfigurationError
        A string of another form.

    Examples
    --------
    >>> parse_overrides(["model.width=64", "model.head=plain"])
    {'model.width': 64, 'model.head': 'plain'}
    """
    overrides: dict[str, Any] = {}
    for setting in settings:
        name, found, text = setting.partition("=")
        if not (name and found):
            raise ConfigurationError(f"setting={setting!r} is not SECTION.KEY=VALUE, such as model.width=128")
        try:
            read = tomllib.loads(f"value = {text}")
            overrides[name] = read["value"] if len(read) == 1 else text
        except (ValueError, RecursionError):
            overrides[name] = text
    return overrides
