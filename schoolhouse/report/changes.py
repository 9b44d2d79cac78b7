"""Every stage against its parent, as one family of tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schoolhouse.evaluation.compare import LEVEL, compare_runs
from schoolhouse.evaluation.statistics import PairedTest, holm
from schoolhouse.report.reading import Stage


@dataclass
class Change:
    """
    What one stage changed in one task.

    Args:
        kind (`str`):
            `"improved"`, `"worse"` or `"none"` (no evidence).
        verdict (`str`):
            The same in words.
        p_adjusted (`float`):
            Adjusted by Holm over all tests of the card.
        test (`dict`):
            The task's entry from [`schoolhouse.evaluation.compare.compare_runs`].
    """

    kind: str
    verdict: str
    p_adjusted: float
    test: dict[str, Any]


def find_changes(stages: Sequence[Stage]) -> tuple[dict[tuple[str, str], Change], list[str]]:
    """
    Paired tests of each stage against its parent on the same items.

    The family is the whole card, so the chance that a card in which nothing changed flags anything is at most 5 %.
    Smallest detectable effects are those of Holm's first and strictest step.

    Args:
        stages (`Sequence[Stage]`):
            The stages.

    Returns:
        `tuple[dict, list[str]]`: (stage, task) -> [`Change`], and what could not be compared or not quite fairly.
    """
    by_name = {stage.name: stage for stage in stages}
    pairs = [
        (stage, by_name[stage.parent])
        for stage in stages
        if stage.parent is not None and stage.tasks.keys() & by_name[stage.parent].tasks.keys()
    ]
    family = sum(len(stage.tasks.keys() & parent.tasks.keys()) for stage, parent in pairs)
    tests: dict[tuple[str, str], dict[str, Any]] = {}
    notes: list[str] = []
    for stage, parent in pairs:
        try:
            comparison = compare_runs(parent.eval_folder, stage.eval_folder, family=family)
        except ValueError as error:
            notes.append(f"{stage.name} was not compared with {parent.name}: {error}")
            continue
        tests |= {(stage.name, task): test for task, test in comparison["tasks"].items()}
        notes += [f"{stage.name} against {parent.name}: {note}" for note in comparison["notes"]]
    for stage in stages:
        if stage.parent is not None and stage.tasks and not any(stage is one for one, _ in pairs):
            notes.append(f"{stage.name} shares no task with {stage.parent}: nothing to compare")
    adjusted = holm({key: test["p_value"] for key, test in tests.items()}) if tests else {}
    return {key: _change(tests[key], p_value) for key, p_value in adjusted.items()}, notes


def _change(test: dict[str, Any], p_adjusted: float) -> Change:
    fields = {name: test[name] for name in PairedTest.__dataclass_fields__}
    verdict = PairedTest(**fields | {"p_value": p_adjusted}).verdict().split(" (")[0]
    kind = verdict if p_adjusted <= LEVEL else "none"
    return Change(kind, verdict, p_adjusted, test)
