"""IFEval: does the model do what it is told, where a rule can tell (Zhou et al. 2023)."""

import importlib.util
from typing import Any

from schoolhouse.evaluation.tasks.base import Item, Task
from schoolhouse.graders.instructions import check_instructions, check_instructions_loose


def instruction_items(rows: list[dict[str, Any]], limit: int | None = None) -> list[Item]:
    """
    Items from rows of `google/IFEval`. There is no gold answer: the instructions themselves are the key.

    Args:
        rows (`list[dict]`):
            `prompt`, `instruction_id_list`, `kwargs` and optionally `key`.
        limit (`int`, *optional*):
            Number of rows to take, from the top.

    Returns:
        `list[Item]`: one per row.
    """
    return [
        Item(
            id=str(row.get("key", number)),
            prompt=[{"role": "user", "content": row["prompt"]}],
            reference="",
            meta={"instruction_id_list": row["instruction_id_list"], "kwargs": row["kwargs"]},
        )
        for number, row in enumerate(rows[:limit])
    ]


def score_instructions(completion: str, item: Item) -> dict[str, Any]:
    """
    The four figures of IFEval for one response.

    Args:
        completion (`str`):
            The response.
        item (`Item`):
            From [`instruction_items`].

    Returns:
        `dict`: `correct` (all instructions followed, strictly: prompt-level strict accuracy), `prompt_loose`, and the
        lists `instruction_strict` and `instruction_loose`, whose pooled means are the accuracies at instruction level.
    """
    asked = (item.meta["instruction_id_list"], item.meta["kwargs"], item.prompt[0]["content"])
    strict, loose = check_instructions(completion, *asked), check_instructions_loose(completion, *asked)
    return {
        "correct": all(strict),
        "prompt_loose": all(loose),
        "instruction_strict": strict,
        "instruction_loose": loose,
    }


def _build(limit: int | None, path: str | None) -> list[Item]:
    from schoolhouse.data.loading import read_rows

    if importlib.util.find_spec("langdetect") is None:  # found out now, not after an hour of generation
        raise ImportError("task ifeval tells languages with langdetect: pip install 'langdetect>=1.0.9'")
    rows = read_rows(path or "google/IFEval", None if path else "train", _fault_of)
    return instruction_items(rows, limit)


def _fault_of(row: dict) -> str | None:
    if not isinstance(row.get("prompt"), str):
        return "column 'prompt' is no text"
    for column, kind in (("instruction_id_list", str), ("kwargs", dict)):
        entries = row.get(column)
        if not isinstance(entries, list) or not entries or not all(isinstance(entry, kind) for entry in entries):
            return f"column {column!r} is no list of {kind.__name__}"
    try:
        check_instructions("", row["instruction_id_list"], row["kwargs"], row["prompt"])
    except ValueError as error:
        return str(error)
    return None


IFEVAL = Task("ifeval", 1, _build, score_instructions, max_new_tokens=1280)
