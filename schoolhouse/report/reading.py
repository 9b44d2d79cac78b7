"""Read the files of a pipeline or of evaluations; missing data is listed and does not stop the report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schoolhouse.core.files import parse_json
from schoolhouse.core.manifest import RUN_FILE, PipelineStage, RunManifest, read_manifest, read_pipeline_index
from schoolhouse.evaluation.results import (
    EvalSample,
    EvaluationResults,
    TaskResult,
    first_error,
    load_results,
    load_samples,
)


T = TypeVar("T")
Interval = Annotated[tuple[float, float], Field(strict=False)]  # a list in JSON


class Record(BaseModel):
    """Part of a JSON file that the report reads: finite numbers only; what it does not show is ignored."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True)


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


@dataclass
class StageReport:
    """
    All that is known of one stage.

    Args:
        name (`str`):
            Its name.
        parent (`str` or `None`):
            Name of the stage that it is compared with.
        recipe (`str` or `None`):
            Kind of training, such as `"sft"`; `None` for a base model and for an evaluation without a pipeline.
        eval_folder (`Path` or `None`):
            Folder with results.json; `None` where there is none that can be read.
        results ([`EvaluationResults`] or `None`):
            Content of results.json.
        run ([`RunManifest`] or `None`), overoptimization ([`Overoptimization`] or `None`):
            Content of run.json and overoptimization.json.
        log (`list[dict[str, float]]`):
            The trainer's log, without values that are not finite numbers.
        tasks (`dict[str, TaskResult]`):
            Results of each task.
        samples (`dict[str, list[EvalSample]]`):
            Task -> graded samples, where they can be read.
        missing (`list[str]`):
            Data that could not be read, one sentence each.
    """

    name: str
    parent: str | None
    recipe: str | None = None
    eval_folder: Path | None = None
    results: EvaluationResults | None = None
    run: RunManifest | None = None
    overoptimization: Overoptimization | None = None
    log: list[dict[str, float]] = field(default_factory=list)
    tasks: dict[str, TaskResult] = field(default_factory=dict)
    samples: dict[str, list[EvalSample]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def read_pipeline(path: str | Path) -> tuple[str, list[StageReport]]:
    """
    Read a pipeline and everything that its stages wrote.

    Args:
        path (`str` or `Path`):
            pipeline.json, or its folder. Folders in it are looked up from the working folder, then from there.

    Returns:
        `tuple[str, list[StageReport]]`: name of the pipeline, and its stages in order.

    Raises:
        ValueError: if pipeline.json is missing, damaged or of another schema, or has no stage.
    """
    path = Path(path)
    pipeline = read_pipeline_index(path)
    beside = path if path.is_dir() else path.parent
    if not pipeline.stages:
        raise ValueError(f"{path} has no stage: run the pipeline again")
    names = [entry.name for entry in pipeline.stages]
    _refuse_duplicates(names, str(path))
    stages = [_read_pipeline_stage(entry, beside) for entry in pipeline.stages]
    for stage in stages:
        if stage.parent is None and stage is not stages[0]:
            stage.parent = names[0]  # the base model
        elif stage.parent not in (None, *names):
            stage.missing.append(f"its parent {stage.parent!r} is not a stage of the pipeline")
            stage.parent = None
    return pipeline.name, stages


def read_stages(pairs: Sequence[str]) -> tuple[str, list[StageReport]]:
    """
    Read evaluations without a pipeline; each is compared with the one before it.

    Args:
        pairs (`Sequence[str]`):
            `name=folder`; the folder is an `output_dir` of eval/run.py.

    Returns:
        `tuple[str, list[StageReport]]`: a title, and the stages in order.

    Raises:
        ValueError: for anything but `name=folder`, for a name given twice, and for a folder without results.json.
    """
    stages: list[StageReport] = []
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not (name and equals and folder):
            raise ValueError(f"--stages: {pair!r} is not of the form name=folder, as in sft=outputs/tiny/sft/eval")
        load_results(folder)  # here a folder without results is a mistake of the command, not missing data
        stage = StageReport(name, stages[-1].name if stages else None)
        _read_evaluation(stage, Path(folder))
        run_folder = Path(folder).resolve().parent
        if (run_folder / RUN_FILE).is_file():
            _read_training(stage, run_folder)
        stages.append(stage)
    names = [stage.name for stage in stages]
    _refuse_duplicates(names, "--stages")
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}", stages


def _read_pipeline_stage(entry: PipelineStage, beside: Path) -> StageReport:
    stage = StageReport(entry.name, entry.parent, entry.recipe)
    if entry.status != "done":
        stage.missing.append(
            f"its status is {entry.status}" if entry.status else "it is not trained as its recipe says"
        )
    _read_evaluation(stage, _find(entry.eval, beside))
    folder = _find(entry.folder, beside)
    if entry.recipe is None:
        if folder and (folder / RUN_FILE).is_file():
            _read_manifest(stage, folder)
    elif folder is None:
        stage.missing.append("its run folder does not exist: no run manifest, no training curves")
    else:
        _read_training(stage, folder)
    return stage


def _read_evaluation(stage: StageReport, folder: Path | None) -> None:
    if folder is None:
        stage.missing.append("it has no evaluation")
        return
    try:
        stage.results = load_results(folder)
        stage.eval_folder = folder
    except (ValueError, OSError) as error:
        stage.missing.append(str(error))
        return
    stage.tasks = stage.results.tasks
    for task in stage.tasks:
        try:
            if samples := load_samples(folder, task):
                stage.samples[task] = samples
            else:
                stage.missing.append(f"{task} has results, and no samples beside them")
        except (ValueError, OSError) as error:
            stage.missing.append(str(error))


def _read_manifest(stage: StageReport, folder: Path) -> None:
    try:
        stage.run = read_manifest(folder)
    except ValueError as error:
        stage.missing.append(str(error))


def _read_training(stage: StageReport, folder: Path) -> None:
    _read_manifest(stage, folder)
    if (folder / "overoptimization.json").is_file():
        lost = "no measure of over-optimization"
        stage.overoptimization = _read_json(folder / "overoptimization.json", Overoptimization, stage, lost)
    lost = "no training curves"
    if (folder / "log.json").is_file():
        log = _read_json(folder / "log.json", list[dict[str, Any]], stage, lost) or []
    # The newest checkpoint has the log of a run that has not ended.
    elif states := list((folder / "checkpoints").glob("checkpoint-*/trainer_state.json")):
        newest = max(states, key=lambda path: path.stat().st_mtime)
        state = _read_json(newest, TrainerState, stage, lost)
        log = state.log_history if state else []
    else:
        stage.missing.append(f"{folder} contains no log.json and no checkpoint: {lost}")
        return
    stage.log = [{key: value for key, value in entry.items() if _is_finite(value)} for entry in log]


def _read_json(path: Path, kind: type[T], stage: StageReport, lost: str) -> T | None:
    try:
        return TypeAdapter(kind).validate_python(parse_json(path.read_bytes()))
    except OSError as error:
        stage.missing.append(f"{path} cannot be read ({type(error).__name__}): {lost}")
    except ValidationError as error:
        stage.missing.append(f"{path} is damaged, {first_error(error)}: {lost}")
    except ValueError as error:
        stage.missing.append(f"{path} is not valid JSON, {error}: {lost}")
    return None


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _find(name: str | None, beside: Path) -> Path | None:
    if not name:
        return None
    try:
        return next((path for path in (Path(name), beside / name) if path.is_dir()), None)
    except OSError:  # a name that no folder can have
        return None


def _refuse_duplicates(names: list[str], where: str) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{where}: the stage {twice[0]!r} is given twice: give each stage a name of its own")
