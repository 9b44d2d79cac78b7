"""The words and figures that both forms of the card share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from schoolhouse.report.audit import Finding, audit
from schoolhouse.report.changes import Change, find_changes
from schoolhouse.report.reading import Stage
from schoolhouse.report.text import number


@dataclass
class Card:
    """
    All that a report shows, computed.

    Args:
        name (`str`):
            Name of the pipeline.
        stages (`Sequence[Stage]`):
            Its stages.
    """

    name: str
    stages: Sequence[Stage]
    tasks: list[str] = field(init=False)
    changes: dict[tuple[str, str], Change] = field(init=False)
    findings: list[Finding] = field(init=False)
    notes: list[str] = field(init=False)

    def __post_init__(self):
        self.tasks = list(dict.fromkeys(task for stage in self.stages for task in stage.tasks))
        self.changes, compared = find_changes(self.stages)
        self.findings = audit(self.stages)
        self.notes = [f"{stage.name}: {what}" for stage in self.stages for what in stage.missing] + compared

    def changed(self, kind: str) -> list[tuple[str, str, Change]]:
        """Stage, task and change of one kind (`"improved"`, `"worse"` or `"none"`)."""
        return [(*key, change) for key, change in self.changes.items() if change.kind == kind]


def change_words(change: Change) -> str:
    """
    A change in a line.

    Args:
        change ([`Change`]):
            The change.

    Returns:
        `str`: difference, interval, items won and lost, adjusted p, n and, of a gain, the share that was only form.
    """
    test = change.test
    low, high = test["interval"]
    words = (
        f"{number(test['before'])} → {number(test['after'])}, {test['difference']:+.3f} [{low:+.3f}, {high:+.3f}], "
        f"{test['gained']} items better, {test['lost']} worse of {test['n']}, {p_value(change.p_adjusted)} (Holm)"
    )
    form = test["form"]
    if form and form["share"] is not None:
        words += f"; {form['share']:.0%} of the items won lacked only the form before"
    if test["left_out"]:
        words += f"; {test['left_out']} items without a verdict left out"
    if others := test["uncontaminated"]:
        words += f"; on the {others['n']} items unlike any training row {others['difference']:+.3f}"
    if rate := test["win_rate"]:
        words += f"; {win_rate_words(rate)}"
    return words


def win_rate_words(rate: dict[str, Any]) -> str:
    """A win rate against the parent's answers, plain and at equal length."""
    return (
        f"the judge prefers it in {rate['value']:.0%} {percent(rate['interval'])} of the pairs, at equal length in "
        f"{rate['length_controlled']:.0%} {percent(rate['length_controlled_interval'])}"
    )


def percent(ends: Sequence[float]) -> str:
    """An interval of shares."""
    return f"[{ends[0]:.0%}, {ends[1]:.0%}]"


def p_value(p: float) -> str:
    """A p-value with its sign of relation, never as 0."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def provenance(stage: Stage) -> list[tuple[str, str]]:
    """
    Where a stage's numbers come from.

    Args:
        stage ([`Stage`]):
            The stage.

    Returns:
        `list[tuple[str, str]]`: what and its value.
    """
    run, results = stage.run, stage.results
    rows: list[tuple[str, str]] = []

    def add(what: str, value: Any) -> None:
        if value not in (None, "", {}, []):
            rows.append((what, str(value)))

    add("training command", " ".join(map(str, run.get("command") or [])))
    add("key", stage.about.get("key"))
    seconds = run.get("seconds", stage.about.get("seconds"))
    add("time", None if seconds is None else f"{seconds:,.0f} s")
    add("tokens", _pairs(run.get("tokens")) or _tokens(stage.log))
    add("steps", run.get("steps"))
    for what, record in (("training", run), ("evaluation", results)):
        git = record.get("git") or {}
        add(f"revision ({what})", git and f"{git.get('revision')}{' with changes' if git.get('dirty') else ''}")
    add("evaluation command", results.get("command"))
    add("hashes", _pairs(results.get("hashes")))
    add("sampling", _pairs(results.get("sampling")))
    for name, task in (results.get("tasks") or {}).items():
        add(f"sampling ({name})", _pairs(task.get("sampling")))
    add("versions", _pairs(run.get("versions") or results.get("versions")))
    add("hardware", _pairs(run.get("hardware")))
    for source in run.get("data") or []:
        add(
            f"data ({source.get('role', 'training')})",
            f"{source.get('name')}, {source.get('used_rows')} of {source.get('rows')} rows, "
            f"license {source.get('license') or 'not stated'}, sha256 {source.get('sha256')}",
        )
    return rows


def _pairs(values: Any) -> str:
    if not isinstance(values, dict):
        return "" if values is None else str(values)
    return ", ".join(f"{key} {value}" for key, value in values.items() if value not in (None, []))


def _tokens(log: Sequence[dict[str, Any]]) -> str:
    counts = [entry["num_tokens"] for entry in log if "num_tokens" in entry]
    return f"{counts[-1]:,.0f} since the last start" if counts else ""
