"""Choose the samples that the page shows: the same prompts answered by every stage."""

from collections.abc import Sequence
from typing import Any

from schoolhouse.report.reading import Stage
from schoolhouse.report.text import visible


PER_TASK = 120  # prompts
PROMPT, COMPLETION = 1000, 1500  # characters


def choose(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """
    The prompts of each task, those first whose verdict a stage changed; the first sample of each stage.

    Args:
        stages (`Sequence[Stage]`):
            The stages.

    Returns:
        `list[dict]`: `task`, `id`, `prompt`, `gold`, `short` (gold fits on a line) and `answers` (`stage`, `text`,
        `verdict`, `change`), all text cut and made visible.
    """
    chosen = []
    for task in dict.fromkeys(task for stage in stages for task in stage.samples):
        firsts = {stage.name: _first_samples(stage.samples.get(task, [])) for stage in stages}
        items = list(dict.fromkeys(name for lines in firsts.values() for name in lines))
        rows = [_row(task, item, stages, firsts) for item in items]
        rows.sort(key=lambda row: not any(answer["change"] for answer in row["answers"]))
        chosen += rows[:PER_TASK]
    return chosen


def is_short(text: str) -> bool:
    """Whether a text fits on a line."""
    return len(text) <= 60 and "\n" not in text


def _first_samples(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        if isinstance(line.get("completion"), str):
            found.setdefault(line["id"], line)
    return found


def _row(
    task: str, item: str, stages: Sequence[Stage], firsts: dict[str, dict[str, dict[str, Any]]]
) -> dict[str, Any]:
    asked = next(lines[item] for lines in firsts.values() if item in lines)
    answers = []
    for stage in stages:
        if (line := firsts[stage.name].get(item)) is None:
            continue
        before = firsts[stage.parent].get(item) if stage.parent else None
        old, new = before and before.get("correct"), line.get("correct")
        answers.append(
            {
                "stage": visible(stage.name, 60),
                "text": visible(line["completion"], COMPLETION),
                "verdict": "ungraded" if new is None else "right" if new else "wrong",
                "change": "" if old is None or new is None or old == new else "fixed" if new else "broken",
            }
        )
    prompt = asked["prompt"]
    if isinstance(prompt, list):
        prompt = "\n".join(f"{turn.get('role', '')}: {turn.get('content', '')}" for turn in prompt)
    return {
        "task": visible(task, 60),
        "id": visible(item, 80),
        "prompt": visible(prompt, PROMPT),
        "gold": (gold := visible(asked.get("reference", ""), PROMPT)),
        "short": is_short(gold),
        "answers": answers,
    }
