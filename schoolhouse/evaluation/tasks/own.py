"""Rows that a run held out, as tasks under the name of the user's data set."""

import logging
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schoolhouse.core.manifest import RunManifest, read_manifest
from schoolhouse.core.rows import is_missing
from schoolhouse.evaluation.tasks.items import Row
from schoolhouse.evaluation.tasks.kinds import BitsPerByteTask, GenerateTask, PreferenceTask
from schoolhouse.evaluation.tasks.spec import Task


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

OWN = "own"  # name of the tasks in `--tasks`
_TRIED = 50  # training answers that a scorer must accept to be chosen
_SUFFIX = re.compile(r"\.(jsonl|json|csv|tsv|parquet|ya?ml)(\.gz)?$")


def own_tasks(folder: Path, scorer: str | None, taken: Sequence[str]) -> list[Task]:
    """
    Return the tasks that the rows are which a run held out, by `validation_split` or as a test split.

    They are read again from the data that the manifest names, and must be those of the run. Questions with answers are
    one task, scored as [`_question_task`] says, and after supervised training a second one, `NAME-loss`: bits per byte
    of the answers after their questions. Pairs are a task for the reward model, and texts one of bits per byte.

    Args:
        folder (`Path`):
            Run folder.
        scorer (`str` or `None`):
            Scorer of the answers, instead of the one that follows from the data.
        taken (`Sequence[str]`):
            Names that other tasks have; tasks of the same name become `NAME-heldout`.

    Raises:
        ValueError: if the run held out no rows, they changed since, or no scorer follows from them.
    """
    from schoolhouse.core.models import load_tokenizer

    manifest = read_manifest(folder)
    held_out = [source for source in manifest.data if source.role == "test"]
    if not held_out or manifest.model is None:
        raise ValueError(f"{folder} held out no rows: train with validation_split: 0.05, or ask rows by a task file")
    name = "+".join(dict.fromkeys(_short_name(source.name) for source in held_out))[:80]
    name = f"{name}-heldout" if name in taken else name
    product = folder / (manifest.product or "adapter")
    adapter = str(product) if (product / "adapter_config.json").is_file() else None
    tokenizer = load_tokenizer(manifest.model.name, adapter, manifest.model.revision)
    rows = _held_out_rows(folder, manifest, held_out[0].kind, tokenizer)
    from_file = f"held out by {folder}"
    if held_out[0].kind == "preference":
        pairs = PreferenceTask(description=f"Pairs {from_file}", id="{number}")
        return [_with_rows(pairs, name, _readable(name, map(_pair, rows)))]
    if held_out[0].kind == "text":
        return [_with_rows(BitsPerByteTask(description=f"Texts {from_file}", id="{number}"), name, rows)]
    if held_out[0].kind == "prompt-only":
        return [_question_task(name, from_file, rows, manifest, scorer, tokenizer)]
    asked = _readable(name, map(_question, rows))
    loss = BitsPerByteTask(description=f"Answers {from_file}", id="{number}", prompt="prompt", text="completion")
    return [
        _question_task(name, from_file, asked, manifest, scorer, tokenizer),
        _with_rows(loss, f"{name}-loss", asked),
    ]


def _short_name(name: str) -> str:
    """A data set's name as a task's: that of the file without suffix, or of its folder where it is that of a split."""
    from schoolhouse.data.files import SPLIT_NAMES
    from schoolhouse.data.specs import dataset_names

    parts = [name.replace("/", "-")] if name in dataset_names() else _SUFFIX.sub("", name.rstrip("/")).split("/")
    if parts[-1] in SPLIT_NAMES and len(parts) > 1:
        parts.pop()
    return re.sub(r"[^\w.+-]+", "-", parts[-1]) or "data"


def _held_out_rows(
    folder: Path, manifest: RunManifest, kind: str, tokenizer: "PreTrainedTokenizerBase"
) -> list[dict[str, Any]]:
    from schoolhouse.config.arguments import DataArguments
    from schoolhouse.core.chat_templates import has_own_template
    from schoolhouse.data import load_training_data
    from schoolhouse.data.forms import in_turns

    given = {one.name: manifest.config[one.name] for one in fields(DataArguments) if one.name in manifest.config}
    arguments: Any = given
    try:
        data = load_training_data(DataArguments(**arguments), manifest.seeds.get("seed") or 0, kinds=(kind,))
    except (ValueError, OSError) as error:
        where = "evaluate from the folder in which it was started, with its data in place"
        raise ValueError(f"the rows that {folder} held out cannot be read: {error}; {where}") from error
    recorded = {(source.role, source.name): source.sha256 for source in manifest.data}
    changed = [source.name for source in data.sources if recorded.get((source.role, source.name)) != source.sha256]
    if changed or data.test is None:
        raise ValueError(
            f"{folder} was trained on other rows: {', '.join(changed) or 'its data'} changed since, so none are known "
            "to be held out; bring its data back, or train again"
        )
    rows = data.test
    texts = any(isinstance(rows[0].get(column), str) for column in ("prompt", "completion", "chosen", "rejected"))
    conversational = manifest.config.get("conversational")
    if texts and (has_own_template(tokenizer) if conversational is None else conversational):
        rows = rows.map(in_turns)
    return [dict(row) for row in rows]


def _question_task(
    name: str,
    from_file: str,
    rows: list[dict[str, Any]],
    manifest: RunManifest,
    scorer: str | None,
    tokenizer: "PreTrainedTokenizerBase",
) -> Task:
    """
    Questions with the scorer that the data and the run name: that of the rewards (`math`, `code`, a reward model), the
    row's tests, numbers or texts in a column `answer`, or the whole answer that was trained, after normalisation.
    """
    column = "answer" if any(not is_missing(row.get("answer")) for row in rows) else "completion"
    chosen: str | dict[str, Any] = scorer or _scorer(name, rows, column, manifest)
    if not scorer and chosen != "math" and any("completion" in row for row in rows):
        column = "completion"  # the trained answer may say more than the column `answer`
    references = [str(row.get(column, "")) for row in rows]
    answers = [*references, *(str(row.get("completion", "")) for row in rows)]
    longest = max(len(tokenizer(text)["input_ids"]) for text in answers)
    limit = manifest.config.get("max_completion_length") or min(1024, max(64, longest + longest // 2))
    task = GenerateTask(
        description=f"Questions {from_file}",
        id="{number}",
        reference=column if any(column in row for row in rows) else "",
        scorer=chosen,
        max_new_tokens=int(str(limit)),
        level="source" if "source" in rows[0] else None,
    )
    return _with_rows(task, name, rows)


def _scorer(name: str, rows: list[dict[str, Any]], column: str, manifest: RunManifest) -> str | dict[str, Any]:
    rewards: Any = manifest.config.get("rewards") or []
    entries = [{"name": entry} if isinstance(entry, str) else entry for entry in rewards]
    for entry in entries:
        if entry["name"] in ("math", "code"):
            return str(entry["name"])
    if rows[0].get("tests") and rows[0].get("entry_point"):
        return "code"
    for entry in entries:
        if entry["name"] == "reward_model":
            return {key: entry[key] for key in ("name", "model", "base") if entry.get(key)}
    if not any(not is_missing(row.get(column)) for row in rows):
        raise ValueError(f"{name}: its rows have no answers: name a scorer with --own_scorer file.py:function")
    return "math" if _is_math(rows, column) else {"name": "exact", "normalize": True}


def _is_math(rows: Sequence[Row], column: str) -> bool:
    """Whether the answers are numbers, or end in a marked final answer, and the trained answers state them."""
    from schoolhouse.graders import grade_many
    from schoolhouse.graders.comparison import read_reference
    from schoolhouse.graders.numbers import read_number

    tried = rows[:_TRIED]
    references = [str(row.get(column)) for row in tried]
    is_stated = [read_number(text.strip()) or re.search(r"####|\\boxed\{", text) for text in references]
    if column == "completion" and not all(is_stated):
        return False
    if any(read_reference(text).kind != "number" for text in references):
        return False
    answers = [str(row.get("completion") or row.get(column)) for row in tried]
    return all(grade.correct for grade in grade_many(answers, references))


def _question(row: Row) -> dict[str, Any] | None:
    """A row as the conversation up to its last answer, and that answer as text; `None` where it is none."""
    turns = [*(row.get("prompt") or []), *row["completion"]] if isinstance(row.get("completion"), list) else None
    turns = row["messages"] if row.get("messages") else turns
    if turns is None:
        return dict(row)
    last = max((index for index, turn in enumerate(turns) if turn["role"] == "assistant"), default=0)
    content = turns[last].get("content")
    if not last or not isinstance(content, str) or not content.strip():
        return None
    others = {key: value for key, value in row.items() if key != "messages"}
    return {**others, "prompt": turns[:last], "completion": content}


def _pair(row: Row) -> dict[str, Any] | None:
    """A pair with its prompt, which may stand only in the answers; `None` where there is none."""
    if row.get("prompt"):
        return dict(row)
    chosen, rejected = row["chosen"], row["rejected"]
    most = min(len(chosen), len(rejected)) - 1  # texts or lists of turns
    shared = next((index for index in range(most) if chosen[index] != rejected[index]), most)
    parts = {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}
    return {**row, **parts} if all(parts.values()) else None


def _readable(name: str, rows: Any) -> list[dict[str, Any]]:
    every = list(rows)
    kept = [row for row in every if row is not None]
    if len(kept) < len(every):
        missing = len(every) - len(kept)
        logger.warning(f"{name}: {missing} of {len(every)} held-out rows have no prompt or no answer in text")
    if not kept:
        raise ValueError(f"{name}: no held-out row has a prompt and an answer in text")
    return kept


def _with_rows(task: Task, name: str, rows: list[dict[str, Any]]) -> Task:
    task.attach_rows(name, rows)
    return task
