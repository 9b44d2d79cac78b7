"""Read the files of a pipeline or of evaluations; missing data is listed and does not stop the report."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from schoolhouse.evaluation.results import EvalSample, EvaluationResults, TaskResult, load_results, load_samples
from schoolhouse.report.records import Overoptimization, Pipeline, PipelineStage, Run, TrainerState, parse


T = TypeVar("T")


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
        fingerprint (`str` or `None`):
            Of the stage in its pipeline.
        seconds (`float` or `None`):
            Time of the training.
        eval_folder (`Path` or `None`):
            Folder with results.json; `None` where there is none that can be read.
        results ([`EvaluationResults`] or `None`):
            Content of results.json.
        run ([`Run`] or `None`), overoptimization ([`Overoptimization`] or `None`):
            Content of run.json and overoptimization.json.
        log (`list[dict[str, float]]`):
            The trainer's log, without values that are not finite numbers.
        tasks (`dict[str, TaskResult]`):
            Results of the tasks whose samples can be read.
        samples (`dict[str, list[EvalSample]]`):
            Task -> graded samples.
        missing (`list[str]`):
            Data that could not be read, one sentence each.
    """

    name: str
    parent: str | None
    recipe: str | None = None
    fingerprint: str | None = None
    seconds: float | None = None
    eval_folder: Path | None = None
    results: EvaluationResults | None = None
    run: Run | None = None
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
            pipeline.json. Folders in it are looked up from the working folder, then from the folder of the file.

    Returns:
        `tuple[str, list[StageReport]]`: name of the pipeline, and its stages in order.

    Raises:
        ValueError: if pipeline.json is missing, damaged or of another schema, or has no stages.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist: name the pipeline.json that recipes/pipeline.py writes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    again = "run the pipeline again with this version"
    if not isinstance(content, dict) or content.get("schema") not in (1, 2):
        raise ValueError(f"{path} is not a pipeline of schema 1 or 2: {again}")
    try:
        pipeline = parse(Pipeline, content)
    except ValueError as error:
        raise ValueError(f"{path} is damaged, {error}: {again}") from None
    if not pipeline.stages:
        raise ValueError(f"{path} has no stage: {again}")
    names = [entry.name for entry in pipeline.stages]
    _refuse_duplicates(names, str(path))
    stages = []
    for entry in pipeline.stages:
        stage = _read_pipeline_stage(entry, path.parent)
        if stage.parent is None and stages:
            stage.parent = names[0]
        if stage.parent is not None and stage.parent not in names:
            stage.missing.append(f"its parent {stage.parent!r} is not a stage of the pipeline")
            stage.parent = None
        stages.append(stage)
    return pipeline.name or path.parent.name, stages


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
        if (run_folder / "run.json").is_file():
            _read_training(stage, run_folder)
        stages.append(stage)
    names = [stage.name for stage in stages]
    _refuse_duplicates(names, "--stages")
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}", stages


def _read_pipeline_stage(entry: PipelineStage, beside: Path) -> StageReport:
    stage = StageReport(entry.name, entry.parent, entry.recipe, entry.key, entry.seconds)
    if entry.status not in (None, "done"):
        stage.missing.append(f"its status is {entry.status}")
    _read_evaluation(stage, _find(entry.eval, beside))
    if entry.recipe is None:
        return stage
    folder = _find(entry.folder, beside)
    if folder is None:
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
    for task, result in stage.results.tasks.items():
        try:
            stage.samples[task] = load_samples(folder, task)
        except (ValueError, OSError) as error:
            stage.missing.append(str(error))
        if stage.samples.get(task):
            stage.tasks[task] = result


def _read_training(stage: StageReport, folder: Path) -> None:
    stage.run = _read_json(folder / "run.json", Run, stage, "no run manifest")
    if stage.run is not None and stage.run.seconds is not None:
        stage.seconds = stage.run.seconds
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
        return parse(kind, json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        stage.missing.append(f"{path} cannot be read ({type(error).__name__}): {lost}")
    except ValueError as error:
        stage.missing.append(f"{path} is damaged, {error}: {lost}")
    return None


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _find(name: str | None, beside: Path) -> Path | None:
    if not name:
        return None
    return next((path for path in (Path(name), beside / name) if path.is_dir()), None)


def _refuse_duplicates(names: list[str], where: str) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{where}: the stage {twice[0]!r} is given twice: give each stage a name of its own")
