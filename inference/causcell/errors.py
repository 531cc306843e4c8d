"""Every error that CausCell raises on purpose, in one tree.

::

    CausCellError
    ├── DataError                   something in the cells given
    │   ├── ExpressionError         wrong scale, NaN, negative, infinite, an empty cell
    │   ├── GenePanelError          missing or duplicated genes, or names that are no text
    │   └── CellNameError           cell names that are duplicated or no text
    ├── ConceptError                something in concepts, labels, graph or interventions
    │   ├── UnknownConceptError     a concept that the data or the model does not have
    │   ├── UnknownLabelError       a label that the concept does not have
    │   ├── ConceptGraphError       a cycle, an edge to nowhere
    │   └── InterventionError       an intervention that contradicts itself
    ├── ConfigurationError          an option or a setting outside its allowed values
    ├── ModelRepositoryError        something in the exported model
    │   ├── CorruptFileError        unreadable, truncated, missing
    │   ├── DigestError             readable, but not the bytes that were exported
    │   └── SchemaVersionError      written by a newer CausCell
    ├── HubError                    a model that a hub lacks, refuses or can't give now
    ├── RunError                    something in a training run's folder
    ├── RuntimeUnavailableError     a package or an execution provider that is not there
    ├── EngineError                 a graph refused its inputs or failed
    │   ├── ServerUnavailableError  no server answers, or it is starting or stopping
    │   │   └── ServerBusyError     a server has more requests than it takes
    │   └── DeadlineExceededError   a server did not answer in time
    ├── ExportVerificationError     the exported graphs do not agree with the trained model
    ├── AtlasError                  an atlas on disk is unfinished, damaged, or no atlas
    ├── WorkerLostError             workers were lost too often
    └── OutputError                 the place to write to can't be used
        ├── OutputExistsError       it holds something already
        ├── OutputBusyError         another run writes to it
        └── OutputFullError         it has no space left, or less than is needed

A message names the thing, the value found, the values allowed and the remedy. It speaks of arguments; on the command
line of flags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from causcell._deprecation import warn_deprecated

__all__ = [
    "AtlasError",
    "CausCellError",
    "CausCellWarning",
    "CellNameError",
    "ConceptError",
    "ConceptGraphError",
    "ConfigurationError",
    "CorruptFileError",
    "DataError",
    "DeadlineExceededError",
    "DigestError",
    "EngineError",
    "ExportVerificationError",
    "ExpressionError",
    "GenePanelError",
    "HubError",
    "InterventionError",
    "ModelRepositoryError",
    "OutputBusyError",
    "OutputError",
    "OutputExistsError",
    "OutputFullError",
    "RunError",
    "RuntimeUnavailableError",
    "SchemaVersionError",
    "ServerBusyError",
    "ServerUnavailableError",
    "UnknownConceptError",
    "UnknownLabelError",
    "WorkerLostError",
    "format_list",
]


class CausCellError(Exception):
    """Base of every error raised on purpose."""


class DataError(CausCellError):
    """The cells given can't be used as they are."""


class ExpressionError(DataError):
    """Expression values are not what was declared."""


class GenePanelError(DataError):
    """The genes given do not cover what the model reads, or are ambiguous."""


class CellNameError(DataError):
    """Cell names are not unique, missing or no text."""


class ConceptError(CausCellError):
    """Concepts, labels or their graph are not usable."""


class UnknownConceptError(ConceptError):
    """A concept is named that does not exist."""


class UnknownLabelError(ConceptError):
    """A label is named that its concept does not have."""


class ConceptGraphError(ConceptError):
    """The concept graph is not a directed acyclic graph over the concepts."""


class InterventionError(ConceptError):
    """An intervention can't be carried out as stated."""


class ConfigurationError(CausCellError):
    """An option has a value that is not allowed."""


class ModelRepositoryError(CausCellError):
    """A model repository can't be used."""


class CorruptFileError(ModelRepositoryError):
    """A file of a model repository is missing or unreadable."""


class DigestError(ModelRepositoryError):
    """A file of a model repository is not the one that was exported."""


class SchemaVersionError(ModelRepositoryError):
    """A model repository was written by a newer version."""


class HubError(CausCellError):
    """A hub does not have a model, does not give or take it, or can't be reached."""


class RunError(CausCellError):
    """A training run's folder can't be used."""


class RuntimeUnavailableError(CausCellError):
    """A package or an execution provider that is needed is not available."""


class EngineError(CausCellError):
    """An engine could not evaluate a graph."""


class ServerUnavailableError(EngineError):
    """No server answers at an address."""


class ServerBusyError(ServerUnavailableError):
    """A server has more requests than it takes at the moment."""


class DeadlineExceededError(EngineError):
    """A server did not answer within the deadline."""


class ExportVerificationError(CausCellError):
    """An exported graph differs from the model it came from."""


class AtlasError(CausCellError):
    """An atlas on disk can't be used as it is."""


class WorkerLostError(CausCellError):
    """Worker processes ended before their work was done, again and again."""


class OutputError(CausCellError):
    """The output path can't be written to."""


class OutputExistsError(OutputError):
    """The output path is taken."""


class OutputBusyError(OutputError):
    """Another run writes to the output path."""


class OutputFullError(OutputError):
    """There is no space at the output path."""


class CausCellWarning(UserWarning):
    """Something was done that a user should know of, and that is no error."""


def format_list(values: Iterable[object], limit: int = 8) -> str:
    """Format values for a message: quoted, at most ``limit`` of them, the rest counted.

    Examples
    --------
    >>> format_list(["B", "NK", "T"], 2)
    "'B', 'NK' and 1 more"
    """
    items = [str(value) for value in values]
    shown = ", ".join(repr(item) for item in items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def __getattr__(name: str) -> Callable[..., str]:
    """Find a function by the name that it had."""
    if name == "listed":
        warn_deprecated("causcell.errors.listed", "causcell.errors.format_list")
        return format_list
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
