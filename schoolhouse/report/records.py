"""Records that a report reads, with the fields that it shows; a damaged one is refused with the place of the fault."""

import functools
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator


T = TypeVar("T")
Interval = Annotated[tuple[float, float], Field(strict=False)]  # a list in JSON


class Record(BaseModel):
    """Base of all records: no conversions between types, only finite numbers, unknown fields ignored."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore", frozen=True)


class Estimate(Record):
    """A value with its uncertainty, of a task or of one of its levels."""

    n: int
    value: float | None
    standard_error: float | None
    interval: Interval | None


class CalibrationPoint(Record):
    """A bin of pairs with similar predicted probability."""

    predicted: float
    observed: float
    interval: Interval | None = None


class Calibration(Record):
    """Calibration of a reward model; `ece` is the expected calibration error."""

    points: list[CalibrationPoint]
    ece: float
    ece_by_chance: Interval | None = None


class LengthBias(Record):
    """Change of a reward model's score per ten more tokens, in standard deviations."""

    sd_per_10_tokens: float
    interval: Interval


class Preference(Record):
    """Properties of a reward model beside its accuracy."""

    calibration: Calibration | None = None
    calibration_with_noisy_labels: Calibration | None = None
    length_bias: LengthBias | None = None
    batch_invariance: float | None = None


class TaskResult(Estimate):
    """Results of one task."""

    version: int
    metrics: dict[str, float]
    by_level: dict[str, Estimate]
    higher_is_better: bool = True
    preference: Preference | None = None
    sampling: dict[str, Any] | None = None


class Hashes(Record):
    """Hashes of what was evaluated."""

    model: str
    adapter: str | None
    chat_template: str | None


class Results(Record):
    """Content of results.json."""

    tasks: dict[str, TaskResult]
    hashes: Hashes
    sampling: dict[str, Any]
    git: dict[str, Any] | None = None
    command: str | None = None
    versions: dict[str, Any] | None = None


class Turn(Record):
    """A message of a conversation."""

    role: str
    content: Any


class SampleMetrics(Record):
    """Metrics of one sample that the report reads, or that a comparison needs; others are kept unread."""

    model_config = ConfigDict(extra="allow")

    utility: float = 0.0
    shows_work: bool | float | None = None
    hidden_passed: bool | float | None = None


class Sample(Record):
    """A line of a samples file: a completion, a held-out text (`bits`, `bytes`) or a pair (`scores`)."""

    id: str
    index: int
    prompt: str | list[Turn]
    reference: Any
    correct: bool | None = None
    completion: str | None = None
    tokens: int | None = None
    right_in_any_form: bool | None = None
    metrics: SampleMetrics = Field(default_factory=SampleMetrics)
    bits: float | None = None
    bytes: int | None = None
    scores: Interval | None = None

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        given = self.model_fields_set
        if "bits" in given:
            needed = {"bits": self.bits, "bytes": self.bytes}
        else:
            needed = {"completion": self.completion, "tokens": self.tokens} if "completion" in given else {}
            if missing := {"correct", "metrics"} - given:
                raise ValueError(f"no {min(missing)}")
        if missing := [name for name, value in needed.items() if value is None]:
            raise ValueError(f"no {missing[0]}")
        return self

    @property
    def is_program(self) -> bool:
        """Whether the completion is a program that tests were run on."""
        return "status" in (self.metrics.model_extra or {})


class Run(Record):
    """Content of run.json."""

    command: list[Any] | None = None
    seconds: float | None = None
    steps: int | None = None
    tokens: Any = None
    git: dict[str, Any] | None = None
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
    after: str | None = None
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
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise ValueError(f"{place}: {fault['msg']}" if place else fault["msg"]) from None


@functools.cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)
