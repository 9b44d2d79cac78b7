"""Compare every stage with its parent, as one family of tests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from schoolhouse.evaluation.compare import LEVEL, TaskComparison, compare_runs
from schoolhouse.evaluation.statistics.paired import PairedTest, holm
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
        comparison ([`TaskComparison`]):
            The paired test and what qualifies it.
    """

    stage: str
    parent: str
    task: str
    kind: Literal["improved", "worse", "none"]
    verdict: str
    p_adjusted: float
    comparison: TaskComparison

    @property
    def test(self) -> PairedTest:
        """The paired test, with its unadjusted p-value."""
        return self.comparison.test

    @property
    def form_share(self) -> float | None:
        """Share of the gain that came from items whose answer was right before, in another form."""
        return self.comparison.form and self.comparison.form.share

    def describe(self) -> str:
        """Return difference, interval, items better and worse, adjusted p, n and what qualifies them, in a line."""
        test, (low, high) = self.test, self.test.interval
        words = [
            f"{number(test.before)} → {number(test.after)}, {test.difference:+.3f} [{low:+.3f}, {high:+.3f}], "
            f"{test.gained} items better, {test.lost} worse of {test.n}, {p_value(self.p_adjusted)} (Holm)"
        ]
        if self.form_share is not None:
            words.append(f"{self.form_share:.0%} of the items gained had the right answer in another form before")
        if self.comparison.left_out:
            words.append(f"{self.comparison.left_out} items without a verdict left out")
        if others := self.comparison.uncontaminated:
            words.append(f"on the {others.n} items unlike any training row {others.difference:+.3f}")
        if rate := self.comparison.win_rate:
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
    comparisons: dict[tuple[str, str], TaskComparison] = {}
    notes: list[str] = []
    for stage, parent in pairs:
        if not shared[stage.name]:
            if stage.tasks:
                notes.append(f"{stage.name} shares no task with {parent.name}: nothing to compare")
            continue
        try:
            comparison = compare_runs(parent.eval_folder, stage.eval_folder, family=family)
        except ValueError as error:
            notes.append(f"{stage.name} was not compared with {parent.name}: {error}")
            continue
        comparisons |= {(stage.name, task): found for task, found in comparison.tasks.items()}
        notes += [f"{stage.name} against {parent.name}: {note}" for note in comparison.notes]
    adjusted = holm({key: found.test.p_value for key, found in comparisons.items()}) if comparisons else {}
    changes = {}
    for (stage, task), p_adjusted in adjusted.items():
        found = comparisons[stage, task]
        verdict = replace(found.test, p_value=p_adjusted).verdict().split(" (")[0]
        kind = verdict if p_adjusted <= LEVEL else "none"
        changes[stage, task] = Change(stage, by_name[stage].parent, task, kind, verdict, p_adjusted, found)
    return changes, notes
