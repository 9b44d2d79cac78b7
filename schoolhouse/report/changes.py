"""Compare every stage with its parent, as one family of tests."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from schoolhouse.evaluation.compare import LEVEL, compare_runs
from schoolhouse.evaluation.statistics.paired import PairedTest, holm
from schoolhouse.evaluation.statistics.win_rate import WinRate
from schoolhouse.report.reading import StageReport
from schoolhouse.report.text import number, p_value, percent_interval


@dataclass(frozen=True)
class Change:
    """
    Change of one stage in one task.

    Args:
        stage (`str`), parent (`str`), task (`str`):
            Which stages were compared, and in which task.
        kind (`Literal["improved", "worse", "none"]`):
            Result of the test; `"none"` is no evidence of change.
        verdict (`str`):
            The same in words.
        p_adjusted (`float`):
            Adjusted by Holm over all tests of the report.
        test ([`PairedTest`]):
            The paired test.
        left_out (`int`):
            Items without a verdict on either side.
        form_share (`float` or `None`):
            Share of the gain that came from items whose answer was right before, in another form.
        uncontaminated ([`PairedTest`] or `None`):
            The test on the items that share nothing with the training data.
        win_rate ([`WinRate`] or `None`):
            Against the parent, by the utility that the task's scorer gives.
    """

    stage: str
    parent: str
    task: str
    kind: Literal["improved", "worse", "none"]
    verdict: str
    p_adjusted: float
    test: PairedTest
    left_out: int
    form_share: float | None
    uncontaminated: PairedTest | None
    win_rate: WinRate | None

    def describe(self) -> str:
        """Return difference, interval, items better and worse, adjusted p, n and what qualifies them, in a line."""
        test, (low, high) = self.test, self.test.interval
        words = [
            f"{number(test.before)} → {number(test.after)}, {test.difference:+.3f} [{low:+.3f}, {high:+.3f}], "
            f"{test.gained} items better, {test.lost} worse of {test.n}, {p_value(self.p_adjusted)} (Holm)"
        ]
        if self.form_share is not None:
            words.append(f"{self.form_share:.0%} of the items gained had the right answer in another form before")
        if self.left_out:
            words.append(f"{self.left_out} items without a verdict left out")
        if self.uncontaminated:
            others = self.uncontaminated
            words.append(f"on the {others.n} items unlike any training row {others.difference:+.3f}")
        if rate := self.win_rate:
            words.append(
                f"it wins {rate.value:.0%} {percent_interval(rate.interval)} of the pairs by utility, at equal length "
                f"{rate.length_controlled:.0%} {percent_interval(rate.length_controlled_interval)}"
            )
        return "; ".join(words)


def find_changes(stages: Sequence[StageReport]) -> tuple[dict[tuple[str, str], Change], list[str]]:
    """
    Test each stage against its parent on the same items.

    The family of tests is the whole report: if nothing changed, a report flags anything with a probability of at most
    5 %. Smallest detectable effects are those of Holm's first and strictest step.

    Args:
        stages (`Sequence[StageReport]`):
            The stages.

    Returns:
        `tuple[dict, list[str]]`: (stage, task) -> [`Change`]; and what could not be compared, or not under equal
        conditions.
    """
    by_name = {stage.name: stage for stage in stages}
    pairs = [(stage, by_name[stage.parent]) for stage in stages if stage.parent is not None]
    shared = {stage.name: stage.tasks.keys() & parent.tasks.keys() for stage, parent in pairs}
    family = sum(map(len, shared.values()))
    tests: dict[tuple[str, str], dict[str, Any]] = {}
    notes: list[str] = []
    for stage, parent in pairs:
        if not shared[stage.name]:
            if stage.tasks:
                notes.append(f"{stage.name} shares no task with {parent.name}: nothing to compare")
            continue
        try:
            comparison = compare_runs(parent.eval_folder, stage.eval_folder, family=family).to_json()
        except ValueError as error:
            notes.append(f"{stage.name} was not compared with {parent.name}: {error}")
            continue
        tests |= {(stage.name, task): test for task, test in comparison["tasks"].items()}
        notes += [f"{stage.name} against {parent.name}: {note}" for note in comparison["notes"]]
    adjusted = holm({key: test["p_value"] for key, test in tests.items()}) if tests else {}
    changes = {
        (stage, task): _change(stage, by_name[stage].parent, task, tests[stage, task], p_adjusted)
        for (stage, task), p_adjusted in adjusted.items()
    }
    return changes, notes


def _change(stage: str, parent: str, task: str, found: dict[str, Any], p_adjusted: float) -> Change:
    def paired(values: dict[str, Any]) -> PairedTest:
        return PairedTest(**{field.name: values[field.name] for field in fields(PairedTest)})

    test = paired(found | {"p_value": p_adjusted})
    verdict = test.verdict().split(" (")[0]
    return Change(
        stage=stage,
        parent=parent,
        task=task,
        kind=verdict if p_adjusted <= LEVEL else "none",
        verdict=verdict,
        p_adjusted=p_adjusted,
        test=test,
        left_out=found["left_out"],
        form_share=found["form"]["share"] if found["form"] else None,
        uncontaminated=paired(found["uncontaminated"]) if found["uncontaminated"] else None,
        win_rate=WinRate(**found["win_rate"]) if found["win_rate"] else None,
    )
