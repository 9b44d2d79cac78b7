"""Word problems with one number as the answer: GSM8K and SVAMP."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from schoolhouse.evaluation.tasks.base import Item, Task
from schoolhouse.graders import LM_EVAL_STOP, REFERENCE_SCORERS, grade_many, score_as


def score_answers(completions: Sequence[str], items: Sequence[Item]) -> list[dict[str, Any]]:
    """
    Grades completions by our answer key and, beside it, as other projects would.

    `right_in_any_form` holds where our key accepts the answer or the completion's last number is the gold: such an
    answer is wrong at most in form.

    Args:
        completions (`Sequence[str]`):
            What the model wrote.
        items (`Sequence[Item]`):
            The question of each; `reference` ends in `#### N`.

    Returns:
        `list[dict]`: scores, see [`Task`].
    """
    references = [item.reference for item in items]
    by_others = {name: score_as(name, completions, references) for name in REFERENCE_SCORERS}
    scores = []
    for number, grade in enumerate(grade_many(completions, references)):
        others = {name: verdicts[number] for name, verdicts in by_others.items()}
        in_any_form = None if grade.correct is None else grade.correct or others["gsm8k/lm-eval-flexible"]
        scores.append(
            {
                "correct": grade.correct,
                "extracted": grade.extracted,
                "format_ok": grade.format_ok,
                "right_in_any_form": in_any_form,
                **others,
            }
        )
    return scores


def _build(name: str, limit: int | None, path: str | None) -> list[Item]:
    """Items with the very prompts that the data set's train split is trained on."""
    from schoolhouse.data import load_rows

    rows = load_rows(name, "test", path=path, max_rows=limit)
    return [
        Item(id=row.get("id") or f"{name}-{number}", prompt=row["prompt"], reference=row["completion"][0]["content"])
        for number, row in enumerate(rows)
    ]


def _build_5shot(limit: int | None, path: str | None) -> list[Item]:
    """
    lm-eval's prompt for base models. Its five examples are the first five rows of the train split (lm-eval draws five
    others for each question), calculator calls included, as there.
    """
    from schoolhouse.data import load_dataset_spec
    from schoolhouse.data.loading import read_rows

    spec = load_dataset_spec("gsm8k")

    def read(split: str) -> list[dict]:
        return read_rows(path or spec.hub_id, split, _fault_of, spec.config)

    def ask(row: dict) -> str:
        return f"Question: {row['question']}\nAnswer:"

    examples = "".join(f"{ask(row)} {row['answer']}\n\n" for row in read("train")[:5])
    return [
        Item(id=f"gsm8k-{number}", prompt=examples + ask(row), reference=row["answer"])
        for number, row in enumerate(read("test")[:limit])
    ]


def _fault_of(row: dict) -> str | None:
    is_sound = all(isinstance(row.get(column), str) for column in ("question", "answer")) and "####" in row["answer"]
    return None if is_sound else "wants the texts `question` and `answer`, the latter ending in #### and a number"


def _score(completion: str, item: Item) -> dict[str, Any]:
    return score_answers([completion], [item])[0]


GSM8K = Task("gsm8k", 1, partial(_build, "gsm8k"), _score, max_new_tokens=512, score_many=score_answers)
GSM8K_5SHOT = Task("gsm8k_5shot", 1, _build_5shot, _score, stop=LM_EVAL_STOP, score_many=score_answers)
SVAMP = Task("svamp", 1, partial(_build, "svamp"), _score, max_new_tokens=128, score_many=score_answers)
