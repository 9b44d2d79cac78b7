"""Functions to write, judged by tests in the sandbox: MBPP, HumanEval and the tiny school's programs."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from schoolhouse.evaluation.tasks.base import Item, Task
from schoolhouse.graders.code import defines, grade_programs, shared_sandbox


def score_programs(completions: Sequence[str], items: Sequence[Item]) -> list[dict[str, Any]]:
    """
    Grades programs by their item's tests and, where they pass, by the tests that no reward has seen.

    Args:
        completions (`Sequence[str]`):
            What the model wrote.
        items (`Sequence[Item]`):
            The question of each; `meta` is an item of [`schoolhouse.graders.code.grade_programs`] and may hold
            `hidden_tests`.

    Returns:
        `list[dict]`: scores, see [`Task`]: `correct`, `format_ok` (the function is there and parses), `fraction` (of
        the tests), `status` (of the sandbox) and `hidden_passed` (passes the tests and the hidden ones as well, `None`
        where there are none): where it lies below the share of correct ones, programs were fitted to the tests.
    """
    grades = grade_programs(completions, [item.meta for item in items])
    held_back = [item.meta.get("hidden_tests") for item in items]
    hidden = grade_programs(
        completions,
        [
            item.meta | {"tests": tests if grade.passed else None}
            for item, tests, grade in zip(items, held_back, grades, strict=True)
        ],
    )
    return [
        {
            "correct": grade.passed,
            "format_ok": grade.status != "syntax" and defines(grade.program, item.meta["entry_point"]),
            "fraction": grade.fraction,
            "status": grade.status,
            "hidden_passed": (beyond.passed if grade.passed else grade.passed) if tests else None,
        }
        for item, grade, tests, beyond in zip(items, grades, held_back, hidden, strict=True)
    ]


def humaneval_items(rows: Sequence[dict[str, Any]], limit: int | None = None) -> list[Item]:
    """
    Items from rows of `openai/openai_humaneval` (Chen et al. 2021), which is for evaluation only.

    What stands before the function in a prompt (imports, helpers) runs before every program: a model may return the
    function alone. The prompt itself is the stub whose body it may return instead.

    Args:
        rows (`Sequence[dict]`):
            `task_id`, `prompt`, `entry_point`, `canonical_solution` and `test`.
        limit (`int`, *optional*):
            Number of rows to take, from the top.

    Returns:
        `list[Item]`: one per row; `reference` is the whole program.
    """
    return [
        Item(
            id=row["task_id"],
            prompt=[
                {
                    "role": "user",
                    "content": f"Complete this Python function:\n\n```python\n{row['prompt'].strip()}\n```",
                }
            ],
            reference=row["prompt"] + row["canonical_solution"],
            meta={
                "tests": row["test"],
                "entry_point": row["entry_point"],
                "prelude": row["prompt"].rpartition(f"def {row['entry_point']}(")[0],
                "stub": row["prompt"],
            },
        )
        for row in rows[:limit]
    ]


def _build(name: str, limit: int | None, path: str | None) -> list[Item]:
    """Items with the very prompts that the data set's train split is trained on."""
    from schoolhouse.data import load_rows

    shared_sandbox()  # where programs cannot be run safely, that is found out now, not after an hour of generation
    rows = load_rows(name, "test", path=path, max_rows=limit)
    kept = ("tests", "hidden_tests", "entry_point", "prelude", "level")
    return [
        Item(
            id=row.get("id") or f"{name.rpartition('/')[2]}-{number}",
            prompt=row["prompt"],
            reference=row["answer"],
            meta={column: row[column] for column in kept if column in row},
        )
        for number, row in enumerate(rows)
    ]


def _build_humaneval(limit: int | None, path: str | None) -> list[Item]:
    from schoolhouse.data.loading import read_rows

    shared_sandbox()
    return humaneval_items(read_rows(path or "openai/openai_humaneval", "test", _fault_of), limit)


def _fault_of(row: dict) -> str | None:
    for column in ("task_id", "prompt", "entry_point", "canonical_solution", "test"):
        if not isinstance(row.get(column), str):
            return f"column {column!r} is no text"
    if f"def {row['entry_point']}(" not in row["prompt"]:
        return f"column 'prompt' does not begin the function {row['entry_point']!r}"
    return None if "def check(" in row["test"] else "column 'test' defines no function check"


def _score(completion: str, item: Item) -> dict[str, Any]:
    return score_programs([completion], [item])[0]


MBPP = Task("mbpp", 1, partial(_build, "mbpp"), _score, max_new_tokens=512, score_many=score_programs)
HUMANEVAL = Task("humaneval", 1, _build_humaneval, _score, max_new_tokens=512, score_many=score_programs)
TINY_CODE = Task(
    "tiny_code", 2, partial(_build, "tiny/programs"), _score, max_new_tokens=112, score_many=score_programs
)
