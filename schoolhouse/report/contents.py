"""Contents of a report, computed once for both of its forms: changes against parents, audit, origin of the figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel

from schoolhouse.core.environment import GitState
from schoolhouse.evaluation.compare import LEVEL, TaskComparison, compare_runs
from schoolhouse.evaluation.statistics.paired import PairedTest, holm
from schoolhouse.report.audit import Finding, audit
from schoolhouse.report.charts import IntervalBar
from schoolhouse.report.reading import StageReport
from schoolhouse.report.text import number, p_value, percent_interval


HARD_CODED = "rewards/code/hard_coded_of_passed"  # in the trainer's log


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
        if self.comparison.ungraded:
            words.append(f"{self.comparison.ungraded} items without a verdict count as wrong")
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
    # Without the samples of both sides there is nothing to pair.
    shared = {stage.name: [task for task in stage.samples if task in parent.samples] for stage, parent in pairs}
    family = sum(map(len, shared.values()))
    comparisons: dict[tuple[str, str], TaskComparison] = {}
    notes: list[str] = []
    for stage, parent in pairs:
        if not stage.tasks.keys() & parent.tasks.keys():
            if stage.tasks:
                notes.append(f"{stage.name} shares no task with {parent.name}: nothing to compare")
            continue
        for task in shared[stage.name]:
            try:
                comparison = compare_runs(parent.eval_folder, stage.eval_folder, family=family, tasks=[task])
            except ValueError as error:
                notes.append(f"{stage.name} was not compared with {parent.name} in {task}: {error}")
                continue
            comparisons[stage.name, task] = comparison.tasks[task]
            notes += [f"{stage.name} against {parent.name}: {note}" for note in comparison.notes]
    adjusted = holm({key: found.test.p_value for key, found in comparisons.items()}) if comparisons else {}
    changes = {}
    for (stage, task), p_adjusted in adjusted.items():
        found = comparisons[stage, task]
        verdict = replace(found.test, p_value=p_adjusted).verdict().split(" (")[0]
        kind = verdict if p_adjusted <= LEVEL else "none"
        changes[stage, task] = Change(stage, by_name[stage].parent, task, kind, verdict, p_adjusted, found)
    return changes, list(dict.fromkeys(notes))


@dataclass
class Report:
    """
    All that a report shows.

    Args:
        name (`str`):
            Of the pipeline.
        stages (`Sequence[StageReport]`):
            Its stages.
    """

    name: str
    stages: Sequence[StageReport]
    tasks: list[str] = field(init=False)
    changes: dict[tuple[str, str], Change] = field(init=False)
    findings: list[Finding] = field(init=False)
    notes: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.tasks = list(dict.fromkeys(task for stage in self.stages for task in stage.tasks))
        self.changes, notes = find_changes(self.stages)
        self.findings = audit(self.stages)
        self.notes = [f"{stage.name}: {what}" for stage in self.stages for what in stage.missing] + notes

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt verdicts on programs: isolation that was off, and programs that hold their tests."""
        warnings = []
        for stage in self.stages:
            for what, record in (("evaluation", stage.results), ("training", stage.run)):
                if off := [layer for layer, is_on in ((record and record.sandbox) or {}).items() if not is_on]:
                    layers = f"these layers of isolation: {', '.join(off)}"
                    warnings.append(f"{stage.name}: programs of the {what} ran without {layers}")
            shares = {task: result.metrics.get("hard_coded") for task, result in stage.tasks.items()}
            shares["training"] = next((entry[HARD_CODED] for entry in stage.log[::-1] if HARD_CODED in entry), None)
            for where, share in shares.items():
                if share:
                    hold = "hold inputs of the tests with their expected values (hard-coded)"
                    warnings.append(f"{stage.name}, {where}: {share:.1%} of the programs that pass {hold}")
        return warnings

    @property
    def no_comparison(self) -> str:
        """Reason why nothing was compared."""
        if len(self.stages) == 1:
            return "there is one stage, and nothing to compare it with"
        reasons = f" ({self.notes[0]})" if self.notes else ""
        return f"no stage could be compared with its parent, which takes the samples of both{reasons}"

    def changed(self, *kinds: str) -> list[Change]:
        """Return the changes of the given kinds (`"worse"`, `"improved"`, `"none"`), in the order of the kinds."""
        return [change for kind in kinds for change in self.changes.values() if change.kind == kind]

    def bar(self, change: Change) -> IntervalBar:
        """Return the bar of a change, on an axis that all tasks of the same unit share."""
        unit = change.test.higher_is_better  # a share of the items where it is, otherwise bits per byte
        tests = [other.test for other in self.changes.values() if other.test.higher_is_better == unit]
        reach = max(abs(end) for test in tests for end in (*test.interval, test.difference)) or 1.0
        return IntervalBar(change.test.difference, *change.test.interval, -reach, reach, 0, change.kind)


def win_rate_bar(value: float, interval: tuple[float, float]) -> IntervalBar:
    """Return the bar of a win rate, beside 50 %."""
    low, high = interval
    kind = "improved" if low > 0.5 else "worse" if high < 0.5 else "none"
    return IntervalBar(value, low, high, 0, 1, 0.5, kind)


def provenance(stage: StageReport) -> list[tuple[str, str]]:
    """
    Return the origin of a stage's numbers.

    Args:
        stage ([`StageReport`]):
            The stage.

    Returns:
        `list[tuple[str, str]]`: names and values; what is not known is left out.
    """
    run, results = stage.run, stage.results
    rows: list[tuple[str, Any]] = []
    if run:
        rows += [
            ("training command", " ".join(run.command)),
            ("time", f"{run.seconds:,.0f} s"),
            ("tokens", run.tokens or _logged_tokens(stage.log)),
            ("steps", run.steps),
            ("fingerprints", run.fingerprints and run.fingerprints.model_dump(include={"settings", "files", "code"})),
            ("revision (training)", _revision(run.git)),
            ("hardware", run.hardware),
        ]
        for source in run.data:
            used = f"{source.used_rows} of {source.rows} rows, license {source.license or 'not stated'}"
            rows.append((f"data ({source.role})", f"{source.name}, {used}, sha256 {source.sha256}"))
    if results:
        rows += [
            ("revision (evaluation)", _revision(results.git)),
            ("evaluation command", results.command),
            ("hashes", results.hashes),
            ("sampling", results.sampling),
        ]
        rows += [(f"sampling ({name})", task.sampling) for name, task in results.tasks.items()]
    rows.append(("versions", (run and run.versions) or (results and results.versions)))
    return [(name, words) for name, value in rows if (words := _words(value))]


def _revision(git: GitState | None) -> str | None:
    return git and f"{git.revision}{' with changes' if git.dirty else ''}"


def _logged_tokens(log: Sequence[dict[str, float]]) -> str:
    counts = [entry["num_tokens"] for entry in log if "num_tokens" in entry]
    return f"{counts[-1]:,.0f} since the last start" if counts else ""


def _words(value: Any) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item not in (None, []))
    return "" if value is None else str(value)
