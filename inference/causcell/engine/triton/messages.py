"""What a server says of itself and its models, checked: metadata, index, configurations, statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from causcell.engine.triton.tensors import StrangeAnswerError, first_problem

T = TypeVar("T")

Count = Annotated[int, Field(ge=0, lt=2**64)]
"""A count; gRPC writes those of 64 bits as text."""


class Metadata(TypedDict):
    """Metadata of a server."""

    version: str


class _IndexOptions(TypedDict, total=False):
    version: str
    state: str
    reason: str


class IndexEntry(_IndexOptions):
    """A model, its state, and why it failed if it did."""

    name: str


class _Parameter(TypedDict, total=False):
    string_value: str


class _Batching(TypedDict, total=False):
    max_queue_delay_microseconds: Count


class _InstanceGroup(TypedDict, total=False):
    count: Count


class _ConfigOptions(TypedDict, total=False):
    max_batch_size: Count
    dynamic_batching: _Batching
    instance_group: list[_InstanceGroup]
    parameters: dict[str, _Parameter]


class ModelConfig(_ConfigOptions):
    """The parts of a model's configuration that clients read."""

    name: str


class _Duration(TypedDict, total=False):
    count: Count
    ns: Count


class _Durations(TypedDict, total=False):
    success: _Duration
    fail: _Duration
    queue: _Duration
    compute_infer: _Duration


class _StatisticsOptions(TypedDict, total=False):
    execution_count: Count
    inference_count: Count
    inference_stats: _Durations


class Statistics(_StatisticsOptions):
    """Statistics of a model since its server started."""

    name: str


class _StatisticsAnswer(TypedDict):
    model_stats: list[Statistics]


class Region(TypedDict):
    """A region of shared memory that a server maps."""

    name: str


@dataclass(frozen=True)
class Shape(Generic[T]):
    """Expected form of an answer.

    Attributes
    ----------
    adapter
        Checks the JSON of HTTP.
    take
        Takes the same from gRPC's message.
    """

    adapter: TypeAdapter[T]
    take: Callable[[dict[str, Any]], Any] = lambda message: message

    def read(self, content: bytes) -> T:
        """Read an HTTP answer; raise `StrangeAnswerError` if it is of another shape."""
        try:
            return self.adapter.validate_json(content)
        except ValidationError as error:
            raise StrangeAnswerError(first_problem(error)) from error

    def read_message(self, message: dict[str, Any]) -> T:
        """Read a gRPC message; raise `StrangeAnswerError` if it is of another shape."""
        try:
            return self.adapter.validate_python(self.take(message))
        except ValidationError as error:
            raise StrangeAnswerError(first_problem(error)) from error


METADATA = Shape(TypeAdapter(Metadata))
INDEX = Shape(TypeAdapter(list[IndexEntry]), lambda message: message.get("models", []))
CONFIG = Shape(TypeAdapter(ModelConfig), lambda message: message.get("config", {}))
STATISTICS = Shape(TypeAdapter(_StatisticsAnswer), lambda message: {"model_stats": message.get("model_stats", [])})
REGIONS = Shape(TypeAdapter(list[Region]), lambda message: list(message.get("regions", {}).values()))
