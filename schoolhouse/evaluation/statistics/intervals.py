"""Intervals and standard errors of one model's mean score."""

from collections.abc import Hashable, Sequence

import numpy as np


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """
    Wilson score interval of a proportion (Wilson 1927, "Probable inference, the law of succession, and statistical
    inference"; without continuity correction).

    The interval holds every true proportion that a score test would not reject. Unlike the normal interval it stays in
    [0, 1] and keeps a width at 0 % and 100 %. The items are taken as independent: where they share a source, use
    [`bootstrap_mean`] with `clusters`.

    Args:
        successes (`int`):
            Number of items solved.
        n (`int`):
            Number of items.
        confidence (`float`, *optional*, defaults to `0.95`):
            Share of such intervals that contain the true proportion.

    Returns:
        `tuple[float, float]`: lower and upper end.

    Raises:
        ValueError: if there are no items, or `successes` is not among 0..n.
    """
    from scipy import stats

    if n < 1:
        raise ValueError(f"n is {n}: an interval needs at least 1 item")
    if not 0 <= successes <= n:
        raise ValueError(f"successes is {successes}: it must be between 0 and n = {n}")
    _check_confidence(confidence)
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_mean(
    values: Sequence[float],
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
) -> tuple[float, float]:
    """
    Expanded percentile bootstrap interval of a mean (Hesterberg 2015, "What teachers should know about the bootstrap",
    section 4.2).

    The plain percentile interval is too short for small samples: it corresponds to the normal quantile and to a
    variance over n, where Student's t and n - 1 are right. The expanded interval takes percentiles farther out by that
    factor. Equal values give an interval of width 0: for proportions near 0 or 1 prefer [`wilson`].

    Args:
        values (`Sequence[float]`):
            One score per item.
        confidence (`float`, *optional*, defaults to `0.95`):
            Share of such intervals that contain the true mean.
        resamples (`int`, *optional*, defaults to `10_000`):
            Number of bootstrap samples.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the resampling: the same values and seed give the same interval.
        clusters (`Sequence[Hashable]`, *optional*):
            Source of each item. Whole sources are then drawn, since the scores of one source's items are correlated.

    Returns:
        `tuple[float, float]`: lower and upper end.

    Raises:
        ValueError: if fewer than 2 items (or 2 clusters) are given, or a score is missing or infinite.
    """
    _check_confidence(confidence)
    means, groups = resampled_means(values, resamples, seed, clusters)
    return expanded_percentiles(means, groups, confidence)


def clustered_standard_error(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    r"""
    Standard error of a mean whose items share sources (a passage, a template), after Miller 2024, "Adding error bars
    to evals", section 2.2.

    $$\mathrm{SE} = \frac1n \sqrt{\frac{G}{G-1} \sum_{g=1}^G \Bigl(\sum_{i \in g} (s_i - \bar s)\Bigr)^2}$$

    Items of one cluster vary together, so deviations are first summed within clusters: only these sums are
    independent. Without the factor $G/(G-1)$ this is the CR0 estimate, which is too small for few clusters; with it,
    CR1. The paper corrects only the diagonal terms, by $n/(n-1)$. The two agree where every item is a cluster of its
    own, and both are then the usual $s/\sqrt n$; otherwise CR1 is larger.

    Args:
        values (`Sequence[float]`):
            One score per item.
        clusters (`Sequence[Hashable]`):
            Source of each item.

    Returns:
        `float`: the standard error, in the unit of `values`.

    Raises:
        ValueError: if fewer than 2 clusters are given, or a score is missing or infinite.
    """
    scores, sources = _scores_and_sources(values, clusters)
    groups = int(sources.max()) + 1
    deviations = np.bincount(sources, weights=scores - scores.mean())
    return float(np.sqrt(groups / (groups - 1) * np.sum(deviations**2)) / len(scores))


def resampled_means(
    values: Sequence[float], resamples: int, seed: int, clusters: Sequence[Hashable] | None = None
) -> tuple[np.ndarray, int]:
    """
    Draw bootstrap means of items, or of whole `clusters` (the source of each item): the means, shape `(resamples,)`,
    and the number of units that were drawn from.
    """
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}: it must be at least 1")
    scores, sources = _scores_and_sources(values, clusters)
    # A resample is described by its clusters alone: its mean is the sum of their sums over the sum of their sizes.
    # (scipy.stats.bootstrap draws no clusters; without them a test holds this against it.)
    sums, sizes = np.bincount(sources, weights=scores), np.bincount(sources)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    chunk = max(1, 2_000_000 // len(sums))  # all at once would need gigabytes for 10,000 items
    for start in range(0, resamples, chunk):
        drawn = rng.integers(len(sums), size=(min(chunk, resamples - start), len(sums)))
        means[start : start + chunk] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means, len(sums)


def expanded_percentiles(means: np.ndarray, groups: int, confidence: float) -> tuple[float, float]:
    """Return the expanded percentile interval of means from [`resampled_means`], which drew from so many `groups`."""
    from scipy import stats

    # The normal tail whose quantile is that of Student's t, times sqrt(n / (n - 1)) for the variance over n - 1.
    tail = stats.norm.sf(np.sqrt(groups / (groups - 1)) * stats.t.isf((1 - confidence) / 2, groups - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _scores_and_sources(values: Sequence[float], clusters: Sequence[Hashable] | None) -> tuple[np.ndarray, np.ndarray]:
    # Sources are returned as numbers 0, 1, ... in order of appearance.
    scores = np.asarray(values, dtype=float)
    if scores.ndim != 1:
        raise ValueError(f"values has shape {scores.shape}: one score per item is wanted, in one dimension")
    missing = np.flatnonzero(~np.isfinite(scores))
    if len(missing):
        raise ValueError(
            f"values holds {len(missing)} missing or infinite scores, the first at index {missing[0]}: drop such items"
        )
    if clusters is None:
        sources = np.arange(len(scores))
    else:
        numbers: dict[Hashable, int] = {}
        sources = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=int)
        if len(sources) != len(scores):
            raise ValueError(f"clusters has {len(sources)} entries for {len(scores)} values: one per value is wanted")
    if len(sources) == 0 or sources.max() < 1:
        unit = "items" if clusters is None else "clusters"
        raise ValueError(f"{len(set(sources.tolist()))} {unit}: the spread of a mean needs at least 2")
    return scores, sources


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: it must be between 0 and 1, such as 0.95")
