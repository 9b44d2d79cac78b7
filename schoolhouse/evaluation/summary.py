"""Results of a task from its graded samples: its value, how sure it is, and all other means."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from schoolhouse.evaluation.results import Estimate, EvalSample, TaskResult, by_item, item_values
from schoolhouse.evaluation.statistics.intervals import bootstrap_mean, clustered_standard_error, wilson
from schoolhouse.evaluation.statistics.sampling import maj_at_k, pass_at_k
from schoolhouse.evaluation.tasks import Task


def summarise(task: Task, samples: Sequence[EvalSample]) -> TaskResult:
    """
    Return the results of one task, from at least one sample.

    The value is the mean over the items of the share of their samples that are correct (for one sample: the accuracy);
    for held-out text it is bits per byte of the whole corpus. Samples without a verdict count as wrong, since a model
    could win by answers that cannot be graded, and are counted as `ungraded`. Items whose tests run on no program are
    left out, and counted as `unsupported`. The interval is Wilson's for one sample
    per item, otherwise a bootstrap over the items.
    """
    levels: dict[int | str, list[EvalSample]] = defaultdict(list)
    for sample in samples:
        if sample.level is not None:
            levels[sample.level].append(sample)
    order = sorted(levels, key=lambda level: (isinstance(level, str), level))
    result = TaskResult(
        version=task.version,
        higher_is_better=task.higher_is_better,
        items=len({sample.id for sample in samples}),
        **_estimate(samples).model_dump(),
        metrics=_metrics(samples),
        by_level={str(level): _estimate(levels[level]) for level in order},
    )
    if not samples[0].has("contaminated"):
        return result
    return result.model_copy(update={"uncontaminated": _estimate([one for one in samples if not one.contaminated])})


def _estimate(samples: Sequence[EvalSample]) -> Estimate:
    values = item_values(samples)
    if not values:
        return Estimate(n=0, value=None, standard_error=None, interval=None)
    numbers = list(values.values())
    sources = {sample.id: sample.source for sample in samples}
    clusters = [sources[name] for name in values]
    several = len(set(clusters)) > 1
    is_binary = len(samples) == len(sources) and not samples[0].has("bits")
    interval = None
    if is_binary and len(set(clusters)) == len(values):  # independent yes-or-no items
        interval = wilson(round(sum(numbers)), len(numbers))
    elif several:
        interval = bootstrap_mean(numbers, clusters=clusters)
    return Estimate(
        n=len(values),
        value=float(np.mean(numbers)),
        standard_error=clustered_standard_error(numbers, clusters) if several else None,
        interval=interval,
    )


def _metrics(samples: Sequence[EvalSample]) -> dict[str, int | float]:
    metrics: dict[str, int | float] = {}
    for name in ("format_ok", "right_in_any_form"):
        if flags := [flag for sample in samples if (flag := getattr(sample, name)) is not None]:
            metrics[name] = _mean(flags)
    if samples[0].has("completion"):
        metrics["truncated"] = _mean([sample.finish_reason == "length" for sample in samples])
        metrics["mean_tokens"] = _mean([sample.tokens for sample in samples])
    if not samples[0].has("bits"):
        metrics["ungraded"] = sum(sample.correct is None and not sample.is_unsupported for sample in samples)
        if left_out := {sample.id for sample in samples if sample.is_unsupported}:
            metrics["unsupported"] = len(left_out)
    for name in dict.fromkeys(name for sample in samples for name in sample.metrics):
        values = [value for sample in samples if (value := sample.metrics.get(name)) is not None]
        # A list, such as one verdict per instruction, is pooled over all samples.
        pooled = [part for value in values for part in (value if isinstance(value, list) else [value])]
        numbers = [part for part in pooled if isinstance(part, bool | int | float)]
        if numbers and len(numbers) == len(pooled):
            metrics[name] = _mean(numbers)
        if name == "status":
            metrics |= {f"status/{kind}": count / len(pooled) for kind, count in Counter(pooled).most_common()}
    return metrics | _of_k([sample for sample in samples if not sample.is_unsupported])


def _of_k(samples: Sequence[EvalSample]) -> dict[str, float]:
    """Return pass@k, and maj@k where answers were extracted, for k = 1, 2, 4, ... of several samples per item."""
    groups = by_item(samples).values()
    least = min(map(len, groups), default=1)
    if least == 1:
        return {}
    right = [sum(sample.correct is True for sample in group) for group in groups]
    metrics: dict[str, float] = {}
    for k in [2**power for power in range(least.bit_length())]:
        metrics[f"pass@{k}"] = _mean(pass_at_k([len(group) for group in groups], right, k))
        if all(sample.has("extracted") for sample in samples):
            metrics[f"maj@{k}"] = _mean([_majority(group, k) for group in groups])
    return metrics


def _majority(group: Sequence[EvalSample], k: int) -> float:
    # Right answers vote together however they are written; a sample without an answer abstains.
    votes = ["right" if one.correct else one.extracted and ("wrong", one.extracted) for one in group]
    return maj_at_k(votes, [bool(one.correct) for one in group], k)


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values))
