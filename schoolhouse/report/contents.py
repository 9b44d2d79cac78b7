"""Contents of a report, computed once for both of its forms: changes against parents, audit, origin of the figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel

from schoolhouse.core.environment import GitState, Hardware
from schoolhouse.evaluation.compare import LEVEL, TaskComparison, compare_runs
from schoolhouse.evaluation.statistics.paired import PairedTest, holm
from schoolhouse.report.audit import Finding, audit
from schoolhouse.report.charts import Axis, IntervalBar, axis_around
from schoolhouse.report.reading import StageReport
from schoolhouse.report.text import duration, number, p_value, percent_interval


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
        """Return difference, interval and [`details`] in a line."""
        test, (low, high) = self.test, self.test.interval
        return f"{test.difference:+.3f} [{low:+.3f}, {high:+.3f}], {self.details()}"

    def details(self) -> str:
        """Return values, items better and worse, adjusted p, n and what qualifies them, in a line."""
        test = self.test
        words = [
            f"{number(test.before)} → {number(test.after)}, {test.gained} items better, {test.lost} worse of {test.n}"
            f", {p_value(self.p_adjusted)}"
        ]
        if self.form_share:
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

    @property
    def metrics(self) -> list[str]:
        """What the values of the tasks are."""
        results = [result for stage in self.stages for result in stage.tasks.values()]
        return list(dict.fromkeys(metric_name(result.higher_is_better) for result in results))

    def changed(self, *kinds: str) -> list[Change]:
        """Return the changes of the given kinds (`"worse"`, `"improved"`, `"none"`), in the order of the kinds."""
        return [change for kind in kinds for change in self.changes.values() if change.kind == kind]

    def groups(self, *kinds: str) -> dict[str, list[Change]]:
        """Return the changes of the given kinds by metric."""
        found: dict[str, list[Change]] = {}
        for change in self.changed(*kinds):
            found.setdefault(metric_name(change.test.higher_is_better), []).append(change)
        return found

    def axis(self, metric: str) -> Axis:
        """Return the axis of all changes in a metric, with room on both sides of no change."""
        tests = [change.test for change in self.groups("worse", "improved", "none")[metric]]
        ends = [end for test in tests for end in (*test.interval, test.difference)]
        room = max(map(abs, ends)) / 4
        return axis_around([-room, room, *ends], *IntervalBar.ENDS, not tests[0].higher_is_better)

    def bar(self, change: Change) -> IntervalBar:
        """Return the bar of a change."""
        test = change.test
        axis = self.axis(metric_name(test.higher_is_better))
        return IntervalBar(test.difference, *test.interval, 0, change.kind, axis)

    def win_rates(self) -> list[tuple[Change, str, IntervalBar]]:
        """Return each change that has a win rate, over which pairs, and the bar beside 50 %."""
        axis = Axis([0.0, 0.25, 0.5, 0.75, 1.0], *IntervalBar.ENDS)
        rows = []
        for change in self.changes.values():
            if rate := change.comparison.win_rate:
                for pairs, value, (low, high) in (
                    ("all pairs", rate.value, rate.interval),
                    ("at equal length", rate.length_controlled, rate.length_controlled_interval),
                ):
                    kind = "improved" if low > 0.5 else "worse" if high < 0.5 else "none"
                    rows.append((change, pairs, IntervalBar(value, low, high, 0.5, kind, axis)))
        return rows


def metric_name(higher_is_better: bool) -> str:
    """Return what the values of a task are."""
    return "accuracy" if higher_is_better else "bits per byte"


def facts(stages: Sequence[StageReport]) -> dict[str, str]:
    """
    Return what a reader wants to know first: model, dates, machine and time.

    Args:
        stages (`Sequence[StageReport]`):
            The stages.

    Returns:
        `dict[str, str]`: name -> words; what is not known is left out.
    """
    runs = [stage.run for stage in stages if stage.run]
    results = [(stage.results, stage.eval_folder) for stage in stages if stage.results and stage.eval_folder]
    models = [run.model.name for run in runs if run.model] + [result.model for result, _ in results]
    days = sorted({time[:10] for run in runs for time in (run.started, run.ended) if time})
    if not days:  # then the files' own dates tell it
        written = [(folder / "results.json").stat().st_mtime for _, folder in results]
        days = [f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d}" for time in sorted(written)]
    machines = [_machine(run.hardware) for run in runs if run.hardware]
    devices = [result.sampling.device for result, _ in results]
    trained = sum(run.seconds for run in runs)
    evaluated = sum(evaluation.seconds for run in runs for evaluation in run.evaluations)
    times = duration(trained + evaluated) if runs else ""
    if trained and evaluated:
        times += f" (training {duration(trained)})"
    rows = {
        "model": _listed(models),
        "date": " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "",
        "machine": _listed(machines or devices),
        "time": times,
    }
    return {name: words for name, words in rows.items() if words}


def _machine(hardware: Hardware) -> str:
    devices = [f"{hardware.accelerators.count(name)} × {name}" for name in dict.fromkeys(hardware.accelerators)]
    return ", ".join([*devices, f"{hardware.cores} CPU cores", hardware.machine])


def _listed(values: Sequence[str | None]) -> str:
    return "; ".join(dict.fromkeys(value for value in values if value))


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
            ("time", run.seconds and f"{run.seconds:,.0f} s"),
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
