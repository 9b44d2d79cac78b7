"""Which charts a card has: what each reads, in the order of the page."""

from collections.abc import Sequence
from typing import Any

from schoolhouse.report import charts
from schoolhouse.report.reading import Stage
from schoolhouse.report.text import interval, number


# Title -> keys of the trainer's log that are drawn, name of the y axis.
CURVES: dict[str, tuple[dict[str, str], str]] = {
    "Loss": ({"loss": "training", "eval_loss": "evaluation"}, "nats per token"),
    "Reward": ({"reward": "mean reward"}, "reward per answer"),
    "Accuracy of pairs": ({"accuracy": "training", "eval_accuracy": "evaluation"}, "share of pairs"),
    "Completion length": ({"completions/mean_length": "mean"}, "tokens"),
    "Self-correction": (
        {
            "reasoning/corrects_itself": "corrects itself",
            "reasoning/shows_work": "shows its work",
            "reasoning/wrong_to_right": "wrong to right",
            "reasoning/right_to_wrong": "right to wrong",
        },
        "share of completions",
    ),
    "Divergence from the reference": ({"objective/kl": "nats per sequence", "kl": "estimate"}, "KL, nats"),
}
# What a Goodhart gauge holds beside reward and judge -> title, y axis.
GOODHART: dict[str, tuple[str, str]] = {
    "length": ("length", "tokens"),
    "eos_rate": ("answers that end by themselves", "share of answers"),
    "entropy": ("entropy", "nats per token"),
    "repetition": ("repetition", "share of repeated runs"),
    "spread": ("disagreement of the ensemble", "deviation between members, reward"),
}


# Metrics of a preference eval -> words.
JUDGED = {
    "log_loss": "log loss, nats",
    "agrees_with_noisy_label": "agreement with the noisy labels",
    "ceiling_with_noisy_labels": "agreement of the truth with them, the ceiling",
    "longer_is_chosen": "accuracy of a judge of length alone",
    "members_agree": "pairs on which all members agree",
}


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
            if title == "Loss" and any("reward" in entry for entry in stage.log):
                continue  # of a policy gradient it tells nothing: its value does not fall as the policy improves
            series = {name: _points(stage.log, "step", key) for key, name in keys.items()}
            if stage.about.get("recipe") == "reward" and title == "Loss":
                y = "nats per pair"
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
    """
    The reward that is optimised beside the judge that is not, over the distance from the reference: the square root of
    the divergence, as in Gao et al. 2023, which spreads the beginning where gold still rises.
    """
    figures = []
    for stage in stages:
        points = stage.goodhart.get("points") or []
        names = {"gold": "gold, the judge", "proxy": "proxy, optimised"}
        series = {name: [(_root(kl), y) for kl, y in _points(points, "kl", key)] for key, name in names.items()}
        peak, stopped = (stage.goodhart.get(name) or {} for name in ("peak", "stopped"))
        rules = {"highest gold": peak.get("kl")}
        if stopped:
            rules["stopped"] = next(
                (point.get("kl") for point in points if point.get("step") == stopped["step"]), None
            )
        rules = {word: _root(place) for word, place in rules.items() if isinstance(place, int | float)}
        title = f"{stage.name}: what was optimised, and what it was worth"
        band = tuple(map(_root, peak["interval"])) if peak.get("interval") else None
        figures.append(charts.lines(title, series, "√KL from the reference, √nats", "reward", band=band, rules=rules))
        for name, (words, y) in GOODHART.items():
            figures.append(charts.lines(f"{stage.name}: {words}", {name: _points(points, "step", name)}, "step", y))
    return [figure for figure in figures if figure]


def goodhart_words(stage: Stage) -> str:
    """The gauge of one stage in a sentence or two; empty without one."""
    peak, fall, stopped = (stage.goodhart.get(name) or {} for name in ("peak", "final_minus_peak", "stopped"))
    if not isinstance(peak.get("gold"), int | float):
        return ""
    words = f"{stage.name}: gold is highest at step {peak.get('step')}, {number(peak['gold'])}, at a KL of "
    words += f"{number(peak.get('kl'))} nats{f' {interval(ends)}' if (ends := peak.get('interval')) else ''}"
    if fall:
        words += f"; at the end it is {fall['value']:+.3f} {interval(fall['interval'])} from there"
    if stopped:
        words += f"; stopped at step {stopped.get('step')} by {str(stopped.get('by')).replace('_', ' ')}"
    return f"{words}."


def calibration(stages: Sequence[Stage]) -> list[str]:
    """How often a reward model is right beside how sure it says it is, by the gold verdict and by noisy labels."""
    figures = []
    for stage in stages:
        for task, result in stage.tasks.items():
            preference = result.get("preference") or {}
            both = {"true preference": "calibration", "noisy labels": "calibration_with_noisy_labels"}
            found = {name: preference[key] for name, key in both.items() if preference.get(key)}
            figures.append(
                charts.lines(
                    f"{stage.name}, {task}: calibration",
                    {name: [(x["predicted"], x["observed"]) for x in one["points"]] for name, one in found.items()},
                    "probability that it gives",
                    "share that is right",
                    unit=True,
                    marks={
                        name: [(x["predicted"], *x["interval"]) for x in one["points"] if x.get("interval")]
                        for name, one in found.items()
                    },
                    diagonal=True,
                )
            )
    return [figure for figure in figures if figure]


def judge_facts(stages: Sequence[Stage]) -> list[tuple[str, list[tuple[str, str]]]]:
    """
    What else is known of each reward model.

    Args:
        stages (`Sequence[Stage]`):
            The stages.

    Returns:
        `list[tuple[str, list]]`: stage and task, and rows of what and its value.
    """
    tables = []
    for stage in stages:
        for task, result in stage.tasks.items():
            if not (preference := result.get("preference")):
                continue
            metrics, rows = result.get("metrics", {}), []
            rows.append(("accuracy", f"{number(result['value'])} {interval(result['interval'])}"))
            for key, words in JUDGED.items():
                if (value := metrics.get(key)) is not None:
                    rows.append((words, number(value)))
            for key, words in (("calibration", ""), ("calibration_with_noisy_labels", ", noisy labels")):
                if one := preference.get(key):
                    chance = one.get("ece_by_chance")
                    by_chance = f"; by chance {number(chance[0])}, below {number(chance[1])} in 95 %" if chance else ""
                    rows.append((f"expected calibration error{words}", number(one["ece"]) + by_chance))
            if bias := preference.get("length_bias"):
                shown = f"{bias['sd_per_10_tokens']:+.3f} {interval(bias['interval'])} deviations of the score"
                rows.append(("paid for ten more tokens", shown))
            if (largest := preference.get("batch_invariance")) is not None:
                rows.append(("largest change of a score with the batch size", f"{number(largest)} deviations"))
            tables.append((f"{stage.name}, {task}", rows))
    return tables


def _root(kl: float) -> float:
    return max(kl, 0.0) ** 0.5  # an estimate can lie below 0


def _points(entries: Sequence[dict[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    pairs = [(entry.get(x), entry.get(y)) for entry in entries]
    return [pair for pair in pairs if all(isinstance(value, int | float) for value in pair)]
