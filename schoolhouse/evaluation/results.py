"""Types of results.json and of the samples beside it: eval/run.py writes them, reports and model cards read them."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, InstanceOf, ValidationError

from schoolhouse.core.environment import GitState, git_state, versions
from schoolhouse.core.files import parse_json, write_json, write_json_lines
from schoolhouse.core.redaction import redact_home
from schoolhouse.evaluation.statistics.preference import Calibration


# Schema 1 had `gold` for `reference`, `seen` for `contaminated` and `clean` for `uncontaminated`.
SCHEMA: Final = 2

Interval = tuple[float, float]
# A model's text may hold half a surrogate pair, which pydantic's own check of `str` refuses.
Text = InstanceOf[str]
# Messages are whatever the chat template takes: `role` and `content`, tool calls.
Prompt = list[dict[str, Any]] | Text
Metric = bool | int | float | Text | list[bool | int | float] | None


class Record(BaseModel):
    """Part of a JSON file: finite numbers only; keys of later versions are passed over."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    def has(self, field: str) -> bool:
        """Return whether the field was given, be it as `None`."""
        return field in self.model_fields_set

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object: every field that was given."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class EvalSample(Record):
    """
    One line of samples/<task>.jsonl: what the model gave for an item, and its score.

    Args:
        id (`str`):
            Name of the item.
        index (`int`, *optional*, defaults to `0`):
            Number of the sample among those of the item.
        prompt (`list[dict]` or `str`):
            Messages, a text to continue, or the document of a bits-per-byte task.
        reference (`str`):
            The item's right answer, as the scorer reads it.
        level (`int` or `str`, *optional*):
            Group in which the item is reported.
        cluster (`int` or `str`, *optional*):
            Source that the item shares with others.
        completion (`str`), tokens (`int`), finish_reason (`str`):
            Of a generating task: text, number of generated tokens, and `"stop"` or `"length"`.
        loglikelihoods (`list[float]`):
            Of a multiple-choice task: log-likelihood of each choice, in nats.
        bits (`float`), bytes (`int`):
            Of a document: its code length, and its length in UTF-8.
        scores (`list[float]`), lengths (`list[int]`):
            Of a pair: a reward model's scores of chosen and rejected answer, and their lengths in tokens.
        correct (`bool` or `None`):
            `None` where there is no verdict.
        extracted (`str` or `None`):
            The answer that the scorer read.
        format_ok (`bool`):
            Whether the answer has the form asked for.
        right_in_any_form (`bool` or `None`):
            Whether the answer is right, or wrong in form only.
        metrics (`dict`):
            Further measurements of the scorer.
        contaminated (`bool`):
            Whether the item overlaps the training data; missing where that is not known.
    """

    id: Text
    index: int = 0
    prompt: Prompt
    reference: Text = Field(validation_alias=AliasChoices("reference", "gold"))
    level: int | Text | None = None
    cluster: int | Text | None = None
    completion: Text = ""
    tokens: int = 0
    finish_reason: str = "stop"
    loglikelihoods: list[float] = []
    bits: float = 0.0
    bytes: int = 0
    scores: list[float] = []
    lengths: list[int] = []
    correct: bool | None = None
    extracted: Text | None = None
    format_ok: bool | None = None
    right_in_any_form: bool | None = None
    metrics: dict[str, Metric] = {}
    contaminated: bool | None = Field(default=None, validation_alias=AliasChoices("contaminated", "seen"))

    @property
    def is_unsupported(self) -> bool:
        """Whether no answer to the item could be graded, whatever it was: its tests run on no program."""
        return self.metrics.get("status") == "unsupported"

    @property
    def source(self) -> int | str:
        """Source that the item stands or falls with: its cluster, or itself."""
        return self.id if self.cluster is None else self.cluster


class Estimate(Record):
    """
    A mean over items.

    Args:
        n (`int`):
            Items, those without a verdict included.
        value (`float` or `None`):
            The mean; `None` without items.
        standard_error (`float` or `None`), interval (`tuple[float, float]` or `None`):
            Its uncertainty, the interval at 95 %; `None` where there are too few items to tell.
    """

    n: int
    value: float | None = None
    standard_error: float | None = None
    interval: Interval | None = None


class TaskSampling(Record):
    """Sampling of one task, where it differs from the other tasks of the run."""

    num_samples: int
    temperature: float


class SamplingSettings(Record):
    """
    Settings with which completions were drawn.

    Args:
        num_samples (`int`), temperature (`float`), top_p (`float`), seed (`int` or `None`):
            Of the run; the seed is `None` where every task is greedy.
        dtype (`str`), device (`str`):
            Of the model.
    """

    num_samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    dtype: str | None = None
    device: str | None = None


class ScoreDistribution(Record):
    """Mean and standard deviation of a reward model's scores."""

    mean: float
    sd: float


class LengthBias(Record):
    """Standard deviations of the score that ten more tokens are worth, with a 95 % interval."""

    sd_per_10_tokens: float
    interval: Interval


class PreferenceReport(Record):
    """
    Measurements of a reward model beyond its accuracy.

    Args:
        scores ([`ScoreDistribution`]):
            Of all answers.
        calibration ([`Calibration`] or `None`), calibration_with_noisy_labels ([`Calibration`] or `None`):
            Predicted against observed preference; `None` where all scores are equal.
        length_bias ([`LengthBias`] or `None`):
            `None` where lengths do not vary.
        batch_invariance (`float`):
            Largest difference of a score between batch sizes 1 and 32, in standard deviations of the scores.
    """

    scores: ScoreDistribution | None = None
    calibration: Calibration | None = None
    calibration_with_noisy_labels: Calibration | None = None
    length_bias: LengthBias | None = None
    batch_invariance: float | None = None


class TaskResult(Estimate):
    """
    Results of one task.

    Args:
        version (`int`):
            Version of the task; results of different versions are not compared.
        higher_is_better (`bool`):
            `False` for bits per byte.
        items (`int`):
            Items asked.
        metrics (`dict[str, float]`):
            Means of all other measurements.
        by_level (`dict[str, Estimate]`):
            Level of the items -> estimate.
        uncontaminated ([`Estimate`], *optional*):
            Estimate over the items that share nothing with the training data, where that is known.
        max_new_tokens (`int`, *optional*), sampling ([`TaskSampling`], *optional*):
            Of a generating task: length at which completions were cut, and its own way of sampling.
        preference ([`PreferenceReport`], *optional*):
            Of a reward model.
    """

    version: int
    higher_is_better: bool = True
    items: int = 0
    metrics: dict[str, int | float] = {}
    by_level: dict[str, Estimate] = {}
    uncontaminated: Estimate | None = Field(default=None, validation_alias=AliasChoices("uncontaminated", "clean"))
    max_new_tokens: int | None = None
    sampling: TaskSampling | None = None
    preference: PreferenceReport | None = None


class Hashes(Record):
    """Hashes of the base model, the adapter and the chat template."""

    model: str
    adapter: str | None = None
    chat_template: str | None = None


class EvaluationResults(Record):
    """
    Content of results.json.

    Args:
        schema_number (`int`):
            `schema` in the file.
        model (`str`), adapter (`str` or `None`):
            As the user named them.
        hashes ([`Hashes`]):
            Of model, adapter and chat template.
        git ([`GitState`] or `None`), versions (`dict[str, str]`):
            Revision of this project, and versions of the libraries.
        command (`str`), date (`str`, *optional*):
            Command line of the run, and the day (UTC) on which it ended.
        sampling ([`SamplingSettings`]):
            How completions were drawn.
        sandbox (`dict[str, bool]` or `None`):
            Layers of isolation on and off, where a task ran programs.
        tasks (`dict[str, TaskResult]`):
            Name -> results.
    """

    model_config = ConfigDict(populate_by_name=True)

    schema_number: Literal[1, 2] = Field(alias="schema")
    model: str = ""
    adapter: str | None = None
    hashes: Hashes
    git: GitState | None = None
    versions: dict[str, str] = {}
    command: str = ""
    date: str | None = None
    sampling: SamplingSettings
    sandbox: dict[str, bool] | None = None
    tasks: dict[str, TaskResult]

    def sampling_of(self, task: str) -> SamplingSettings:
        """Return how the completions of a task were drawn."""
        own = self.tasks[task].sampling
        return self.sampling.model_copy(update=own.model_dump() if own else {})


def build_results(
    model: str,
    adapter: str | None,
    hashes: Hashes,
    command: str,
    sampling: SamplingSettings,
    tasks: dict[str, TaskResult],
    sandbox: dict[str, bool] | None = None,
) -> EvaluationResults:
    """Return the content of results.json, without tokens and with the home folder written as `~`."""
    return EvaluationResults(
        schema=SCHEMA,
        model=redact_home(model),
        adapter=adapter and redact_home(adapter),
        hashes=hashes,
        git=git_state(),
        versions=versions(),
        command=redact_home(command),
        date=datetime.now(UTC).date().isoformat(),
        sampling=sampling,
        sandbox=sandbox,
        tasks=tasks,
    )


def write_evaluation(folder: Path, results: EvaluationResults, samples: dict[str, Sequence[EvalSample]]) -> None:
    """Write results.json and samples/<task>.jsonl into an `output_dir`, the results last."""
    for name, lines in samples.items():
        write_json_lines(folder / "samples" / f"{name}.jsonl", [line.to_json() for line in lines])
    write_json(folder / "results.json", results.to_json())


def load_results(folder: str | Path) -> EvaluationResults:
    """
    Read results.json from an `output_dir` of eval/run.py; keys of schema 1 get their new names.

    Raises:
        ValueError: if there is none, or it is damaged or of another schema.
    """
    path = Path(folder) / "results.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds no results.json: name the output_dir of a finished eval/run.py")
    try:
        values = parse_json(path.read_bytes(), finite=True)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict) or values.get("schema") not in (1, SCHEMA):
        raise ValueError(f"{path} is not a result of schema {SCHEMA}: evaluate again with this version")
    try:
        return EvaluationResults.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path} is damaged: {first_error(error)}; evaluate again") from None


def load_samples(folder: str | Path, task: str) -> list[EvalSample]:
    """
    Read the samples of one task from an `output_dir` of eval/run.py; keys of schema 1 get their new names.

    Raises:
        ValueError: if the file is missing or damaged.
    """
    path = Path(folder) / "samples" / f"{task}.jsonl"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: the samples belong beside results.json")
    samples = []
    # `splitlines` would also split at the line separators that JSON strings may hold.
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            if line:
                samples.append(EvalSample.model_validate(parse_json(line, finite=True)))
        except ValidationError as error:
            raise ValueError(f"{path}:{number} is damaged: {first_error(error)}; evaluate again") from None
        except ValueError as error:
            raise ValueError(f"{path}:{number} is not valid JSON: {error}; evaluate again") from None
    return samples


def by_item(samples: Sequence[EvalSample]) -> dict[str, list[EvalSample]]:
    """Return the samples of each item, by its id."""
    groups: dict[str, list[EvalSample]] = defaultdict(list)
    for sample in samples:
        groups[sample.id].append(sample)
    return groups


def item_values(samples: Sequence[EvalSample], verdict: str = "correct") -> dict[str, float]:
    r"""
    Return one number per item, whose mean is the task's value: the unit of intervals and paired tests.

    `verdict` is the field that holds the verdict, `"correct"` or `"right_in_any_form"`. A sample whose verdict is
    `None` counts as wrong. Items whose samples do not have the field, and those on which no answer can be graded, are
    left out: these are the same ones for every model.

    Bits per byte of a corpus are a ratio of sums, $R = \sum_i b_i / \sum_i s_i$ over documents of $b_i$ bits and $s_i$
    bytes, so documents have no values of their own that average to it. The delta method gives them: the linear
    expansion of $R$ around the means. Document $i$ gets $R + (b_i - R s_i) / \bar s$. The mean of these is exactly
    $R$, as the second term sums to 0, and their variance over $n$ is the usual variance of a ratio estimate.
    """
    if samples and samples[0].has("bits"):
        bits = np.array([sample.bits for sample in samples])
        sizes = np.array([sample.bytes for sample in samples], dtype=float)
        ratio = bits.sum() / sizes.sum()
        values = ratio + (bits - ratio * sizes) / sizes.mean()
        return {sample.id: float(value) for sample, value in zip(samples, values, strict=True)}
    groups = by_item([sample for sample in samples if sample.has(verdict) and not sample.is_unsupported])
    return {name: sum(getattr(one, verdict) is True for one in group) / len(group) for name, group in groups.items()}


def first_error(error: ValidationError) -> str:
    """Return the first of pydantic's errors on one line, such as `tasks.svamp.n: Field required`."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
