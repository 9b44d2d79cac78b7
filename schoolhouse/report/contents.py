"""Contents of a report, computed once for both of its forms."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from schoolhouse.core.environment import GitState
from schoolhouse.report.audit import Finding, audit
from schoolhouse.report.changes import Change, find_changes
from schoolhouse.report.charts import IntervalBar
from schoolhouse.report.reading import StageReport


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
    rows: list[tuple[str, Any]] = [
        ("training command", run and " ".join(map(str, run.command or []))),
        ("fingerprint", stage.fingerprint),
        ("time", None if stage.seconds is None else f"{stage.seconds:,.0f} s"),
        ("tokens", (run and run.tokens) or _logged_tokens(stage.log)),
        ("steps", run and run.steps),
        ("revision (training)", run and _revision(run.git)),
    ]
    if results:
        rows += [
            ("revision (evaluation)", _revision(results.git)),
            ("evaluation command", results.command),
            ("hashes", results.hashes),
            ("sampling", results.sampling),
        ]
        rows += [(f"sampling ({name})", task.sampling) for name, task in results.tasks.items()]
    rows.append(("versions", (run and run.versions) or (results and results.versions)))
    rows.append(("hardware", run and run.hardware))
    for source in (run and run.data) or []:
        used = f"{source.get('name')}, {source.get('used_rows')} of {source.get('rows')} rows"
        license_name = source.get("license") or "not stated"
        words = f"{used}, license {license_name}, sha256 {source.get('sha256')}"
        rows.append((f"data ({source.get('role', 'training')})", words))
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
