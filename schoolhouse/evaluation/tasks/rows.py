"""Rows of the built-in tasks that columns and templates cannot describe; task files and their data sets name them."""

import random
import re
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


def mmlu(rows: list[Row]) -> Iterator[Row]:
    """Convert rows of `cais/mmlu`: the names of subjects become words."""
    for row in rows:
        yield row | {"question": row["question"].strip(), "subject": row["subject"].replace("_", " ")}


def validate_arc(row: Row) -> str | None:
    """Return what makes a row of ARC unusable, or `None`."""
    choices = row.get("choices") or {}
    labels, texts = choices.get("label") or [], choices.get("text") or []
    if len(labels) != len(texts) or len(set(texts)) < 2 or len(set(texts)) < len(texts):
        return "column 'choices' has not two or more different texts, each with a label"
    return None if row["answerKey"] in labels else f"column 'answerKey' is {row['answerKey']!r}, no label of a choice"


def arc(rows: list[Row]) -> Iterator[Row]:
    """Convert rows of `allenai/ai2_arc`: the labels are letters in some questions and numbers in others."""
    for row in rows:
        choices = row["choices"]
        right = choices["label"].index(row["answerKey"])
        yield {"id": row["id"], "question": row["question"], "choices": choices["text"], "answer": right}


def validate_hellaswag(row: Row) -> str | None:
    """Return what makes a row of HellaSwag unusable, or `None`."""
    endings = [_plain(text) for text in row.get("endings") or []]
    if len(endings) != 4 or len(set(endings)) < 4 or not all(endings):
        return "column 'endings' has not four different texts"
    return None if row["label"] in "0 1 2 3".split() else f"column 'label' is {row['label']!r}, no number of an ending"


def hellaswag(rows: list[Row]) -> Iterator[Row]:
    """Convert rows of `Rowan/hellaswag` to lm-eval's query, which is the activity and the text so far."""
    for row in rows:
        query = f"{row['activity_label']}: {row['ctx_a']} {(row.get('ctx_b') or '').capitalize()}"
        endings = [_plain(text) for text in row["endings"]]
        yield {"query": _plain(query), "choices": endings, "answer": int(row["label"])}


def _plain(text: str) -> str:
    """A text of HellaSwag without the marks that WikiHow's pages left in it: `[title]`, `[step]`, `[header]`."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


_SECTIONS = {
    "Chat": "alpacaeval-easy alpacaeval-length alpacaeval-hard mt-bench-easy mt-bench-med",
    "Chat Hard": "mt-bench-hard llmbar-natural llmbar-adver-neighbor llmbar-adver-GPTInst llmbar-adver-GPTOut "
    "llmbar-adver-manual",
    "Safety": "refusals-dangerous refusals-offensive xstest-should-refuse xstest-should-respond donotanswer",
    "Reasoning": "math-prm hep-cpp hep-go hep-java hep-js hep-python hep-rust",
}
_SECTION_OF = {subset: section for section, subsets in _SECTIONS.items() for subset in subsets.split()}


def validate_rewardbench(row: Row) -> str | None:
    """Return what makes a row of RewardBench unusable, or `None`."""
    return None if row["subset"] in _SECTION_OF else f"column 'subset' is {row['subset']!r}, of no known section"


def rewardbench(rows: list[Row]) -> Iterator[Row]:
    """Convert rows of `allenai/reward-bench`: texts become turns, and a subset belongs to a section."""
    for row in rows:
        turns = {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
        prompt = [{"role": "user", "content": row["prompt"]}]
        yield {"prompt": prompt, **turns, "subset": row["subset"], "section": _SECTION_OF[row["subset"]]}


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
