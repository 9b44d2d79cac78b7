"""An open run folder: it keeps `run.json` current, and knows where a run that was stopped is resumed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from schoolhouse.config.errors import exit_with
from schoolhouse.config.user_code import UserCodeError
from schoolhouse.core.environment import git_state, hardware, versions
from schoolhouse.core.files import load_object, write_json
from schoolhouse.core.fingerprint import computed, digest, evaluation_fingerprint, file_hash, stage_fingerprints
from schoolhouse.core.manifest import (
    RUN_FILE,
    AdapterSource,
    Best,
    DataSource,
    Evaluation,
    ModelSource,
    Resumption,
    RunManifest,
    Status,
    read_manifest,
)
from schoolhouse.core.models import adapter_hash, model_hash, template_hash, weights_dtype
from schoolhouse.core.progress import PROGRESS_FILE, clock, metrics_line
from schoolhouse.core.redaction import redact


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

    from schoolhouse.config.arguments import ModelArguments
    from schoolhouse.config.parser import RecipeParser

# Set by a pipeline: the file of `accelerate launch` that it starts a recipe with.
LAUNCH_CONFIG = "SCHOOLHOUSE_LAUNCH_CONFIG"
_TRAINER_STATE = "trainer_state.json"
# What a resumed run must find as it was.
_UNCHANGED = ("model", "parent_adapter", "reward_models", "chat_template", "data")


class Run:
    """
    An open run folder, for a `with` statement around the work: its manifest is complete at every moment.

    The status is `"running"` from the start, then `"done"`, `"interrupted"` (Ctrl-C, SIGTERM) or, after an exception,
    `"failed"` with the reason. With `resume_from_checkpoint: auto` the same command again resumes a run that is not
    done from its last complete checkpoint, and repeats one that is. With more `max_steps` or `num_train_epochs` one
    that is done is trained further. A folder that holds a run with other settings is refused, unless those change no
    weight, or nothing was trained; `resume_from_checkpoint: null` overwrites it.

    Args:
        folder (`Path`):
            Run folder.
        manifest ([`RunManifest`]):
            Manifest of this run.
        is_writer (`bool`, *optional*, defaults to `True`):
            Whether this process writes. One of several does.
        secrets (`Sequence[str]`, *optional*):
            Texts that are removed wherever they occur.

    Attributes:
        checkpoint (`str` or `None`): what `trainer.train(resume_from_checkpoint=...)` takes.
        is_resumable (`bool`): whether the folder holds work of this very run.
    """

    def __init__(self, folder: Path, manifest: RunManifest, is_writer: bool = True, secrets: Sequence[str] = ()):
        self.folder = folder
        self.manifest = manifest
        self.is_writer = is_writer
        self.secrets = secrets
        self.checkpoint: str | None = None
        self.is_resumable = False
        self._began = time.monotonic()
        self._seconds_before = 0.0

    @classmethod
    def open(
        cls,
        script: str,
        parser: RecipeParser,
        training_args: TrainingArguments,
        model_args: ModelArguments,
        sources: Sequence[DataSource],
        tokenizer: PreTrainedTokenizerBase,
        reward_models: Sequence[str] = (),
    ) -> Run:
        """
        Open the run folder `output_dir`, decide whether to resume, and write the first manifest.

        Afterwards `training_args.output_dir` is the folder's `checkpoints`, so trainer state stays apart from the
        product.

        Args:
            script (`str`):
                The recipe's `__file__`.
            parser (`RecipeParser`):
                The parsed recipe; takes the error if the folder holds another run.
            training_args ([`~transformers.TrainingArguments`]):
                Gives seeds and the run folder.
            model_args (`ModelArguments`):
                Names the base model, if there is one, and the adapter to continue.
            sources (`Sequence[DataSource]`):
                Data sets that were read.
            tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
                Its chat template is hashed.
            reward_models (`Sequence[str]`, *optional*):
                Folders or Hub ids of the reward models among the rewards.
        """
        from accelerate import PartialState

        base, parent = model_args.model_name_or_path, model_args.adapter_name_or_path
        revision = model_args.model_revision
        base_hash = model_hash(base, revision) if base else None
        computed_with: dict[str, Any] = {"bf16": training_args.bf16, "dtype": weights_dtype(model_args, training_args)}
        launch = os.environ.get(LAUNCH_CONFIG)
        folder = Path(training_args.output_dir or ".")
        manifest = RunManifest(
            status="running",
            recipe=Path(script).stem,
            command=[Path(sys.argv[0]).name, *sys.argv[1:]],
            config={**parser.defaults, **parser.resolved, **computed_with},
            seeds={"seed": training_args.seed, "data_seed": training_args.data_seed},
            model=ModelSource(name=base, revision=revision, hash=base_hash) if base and base_hash else None,
            parent_adapter=AdapterSource(name=parent, hash=adapter_hash(parent)) if parent else None,
            reward_models=[AdapterSource(name=name, hash=_scorer_hash(name)) for name in reward_models],
            chat_template=template_hash(tokenizer),
            data=list(sources),
            fingerprints=stage_fingerprints(
                Path(script), parser.resolved, base_hash, product_hash, Path(launch) if launch else None
            ),
            git=git_state(),
            versions=versions(),
            hardware=hardware(training_args.world_size),
            started=_now(),
        )
        named = training_args.resume_from_checkpoint
        if named not in (None, "auto") and not (Path(named) / _TRAINER_STATE).is_file():
            parser.error(
                "resume_from_checkpoint",
                f"{named} is no checkpoint: name a folder that holds {_TRAINER_STATE}, auto, or null for a new start",
            )
        secrets = [training_args.hub_token] if training_args.hub_token else []
        run = cls(folder, manifest, training_args.process_index == 0, secrets)
        try:
            run.resume(training_args.resume_from_checkpoint, parser.field_defaults)
        except ValueError as error:
            parser.error("output_dir", str(error))
        # Trackers go on with the curve of a run that is resumed, and mix it with no other.
        training_args.run_name = training_args.run_name or f"{folder.name}-{(run.manifest.started or '')[:19]}"
        PartialState().wait_for_everyone()  # all have read the folder before one writes to it
        training_args.output_dir = str(run.folder / "checkpoints")
        if run.is_writer and not run.is_resumable:
            # Left there, a checkpoint of the earlier run could be taken for one of this.
            for leftover in ("checkpoints", "members", "last"):
                shutil.rmtree(run.folder / leftover, ignore_errors=True)
        run.save()
        return run

    def resume(self, resume_from_checkpoint: str | None, defaults: Mapping[str, Any] | None = None) -> None:
        """
        Decide where this run begins, from what its folder holds.

        Args:
            resume_from_checkpoint (`str` or `None`):
                `"auto"`, a checkpoint, or `None` for a new start, which overwrites what the folder holds.
            defaults (`Mapping[str, Any]`, *optional*):
                Values of settings that a manifest does not name.

        Raises:
            `ValueError`: the folder holds another run, or what this run began with has changed.
        """
        if resume_from_checkpoint is None:
            return
        checkpoints = self.folder / "checkpoints"
        # An ensemble has the checkpoints of each member apart.
        has_members = any(checkpoints.glob("member-*"))
        found = last_checkpoint(checkpoints)
        if not (self.folder / RUN_FILE).is_file():
            if found is not None or has_members:
                raise ValueError(f"{self.folder} holds checkpoints and no {RUN_FILE}: {self._ways_out()}")
            old = None
        else:
            old = read_manifest(self.folder)
        length: dict[str, Any] = {}
        if old is not None:
            if old.status in ("failed", "interrupted") and found is None and not has_members:
                old = None  # it ended before there was anything to keep
            elif differing := self._differing(old, defaults or {}):
                length = {
                    key: there for key, (there, _) in differing.items() if key in ("max_steps", "num_train_epochs")
                }
                if len(length) < len(differing):
                    told = [f"{key} ({there!r} there, {here!r} here)" for key, (there, here) in differing.items()]
                    more = f" and {len(told) - 3} more" if len(told) > 3 else ""
                    raise ValueError(
                        f"{self.folder} holds a run with another {', '.join(told[:3])}{more}: {self._ways_out()}"
                    )
                self._check_length(differing, dict(defaults or {}), found, has_members)
        if resume_from_checkpoint != "auto":
            self.checkpoint = resume_from_checkpoint
        elif old is not None and (old.status != "done" or length):
            self.checkpoint = str(found) if found is not None else None
            self.is_resumable = has_members
        self.is_resumable = self.is_resumable or self.checkpoint is not None
        if self.is_resumable and old is not None:
            before, now = self._redacted(old), self._redacted(self.manifest)
            if changed := [key for key in _UNCHANGED if before[key] != now[key]]:
                raise ValueError(
                    f"{self.folder} cannot be resumed: its {changed[0].replace('_', ' ')} changed since it began: "
                    f"{self._ways_out()}"
                )
            self._seconds_before = old.seconds
            self.manifest.started = old.started
            origin = Path(self.checkpoint).name if self.checkpoint is not None else "members"
            self.manifest.resumed = [*old.resumed, Resumption(at=_now(), checkpoint=origin, length=length or None)]
            if length and self.is_writer:
                was = ", ".join(f"{key} was {value}" for key, value in length.items())
                print(f"{self.folder}: goes on from {origin} ({was}); the learning rate follows the new length")

    def _differing(self, old: RunManifest, defaults: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Return the settings that decide the weights and are not those of the folder's run, there and here."""
        unset: dict[str, Any] = json.loads(json.dumps(dict(defaults), default=str))
        # Two runs are the same run if they compute the same: their folders may be written differently.
        theirs, mine = (unset | self._redacted(run)["config"] for run in (old, self.manifest))
        pairs = {key: (theirs.get(key), mine.get(key)) for key in sorted(computed(theirs) | computed(mine))}
        return {key: (there, here) for key, (there, here) in pairs.items() if there != here}

    def _check_length(
        self,
        differing: Mapping[str, tuple[Any, Any]],
        defaults: dict[str, Any],
        checkpoint: Path | None,
        has_members: bool,
    ) -> None:
        """Refuse a run of another length that cannot go on from a checkpoint."""
        key = next(iter(differing))
        told = (
            f"{self.folder} holds a run with another {key} ({differing[key][0]!r} there, {differing[key][1]!r} here)"
        )
        if has_members:
            raise ValueError(f"{told}, and an ensemble cannot be trained further: {self._ways_out()}")
        if checkpoint is None:
            raise ValueError(f"{told}, and no checkpoint to train it further from: {self._ways_out()}")
        state = load_object(checkpoint / _TRAINER_STATE)
        config: dict[str, Any] = defaults | self.manifest.config
        done, wanted = state.get("epoch") or 0, config.get("num_train_epochs") or 0
        if (config.get("max_steps") or -1) > 0:
            done, wanted = state["global_step"], config["max_steps"]
        if wanted <= done:
            raise ValueError(f"{told}, and {checkpoint.name} is as far already: {self._ways_out()}")

    def _ways_out(self) -> str:
        here = self.folder if self.folder.name.strip(".") else self.folder.resolve()
        numbered = (here.with_name(f"{here.name}-{number}") for number in itertools.count(2))
        free = next(folder for folder in numbered if not folder.exists())
        return f"`--resume_from_checkpoint null` overwrites it, `--output_dir {free}` keeps both"

    def save(self, **values: Any) -> None:
        """Set fields of the manifest, and write it."""
        for key, value in values.items():
            setattr(self.manifest, key, value)
        self.manifest.seconds = round(self._seconds_before + time.monotonic() - self._began, 2)
        if self.is_writer:
            write_json(self.folder / RUN_FILE, self._redacted(self.manifest))

    def finish(self, trainer: Trainer, product: Path, **values: Any) -> None:
        """Write the manifest of a run that went to its end, with the folder of its product and further fields."""
        state = trainer.state
        if self.is_writer:
            # Checkpoints may be deleted, curves stay.
            write_json(self.folder / "log.json", state.log_history, allow_nan=True)
        self.save(
            status="done",
            reason=None,
            product=product.name,
            product_hash=_HASHES[product.name](str(product)),
            ended=_now(),
            steps=state.global_step,
            epochs=state.epoch,
            metrics=final_metrics(state.log_history),
            best=Best(metric=state.best_metric, step=state.best_global_step) if state.best_metric else None,
            peak_bytes=peak_bytes(),
            **values,
        )
        if self.is_writer:
            self._print_outcome()

    def _print_outcome(self) -> None:
        """Say what came out, and how to measure it, talk to it and share it."""
        manifest, product = self.manifest, self.folder / (self.manifest.product or "")
        size = sum(file.stat().st_size for file in product.rglob("*") if file.is_file())
        parts = [f"{manifest.steps} steps in {clock(manifest.seconds)}", metrics_line(manifest.metrics, 2)]
        print(f"done: {' · '.join(filter(None, parts))} · {product} ({size / 1e6:.1f} MB)")
        if manifest.product == "adapter" and manifest.model is not None and PROGRESS_FILE not in os.environ:
            task = "own" if any(source.role == "test" for source in manifest.data) else "NAME"
            flags = f"--adapter_name_or_path {self.folder} --tasks {task} --output_dir {self.folder / 'eval'}"
            is_checkout = Path("recipes/chat.py").is_file()
            evaluate, chat, share = (
                f"python {script}" if is_checkout else f"schoolhouse {name}"
                for name, script in (
                    ("eval", "eval/run.py"),
                    ("chat", "recipes/chat.py"),
                    ("share", "recipes/share.py"),
                )
            )
            print(f"  measure: {evaluate} {flags}")
            print(f"  talk:    {chat} {self.folder}")
            base = " --base_model OWNER/BASE" if Path(manifest.model.name).is_dir() else ""
            print(f"  share:   {share} push {self.folder} OWNER/NAME{base} --dry_run")

    def interrupt(self, trainer: Trainer) -> None:
        """Write the manifest of a run that has saved a checkpoint and stopped, and say how to continue."""
        state = trainer.state
        self.save(
            status="interrupted",
            reason=f"stopped after step {state.global_step} of {state.max_steps}",
            ended=_now(),
            steps=state.global_step,
            epochs=state.epoch,
        )
        if self.is_writer:
            print(
                f"stopped after step {state.global_step} of {state.max_steps}, checkpoint saved in {self.folder}: the "
                "same command goes on from there"
            )

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and error is not None:
            status, reason = _outcome(error)
            with contextlib.suppress(OSError):  # a full disk is what may have ended the run
                self.save(status=status, reason=reason, ended=_now())
        if isinstance(error, UserCodeError):
            exit_with(f"{self.folder}: {error}")

    def _redacted(self, manifest: RunManifest) -> dict[str, Any]:
        return _written(manifest, *self.secrets)


@contextlib.contextmanager
def open_evaluation(
    script: str,
    output_dir: Path,
    settings: dict[str, Any],
    model: ModelSource,
    adapter: AdapterSource | None,
) -> Iterator[None]:
    """
    Append an evaluation to the manifest of what is evaluated, around the work of evaluating it.

    The manifest is that of the run folder that holds the adapter. For a base model it is that of the folder that holds
    `output_dir`, if that is called `eval`, as in the `base` of a pipeline. Anything else has no manifest.

    Args:
        script (`str`):
            The `__file__` of `eval/run.py`.
        output_dir (`Path`):
            Folder of the results.
        settings (`dict[str, Any]`):
            `tasks`, and every setting of file and flags that differs from its default.
    """
    manifest = None
    folder = Path(adapter.name).parent if adapter is not None else output_dir.parent
    if (folder / RUN_FILE).is_file():
        manifest = read_manifest(folder)
        if manifest.product_hash != (adapter.hash if adapter else None):  # the manifest of something else
            manifest = None
        elif manifest.recipe == "base":
            manifest.model = model
    elif adapter is None and output_dir.name == "eval":
        manifest = RunManifest(status="done", recipe="base", model=model, versions=versions(), started=_now())
    if manifest is None:
        yield
        return
    place = os.path.relpath(output_dir, folder)
    entry = Evaluation(
        folder=place,
        tasks=settings["tasks"],
        fingerprint=evaluation_fingerprint(Path(script), settings, model.hash, adapter.hash if adapter else None),
        status="running",
    )
    if (old := manifest.evaluation(place)) and old.status != "done" and old.fingerprint == entry.fingerprint:
        entry.seconds = old.seconds
    before, began = entry.seconds, time.monotonic()
    manifest.evaluations = [*(other for other in manifest.evaluations if other.folder != place), entry]

    def write(**values: Any) -> None:
        for key, value in values.items():
            setattr(entry, key, value)
        entry.seconds = round(before + time.monotonic() - began, 2)
        write_json(folder / RUN_FILE, _written(manifest))

    write()
    try:
        yield
    except BaseException as error:
        status, reason = _outcome(error)
        with contextlib.suppress(OSError):
            write(status=status, reason=reason)
        raise
    write(status="done", results_hash=results_hash(output_dir, entry.tasks))


def results_hash(folder: Path, tasks: Sequence[str]) -> str | None:
    """Return the hash of the results and graded samples in a folder, `None` where a file is missing."""
    files = [folder / "results.json", *(folder / "samples" / f"{Path(task).stem}.jsonl" for task in tasks)]
    return digest([file_hash(file) for file in files]) if all(file.is_file() for file in files) else None


def _scorer_hash(model: str) -> str:
    from schoolhouse.core.reward_models import scorer_hash  # here, as a run without reward models needs none of it

    return scorer_hash(model)


_HASHES = {"adapter": adapter_hash, "members": _scorer_hash, "model": model_hash}


def product_hash(folder: Path) -> str | None:
    """Return the hash of what a run folder holds in `adapter`, `members` or `model`, `None` where it holds none."""
    found = [name for name in _HASHES if (folder / name).is_dir()]
    try:
        return _HASHES[found[0]](str(folder / found[0])) if found else None
    except (ValueError, OSError):  # a file of it is missing or damaged
        return None


def last_checkpoint(folder: Path) -> Path | None:
    """
    Return the newest checkpoint that was written to its end; a trainer writes `trainer_state.json` last.

    Args:
        folder (`Path`):
            Folder with `checkpoint-N` sub-folders; need not exist.
    """
    for path in sorted(folder.glob("checkpoint-*"), key=_step, reverse=True):
        try:
            state = load_object(path / _TRAINER_STATE)
        except (OSError, ValueError):
            continue
        if _step(path) == state.get("global_step") and not (path / "checkpoint-is-incomplete.txt").exists():
            return path
    return None


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if re.fullmatch("[0-9]{1,18}", number) else -1


def final_metrics(log_history: list[dict[str, float]]) -> dict[str, float]:
    """
    Return the last logged value of every metric. The log is part of a checkpoint, so a resumed run has the same ones.

    Clock times are left out, and the trainer's closing averages, which start anew when a run is resumed.
    """
    entries = [entry for entry in log_history if "train_runtime" not in entry]
    last = {key: value for entry in entries for key, value in entry.items()}
    unstable = re.compile(r"runtime|per_second|num_tokens|^step$|^epoch$")  # TRL counts tokens from the resumption
    return {key: value for key, value in last.items() if not unstable.search(key)}


def tokens_trained(trainer: Trainer) -> dict[str, int]:
    """
    Return the tokens that a finished supervised run read and was trained on, repeats included.

    `input` is without padding, `trained` counts the labels that are not -100. Exact after whole epochs.
    """
    counts = {"input": 0, "trained": 0}
    rows: Any = trainer.train_dataset
    for batch in rows.with_format("arrow").iter(batch_size=1000):
        labels = batch["labels"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        counts["input"] += labels.size
        counts["trained"] += int((labels != -100).sum())
    return {name: round(count * trainer.state.epoch) for name, count in counts.items()}


def peak_bytes() -> int:
    """Return the largest resident memory of this process or of a process that it started, in bytes."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak if sys.platform == "darwin" else peak * 1024


def _outcome(error: BaseException) -> tuple[Status, str]:
    """Return the status of work that an exception ended, and the reason in one line."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "Ctrl-C"
    text = f"exit status {error.code}" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
    return "failed", " ".join(text.split())[:500]


def _written(manifest: RunManifest, *secrets: str) -> dict[str, Any]:
    """Return a manifest as it is written: without secrets, and with null for numbers that JSON does not know."""
    values: dict[str, Any] = _finite(redact(manifest.model_dump(mode="json", by_alias=True), *secrets))
    return values


def _finite(value: Any) -> Any:
    """Return a JSON value in which NaN and infinity, which JSON does not know, are null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and value - value != 0 else value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
