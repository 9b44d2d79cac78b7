"""Paired comparison of two results: which tasks changed, and how much of a gain is form only."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from schoolhouse.evaluation.results import (
    EvalSample,
    EvaluationResults,
    TaskSampling,
    by_item,
    item_values,
    load_results,
    load_samples,
)
from schoolhouse.evaluation.statistics.paired import PairedTest, holm, mcnemar_exact, paired_bootstrap
from schoolhouse.evaluation.statistics.win_rate import WinRate, win_rate


LEVEL = 0.05  # of the tests of all tasks together


@dataclass(frozen=True)
class FormShare:
    """
    Part of a gain that came from items whose answer before was wrong in form only.

    Args:
        gained (`float`):
            Items gained.
        by_form (`float`):
            Those of them that only lacked the form before.
        share (`float` or `None`):
            Their ratio; `None` where nothing was gained.
    """

    gained: float
    by_form: float
    share: float | None


@dataclass(frozen=True)
class TaskComparison:
    """
    Comparison of two results in one task.

    Args:
        test ([`PairedTest`]):
            The paired test, with its unadjusted p-value.
        method (`str`):
            `"exact McNemar"` or `"paired bootstrap"`.
        p_adjusted (`float`):
            p-value after Holm's adjustment over all tasks.
        verdict (`str`):
            `"improved"`, `"worse"` or `"no evidence of change, ..."`, by the adjusted p-value.
        ungraded (`int`):
            Items without a verdict on either side.
        form ([`FormShare`] or `None`):
            `None` for a task that does not tell form from content.
        win_rate ([`WinRate`] or `None`):
            `None` for a task without a `utility`.
        uncontaminated ([`PairedTest`] or `None`):
            Unadjusted test on the items that share nothing with the training data, where either result knows of some
            that do.
        metrics (`dict[str, tuple[float, float]]`):
            Other means before and after.
    """

    test: PairedTest
    method: str
    p_adjusted: float
    verdict: str
    ungraded: int
    form: FormShare | None
    win_rate: WinRate | None
    uncontaminated: PairedTest | None
    metrics: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Comparison:
    """
    Comparison of two results.

    Args:
        before (`str`), after (`str`):
            Their folders.
        notes (`list[str]`):
            Differences in how they were measured, one sentence each.
        tasks (`dict[str, TaskComparison]`):
            Task -> comparison, for the tasks that both have.
    """

    before: str
    after: str
    notes: list[str]
    tasks: dict[str, TaskComparison]

    def to_json(self) -> dict[str, Any]:
        """Return the content of comparison.json: the fields of each test stand beside the others of its task."""
        tasks = {name: asdict(task) for name, task in self.tasks.items()}
        return asdict(self) | {"tasks": {name: task.pop("test") | task for name, task in tasks.items()}}


def compare_runs(
    before: str | Path, after: str | Path, family: int | None = None, tasks: Collection[str] | None = None
) -> Comparison:
    """
    Compare two results in the tasks that they share, item by item.

    One sample per item: exact McNemar test. Several samples, bits per byte, or items that share a source: paired
    bootstrap. p-values are adjusted over the tasks by Holm, and the smallest detectable effect is that of his first
    and strictest step. A sample without a verdict counts as wrong, and the items with such samples are counted.

    Args:
        before (`str` or `Path`), after (`str` or `Path`):
            Folders with results.json and samples.
        family (`int`, *optional*):
            Number of tests among which the level is divided for the smallest detectable effects; by default the number
            of tasks in common.
        tasks (`Collection[str]`, *optional*):
            Compare these only.

    Raises:
        ValueError: if the results share no task, or a task's version or items differ.
    """
    first, second = load_results(before), load_results(after)
    names = [name for name in first.tasks if name in second.tasks and (tasks is None or name in tasks)]
    if not names:
        raise ValueError(
            f"no task in common: {before} has {', '.join(first.tasks)}; {after} has {', '.join(second.tasks)}"
        )
    samples: dict[str, tuple[list[EvalSample], list[EvalSample]]] = {}
    tests: dict[str, tuple[PairedTest, str]] = {}
    for name in names:
        old, new = first.tasks[name].version, second.tasks[name].version
        if old != new:
            raise ValueError(f"task {name} has version {old} in {before} and {new} in {after}")
        samples[name] = load_samples(before, name), load_samples(after, name)
        _check_items(name, *samples[name])
        tests[name] = _test(*samples[name], family=family or len(names))
    adjusted = holm({name: test.p_value for name, (test, _) in tests.items()})
    compared = {}
    for name, (test, method) in tests.items():
        olds, news = first.tasks[name].metrics, second.tasks[name].metrics
        compared[name] = TaskComparison(
            test=test,
            method=method,
            p_adjusted=adjusted[name],
            verdict=replace(test, p_value=adjusted[name]).verdict().split(" (")[0],
            ungraded=len(
                {
                    one.id
                    for side in samples[name]
                    for one in side
                    if one.has("correct") and one.correct is None and not one.is_unsupported
                }
            ),
            form=form_share(*samples[name]),
            win_rate=win_rate_by_utility(*samples[name]),
            uncontaminated=_uncontaminated_test(*samples[name]),
            metrics={metric: (olds[metric], news[metric]) for metric in olds if metric in news},
        )
    return Comparison(str(before), str(after), _notes(first, second), compared)


def form_share(before: Sequence[EvalSample], after: Sequence[EvalSample]) -> FormShare | None:
    r"""
    Return how much of a gain came from items whose failure before was one of form only; `None` for a task that does
    not tell form from content.

    Let $a_i$ and $b_i$ be the share of an item's samples that are correct before and after, and $f_i$ the share that
    before was right in some form but not accepted. The item gained $g_i = \max(0, b_i - a_i)$, and of that $\min(g_i,
    f_i)$ took no more than the form. With one sample per item these are counts: the items won, and those among them
    that had the right answer in the wrong form. Lost items are left out, as the form did not help them.
    """
    if not before[0].has("right_in_any_form"):
        return None
    first, second = item_values(before), item_values(after)
    in_any_form = item_values(before, "right_in_any_form")
    gains = {name: max(0.0, second[name] - first[name]) for name in first.keys() & second.keys()}
    gained = sum(gains.values())
    by_form = sum(min(gain, max(0.0, in_any_form[name] - first[name])) for name, gain in gains.items())
    return FormShare(gained, by_form, by_form / gained if gained else None)


def win_rate_by_utility(before: Sequence[EvalSample], after: Sequence[EvalSample]) -> WinRate | None:
    """
    Return how often the second model's answer has a higher utility than the first one's to the same item.

    `None` unless the task's scorer gives a `utility`, and for items of a single source. Lengths are tokens.
    """
    sources = {sample.id: sample.source for sample in before}
    if any("utility" not in sample.metrics for sample in (*before, *after)) or len(set(sources.values())) < 2:
        return None

    def utilities(groups: dict[str, list[EvalSample]]) -> list[list[float]]:
        # A metric may be a text or a list, but a utility is a number.
        return [[sample.metrics["utility"] for sample in groups[name]] for name in sources]  # type: ignore[misc]

    def lengths(groups: dict[str, list[EvalSample]]) -> list[list[int]]:
        return [[sample.tokens for sample in groups[name]] for name in sources]

    old, new = by_item(before), by_item(after)
    return win_rate(utilities(old), utilities(new), lengths(old), lengths(new), clusters=list(sources.values()))


def _test(before: Sequence[EvalSample], after: Sequence[EvalSample], family: int) -> tuple[PairedTest, str]:
    first, second = item_values(before), item_values(after)
    names = [name for name in first if name in second]
    old, new = [first[name] for name in names], [second[name] for name in names]
    sources = {sample.id: sample.source for sample in before}
    clusters = [sources[name] for name in names]
    is_text = before[0].has("bits")
    # McNemar's test wants one yes or no per item, and independent items.
    is_binary = not is_text and len(before) == len(after) == len(sources) and len(set(clusters)) == len(names)

    def test(level: float) -> PairedTest:
        if is_binary:
            return mcnemar_exact([value == 1 for value in old], [value == 1 for value in new], confidence=1 - level)
        return paired_bootstrap(old, new, confidence=1 - level, clusters=clusters, higher_is_better=not is_text)

    result = replace(test(LEVEL), smallest_detectable_effect=test(LEVEL / family).smallest_detectable_effect)
    if is_text:
        # The values are linear expansions around the corpus; whether one document got better its own bits say.
        bits = {sample.id: sample.bits for sample in after}
        changes = [bits[sample.id] - sample.bits for sample in before]
        result = replace(result, gained=sum(x < 0 for x in changes), lost=sum(x > 0 for x in changes))
    return result, "exact McNemar" if is_binary else "paired bootstrap"


def _uncontaminated_test(before: Sequence[EvalSample], after: Sequence[EvalSample]) -> PairedTest | None:
    contaminated = {sample.id for sample in (*before, *after) if sample.contaminated}
    first, second = ([sample for sample in side if sample.id not in contaminated] for side in (before, after))
    return _test(first, second, family=1)[0] if contaminated and first and second else None


def _check_items(name: str, before: Sequence[EvalSample], after: Sequence[EvalSample]) -> None:
    first, second = ({one.id: (one.prompt, one.reference) for one in samples} for samples in (before, after))
    if lone := [*(first.keys() - second.keys()), *(second.keys() - first.keys())]:
        raise ValueError(
            f"task {name}: {len(first)} items before and {len(second)} after, {min(lone)!r} on one side only: "
            "evaluate both on the same data with the same limit"
        )
    if changed := [item for item in first if first[item] != second[item]]:
        raise ValueError(
            f"task {name}: item {changed[0]!r} has another prompt or reference: evaluate both on the same data"
        )


def _words(value: int | TaskSampling | None) -> str:
    if isinstance(value, TaskSampling):
        return f"num_samples {value.num_samples} and temperature {value.temperature}"
    return "that of the run" if value is None else str(value)


def _notes(first: EvaluationResults, second: EvaluationResults) -> list[str]:
    notes = []
    for key, words in (("model", "base models"), ("chat_template", "chat templates")):
        if getattr(first.hashes, key) != getattr(second.hashes, key):
            notes.append(f"the {words} differ")
    for key in type(first.sampling).model_fields:
        old, new = getattr(first.sampling, key), getattr(second.sampling, key)
        if old != new:
            notes.append(f"{key} differs: {old} before, {new} after")
    for name in first.tasks.keys() & second.tasks.keys():
        for key in ("max_new_tokens", "sampling"):
            old, new = (getattr(results.tasks[name], key) for results in (first, second))
            if old != new:
                notes.append(f"{key} of {name} differs: {_words(old)} before, {_words(new)} after")
    for when, side, other in (("before", first, second), ("after", second, first)):
        if lone := [name for name in side.tasks if name not in other.tasks]:
            notes.append(f"only {when}: {', '.join(lone)}")
    return notes
