"""Rows of the built-in tasks that columns and templates cannot describe; task files and their data sets name them."""

import random
from collections.abc import Iterator
from typing import Any


Row = dict[str, Any]

ANNOTATOR_NOISE = 0.25  # share of wrong labels of the tiny data's annotator
_MARGINS = ("gold margin 1 to 2", "gold margin 2 to 3", "gold margin over 3")  # smaller ones are ties, and left out


def validate_humaneval(row: Row) -> str | None:
    """Return what makes a row of HumanEval unusable, or `None`."""
    if f"def {row['entry_point']}(" not in row["prompt"]:
        return f"column 'prompt' does not begin the function {row['entry_point']!r}"
    return None if "def check(" in row["test"] else "column 'test' defines no function check"


def humaneval(rows: list[Row]) -> Iterator[Row]:
    """
    Convert rows of `openai/openai_humaneval` (Chen et al. 2021, "Evaluating large language models trained on code").

    The code before the function in a prompt (imports, helpers) runs before every program: a model may return the
    function alone. The prompt itself is the stub whose body it may return instead.
    """
    for row in rows:
        question = f"Complete this Python function:\n\n```python\n{row['prompt'].strip()}\n```"
        yield {
            "id": row["task_id"],
            "prompt": [{"role": "user", "content": question}],
            "answer": row["prompt"] + row["canonical_solution"],
            "tests": row["test"],
            "entry_point": row["entry_point"],
            "prelude": row["prompt"].rpartition(f"def {row['entry_point']}(")[0],
            "stub": row["prompt"],
        }


def tiny_descriptions() -> list[Row]:
    """Return a request to describe each person of the test split, each person once."""
    from schoolhouse.data.tiny.conversations import question_about, subjects

    return [
        {"prompt": [{"role": "user", "content": question_about(person)}], "name": person.name}
        for person in subjects("test")
    ]


def tiny_preferences() -> list[Row]:
    """Return the test pairs with their gold margin's range, and whether a noisy annotator labels them right."""
    from schoolhouse.data import load_rows

    rows = load_rows("tiny/preferences", "test").to_list()
    # Exactly that share is wrong: drawn independently, the ceiling of the agreement would vary by some points.
    num_wrong = round(ANNOTATOR_NOISE * len(rows))
    wrong = set(random.Random("annotator of tiny_preferences").sample(range(len(rows)), num_wrong))
    return [
        row | {"level": _MARGINS[sum(row["margin"] > most for most in (2, 3))], "label_is_right": number not in wrong}
        for number, row in enumerate(rows)
    ]
