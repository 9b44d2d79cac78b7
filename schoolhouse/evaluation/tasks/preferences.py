"""Which of two answers is the better one: the prepared_tasks of reward models."""

import random
from functools import partial

from schoolhouse.evaluation.tasks.base import Item, Task


ANNOTATOR_NOISE = 0.25  # of the tiny school's careless annotator
_MARGINS = ("gold margin 1 to 2", "gold margin 2 to 3", "gold margin over 3")  # smaller ones are ties, and left out


def _build(dataset: str, cluster: str | None, limit: int | None, path: str | None) -> list[Item]:
    from schoolhouse.data import load_rows

    rows = load_rows(dataset, "test", path=path, max_rows=limit)
    sources: dict[str, int] = {}
    return [
        Item(
            f"{dataset}-{number}",
            row["prompt"],
            "chosen",
            {name: row[name] for name in ("chosen", "rejected")}
            # Judgments of answers to one question, or in one conversation, rise and fall together.
            | ({"cluster": sources.setdefault(str(row[cluster]), len(sources))} if cluster else {})
            | ({"level": row["strength"]} if "strength" in row else {}),
        )
        for number, row in enumerate(rows)
    ]


def _build_tiny(limit: int | None, path: str | None) -> list[Item]:
    from schoolhouse.data import load_rows

    rows = load_rows("tiny/preferences", "test", max_rows=limit)
    # Wrong in exactly that share of the pairs, or luck would move the ceiling by some points.
    annotator = random.Random("annotator of tiny_preferences")
    wrong = set(annotator.sample(range(len(rows)), round(ANNOTATOR_NOISE * len(rows))))
    return [
        Item(
            f"preferences-{number}",
            row["prompt"],
            "chosen",
            {
                "chosen": row["chosen"],
                "rejected": row["rejected"],
                "margin": row["margin"],
                "level": next(
                    (name for name, most in zip(_MARGINS, (2, 3), strict=False) if row["margin"] <= most),
                    _MARGINS[-1],
                ),
                "label_is_right": number not in wrong,
            },
        )
        for number, row in enumerate(rows)
    ]


TINY_PREFERENCES = Task("tiny_preferences", 4, _build_tiny, kind="preference")
TULU_HUMAN_PREFS = Task("tulu_human_prefs", 1, partial(_build, "tulu_human_prefs", "prompt"), kind="preference")
OASST_PAIRS = Task("oasst_pairs", 1, partial(_build, "oasst_pairs", "tree"), kind="preference")
RASBT_PAIRS = Task("rasbt_pairs", 1, partial(_build, "rasbt_pairs", None), kind="preference")
