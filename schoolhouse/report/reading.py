"""Read what a pipeline left behind; whatever is missing is said, never fatal."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schoolhouse.evaluation.results import read_results, read_samples
from schoolhouse.report.forms import COURSE, GOODHART, RESULTS, RUN, fault, sample_form


@dataclass
class Stage:
    """
    One stage of a pipeline, as its folders tell it.

    Args:
        name (`str`):
            Its name.
        parent (`str` or `None`):
            Name of the stage that it is compared with.
        about (`dict`):
            Its entry in pipeline.json.
        folder (`Path` or `None`):
            Run folder.
        eval_folder (`Path` or `None`):
            Folder with results.json; `None` where there is none that can be read.
        results (`dict`), run (`dict`), goodhart (`dict`):
            Content of results.json, run.json and overoptimization.json; empty where missing.
        log (`list[dict]`):
            The trainer's log.
        samples (`dict[str, list[dict]]`):
            Task -> graded samples.
        missing (`list[str]`):
            What could not be read, one sentence each.
    """

    name: str
    parent: str | None
    about: dict[str, Any]
    folder: Path | None = None
    eval_folder: Path | None = None
    results: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    goodhart: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> dict[str, Any]:
        """Task -> results, of the tasks whose samples are there as well."""
        return self.results.get("tasks", {})


def read_pipeline(path: str | Path) -> tuple[str, list[Stage]]:
    """
    Read a pipeline and everything that its stages wrote.

    Args:
        path (`str` or `Path`):
            pipeline.json. Folders in it are taken from the working folder or, if not there, from beside the file.

    Returns:
        `tuple[str, list[Stage]]`: the pipeline's name and its stages in order.

    Raises:
        ValueError: if pipeline.json is missing, of another schema or has no stages.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist: name the pipeline.json that recipes/pipeline.py writes")
    try:
        pipeline = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(pipeline, dict) or pipeline.get("schema") != 1:
        raise ValueError(f"{path} is not a pipeline of schema 1: run the pipeline again with this version")
    if said := fault(pipeline, COURSE) or ("" if pipeline["stages"] else "it has no stage"):
        raise ValueError(f"{path} is not of the known form, {said}: run the pipeline again with this version")
    entries = pipeline["stages"]
    _refuse_twins([str(entry["name"]) for entry in entries], str(path))
    stages = [
        read_stage(
            str(entry["name"]),
            entry.get("after"),
            *(_find(entry.get(key), path.parent) for key in ("folder", "eval")),
            about=entry,
        )
        for entry in entries
    ]
    names = {stage.name for stage in stages}
    for stage in stages:
        if stage.parent is None and stage is not stages[0]:
            stage.parent = stages[0].name
        if stage.parent not in (None, *names):
            stage.missing.append(f"the stage {stage.parent!r} it comes after is not in the pipeline")
            stage.parent = None
    return str(pipeline.get("name", path.parent.name)), stages


def read_stages(pairs: Sequence[str]) -> tuple[str, list[Stage]]:
    """
    Read evals without a pipeline, each compared with the one before it.

    Args:
        pairs (`Sequence[str]`):
            `name=folder`, the folder an `output_dir` of eval/run.py.

    Returns:
        `tuple[str, list[Stage]]`: a name and the stages in order.

    Raises:
        ValueError: for anything but `name=folder`, a name given twice, or a folder without results.json.
    """
    stages: list[Stage] = []
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not (name and equals and folder):
            raise ValueError(f"--stages: {pair!r} is not of the form name=folder, as in sft=outputs/tiny/sft/eval")
        read_results(folder)
        run_folder = Path(folder).resolve().parent
        found = run_folder if (run_folder / "run.json").is_file() else None
        stages.append(read_stage(name, stages[-1].name if stages else None, found, Path(folder), about={}))
    _refuse_twins([stage.name for stage in stages], "--stages")
    return " to ".join([stages[0].name, stages[-1].name][: len(stages)]), stages


def read_stage(
    name: str, parent: str | None, folder: Path | None, eval_folder: Path | None, about: dict[str, Any]
) -> Stage:
    """
    Read one stage.

    Args:
        name (`str`), parent (`str` or `None`), folder (`Path` or `None`), eval_folder (`Path` or `None`):
            See [`Stage`].
        about (`dict`):
            Its entry in pipeline.json.

    Returns:
        [`Stage`]: `missing` says what was not found.
    """
    stage = Stage(name, parent, about, folder, eval_folder)
    if about.get("status") not in (None, "done", "finished"):
        stage.missing.append(f"its status is {about['status']}")
    try:
        if eval_folder is None:
            raise ValueError("it has no eval")
        results = read_results(eval_folder)
        if said := fault(results, RESULTS):
            raise ValueError(f"{eval_folder}/results.json is not of the known form: {said}; evaluate again")
        stage.results = results
    except (ValueError, OSError) as error:
        stage.eval_folder = None
        stage.missing.append(str(error))
    for task in list(stage.tasks):
        try:
            lines = read_samples(eval_folder, task)
            if said := fault(lines, [sample_form]):
                raise ValueError(
                    f"{eval_folder}/samples/{task}.jsonl is not of the known form: {said}; evaluate again"
                )
            stage.samples[task] = lines
        except (ValueError, OSError) as error:
            stage.missing.append(str(error))
    stage.results = stage.results and stage.results | {
        "tasks": {task: result for task, result in stage.tasks.items() if stage.samples.get(task)}
    }
    is_trained = bool(about.get("recipe")) if about else folder is not None
    if is_trained and folder is not None:
        stage.run = _json(folder / "run.json", stage, RUN, "no run record") or {}
        stage.log = _log(folder, stage)
        if (folder / "overoptimization.json").is_file():
            stage.goodhart = _json(folder / "overoptimization.json", stage, GOODHART, "no Goodhart gauge") or {}
    elif is_trained:
        stage.missing.append("its run folder is not there: no run record, no training curves")
    return stage


def _log(folder: Path, stage: Stage) -> list[dict[str, Any]]:
    if (folder / "log.json").is_file():
        return _json(folder / "log.json", stage, [dict], "no training curves") or []
    # Before the run has ended, or where an older version trained it, the newest checkpoint has the log.
    states = sorted((folder / "checkpoints").glob("checkpoint-*/trainer_state.json"), key=lambda x: x.stat().st_mtime)
    if not states:
        stage.missing.append(f"{folder} holds no log.json and no checkpoint: no training curves")
        return []
    state = _json(states[-1], stage, {"log_history": [dict]}, "no training curves")
    return state["log_history"] if state else []


def _json(path: Path, stage: Stage, form: Any, lost: str) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        stage.missing.append(f"{path} cannot be read ({type(error).__name__}): {lost}")
        return None
    if said := fault(value, form):
        stage.missing.append(f"{path} is not of the known form, {said}: {lost}")
        return None
    return value


def _find(name: str | None, beside: Path) -> Path | None:
    if not name:
        return None
    return next((path for path in (Path(name), beside / name) if path.is_dir()), None)


def _refuse_twins(names: list[str], where: str) -> None:
    if twins := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{where}: the stage {twins[0]!r} is there twice: give each a name of its own")
