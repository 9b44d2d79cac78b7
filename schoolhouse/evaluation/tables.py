"""Results and comparisons on the console: tables on a terminal, plain columns in a pipe."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def print_results(results: dict[str, Any]) -> None:
    """
    Prints the value of each task with its interval, by level where it has levels, and its other readings.

    Args:
        results (`dict`):
            The content of results.json.
    """
    rows, remarks = [], []
    for name, task in results["tasks"].items():
        parts = {f"  level {level}": part for level, part in task["by_level"].items()}
        if "uncontaminated" in task:
            parts["  not in training data"] = task["uncontaminated"]
        for label, part in [(name, task), *parts.items()]:
            values = (_number(part[key]) for key in ("value", "standard_error"))
            rows.append([label, str(part["n"]), *values, _interval(part["interval"])])
        readings = [f"{key} {_number(value)}" for key, value in task["metrics"].items()]
        if readings:
            remarks.append(f"{name}: " + ", ".join(readings))
        if "preference" in task:
            remarks += [f"{name}: {line}" for line in _preference(task["preference"])]
    _print(["task", "n", "value", "standard error", "95 % interval"], rows, remarks)


def _preference(found: dict[str, Any]) -> list[str]:
    lines = []
    for key, labels in (("calibration", ""), ("calibration_with_noisy_labels", ", noisy labels")):
        if part := found.get(key):
            mean, most = part["ece_by_chance"]
            lines.append(f"calibration error{labels} {part['ece']:.4f} (by chance {mean:.4f}, 95 % below {most:.4f})")
    if bias := found["length_bias"]:
        lines.append(f"ten more tokens are paid {bias['sd_per_10_tokens']:+.3f} sd {_interval(bias['interval'])}")
    return [*lines, f"a score differs by up to {found['batch_invariance']:.1e} sd between batch sizes 1 and 32"]


def print_comparison(comparison: dict[str, Any]) -> None:
    """
    Prints the paired tests, each with its verdict, and the other readings before and after.

    Args:
        comparison (`dict`):
            From [`schoolhouse.evaluation.compare.compare_runs`].
    """
    rows, remarks = [], []
    for name, task in comparison["tasks"].items():
        rows.append(
            [
                name,
                str(task["n"]),
                _number(task["before"]),
                _number(task["after"]),
                f"{task['difference']:+.4f}",
                _interval(task["interval"]),
                f"{task['gained']}/{task['lost']}",
                f"{task['p_adjusted']:.2g}",
            ]
        )
        remarks.append(f"{name}: {task['verdict']}")
        if task["form"] and task["form"]["gained"]:
            gained, by_form, share = (task["form"][key] for key in ("gained", "by_form", "share"))
            remarks.append(f"{name}: of {gained:g} items won {by_form:g} ({share:.0%}) lacked only the form before")
        if test := task.get("uncontaminated"):
            change = f"{_number(test['before'])} -> {_number(test['after'])}, p = {test['p_value']:.2g}"
            remarks.append(f"{name}: on the {test['n']} items that share nothing with the training data {change}")
        if rate := task.get("win_rate"):
            plain, fair = (
                f"{rate[key]:.1%} [{rate[f'{prefix}interval'][0]:.1%}, {rate[f'{prefix}interval'][1]:.1%}]"
                for key, prefix in (("value", ""), ("length_controlled", "length_controlled_"))
            )
            remarks.append(f"{name}: by utility {plain} of the answers beat those before, at equal length {fair}")
        if task["left_out"]:
            remarks.append(f"{name}: {task['left_out']} items without a verdict left out")
        changes = [f"{key} {_number(old)} -> {_number(new)}" for key, (old, new) in task["metrics"].items()]
        if changes:
            remarks.append(f"{name}: " + ", ".join(changes))
    remarks += [f"note: {note}" for note in comparison["notes"]]
    p_value = "p" if len(rows) == 1 else "p (Holm)"
    _print(["task", "n", "before", "after", "change", "95 % interval", "won/lost", p_value], rows, remarks)


def _print(heads: list[str], rows: list[list[str]], remarks: list[str]) -> None:
    # No markup: a task's or level's name may hold brackets. No number is cut: a narrow terminal breaks the line.
    console = Console(markup=False, highlight=False)
    console.width = max(console.width, 120) if console.is_terminal else 10_000
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for head in heads:
        table.add_column(head, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for remark in remarks:
        console.print(remark, soft_wrap=True)


def _number(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _interval(interval: list[float] | None) -> str:
    return "-" if interval is None else f"[{interval[0]:.4f}, {interval[1]:.4f}]"
