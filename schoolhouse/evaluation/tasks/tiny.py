"""The tiny world's tasks: sums and stories by level, facts by exposure, forms, descriptions, and held-out text."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from schoolhouse.evaluation.tasks.base import Item, Task
from schoolhouse.evaluation.tasks.heldout import text_items


GOOD = 2.5  # as two warm words and a proper end; nearly half of the teacher's descriptions


def _build(dataset: str, limit: int | None, path: str | None) -> list[Item]:
    from schoolhouse.data import load_rows

    # The data set lists its levels in turn, so a prefix of it is as mixed as the whole.
    rows = load_rows(f"tiny/{dataset}", "test", path=path, max_rows=limit)
    return [
        Item(f"{dataset}-{number}", row["prompt"], row["answer"], {"level": row["level"]} if "level" in row else {})
        for number, row in enumerate(rows)
    ]


def score_numbers(completions: Sequence[str], items: Sequence[Item]) -> list[dict[str, Any]]:
    """
    Grades answers that are numbers.

    Args:
        completions (`Sequence[str]`):
            What the model wrote.
        items (`Sequence[Item]`):
            The question of each; `reference` is a solution ended by `#### N`.

    Returns:
        `list[dict]`: scores, see [`Task`]; `shows_work` holds where an equality stands before the answer.
    """
    from schoolhouse.graders import grade_many, score_as

    references = [item.reference for item in items]
    last_number = score_as("gsm8k/lm-eval-flexible", completions, references)
    return [
        {
            "correct": grade.correct,
            "extracted": grade.extracted,
            "format_ok": grade.format_ok,
            "right_in_any_form": bool(grade.correct) or in_any_form,
            "shows_work": " = " in completion,
        }
        for completion, in_any_form, grade in zip(
            completions, last_number, grade_many(completions, references), strict=True
        )
    ]


def score_fact(completion: str, item: Item) -> dict[str, Any]:
    """Right if the one value that the answer names is the right one; to decline is right where nobody could know."""
    from schoolhouse.data.tiny.builders import DONT_KNOW
    from schoolhouse.data.tiny.world import ATTRIBUTES, towns

    values = {value for attribute in ATTRIBUTES.values() for value in attribute} | set(towns())
    named = {word.strip(".,!?") for word in completion.split()} & values
    abstained = DONT_KNOW in completion
    correct = abstained if item.reference == DONT_KNOW else named == {item.reference} and not abstained
    return {
        "correct": correct,
        "extracted": DONT_KNOW if abstained else " ".join(sorted(named)),
        "format_ok": abstained or bool(named),
        "abstained": abstained,
        "wrong_value": bool(named) and not correct,
    }


def score_form(completion: str, item: Item) -> dict[str, Any]:
    """Right if the answer is exactly the one that has the form."""
    return {"correct": completion.strip() == item.reference, "extracted": completion.strip()}


def _build_descriptions(limit: int | None, path: str | None) -> list[Item]:
    from schoolhouse.data.tiny.conversations import question_about, subjects

    # Each person once: to ask about one again would only repeat the item.
    people = subjects("test")[:limit]
    return [
        Item(f"descriptions-{number}", [{"role": "user", "content": question_about(person)}], person.name)
        for number, person in enumerate(people)
    ]


def score_description(completion: str, item: Item) -> dict[str, Any]:
    """The gold utility, the judge that no reward model is trained on; right from [`GOOD`] of at most 5.5 points."""
    from schoolhouse.data.tiny.conversations import utility_for

    utility = utility_for(item.reference, completion)
    return {"correct": utility >= GOOD, "utility": utility}


def _build_text(limit: int | None, path: str | None) -> list[Item]:
    from schoolhouse.data import load_rows

    return text_items(load_rows("tiny/corpus", "test", size=limit or 500)["text"])


TINY_ARITHMETIC = Task(
    "tiny_arithmetic", 1, partial(_build, "arithmetic"), max_new_tokens=96, score_many=score_numbers
)
TINY_STORIES = Task("tiny_stories", 1, partial(_build, "stories"), max_new_tokens=96, score_many=score_numbers)
TINY_FACTS = Task("tiny_facts", 1, partial(_build, "facts"), score_fact, max_new_tokens=24)
TINY_FORMS = Task("tiny_forms", 1, partial(_build, "forms"), score_form, max_new_tokens=32)
# There are only some two dozen people: one greedy answer each would give a win rate without an interval worth having.
TINY_DESCRIPTIONS = Task(
    "tiny_descriptions", 3, _build_descriptions, score_description, max_new_tokens=96, num_samples=8, temperature=1.0
)
TINY_HELDOUT = Task("tiny_heldout", 1, _build_text, kind="bits_per_byte")
