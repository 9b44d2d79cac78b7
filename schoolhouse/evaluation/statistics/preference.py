"""Quality of a reward model's scores beyond accuracy: calibration, and their dependence on length."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from schoolhouse.evaluation.statistics.intervals import expanded_percentiles, wilson


@dataclass(frozen=True)
class CalibrationPoint:
    """
    A bin of pairs with similar predictions.

    Args:
        predicted (`float`):
            Mean probability that the text preferred by the model is the better one, at least 0.5.
        observed (`float`):
            Share of pairs in which it is.
        interval (`tuple[float, float]`, *optional*):
            Interval of `observed` (95 %, Wilson).
        n (`int`, *optional*, defaults to `0`):
            Number of pairs.
    """

    predicted: float
    observed: float
    interval: tuple[float, float] | None = None
    n: int = 0


@dataclass(frozen=True)
class Calibration:
    """
    Predicted against observed preference.

    Args:
        points (`list[CalibrationPoint]`):
            Bins of equally many pairs, for a plot.
        ece (`float`):
            Expected calibration error: mean distance of predicted and observed, weighted by `n` (Guo et al. 2017, "On
            calibration of modern neural networks").
        ece_by_chance (`tuple[float, float]`, *optional*):
            Mean and 95 % quantile of `ece` for a perfectly calibrated model with these predictions: in finite samples
            it is never 0.
    """

    points: list[CalibrationPoint]
    ece: float
    ece_by_chance: tuple[float, float] | None = None


def calibration(differences: Sequence[float], right: Sequence[bool], bins: int = 10, seed: int = 0) -> Calibration:
    r"""
    Calibration of a Bradley-Terry model, for which $P(a \succ b) = \sigma(s_a - s_b)$.

    Each pair counts once, from the side of the text that the model prefers: the other half of the diagram mirrors it.

    Args:
        differences (`Sequence[float]`):
            Score differences, of either sign and not 0.
        right (`Sequence[bool]`):
            Whether the text with the higher score is the preferred one.
        bins (`int`, *optional*, defaults to `10`):
            Bins of equally many pairs, at most.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the simulated verdicts.

    Returns:
        [`Calibration`]

    Raises:
        ValueError: without pairs.
    """
    if not len(differences):
        raise ValueError("no pair with two different scores: there is no prediction to compare")
    # Probability of the preferred text, then pairs in order of it.
    certainty = 1 / (1 + np.exp(-np.abs(np.asarray(differences, dtype=float))))
    order = np.argsort(certainty, kind="stable")
    certainty, verdicts = certainty[order], np.asarray(right, dtype=float)[order]
    parts = np.array_split(np.arange(len(order)), min(bins, len(order)))
    predicted = np.array([certainty[part].mean() for part in parts])
    sizes = np.array([len(part) for part in parts])

    def error(drawn: np.ndarray) -> np.ndarray:
        """Calibration error of verdicts (..., pairs): (...,)."""
        observed = np.stack([drawn[..., part].mean(axis=-1) for part in parts], axis=-1)
        return (np.abs(observed - predicted) * sizes).sum(axis=-1) / sizes.sum()

    # Verdicts that follow the predictions exactly, drawn a thousand times.
    chance = error((np.random.default_rng(seed).random((1000, len(order))) < certainty).astype(float))
    points = [
        CalibrationPoint(
            predicted=float(mean),
            observed=float(verdicts[part].mean()),
            interval=wilson(int(verdicts[part].sum()), len(part)),
            n=len(part),
        )
        for mean, part in zip(predicted, parts, strict=True)
    ]
    by_chance = (float(chance.mean()), float(np.quantile(chance, 0.95)))
    return Calibration(points, float(error(verdicts)), by_chance)


def slope(
    values: Sequence[float],
    by: Sequence[float],
    controls: Sequence[Sequence[float]] = (),
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, tuple[float, float]]:
    """
    Slope of a least-squares line with an intercept, at equal controls, with a bootstrap interval over clusters.

    Args:
        values (`Sequence[float]`):
            Values of the dependent variable.
        by (`Sequence[float]`):
            Values of the variable whose slope is wanted.
        controls (`Sequence[Sequence[float]]`, *optional*):
            Further columns, each as long as `values`.
        clusters (`Sequence[Hashable]`, *optional*):
            Source of each value; whole sources are drawn.
        resamples (`int`, *optional*, defaults to `2000`):
            Bootstrap samples.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the resampling.

    Returns:
        `tuple[float, tuple[float, float]]`: the slope and its expanded 95 % percentile interval.

    Raises:
        ValueError: if `by` does not vary apart from the controls, or there are fewer than 2 clusters.
    """
    x = np.column_stack([by, *controls, np.ones(len(values))]).astype(float)
    y = np.asarray(values, dtype=float)
    if np.linalg.matrix_rank(x) < x.shape[1]:
        raise ValueError("the column whose slope is asked for does not vary apart from the others")
    numbers: dict[Hashable, int] = {}
    sources = [numbers.setdefault(cluster, len(numbers)) for cluster in (clusters or range(len(y)))]
    if len(numbers) < 2:
        raise ValueError("1 cluster: the spread of a slope needs at least 2")
    # Normal equations X'X b = X'y as sums over sources: a bootstrap sample of sources only adds them up again.
    squares = np.zeros((len(numbers), x.shape[1], x.shape[1]))
    products = np.zeros((len(numbers), x.shape[1]))
    np.add.at(squares, sources, x[:, :, None] * x[:, None, :])
    np.add.at(products, sources, x * y[:, None])
    draws = np.random.default_rng(seed).multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), resamples)
    # The pseudo-inverse, as a resample without variation in `by` must not end the evaluation.
    a, b = np.einsum("rg,gij->rij", draws, squares), draws @ products
    drawn = (np.linalg.pinv(a, hermitian=True) @ b[:, :, None])[:, 0, 0]
    return float(np.linalg.lstsq(x, y)[0][0]), expanded_percentiles(drawn, len(numbers), 0.95)
