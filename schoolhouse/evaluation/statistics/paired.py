"""Paired tests: two models compared on the same items."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from schoolhouse.evaluation.statistics.intervals import clustered_standard_error, expanded_percentiles, resampled_means


@dataclass(frozen=True)
class PairedTest:
    """
    Comparison of two models' scores on the same items.

    Args:
        n (`int`):
            Number of items.
        before (`float`), after (`float`):
            Mean score of either model.
        difference (`float`):
            `after - before`.
        interval (`tuple[float, float]`):
            Confidence interval of the difference.
        gained (`int`), lost (`int`):
            Number of items with a better, or a worse, score than before.
        p_value (`float`):
            Two-sided p-value of the hypothesis that nothing changed.
        smallest_detectable_effect (`float` or `None`):
            The smallest true difference that this comparison would have found with a power of 80 %; `None` where no
            difference could have been found, or the differences have no spread.
        confidence (`float`, *optional*, defaults to `0.95`):
            Of the interval; `1 - confidence` is the level of the test.
        higher_is_better (`bool`, *optional*, defaults to `True`):
            `False` for losses, such as bits per byte.
    """

    n: int
    before: float
    after: float
    difference: float
    interval: tuple[float, float]
    gained: int
    lost: int
    p_value: float
    smallest_detectable_effect: float | None
    confidence: float = 0.95
    higher_is_better: bool = True

    def verdict(self) -> str:
        """
        Return the verdict and its figures on one line: "improved", "worse" or "no evidence of change, smallest
        detectable effect X". The p-value decides, not the interval.
        """
        low, high = self.interval
        figures = (
            f"{self.before:.4g} -> {self.after:.4g}, difference {self.difference:+.3g} "
            f"[{low:+.3g}, {high:+.3g}], p = {self.p_value:.2g}, n = {self.n}"
        )
        if self.p_value <= 1 - self.confidence:
            better = (self.difference > 0) == self.higher_is_better
            return f"{'improved' if better else 'worse'} ({figures})"
        if self.smallest_detectable_effect is None:
            return f"no evidence of change, and these items could not have shown any ({figures})"
        return f"no evidence of change, smallest detectable effect {self.smallest_detectable_effect:.3g} ({figures})"


def mcnemar_exact(before: Sequence[bool], after: Sequence[bool], confidence: float = 0.95) -> PairedTest:
    """
    Exact McNemar test of right and wrong answers to the same items, with Tango's score interval of the difference
    (Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design").

    Items that both models solve, or neither, say nothing about which one is better. If the models are equally good,
    each discordant item (exactly one model is right) is a gain or a loss with probability 1/2, so the number of gains
    is binomial, and the exact p-value is that of a sign test. The items are taken as independent; where they share a
    source use [`paired_bootstrap`] with `clusters`.

    Args:
        before (`Sequence[bool]`):
            Whether the first model solved each item.
        after (`Sequence[bool]`):
            The same for the second model, in the same order.
        confidence (`float`, *optional*, defaults to `0.95`):
            Of the interval; `1 - confidence` is the level of the test.

    Returns:
        [`PairedTest`]: the comparison.

    Raises:
        ValueError: if there are no items, the lengths differ, or an entry is neither true nor false.
    """
    _check_confidence_and_lengths(before, after, confidence)
    for name, outcomes in (("before", before), ("after", after)):
        for index, outcome in enumerate(outcomes):
            if outcome not in (0, 1):
                raise ValueError(f"{name}[{index}] is {outcome!r}, not true or false: drop the item on both sides")
    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    n, gained, lost = len(first), int(np.sum(~first & second)), int(np.sum(first & ~second))
    discordant = gained + lost
    return PairedTest(
        n=n,
        before=float(first.mean()),
        after=float(second.mean()),
        difference=(gained - lost) / n,
        interval=_tango_interval(n, gained, lost, confidence),
        gained=gained,
        lost=lost,
        p_value=float(stats.binomtest(gained, discordant).pvalue) if discordant else 1.0,
        smallest_detectable_effect=smallest_detectable_effect(n, discordant / n, alpha=1 - confidence),
        confidence=confidence,
    )


def paired_bootstrap(
    before: Sequence[float],
    after: Sequence[float],
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
    higher_is_better: bool = True,
) -> PairedTest:
    """
    Paired bootstrap of real-valued scores of the same items: bits per byte, pass rates.

    Differences are taken item by item, so whatever makes an item hard for both models cancels. The interval is that of
    [`bootstrap_mean`] on the differences, and the p-value is its inversion: the level at which the interval would just
    reach 0, at least `1 / (1 + resamples)`. The smallest detectable effect is
    `(t(1 - alpha/2) + t(power)) * standard error` (Miller 2024, "Adding error bars to evals", section 5, with
    Student's t).

    Args:
        before (`Sequence[float]`):
            The first model's score of each item.
        after (`Sequence[float]`):
            The second model's, in the same order.
        confidence (`float`, *optional*, defaults to `0.95`):
            Of the interval; `1 - confidence` is the level of the test.
        resamples (`int`, *optional*, defaults to `10_000`):
            Number of bootstrap samples.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the resampling.
        clusters (`Sequence[Hashable]`, *optional*):
            Source of each item; whole sources are then drawn.
        higher_is_better (`bool`, *optional*, defaults to `True`):
            `False` for losses, such as bits per byte.

    Returns:
        [`PairedTest`]: the comparison.

    Raises:
        ValueError: if the lengths differ, fewer than 2 items (or clusters) are given, or a score is missing.
    """
    _check_confidence_and_lengths(before, after, confidence)
    first, second = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    differences = second - first
    means, groups = resampled_means(differences, resamples, seed, clusters)

    # Share of resamples on the other side of 0, the observed sample counted as one of them.
    tail = (1 + min(np.sum(means <= 0), np.sum(means >= 0))) / (1 + resamples)
    expansion = math.sqrt((groups - 1) / groups)  # the inverse of expanded_percentiles' widening
    p_value = min(1.0, 2 * float(stats.t.sf(expansion * stats.norm.isf(tail), groups - 1)))

    error = clustered_standard_error(differences, range(len(differences)) if clusters is None else clusters)
    quantiles = np.asarray(stats.t.ppf([1 - (1 - confidence) / 2, 0.8], groups - 1))
    better = differences if higher_is_better else -differences
    return PairedTest(
        n=len(differences),
        before=float(first.mean()),
        after=float(second.mean()),
        difference=float(differences.mean()),
        interval=expanded_percentiles(means, groups, confidence),
        gained=int(np.sum(better > 0)),
        lost=int(np.sum(better < 0)),
        p_value=p_value,
        smallest_detectable_effect=float(quantiles.sum()) * error if error > 0 else None,
        confidence=confidence,
        higher_is_better=higher_is_better,
    )


def smallest_detectable_effect(
    n: int, discordant_rate: float, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """
    Smallest true difference in accuracy that the exact McNemar test finds with the wanted power.

    The power is computed exactly: over the number of discordant items, and for each over its split into gains and
    losses. It therefore holds for small sets too, where the usual normal approximation (Miettinen 1968, "The matched
    pairs design in the case of all-or-none responses") is too optimistic. A difference cannot exceed the discordant
    rate: beyond `discordant_rate` the rate is raised with it.

    Args:
        n (`int`):
            Number of items.
        discordant_rate (`float`):
            Share of the items on which exactly one of the two models is right.
        alpha (`float`, *optional*, defaults to `0.05`):
            Level of the two-sided test.
        power (`float`, *optional*, defaults to `0.8`):
            Probability with which the difference is to be found.

    Returns:
        `float` or `None`: the difference, in [0, 1]; `None` if even a difference of 1 would not be found, as with 5
        items at a level of 5 %.

    Raises:
        ValueError: if there are no items, a rate is not in [0, 1], or the power is not above alpha.
    """
    if n < 1:
        raise ValueError(f"n is {n}: a test needs at least 1 item")
    if not 0 <= discordant_rate <= 1:
        raise ValueError(f"discordant_rate is {discordant_rate}: it must be between 0 and 1")
    if not 0 < alpha < power < 1:
        raise ValueError(f"alpha is {alpha} and power {power}: 0 < alpha < power < 1 is wanted")

    def missing_power(effect: float) -> float:
        rate = max(discordant_rate, effect)
        # All plausible numbers of discordant items.
        least, most = np.asarray(stats.binom.ppf([1e-12, 1 - 1e-12], n, rate))
        discordant = np.arange(least, most + 1)
        # For each the largest count on the rarer side that is still significant; -1 where none is.
        critical = np.asarray(stats.binom.ppf(alpha / 2, discordant, 0.5))
        critical = critical - (2 * stats.binom.cdf(critical, discordant, 0.5) > alpha)
        # Of the discordant items a share `gain` is won, as gain - (1 - gain) = effect / rate.
        gain = (1 + effect / rate) / 2 if rate > 0 else 0.5
        found = stats.binom.cdf(critical, discordant, gain) + stats.binom.sf(
            discordant - critical - 1, discordant, gain
        )
        return power - float(stats.binom.pmf(discordant, n, rate) @ found)

    if missing_power(1.0) > 0:
        return None
    return float(optimize.brentq(missing_power, 0.0, 1.0, xtol=1e-9))


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """
    Holm's step-down adjustment for several tests (Holm 1979, "A simple sequentially rejective multiple test
    procedure").

    At a level of 5 % one in twenty tests of models that did not change looks significant. Of m tests the smallest
    p-value is multiplied by m, the next one by m - 1, and so on, and none may be smaller than the one before. With
    adjusted values the probability of any false finding in the whole family is at most the level. Put one into a
    comparison with `dataclasses.replace(test, p_value=...)`.

    Args:
        p_values (`dict[str, float]`):
            p-value of each test, by name.

    Returns:
        `dict[str, float]`: the adjusted p-values, in the order given.

    Raises:
        ValueError: if a p-value is not in [0, 1].
    """
    for name, p_value in p_values.items():
        if not 0 <= p_value <= 1:
            raise ValueError(f"p-value of {name} is {p_value}: it must be between 0 and 1")
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def _tango_interval(n: int, gained: int, lost: int, confidence: float) -> tuple[float, float]:
    """Interval of the differences `delta` that a score test of "the true difference is delta" does not reject."""
    z = stats.norm.isf((1 - confidence) / 2)

    def lower_limit(gained: int, lost: int) -> float:
        difference = (gained - lost) / n
        if difference == -1:
            return -1.0

        def excess(delta: float) -> float:
            # Numerator of the score statistic minus z times its standard deviation under `delta`. `rate` is the
            # maximum-likelihood estimate, under that constraint, of the probability that an item is lost (Tango 1998,
            # equation 4): the larger root of a quadratic.
            linear = (2 * n - gained + lost) * delta - gained - lost
            constant = -lost * delta * (1 - delta)
            rate = (math.sqrt(max(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)
            variance = n * (2 * rate + delta * (1 - delta))
            return gained - lost - n * delta - z * math.sqrt(max(variance, 0.0))

        # Without any discordant pair 0 is a root as well: the limit is the one beyond it.
        return optimize.brentq(excess, -1.0, difference - 1e-9, xtol=1e-12)

    return lower_limit(gained, lost), -lower_limit(lost, gained)


def _check_confidence_and_lengths(before: Sequence[float], after: Sequence[float], confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: it must be between 0 and 1, such as 0.95")
    if len(before) != len(after):
        raise ValueError(f"before has {len(before)} items and after {len(after)}: a paired test needs the same items")
    if len(before) == 0:
        raise ValueError("no items: a paired test needs at least 1")
