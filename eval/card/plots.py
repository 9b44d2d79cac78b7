"""Which charts a card has: what each reads, in the order of the page."""

from collections.abc import Sequence
from typing import Any

from eval.card import charts
from eval.card.reading import Stage


# Title -> keys of the trainer's log that are drawn, name of the y axis.
CURVES: dict[str, tuple[dict[str, str], str]] = {
    "Loss": ({"loss": "training", "eval_loss": "evaluation"}, "loss"),
    "Reward": ({"reward": "mean reward"}, "reward"),
    "Accuracy of pairs": ({"accuracy": "training", "eval_accuracy": "evaluation"}, "share"),
    "Completion length": ({"completions/mean_length": "mean"}, "tokens"),
    "Self-correction": (
        {
            "emergence/corrects_itself": "corrects itself",
            "emergence/shows_work": "shows its work",
            "emergence/wrong_to_right": "wrong to right",
            "emergence/right_to_wrong": "right to wrong",
        },
        "share of completions",
    ),
    "KL to the reference": ({"objective/kl": "nats per sequence", "kl": "estimate"}, "KL"),
}
GOODHART = ("length", "eos_rate", "entropy", "repetition", "spread")


def training_curves(stages: Sequence[Stage]) -> list[str]:
    """
    What each stage's trainer logged.

    Args:
        stages (`Sequence[Stage]`):
            The stages.

    Returns:
        `list[str]`: figures.
    """
    figures = []
    for stage in stages:
        for title, (keys, y) in CURVES.items():
            series = {name: _points(stage.log, "step", key) for key, name in keys.items()}
            figures.append(charts.lines(f"{stage.name}: {title.lower()}", series, "step", y))
    return [figure for figure in figures if figure]


def levels(stages: Sequence[Stage]) -> list[str]:
    """Accuracy by difficulty and stage, a heat map for each task that has levels."""
    tasks = dict.fromkeys(task for stage in stages for task in stage.tasks)
    maps = []
    for task in tasks:
        rows = {
            stage.name: {
                level: result["value"]
                for level, result in stage.tasks[task].get("by_level", {}).items()
                if result["value"] is not None
            }
            for stage in stages
            if task in stage.tasks and stage.tasks[task].get("higher_is_better", True)
        }
        columns = list(dict.fromkeys(level for cells in rows.values() for level in cells))
        if len(columns) > 1:
            maps.append(charts.heat_map(f"{task}: accuracy by level", rows, columns))
    return maps


def pass_at_k(stages: Sequence[Stage]) -> list[str]:
    """pass@k of every stage that has several samples per item, a figure for each task."""
    tasks = dict.fromkeys(task for stage in stages for task in stage.tasks)
    figures = []
    for task in tasks:
        series = {}
        for stage in stages:
            metrics = stage.tasks.get(task, {}).get("metrics", {})
            found = sorted((int(key[5:]), value) for key, value in metrics.items() if key.startswith("pass@"))
            if len(found) > 1:
                series[stage.name] = found
        figures.append(charts.lines(f"{task}: pass@k", series, "k (samples per item)", "pass@k", unit=True))
    return [figure for figure in figures if figure]


def goodhart(stages: Sequence[Stage]) -> list[str]:
    """The reward that is optimised beside the judge that is not, over the distance from the reference."""
    figures = []
    for stage in stages:
        points = stage.goodhart.get("points") or []
        series = {name: _points(points, "kl", name) for name in ("gold", "proxy")}
        title = f"{stage.name}: gold (the judge) and proxy (what was optimised)"
        if isinstance(peak := stage.goodhart.get("peak"), dict) and isinstance(peak.get("gold"), int | float):
            title += f"; gold is highest at step {peak.get('step')}, {peak['gold']:.3f}"
        figures.append(charts.lines(title, series, "KL, nats per sequence", "reward"))
        for name in GOODHART:
            series = {name: _points(points, "step", name)}
            figures.append(charts.lines(f"{stage.name}: {name.replace('_', ' ')}", series, "step", name))
    return [figure for figure in figures if figure]


def calibration(stages: Sequence[Stage]) -> list[str]:
    """How often a reward model is right beside how sure it says it is."""
    figures = []
    for stage in stages:
        for task, result in stage.tasks.items():
            found = (result.get("preference") or {}).get("calibration")
            if not found:
                continue
            points = [(point["predicted"], point["observed"]) for point in found["points"]]
            marks = [(point["predicted"], *point["interval"]) for point in found["points"] if point.get("interval")]
            figures.append(
                charts.lines(
                    f"{stage.name}, {task}: calibration, expected error {found['ece']:.3f}",
                    {"observed": points},
                    "probability that it gives",
                    "share that is right",
                    unit=True,
                    marks=marks,
                    diagonal=True,
                )
            )
    return figures


def _points(entries: Sequence[dict[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    pairs = [(entry.get(x), entry.get(y)) for entry in entries]
    return [pair for pair in pairs if all(isinstance(value, int | float) for value in pair)]
