"""Multiple choice by likelihood: the model never writes, it says how likely each choice is."""

from collections.abc import Sequence
from typing import Any

from schoolhouse.evaluation.tasks.base import Item, Task


def choice_items(rows: Sequence[dict[str, Any]], limit: int | None = None) -> list[Item]:
    """
    Items from rows of any multiple-choice set.

    The prompt is plain text, `Question: ...` and `Answer:`, continued by each choice in turn: base models are asked
    just so, and a chat template would only add what no choice explains.

    Args:
        rows (`Sequence[dict]`):
            `question`, `choices` (texts), `answer` (number of the right choice, from 0, or its text) and optionally
            `id` and `level`.
        limit (`int`, *optional*):
            Number of rows to take, from the top.

    Returns:
        `list[Item]`: one per row; `reference` is the text of the right choice.
    """
    return [
        Item(
            id=str(row.get("id") or number),
            prompt=f"Question: {row['question']}\nAnswer:",
            reference=_reference(row),
            meta={"choices": [f" {choice}" for choice in row["choices"]]}
            | ({"level": row["level"]} if row.get("level") is not None else {}),
        )
        for number, row in enumerate(rows[:limit])
    ]


def score_choices(likelihoods: Sequence[float], item: Item) -> dict[str, Any]:
    """
    Whether the likeliest choice is the right one.

    Likelihoods are divided by the choice's length in UTF-8 bytes, since a longer choice has more to get right and
    bytes are the same for every tokenizer. `unnormalised` is the verdict without that. Of equals the first counts.

    Args:
        likelihoods (`Sequence[float]`):
            Log-likelihood of each choice, in nats.
        item (`Item`):
            The question.

    Returns:
        `dict`: `correct`, `extracted` (the chosen text) and `unnormalised`.
    """
    choices = [choice.removeprefix(" ") for choice in item.meta["choices"]]
    rates = [value / len(choice.encode()) for value, choice in zip(likelihoods, choices, strict=True)]
    chosen, likeliest = (choices[values.index(max(values))] for values in (rates, list(likelihoods)))
    return {"correct": chosen == item.reference, "extracted": chosen, "unnormalised": likeliest == item.reference}


def _build(limit: int | None, path: str | None) -> list[Item]:
    from schoolhouse.data.loading import read_rows

    if path is None:
        raise ValueError("task multiple_choice has no data set of its own: --task_paths '{multiple_choice: FILE}'")
    return choice_items(read_rows(path, None, _fault_of), limit)


def _fault_of(row: dict) -> str | None:
    choices, answer = row.get("choices"), row.get("answer")
    if not isinstance(row.get("question"), str):
        return "column 'question' is no text"
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(x, str) and x for x in choices):
        return "column 'choices' is no list of two or more texts"
    if len(set(choices)) < len(choices):
        return "column 'choices' has the same choice twice"
    is_number = isinstance(answer, int) and not isinstance(answer, bool)
    if answer not in (range(len(choices)) if is_number else choices):
        return f"column 'answer' holds {answer!r}, neither one of the choices nor its number from 0"
    return None


def _reference(row: dict[str, Any]) -> str:
    return row["choices"][row["answer"]] if isinstance(row["answer"], int) else row["answer"]


MULTIPLE_CHOICE = Task("multiple_choice", 1, _build, score_choices, kind="loglikelihood")
