"""Bring a pipeline up to date: train what is not done, evaluate what is not evaluated, write pipeline.json."""

import fcntl
import json
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

from schoolhouse.config.paths import shipped
from schoolhouse.config.yaml_file import read_yaml
from schoolhouse.core.files import write_json, write_text
from schoolhouse.core.manifest import (
    PIPELINE_FILE,
    ModelSource,
    PipelineIndex,
    PipelineStage,
    Status,
    read_pipeline_index,
)
from schoolhouse.core.run import LAUNCH_CONFIG
from schoolhouse.pipeline.estimates import to_do
from schoolhouse.pipeline.plan import Pipeline, Stage
from schoolhouse.pipeline.process import Stop, run_program, tail
from schoolhouse.pipeline.progress import View
from schoolhouse.pipeline.staleness import (
    EVAL_FOLDER,
    evaluation_of,
    is_done,
    is_evaluated,
    manifest_of,
    report_fingerprint,
    stage_fingerprints,
    stale_reason,
)


# What the pipeline itself writes into a stage's folder.
_OWN_FILES = {"config.yaml", "train.log", ".train.progress"}


class StageFailed(Exception):
    """A program of a stage ended without its product; the message holds the end of its log."""


class Runner:
    """Run stages of a pipeline, one after another; `view` shows progress, and signals arrive at `stop`."""

    def __init__(self, pipeline: Pipeline, view: View, stop: Stop):
        self.pipeline, self.view, self.stop = pipeline, view, stop
        try:
            index: PipelineIndex | None = read_pipeline_index(pipeline.folder)
        except ValueError:  # none yet, or a damaged one: it is written anew
            index = None
        if index is not None and index.name != pipeline.name:
            raise ValueError(f"{pipeline.folder} holds the pipeline {index.name!r}: choose another --output_dir")
        self.report_fingerprint = index.report if index is not None else None
        pipeline.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (pipeline.folder / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{pipeline.folder} is in use by a pipeline that still runs: wait for it, or stop it"
            ) from None

    def run(self, stages: list[Stage]) -> bool:
        """
        Train and evaluate stages, parents first, and return whether anything was run.

        Raises:
            StageFailed: a program failed; what was done before it stays done.
            SystemExit: after Ctrl-C or SIGTERM.
        """
        self.view.programs = to_do(self.pipeline, stages)
        due = [(program.stage, program.what) for program in self.view.programs]
        for stage in stages:
            if (stage.name, "train") in due:
                self._train(stage)
            if (stage.name, "eval") in due:
                self._evaluate(stage)
        self.write()
        return bool(due)

    def _train(self, stage: Stage) -> None:
        for parent in (other for other in self.pipeline.stages if other.name in stage.parents):
            if not is_done(self.pipeline, parent):
                raise ValueError(f"{stage.name} needs {parent.name}, which is not done: run it too")
        # The recipe resumes a run that is not done from its last checkpoint, if it is this very run: the fingerprints
        # say so. Anything else in the folder makes way.
        manifest, now = manifest_of(stage), stage_fingerprints(self.pipeline, stage)
        if not (manifest is not None and manifest.status != "done" and manifest.fingerprints == now):
            clear(stage.folder)
        # Each value is JSON, which every YAML reader takes for the same thing.
        lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in stage.config.items()]
        write_text(stage.folder / "config.yaml", "".join(lines))
        launch = self.pipeline.accelerate_config
        command = [
            *(sys.executable, "-m", "accelerate.commands.launch"),
            *("--config_file", str(launch), *self._threads()),
            *(str(stage.script), "--config", str(stage.folder / "config.yaml")),
        ]
        self._program(stage, "train", command, stage.folder / "train.log", {LAUNCH_CONFIG: str(launch.absolute())})
        if (manifest := manifest_of(stage)) is None or manifest.status != "done":
            raise StageFailed(self._failure(stage, "train"))
        if reason := stale_reason(self.pipeline, stage):
            raise StageFailed(
                f"{stage.name}: trained, but not what the pipeline asks for now ({reason}): run it again"
            )

    def _threads(self) -> list[str]:
        """
        Return flags for the threads of a process: accelerate's default of one would leave half of two cores idle.
        """
        if "OMP_NUM_THREADS" in os.environ:
            return []
        processes = read_yaml(self.pipeline.accelerate_config).values.get("num_processes", 1)
        return ["--num_cpu_threads_per_process", str(max(1, (os.cpu_count() or 1) // processes))]

    def _evaluate(self, stage: Stage) -> None:
        folder = stage.folder / EVAL_FOLDER
        if (folder / "results.json").exists() and evaluation_of(stage) is None:
            clear(folder)
        command = [
            *(sys.executable, str(shipped("eval/run.py")), "--model_name_or_path", self.pipeline.base),
            *("--tasks", ",".join(stage.evals_here), "--output_dir", str(folder)),
        ]
        if stage.recipe is not None:
            made = "adapter" if (stage.folder / "adapter").is_dir() else "members"
            command += ["--adapter_name_or_path", str(stage.folder / made)]
        if self._program(stage, "eval", command, folder / "eval.log", {}) != 0:
            raise StageFailed(self._failure(stage, "eval"))

    def _program(self, stage: Stage, what: str, command: list[str], log: Path, environment: dict[str, str]) -> int:
        self.view.begin(stage, what)
        self.write(running=stage.name)
        try:
            status = run_program(command, log, self.stop, self.view.show, environment)
        finally:
            self.view.close()
        if self.stop.number is not None:
            self.write()
            self.view.end("stopped")
            self._leave(self.stop.number)
        self.view.end("done" if status == 0 else f"ended with status {status}")
        return status

    def _leave(self, number: int) -> NoReturn:
        print("stopped: the same command goes on from here", flush=True)
        raise SystemExit(128 + number)

    def _failure(self, stage: Stage, what: str) -> str:
        log = stage.folder / ("train.log" if what == "train" else f"{EVAL_FOLDER}/eval.log")
        self.write()
        return f"{stage.name}: {what} failed; the end of {log}:\n{tail(log)}"

    def write(self, running: str | None = None) -> PipelineIndex:
        """Write pipeline.json as things stand, and return it; `running` names the stage at work."""
        stages = []
        for stage in self.pipeline.stages:
            folder = stage.folder.relative_to(self.pipeline.folder)
            evaluation = str(folder / EVAL_FOLDER) if is_evaluated(self.pipeline, stage) else None
            status: Status | None = "done" if is_done(self.pipeline, stage) else None
            stages.append(
                PipelineStage(
                    name=stage.name,
                    recipe=stage.recipe,
                    config=stage.config_path,
                    parent=stage.parent,
                    folder=str(folder),
                    eval=evaluation,
                    status="running" if stage.name == running else status,
                )
            )
        base = ModelSource(name=self.pipeline.base, hash=self.pipeline.base_hash)
        index = PipelineIndex(name=self.pipeline.name, base=base, stages=stages, report=self.report_fingerprint)
        write_json(self.pipeline.folder / PIPELINE_FILE, index.model_dump(mode="json", by_alias=True))
        return index

    def report(self) -> bool:
        """Write the report where it is not that of the pipeline as it stands, and return whether it was written."""
        folder, index = self.pipeline.folder / "report", self.write()
        fingerprint = report_fingerprint(index)
        if self.report_fingerprint == fingerprint and (folder / "report.html").is_file():
            return False
        command = [sys.executable, str(shipped("eval/report.py"))]
        command += ["--pipeline", str(self.pipeline.folder / PIPELINE_FILE), "--output_dir", str(folder)]
        log = self.pipeline.folder / "report.log"
        status = run_program(command, log, self.stop)
        if self.stop.number is not None:
            self._leave(self.stop.number)
        if status != 0:
            raise StageFailed(f"the report failed; the end of {log}:\n{tail(log)}")
        self.report_fingerprint = fingerprint
        self.write()
        return True


def clear(folder: Path) -> None:
    """
    Make way for a new run in a stage's folder or that of its evaluation: what a pipeline made is deleted, anything
    else is moved aside and kept.
    """
    if not folder.exists():
        return
    manifest = manifest_of(Stage("", None, None, folder))
    is_own = manifest is not None and manifest.fingerprints is not None and manifest.fingerprints.launch is not None
    if is_own or {path.name for path in folder.iterdir()} <= _OWN_FILES:
        shutil.rmtree(folder)
        return
    number = 1
    while (aside := folder.with_name(f"{folder.name}.kept-{number}")).exists():
        number += 1
    folder.rename(aside)
    print(f"{folder} is not known to be this pipeline's own: kept as {aside}", flush=True)
