"""Records of a pipeline and of its training runs, with the fields that a report shows."""

import functools
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schoolhouse.core.environment import GitState
from schoolhouse.evaluation.results import first_error


T = TypeVar("T")
Interval = Annotated[tuple[float, float], Field(strict=False)]  # a list in JSON


class Record(BaseModel):
    """Base of all records: no conversions between types, only finite numbers, unknown fields ignored."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore", frozen=True)


class Run(Record):
    """Content of run.json."""

    command: list[Any] | None = None
    seconds: float | None = None
    steps: int | None = None
    tokens: Any = None
    git: GitState | None = None
    versions: dict[str, Any] | None = None
    hardware: dict[str, Any] | None = None
    data: list[dict[str, Any]] | None = None


class TrainerState(Record):
    """Content of a checkpoint's trainer_state.json."""

    log_history: list[dict[str, Any]]


class RewardPoint(Record):
    """Means of one logging step of a run whose over-optimization is measured."""

    step: int
    kl: float | None = None
    gold: float | None = None
    proxy: float | None = None
    length: float | None = None
    eos_rate: float | None = None
    entropy: float | None = None
    repetition: float | None = None
    spread: float | None = None


class Peak(Record):
    """Step at which the gold reward is highest; the interval is of its KL divergence."""

    step: int
    kl: float
    gold: float
    interval: Interval | None = None


class Fall(Record):
    """Gold reward at the end minus the gold reward at its peak."""

    value: float
    interval: Interval


class Stop(Record):
    """Limit at which a run was stopped."""

    by: str
    step: int


class Overoptimization(Record):
    """Content of overoptimization.json."""

    points: list[RewardPoint]
    peak: Peak | None = None
    final_minus_peak: Fall | None = None
    stopped: Stop | None = None


class PipelineStage(Record):
    """Entry of a stage in pipeline.json."""

    name: str
    recipe: str | None = None
    parent: str | None = Field(default=None, validation_alias=AliasChoices("parent", "after"))
    folder: str | None = None
    eval: str | None = None
    key: str | None = None
    status: str | None = None
    seconds: float | None = None


class Pipeline(Record):
    """Content of pipeline.json."""

    name: str | None = None
    stages: list[PipelineStage]


def parse(kind: type[T], value: Any) -> T:
    """
    Turn a JSON value into a record.

    Args:
        kind (`type`):
            A record, or a list of records.
        value (`Any`):
            JSON value.

    Returns:
        The value of that type.

    Raises:
        ValueError: with the place of the first fault.
    """
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(first_error(error)) from None


@functools.cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)
