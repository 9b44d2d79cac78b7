"""Bring a pipeline up to date: train what is not done, evaluate what is not evaluated, write pipeline.json."""

import fcntl
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

import yaml

from schoolhouse.config.paths import shipped
from schoolhouse.core.files import write_json
from schoolhouse.pipeline.estimates import to_do
from schoolhouse.pipeline.fingerprints import (
    eval_key,
    eval_product,
    is_done,
    is_evaluated,
    product,
    read_json,
    report_key,
)
from schoolhouse.pipeline.plan import Pipeline, Stage
from schoolhouse.pipeline.process import Stop, run_program, tail
from schoolhouse.pipeline.progress import View


class StageFailed(Exception):
    """A program of a stage ended without its product; the message holds the end of its log."""


class Runner:
    """
    Runs stages of a pipeline, one after another.

    Args:
        pipeline ([`~schoolhouse.pipeline.plan.Pipeline`]):
            The pipeline.
        view ([`~schoolhouse.pipeline.progress.View`]):
            Where progress is shown.
        stop ([`~schoolhouse.pipeline.process.Stop`]):
            Where signals arrive.
    """

    def __init__(self, pipeline: Pipeline, view: View, stop: Stop):
        self.pipeline, self.view, self.stop = pipeline, view, stop
        other = read_json(pipeline.folder / "pipeline.json").get("name", pipeline.name)
        if other != pipeline.name:
            raise ValueError(f"{pipeline.folder} holds the pipeline {other!r}: choose another --output_dir")
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
        Train and measure stages, parents first.

        Args:
            stages (`list[Stage]`):
                Which ones, in the pipeline's order.

        Returns:
            `bool`: whether anything was run.

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
                self._measure(stage)
        self.write()
        return bool(due)

    def _train(self, stage: Stage) -> None:
        for parent in (other for other in self.pipeline.stages if other.name in stage.parents):
            if not is_done(self.pipeline, parent):
                raise ValueError(f"{stage.name} needs {parent.name}, which is not done: run it too")
        parents = {other.name: product(other) for other in self.pipeline.stages if other.name in stage.parents}
        state = read_json(stage.folder / "stage.json")
        is_resumable = (
            state.get("key") == stage.key and state.get("parents") == parents and state.get("status") == "running"
        )
        record = stage.folder / "run.json"
        if stage.folder.exists() and not (is_resumable and (read_json(record) or not record.exists())):
            clear(stage.folder)
            is_resumable = False
        state = {
            "key": stage.key,
            "parts": stage.parts,
            "parents": parents,
            "status": "running",
            "seconds": state.get("seconds", 0.0) if is_resumable else 0.0,
        }
        write_json(stage.folder / "stage.json", state)
        # Each value is JSON, which every YAML reader takes for the same thing.
        lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in stage.config.items()]
        (stage.folder / "config.yaml").write_text("".join(lines), encoding="utf-8")
        # Killed after the recipe's last word and before ours: the stage is finished, and is not trained again.
        if not self._has_finished(stage):
            command = [
                *(sys.executable, "-m", "accelerate.commands.launch"),
                *("--config_file", str(self.pipeline.accelerate_config), *self._threads()),
                *(str(shipped(f"recipes/{stage.recipe}.py")), "--config", str(stage.folder / "config.yaml")),
            ]
            self._program(stage, "train", command, stage.folder / "train.log", state)
            if not self._has_finished(stage):
                raise StageFailed(self._failure(stage, "train"))
        write_json(stage.folder / "stage.json", state | {"status": "done", "product": product(stage)})

    def _threads(self) -> list[str]:
        """accelerate gives a process one thread where nobody says how many: half of two cores would stand idle."""
        if "OMP_NUM_THREADS" in os.environ:
            return []
        config = yaml.safe_load(self.pipeline.accelerate_config.read_text(encoding="utf-8"))
        return ["--num_cpu_threads_per_process", str(max(1, (os.cpu_count() or 1) // config.get("num_processes", 1)))]

    def _has_finished(self, stage: Stage) -> bool:
        return read_json(stage.folder / "run.json").get("status") == "done" and product(stage) is not None

    def _measure(self, stage: Stage) -> None:
        folder = stage.folder / "eval"
        if (folder / "results.json").exists() and not (folder / "stage.json").exists():
            clear(folder)
        state = {"key": eval_key(self.pipeline, stage, product(stage)), "status": "running", "seconds": 0.0}
        write_json(folder / "stage.json", state)
        command = [
            *(sys.executable, str(shipped("eval/run.py")), "--model_name_or_path", self.pipeline.base),
            *("--tasks", ",".join(stage.evals), "--output_dir", str(folder)),
        ]
        if stage.recipe is not None:
            made = "adapter" if (stage.folder / "adapter").is_dir() else "members"
            command += ["--adapter_name_or_path", str(stage.folder / made)]
        if self._program(stage, "eval", command, folder / "eval.log", state) != 0:
            raise StageFailed(self._failure(stage, "eval"))
        write_json(folder / "stage.json", state | {"status": "done", "product": eval_product(stage)})

    def _program(self, stage: Stage, what: str, command: list[str], log: Path, state: dict[str, Any]) -> int:
        self.view.begin(stage, what)
        self.write(running=stage.name)
        try:
            status, seconds, peak = run_program(command, log, self.stop, self.view.show)
        finally:
            self.view.close()
        state["seconds"] = round(state["seconds"] + seconds, 1)
        if self.stop.number is not None:
            write_json(log.parent / "stage.json", state)
            self.write()
            self.view.end("stopped")
            self._leave()
        state["peak_bytes"] = peak
        self.view.end("done" if status == 0 else f"ended with status {status}")
        return status

    def _leave(self) -> NoReturn:
        print("stopped: the same command goes on from here", flush=True)
        raise SystemExit(128 + self.stop.number)

    def _failure(self, stage: Stage, what: str) -> str:
        log = stage.folder / ("train.log" if what == "train" else "eval/eval.log")
        self.write()
        return f"{stage.name}: {what} failed; the end of {log}:\n{tail(log)}"

    def write(self, running: str | None = None) -> None:
        """Write pipeline.json as things stand; `running` names the stage at work."""
        entries = []
        for stage in self.pipeline.stages:
            state = read_json(stage.folder / "stage.json")
            status = "running" if stage.name == running else "done" if is_done(self.pipeline, stage) else "pending"
            entries.append(
                {
                    "name": stage.name,
                    "recipe": stage.recipe,
                    "config": stage.config_path,
                    "after": stage.after,
                    "folder": str(stage.folder) if stage.recipe is not None else None,
                    "key": stage.key or None,
                    "status": status,
                    "seconds": state.get("seconds"),
                    "eval": str(stage.folder / "eval") if is_evaluated(self.pipeline, stage) else None,
                }
            )
        base = {"name": self.pipeline.base, "hash": self.pipeline.base_hash}
        record = {"schema": 1, "name": self.pipeline.name, "base": base, "stages": entries}
        write_json(self.pipeline.folder / "pipeline.json", record)

    def report(self) -> bool:
        """Write the report card where it is not that of the pipeline as it stands; says whether it did."""
        folder, record = self.pipeline.folder / "report", self.pipeline.folder / "pipeline.json"
        key = report_key(record)
        if read_json(folder / "stage.json").get("key") == key and (folder / "report.html").is_file():
            return False
        command = [sys.executable, str(shipped("eval/report.py")), "--pipeline", str(record)]
        log = self.pipeline.folder / "report.log"
        status, _, _ = run_program([*command, "--output_dir", str(folder)], log, self.stop)
        if self.stop.number is not None:
            self._leave()
        if status != 0:
            raise StageFailed(f"the report failed; the end of {log}:\n{tail(log)}")
        write_json(folder / "stage.json", {"key": key})
        return True


def clear(folder: Path) -> None:
    """Make way for a new run: a folder that the pipeline made is deleted, any other is moved aside and kept."""
    if read_json(folder / "stage.json"):
        shutil.rmtree(folder)
        return
    number = 1
    while (aside := folder.with_name(f"{folder.name}.kept-{number}")).exists():
        number += 1
    folder.rename(aside)
    print(f"{folder} is not known to be this pipeline's own: kept as {aside}", flush=True)
