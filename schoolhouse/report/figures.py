"""Charts of the report, in the order of the page, and the sentences and tables beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

from schoolhouse.core.escape import one_line
from schoolhouse.evaluation.results import TaskResult
from schoolhouse.report.charts import Axis, Dot, DotPlot, HeatMap, LineChart, Series, axis_around
from schoolhouse.report.contents import HARD_CODED, Report, metric_name
from schoolhouse.report.reading import StageReport
from schoolhouse.report.text import interval, number


@dataclass(frozen=True)
class Curve:
    """A chart of the trainer's log: `keys` is key of the log -> name of the line."""

    title: str
    keys: dict[str, str]
    y_label: str


LOSS = Curve("loss", {"loss": "training", "eval_loss": "evaluation"}, "nats per token")
CURVES = (
    Curve("reward", {"reward": "mean reward"}, "reward per answer"),
    Curve("accuracy of pairs", {"accuracy": "training", "eval_accuracy": "evaluation"}, "share of pairs"),
    Curve("completion length", {"completions/mean_length": "mean"}, "tokens"),
    Curve(
        "self-correction",
        {
            f"{group}/{key}": key.replace("_", " ")
            for group in ("reasoning", "emergence")  # the second one is that of the first version
            for key in ("corrects_itself", "shows_work", "wrong_to_right", "right_to_wrong")
        },
        "share of completions",
    ),
    Curve(
        "hard-coded programs",
        {"rewards/code/hard_coded": "of all programs", HARD_CODED: "of those that pass"},
        "share of programs",
    ),
    Curve("divergence from the reference", {"objective/kl": "nats per sequence", "kl": "estimate"}, "KL, nats"),
)
NAME = 18  # characters of a stage's name beside a plot
# Values that are drawn beside the rewards in a measure of over-optimization -> title, name of the y axis.
BESIDE_REWARDS = {
    "length": ("length", "tokens"),
    "eos_rate": ("completions that end by themselves", "share of completions"),
    "entropy": ("entropy", "nats per token"),
    "repetition": ("repetition", "share of repeated runs"),
    "spread": ("disagreement of the ensemble", "standard deviation between members, reward"),
}
PREFERENCE_METRICS = {
    "log_loss": "log loss, nats",
    "agrees_with_noisy_label": "agreement with the noisy labels",
    "ceiling_with_noisy_labels": "agreement of the true preferences with them, the ceiling",
    "longer_is_chosen": "accuracy of a model that prefers the longer answer",
    "members_agree": "pairs on which all members agree",
}


def dot_plots(report: Report) -> list[DotPlot]:
    """Return a plot of each task with the values of all stages; tasks of the same metric share an axis."""
    plots = []
    for metric in report.metrics:
        tasks: dict[str, dict[str, TaskResult]] = {}
        for stage in report.stages:
            for task, result in stage.tasks.items():
                if metric_name(result.higher_is_better) == metric and result.value is not None:
                    tasks.setdefault(task, {})[stage.name] = result
        found = [result for results in tasks.values() for result in results.values()]
        if not found:
            continue
        longest = max(len(one_line(name, NAME)) for results in tasks.values() for name in results)
        left = 14 + 6.6 * longest  # beside the names
        ends = [end for result in found for end in (result.value, *(result.interval or ()))]
        axis = axis_around(ends, left, DotPlot.RIGHT, not found[0].higher_is_better)
        plots += [_dot_plot(report, metric, task, results, axis) for task, results in tasks.items()]
    return plots


def _dot_plot(report: Report, metric: str, task: str, results: dict[str, TaskResult], axis: Axis) -> DotPlot:
    rows = {name: row for row, name in enumerate(results)}
    parents = {stage.name: stage.parent for stage in report.stages}
    dots = []
    for name, result in results.items():
        change = report.changes.get((name, task))
        parent = rows.get(parents[name] or "")
        # A stage whose parent was not asked has no line to it.
        dots.append(
            Dot(one_line(name, NAME), result.value, result.interval, change.kind if change else "start", parent)
        )
    counts = sorted({result.n for result in results.values()})
    pairs = any(result.preference for result in results.values())
    size = f"{' or '.join(f'{count:,}' for count in counts)} {'pairs' if pairs else 'items'}"
    samples = {
        stage.results.sampling_of(task).num_samples
        for stage in report.stages
        if stage.results and task in stage.tasks and stage.tasks[task].max_new_tokens is not None  # it generates
    }
    if samples - {1}:
        size += f" × {' or '.join(map(str, sorted(samples)))} answers"
    return DotPlot(task, metric, size, dots, axis)


def training_curves(stages: Sequence[StageReport]) -> list[LineChart]:
    """Return the charts of what each stage's trainer logged."""
    charts = []
    for stage in stages:
        # The loss of a policy gradient says nothing: its value does not fall as the policy improves.
        has_policy_gradient = any("reward" in entry for entry in stage.log)
        for curve in CURVES if has_policy_gradient else (LOSS, *CURVES):
            series = [Series(name, _points(stage.log, "step", key)) for key, name in curve.keys.items()]
            is_pair_loss = curve is LOSS and stage.recipe == "reward"
            y_label = "nats per pair" if is_pair_loss else curve.y_label
            charts.append(LineChart(stage.name, curve.title, "step", y_label, series))
    return _with_points(charts)


def levels(stages: Sequence[StageReport]) -> list[HeatMap]:
    """Return a map of accuracy by stage and level for each task that has several levels."""
    maps = []
    for task in _tasks(stages):
        rows = {
            stage.name: {
                level: estimate.value
                for level, estimate in stage.tasks[task].by_level.items()
                if estimate.value is not None
            }
            for stage in stages
            if task in stage.tasks and stage.tasks[task].higher_is_better
        }
        columns = list(dict.fromkeys(level for cells in rows.values() for level in cells))
        if len(columns) > 1:
            maps.append(HeatMap(task, "accuracy by level", columns, rows))
    return maps


def pass_at_k(stages: Sequence[StageReport]) -> list[LineChart]:
    """Return a chart for each task that has several samples per item."""
    charts = []
    for task in _tasks(stages):
        series = []
        for stage in stages:
            metrics = stage.tasks[task].metrics if task in stage.tasks else {}
            points = sorted((int(key[5:]), value) for key, value in metrics.items() if _is_pass_at_k(key))
            if len(points) > 1:
                series.append(Series(stage.name, points))
        charts.append(LineChart(task, "pass@k", "k (samples per item)", "pass@k", series, is_share=True))
    return _with_points(charts)


def overoptimization(stages: Sequence[StageReport]) -> list[LineChart]:
    """
    Return charts of the reward that is optimized beside the gold reward, over the distance from the reference.

    The distance is the square root of the KL divergence, as in Gao et al. 2023, "Scaling laws for reward model
    overoptimization": it spreads the beginning, where the gold reward still rises.
    """
    charts = []
    for stage in stages:
        if (measured := stage.overoptimization) is None:
            continue
        points = [vars(point) for point in measured.points]
        names = {"gold": "gold reward", "proxy": "reward that is optimized"}
        series = [Series(name, [(_root(x), y) for x, y in _points(points, "kl", key)]) for key, name in names.items()]
        rules = {"highest gold reward": _root(measured.peak.kl)} if measured.peak else {}
        if measured.stopped:
            at_stop = [x.kl for x in measured.points if x.step == measured.stopped.step and x.kl is not None]
            if at_stop:
                rules["stopped"] = _root(at_stop[0])
        band = measured.peak.interval if measured.peak else None
        charts.append(
            LineChart(
                stage.name,
                "gold reward and optimized reward",
                "√KL from the reference, √nats",
                "reward",
                series,
                band=band and (_root(band[0]), _root(band[1])),
                rules=rules,
            )
        )
        for key, (words, y_label) in BESIDE_REWARDS.items():
            line = Series(key, _points(points, "step", key))
            is_share = key == "eos_rate"
            charts.append(LineChart(stage.name, words, "step", y_label, [line], is_share=is_share))
    return _with_points(charts)


def overoptimization_sentences(stages: Sequence[StageReport]) -> list[str]:
    """Return a sentence for each stage that measured over-optimization."""
    sentences = []
    for stage in stages:
        measured = stage.overoptimization
        if measured is None or measured.peak is None:
            continue
        peak = measured.peak
        ends = f" {interval(peak.interval)}" if peak.interval else ""
        words = f"{stage.name}: the gold reward is highest at step {peak.step}, {number(peak.gold)}, "
        words += f"at a KL divergence of {number(peak.kl)} nats{ends}"
        if fall := measured.final_minus_peak:
            words += f"; at the end it differs from there by {fall.value:+.3f} {interval(fall.interval)}"
        if stop := measured.stopped:
            words += f"; stopped at step {stop.step} by {stop.by}"
        sentences.append(f"{words}.")
    return sentences


def calibration(stages: Sequence[StageReport]) -> list[LineChart]:
    """Return charts of how often a reward model is right, over its certainty; by true preferences and noisy labels."""
    charts = []
    for stage in stages:
        for task, result in stage.tasks.items():
            if result.preference is None:
                continue
            both = {
                "true preferences": result.preference.calibration,
                "noisy labels": result.preference.calibration_with_noisy_labels,
            }
            series = [
                Series(
                    name,
                    [(point.predicted, point.observed) for point in found.points],
                    [(point.predicted, *point.interval) for point in found.points if point.interval],
                )
                for name, found in both.items()
                if found
            ]
            subject, words = f"{stage.name}, {task}", ("calibration", "predicted probability", "share that is right")
            charts.append(LineChart(subject, *words, series, is_share=True, has_diagonal=True))
    return _with_points(charts)


def reward_model_tables(stages: Sequence[StageReport]) -> dict[str, dict[str, str]]:
    """
    Return what is known of each reward model.

    Args:
        stages (`Sequence[StageReport]`):
            The stages.

    Returns:
        `dict[str, dict[str, str]]`: stage and task -> name of a property -> its value.
    """
    tables = {}
    for stage in stages:
        for task, result in stage.tasks.items():
            if (preference := result.preference) is None:
                continue
            rows = {"accuracy": f"{number(result.value)} {interval(result.interval)}"}
            for key, words in PREFERENCE_METRICS.items():
                if key in result.metrics:
                    rows[words] = number(result.metrics[key])
            for found, words in (
                (preference.calibration, ""),
                (preference.calibration_with_noisy_labels, ", noisy labels"),
            ):
                if found:
                    chance = found.ece_by_chance
                    by_chance = f"; by chance {number(chance[0])}, below {number(chance[1])} in 95 %" if chance else ""
                    rows[f"expected calibration error{words}"] = number(found.ece) + by_chance
            if bias := preference.length_bias:
                change = f"{bias.sd_per_10_tokens:+.3f} {interval(bias.interval)}"
                rows["change of the score per ten more tokens"] = f"{change} standard deviations"
            if preference.batch_invariance is not None:
                largest = f"{number(preference.batch_invariance)} standard deviations"
                rows["largest change of a score with the batch size"] = largest
            tables[f"{stage.name}, {task}"] = rows
    return tables


def _with_points(charts: Sequence[LineChart]) -> list[LineChart]:
    return [chart for chart in charts if chart.series]


def _tasks(stages: Sequence[StageReport]) -> list[str]:
    return list(dict.fromkeys(task for stage in stages for task in stage.tasks))


def _is_pass_at_k(key: str) -> bool:
    return key.startswith("pass@") and key[5:].isdecimal() and len(key) < 12


def _root(kl: float) -> float:
    return max(kl, 0.0) ** 0.5  # an estimate can lie below 0


def _points(entries: Sequence[dict[str, float | None]], x: str, y: str) -> list[tuple[float, float]]:
    pairs = [(entry.get(x), entry.get(y)) for entry in entries]
    return [pair for pair in pairs if None not in pair]
