"""Results and comparisons on the console: tables on a terminal, plain columns in a pipe."""

from rich import box
from rich.console import Console
from rich.table import Table

from schoolhouse.core.escape import printable
from schoolhouse.evaluation.compare import Comparison, TaskComparison
from schoolhouse.evaluation.results import EvaluationResults, Interval, PreferenceReport


def print_results(results: EvaluationResults) -> None:
    """Print the value of each task with its interval, by level where it has levels, and its other means."""
    rows, remarks = [], []
    for name, task in results.tasks.items():
        parts = {name: task} | {f"  level {level}": part for level, part in task.by_level.items()}
        if task.uncontaminated:
            parts["  not in training data"] = task.uncontaminated
        for label, part in parts.items():
            figures = [_number(part.value), _number(part.standard_error), _interval(part.interval)]
            rows.append([label, str(part.n), *figures])
        if task.metrics:
            remarks.append(f"{name}: " + ", ".join(f"{key} {_number(value)}" for key, value in task.metrics.items()))
        if task.preference:
            remarks += [f"{name}: {line}" for line in _preference(task.preference)]
    print_table(["task", "n", "value", "standard error", "95 % interval"], rows, remarks)


def print_comparison(comparison: Comparison) -> None:
    """Print the paired tests, each with its verdict, and the other means before and after."""
    rows, remarks = [], []
    for name, task in comparison.tasks.items():
        test = task.test
        means = [_number(test.before), _number(test.after), f"{test.difference:+.4f}", _interval(test.interval)]
        rows.append([name, str(test.n), *means, f"{test.gained}/{test.lost}", f"{task.p_adjusted:.2g}"])
        remarks += [f"{name}: {line}" for line in _remarks(task)]
    remarks += [f"note: {note}" for note in comparison.notes]
    p_value = "p" if len(rows) == 1 else "p (Holm)"
    print_table(["task", "n", "before", "after", "change", "95 % interval", "won/lost", p_value], rows, remarks)


def print_table(heads: list[str], rows: list[list[str]], remarks: list[str]) -> None:
    """Print a table, and remarks as lines below it."""
    # No markup, as names of tasks and levels may hold brackets. A narrow terminal breaks lines but cuts no number.
    console = Console(markup=False, highlight=False)
    console.width = max(console.width, 120) if console.is_terminal else 10_000
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for head in heads:
        table.add_column(head, no_wrap=True)
    for row in rows:
        table.add_row(*map(printable, row))
    console.print(table)
    for remark in remarks:
        console.print(printable(remark), soft_wrap=True)


def _preference(report: PreferenceReport) -> list[str]:
    lines = []
    for part, labels in ((report.calibration, ""), (report.calibration_with_noisy_labels, ", noisy labels")):
        if part and part.ece_by_chance:
            mean, most = part.ece_by_chance
            lines.append(f"calibration error{labels} {part.ece:.4f} (by chance {mean:.4f}, 95 % below {most:.4f})")
    if bias := report.length_bias:
        lines.append(f"ten more tokens change the score by {bias.sd_per_10_tokens:+.3f} sd {_interval(bias.interval)}")
    return [*lines, f"a score differs by up to {report.batch_invariance:.1e} sd between batch sizes 1 and 32"]


def _remarks(task: TaskComparison) -> list[str]:
    lines = [task.verdict]
    if (form := task.form) and form.share is not None:
        lines.append(f"of {form.gained:g} items won {form.by_form:g} ({form.share:.0%}) lacked only the form before")
    if test := task.uncontaminated:
        change = f"{_number(test.before)} -> {_number(test.after)}, p = {test.p_value:.2g}"
        lines.append(f"on the {test.n} items that share nothing with the training data {change}")
    if rate := task.win_rate:
        plain = f"{rate.value:.1%} [{rate.interval[0]:.1%}, {rate.interval[1]:.1%}]"
        low, high = rate.length_controlled_interval
        fair = f"{rate.length_controlled:.1%} [{low:.1%}, {high:.1%}]"
        lines.append(f"by utility {plain} of the answers beat those before, at equal length {fair}")
    if task.ungraded:
        lines.append(f"{task.ungraded} items without a verdict count as wrong")
    if task.metrics:
        changes = [f"{key} {_number(old)} -> {_number(new)}" for key, (old, new) in task.metrics.items()]
        lines.append(", ".join(changes))
    return lines


def _number(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"[{interval[0]:.4f}, {interval[1]:.4f}]"
