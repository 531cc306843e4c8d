"""One training: the Lightning trainer, its callbacks, and the run that comes out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger

from causcell.cells.collection import AnySource
from causcell.errors import CausCellError, ConfigurationError, RunError
from causcell.repository.description import ModelDescription
from causcell_training.checkpoint_file import read_checkpoint
from causcell_training.config import TrainConfig
from causcell_training.data.cells import TrainingData, prepare
from causcell_training.data.descended import prepare_descended
from causcell_training.data.heritage import Heritage
from causcell_training.data.panel_rows import PanelCache
from causcell_training.data.split import REPLAYED, TRAINING, Split
from causcell_training.descended_weights import frozen_weights
from causcell_training.loop.batches import training_batches, validation_batches, with_epochs
from causcell_training.loop.callbacks import DivergenceCheck, MetricsFile, MovingAverage, StartedProcess
from causcell_training.loop.checkpoints import CheckpointFiles, Progress, RunCheckpoints, read_facts
from causcell_training.loop.environment import (
    OneProcess,
    OwnProcesses,
    check_accelerator,
    check_devices,
    check_shares,
    find_precision,
    find_strategy,
)
from causcell_training.loop.finish import find_versions, finish_run
from causcell_training.loop.progress import TrainingProgress
from causcell_training.loop.surroundings import (
    one_at_a_time,
    own_interrupt,
    own_randomness,
    own_rank,
    quiet_lightning,
)
from causcell_training.loop.training_plan import MONITOR, TrainingPlan, plan_name
from causcell_training.model import CausCell
from causcell_training.run import Run
from causcell_training.run_data import RunData, TrainingFacts, write_held_out_cells
from causcell_training.run_folder import (
    BEST_FILE,
    CHECKPOINTS,
    LAST_FILE,
    METRICS_FILE,
    SPLIT_FILE,
    check_writable,
    clear_run,
    write_config,
    write_split,
)
from causcell_training.torch_defaults import own_threads, own_torch_defaults
from causcell_training.trained_model import make_model, select_model_weights


@dataclass(frozen=True)
class LoopOptions:
    """Options of the loop that do not change the model by themselves, checked.

    Attributes
    ----------
    progress
        Show a progress bar.
    cache
        Where the panel's values are kept; in memory, where none is given.
    callbacks
        Lightning callbacks, beside fit's own.
    logger
        A Lightning logger; `True` for Lightning's default one, `False` for none.
    plan
        Class of the training plan; `TrainingPlan` where none is given.

    Raises
    ------
    ConfigurationError
        Something is not what Lightning takes, or the plan is no `TrainingPlan`.
    """

    progress: bool = False
    cache: PanelCache | None = None
    callbacks: Sequence[lightning.Callback] = ()
    logger: Logger | bool = False
    plan: type[TrainingPlan] | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        for callback in self.callbacks:
            if not isinstance(callback, lightning.Callback):
                raise ConfigurationError(f"callbacks= has {callback!r}, which is no lightning.pytorch.Callback")
        if not isinstance(self.logger, bool | Logger):
            raise ConfigurationError(f"logger={self.logger!r}: give True, False or a Lightning logger")
        if self.plan is not None and not (isinstance(self.plan, type) and issubclass(self.plan, TrainingPlan)):
            raise ConfigurationError(f"plan={self.plan!r}: give a class derived from causcell_training.TrainingPlan")


def train_model(
    data: AnySource,
    path: Path,
    config: TrainConfig,
    split: Split | None,
    options: LoopOptions,
    *,
    heritage: Heritage | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Run:
    """Prepare the data, run the loop and write the run folder.

    Parameters
    ----------
    data, split
        See `causcell_training.data.cells.prepare`.
    path
        Folder of the run.
    config
        Settings.
    options
        Callbacks, logger, plan and progress bar.
    heritage
        What is taken over from the run that training starts from.
    resume
        Go on with the run at ``path``, from its beginning where it has no checkpoint yet.
    overwrite
        Remove the run that is at ``path``, once the data have been read and checked.

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    CausCellError
        See `causcell_training.fit`.
    KeyboardInterrupt
        Ctrl-C, or SIGTERM (`causcell._internal.interrupts.Terminated`); its text says what is kept and how to go on.
    """
    check_accelerator(config.optimisation.accelerator)
    check_devices(config.optimisation)
    find_precision(config.optimisation)
    with one_at_a_time(), own_torch_defaults(), own_threads(), own_rank():
        if heritage is None:
            prepared = prepare(data, config, split, options.cache)
        else:
            prepared = prepare_descended(data, config, split, heritage, options.cache)
        check_shares(config.optimisation, prepared.rows(TRAINING))
        config = with_epochs(config, -(-len(training_batches(prepared, config)) // config.optimisation.accumulate))
        run_data = _resume_run(path, prepared, config) if resume else _begin_run(path, prepared, config, overwrite)
        checkpoints = RunCheckpoints(
            path,
            MONITOR,
            config.optimisation.patience,
            plan=None if options.plan in (None, TrainingPlan) else plan_name(options.plan),
            versions=find_versions(),
        )
        try:
            facts, model = _run_loop(path, prepared, config, options, checkpoints)
            run = finish_run(path, run_data, config, model, facts)
            shutil.rmtree(path / CHECKPOINTS)
        except KeyboardInterrupt as interrupt:
            interrupt.args = (_describe_interrupt(path, checkpoints.progress),)
            raise
    return run


def _begin_run(path: Path, data: TrainingData, config: TrainConfig, overwrite: bool) -> RunData:
    """Make the folder of a new run, and write all that depends on the cells alone."""
    check_writable(path, overwrite=overwrite)
    clear_run(path)
    run_data = RunData.of(data, config.seed, config.model.embedding)
    run_data.save(path)  # first: it says that the folder is a run's
    _write_inputs(path, data, config)
    return run_data


def _resume_run(path: Path, data: TrainingData, config: TrainConfig) -> RunData:
    """Check that the run was begun with these cells, and take the settings that may change."""
    run_data = RunData.load(path)
    if run_data.digest != data.digest():
        raise RunError(
            f"the run was begun with other cells, labels or another split (see its {SPLIT_FILE}); resume it with the "
            "same data and split="
        )
    if (path / LAST_FILE).exists():
        read_checkpoint(path / BEST_FILE)  # now, and not when hours later nothing was better
    _write_inputs(path, data, config)  # a kill may have come before
    return run_data


def _write_inputs(path: Path, data: TrainingData, config: TrainConfig) -> None:
    """Write the settings, the part of every cell, and the held-out cells."""
    write_config(path, config)
    if data.heritage is None:
        write_split(path, data.names, data.part)
    else:
        own = data.part != REPLAYED
        parts = {**data.heritage.split, **dict(zip(data.names[own], data.part[own], strict=True))}
        write_split(path, parts, parts.values())
    write_held_out_cells(data, config.seed, path)


def _run_loop(
    path: Path, data: TrainingData, config: TrainConfig, options: LoopOptions, checkpoints: RunCheckpoints
) -> tuple[TrainingFacts, CausCell]:
    """Train from the last checkpoint, if there is one; return facts, and the model with the best averaged weights."""
    last = path / LAST_FILE
    with own_randomness(config.seed), quiet_lightning():
        plan = (options.plan or TrainingPlan)(data, config)
        trainer = _make_trainer(path, config, checkpoints, options)
        with own_interrupt():
            try:
                trainer.fit(
                    plan,
                    train_dataloaders=training_batches(data, config),
                    val_dataloaders=validation_batches(data, config),
                    ckpt_path=last if last.exists() else None,
                    weights_only=True,
                )
            except Exception as error:
                started = checkpoints.begun or config.optimisation.devices > 1
                if started or isinstance(error, CausCellError) or not last.exists():
                    raise
                raise RunError(
                    f"{last} can't be used: {type(error).__name__} {str(error)[:200]}; begin again with overwrite=True"
                ) from error
    if not (path / BEST_FILE).exists():
        raise RunError("no validation gave a finite measure, so that there is no model; see metrics.csv")
    facts = checkpoints.facts(trainer, trainer.global_step)
    if config.optimisation.devices > 1:  # whose callbacks lived in other processes
        facts = read_facts(path)
    weights = select_model_weights(read_checkpoint(path / BEST_FILE)["state_dict"])
    weights |= frozen_weights(data, config.descent)
    description = ModelDescription.of(plan.model.schema, data.preprocessing)
    return facts, make_model(description, config.model, weights)


def _describe_interrupt(path: Path, progress: Progress) -> str:
    """Say what an interrupted training has kept, and how to go on."""
    if not (path / BEST_FILE).exists():
        return f"training was before its first validation, in {str(path)!r}; go on with resume=True"
    best = f" (of epoch {progress.best_epoch}, held-out MSE {progress.best:.3f})" if progress.best_epoch else ""
    return (
        f"the best model so far{best} is kept in {str(path)!r}; go on with resume=True, or export it as it is with "
        "unfinished=True"
    )


def _make_trainer(
    path: Path, config: TrainConfig, checkpoints: RunCheckpoints, options: LoopOptions
) -> lightning.Trainer:
    """Make the trainer: checkpoints, moving average, metrics file, and the caller's callbacks."""
    settings = config.optimisation
    callbacks: list[lightning.Callback] = [
        checkpoints,  # before all others: between two epochs none of them has begun the second
        StartedProcess(forked=settings.strategy == "ddp_fork"),  # before what copies a model
        MovingAverage(settings.ema_decay),
        MetricsFile(path / METRICS_FILE),
        DivergenceCheck(settings),
        *options.callbacks,
    ]
    own_bar = any(isinstance(callback, ProgressBar) for callback in options.callbacks)
    if options.progress and not own_bar:
        callbacks.append(TrainingProgress())
    return lightning.Trainer(
        default_root_dir=path,
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy=find_strategy(settings),
        plugins=[OneProcess() if settings.devices == 1 else OwnProcesses(), CheckpointFiles(path)],
        precision=find_precision(settings),
        accumulate_grad_batches=settings.accumulate,
        max_epochs=settings.epochs,
        check_val_every_n_epoch=min(settings.validate_every, settings.epochs),
        gradient_clip_val=settings.gradient_clip,
        callbacks=callbacks,
        logger=options.logger,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in options.callbacks),
        enable_progress_bar=options.progress or own_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
