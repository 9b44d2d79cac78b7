"""The run record: one `run.json` that says what was run, on what, with what result; and where a killed run goes on."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schoolhouse.core.environment import git_state, hardware, versions
from schoolhouse.core.files import write_json
from schoolhouse.core.models import adapter_hash, model_hash, template_hash
from schoolhouse.core.redaction import redact
from schoolhouse.core.reward_models import scorer_hash
from schoolhouse.training.policy import weights_dtype


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

    from schoolhouse.config.arguments import RecipeParser
    from schoolhouse.data.sources import LoadedData
    from schoolhouse.rewards import RewardModel

_HASHES = {"adapter": adapter_hash, "members": scorer_hash, "model": model_hash}
# Keys that name a run, or say what is shown before it, rather than change what it computes.
_NOT_COMPARED = {
    "output_dir", "resume_from_checkpoint", "run_name", "report_to", "disable_tqdm", "hub_token", "preflight",
    "preflight_prompts",
}  # fmt: skip


class RunManifest:
    """
    The `run.json` of one run folder, complete at every moment: it is replaced, never edited in place.

    Its `status` is `"running"` from the start, then `"finished"` or, after Ctrl-C or SIGTERM, `"interrupted"`. With
    `resume_from_checkpoint: auto` the same command again goes on from the last complete checkpoint of a run that did
    not finish, and repeats one that did. A folder that holds a run with other settings is refused.

    Args:
        folder (`Path`):
            Run folder.
        is_writer (`bool`, *optional*, defaults to `True`):
            Whether this process writes. One of several does.

    Attributes:
        values (`dict[str, Any]`): the content of `run.json`.
        checkpoint (`str` or `None`): what `trainer.train(resume_from_checkpoint=...)` takes.
        is_resumable (`bool`): whether what the folder holds is the begun work of this very run.
    """

    def __init__(self, folder: Path, is_writer: bool = True):
        self.folder = folder
        self.is_writer = is_writer
        self.values: dict[str, Any] = {}
        self.checkpoint: str | None = None
        self.is_resumable = False
        self._began = time.monotonic()
        self._seconds_before = 0.0

    @classmethod
    def begin(
        cls,
        parser: RecipeParser,
        training_args: TrainingArguments,
        model_args: Any,
        data: LoadedData,
        tokenizer: PreTrainedTokenizerBase,
        judges: Sequence[RewardModel] = (),
    ) -> RunManifest:
        """
        Open the run folder `output_dir`, decide whether to resume, and write the first record.

        Afterwards `training_args.output_dir` is the folder's `checkpoints`, so trainer state stays apart from the
        product.

        Args:
            parser (`RecipeParser`):
                The parsed recipe; takes the error if the folder holds another run.
            training_args ([`~transformers.TrainingArguments`]):
                Gives seeds and the run folder.
            model_args (`ModelArguments`):
                Names the base model, if there is one, and the adapter to continue.
            data (`LoadedData`):
                Its `sources` are the data fingerprints.
            tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
                Its chat template is hashed.
            judges (`Sequence[RewardModel]`, *optional*):
                Those among the rewards.

        Returns:
            `RunManifest`: with status `"running"`.
        """
        from accelerate import PartialState

        record = cls(Path(training_args.output_dir), training_args.process_index == 0)
        parent, git = model_args.adapter_name_or_path, git_state()
        record.values = {
            "schema": 1,
            "status": "running",
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "config": {
                **parser.defaults,
                **parser.resolved,
                "bf16": training_args.bf16,
                "dtype": weights_dtype(model_args, training_args),
            },
            "seeds": {"seed": training_args.seed, "data_seed": training_args.data_seed},
            "model": {
                "name": model_args.model_name_or_path,
                "revision": model_args.model_revision,
                "hash": model_hash(model_args.model_name_or_path, model_args.model_revision),
            }
            if model_args.model_name_or_path is not None
            else None,
            "parent_adapter": {"name": parent, "hash": adapter_hash(parent)} if parent is not None else None,
            "reward_models": [{"name": judge.model, "hash": scorer_hash(judge.model)} for judge in judges],
            "chat_template": template_hash(tokenizer),
            "data": [source.model_dump() for source in data.sources],
            "git": git and git.model_dump(),
            "versions": versions(),
            "hardware": hardware(training_args.world_size).model_dump(),
            "started": _now(),
        }
        record.values = redact(json.loads(json.dumps(record.values, default=str)), training_args.hub_token)
        try:
            record._decide(training_args.resume_from_checkpoint)
        except ValueError as error:
            parser.error("output_dir", str(error))
        PartialState().wait_for_everyone()  # all have read the folder before one writes to it
        training_args.output_dir = str(record.folder / "checkpoints")
        if record.is_writer and not record.is_resumable:
            # Left there, a checkpoint of the earlier run could be taken for one of this.
            for leftover in ("checkpoints", "members"):
                shutil.rmtree(record.folder / leftover, ignore_errors=True)
        record.save()
        return record

    def _decide(self, resume: str | None) -> None:
        old = self._previous()
        if old is not None:
            mine, theirs = (_compared(values["config"]) for values in (self.values, old))
            differing = sorted(key for key in mine | theirs if mine.get(key) != theirs.get(key))
            if differing:
                raise ValueError(
                    f"{self.folder} holds a run with another {', '.join(differing[:3])}: choose another output_dir, "
                    "or delete that folder"
                )
        if resume not in (None, "auto"):
            self.checkpoint = resume
        elif resume == "auto" and old is not None and old["status"] != "finished":
            found = last_checkpoint(self.folder / "checkpoints")
            self.checkpoint = str(found) if found is not None else None
            self.is_resumable = any((self.folder / "checkpoints").glob("member-*"))
        self.is_resumable = self.is_resumable or self.checkpoint is not None
        if self.is_resumable and old is not None:
            for key in ("model", "parent_adapter", "reward_models", "chat_template", "data"):
                if key in old and old[key] != self.values[key]:
                    raise ValueError(
                        f"{self.folder} cannot be resumed: its {key.replace('_', ' ')} changed since it began; choose "
                        "another output_dir, or delete that folder"
                    )
            self._seconds_before = old.get("seconds", 0.0)
            self.values["started"] = old["started"]
            origin = Path(self.checkpoint).name if self.checkpoint is not None else "members"
            self.values["resumed"] = [*old.get("resumed", []), {"at": _now(), "from": origin}]

    def _previous(self) -> dict[str, Any] | None:
        path = self.folder / "run.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def save(self, **values: Any) -> None:
        """
        Add values to the record and write it.

        Args:
            **values (`Any`):
                Keys of `run.json`.
        """
        self.values |= redact(json.loads(json.dumps(values, default=str)))
        self.values["seconds"] = round(self._seconds_before + time.monotonic() - self._began, 2)
        if self.is_writer:
            write_json(self.folder / "run.json", self.values, allow_nan=True)

    def finish(self, trainer: Trainer, product: Path, **values: Any) -> None:
        """
        Write the final record of a run that went to its end.

        Args:
            trainer ([`~transformers.Trainer`]):
                Trainer that has trained.
            product (`Path`):
                Folder of what was trained.
            **values (`Any`):
                Further keys of `run.json`.
        """
        state = trainer.state
        if self.is_writer:
            # Checkpoints may be deleted, curves stay.
            write_json(self.folder / "log.json", state.log_history, allow_nan=True)
        self.save(
            status="finished",
            product=product.name,
            product_hash=_HASHES[product.name](str(product)),
            ended=_now(),
            steps=state.global_step,
            epochs=state.epoch,
            metrics=final_metrics(state.log_history),
            best={"metric": state.best_metric, "step": state.best_global_step} if state.best_metric else None,
            **values,
        )

    def interrupt(self, trainer: Trainer) -> None:
        """
        Write the record of a run that was told to stop, and say how to go on.

        Args:
            trainer ([`~transformers.Trainer`]):
                Trainer that has saved a checkpoint and stopped.
        """
        state = trainer.state
        self.save(status="interrupted", ended=_now(), steps=state.global_step, epochs=state.epoch)
        if self.is_writer:
            print(
                f"stopped after step {state.global_step} of {state.max_steps}, checkpoint saved in {self.folder}: the "
                "same command goes on from there"
            )


def last_checkpoint(folder: Path) -> Path | None:
    """
    The newest checkpoint that was written to its end; a trainer writes `trainer_state.json` last.

    Args:
        folder (`Path`):
            Folder with `checkpoint-N` sub-folders; need not exist.

    Returns:
        `Path` or `None`: `None` where there is none.
    """
    for path in sorted(folder.glob("checkpoint-*"), key=_step, reverse=True):
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if _step(path) == state["global_step"] and not (path / "checkpoint-is-incomplete.txt").exists():
            return path
    return None


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _NOT_COMPARED}


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if number.isdigit() else -1


def final_metrics(log_history: list[dict[str, float]]) -> dict[str, float]:
    """
    The last logged value of every metric. The log is part of a checkpoint, so a resumed run has the same ones.

    Args:
        log_history (`list[dict[str, float]]`):
            Of the trainer's state.

    Returns:
        `dict[str, float]`: without clock times, and without the trainer's closing averages, which start anew when a
        run is resumed.
    """
    entries = [entry for entry in log_history if "train_runtime" not in entry]
    last = {key: value for entry in entries for key, value in entry.items()}
    unstable = re.compile(r"runtime|per_second|num_tokens|^step$|^epoch$")  # TRL counts tokens from the resumption
    return {key: value for key, value in last.items() if not unstable.search(key)}


def tokens_trained(trainer: Trainer) -> dict[str, int]:
    """
    Tokens that a finished supervised run read and was trained on, repeats included.

    Args:
        trainer ([`~transformers.Trainer`]):
            Its training data has `input_ids` and `labels`.

    Returns:
        `dict[str, int]`: `input` (without padding) and `trained` (labels that are not -100). Exact after whole epochs.
    """
    counts = {"input": 0, "trained": 0}
    for batch in trainer.train_dataset.with_format("arrow").iter(batch_size=1000):
        labels = batch["labels"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        counts["input"] += labels.size
        counts["trained"] += int((labels != -100).sum())
    return {name: round(count * trainer.state.epoch) for name, count in counts.items()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
