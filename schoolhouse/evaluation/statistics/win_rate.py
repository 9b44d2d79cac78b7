"""Win rates of two models' answers to the same items by a score, plain and at equal length."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from schoolhouse.evaluation.statistics.intervals import bootstrap_mean, expanded_percentiles


@dataclass(frozen=True)
class WinRate:
    """
    Share of comparisons in which the second model's answer is the better one; a tie is half a win.

    Args:
        n (`int`):
            Items.
        value (`float`):
            Mean over the items of the share of pairs of answers won.
        interval (`tuple[float, float]`):
            Interval of `value`.
        length_controlled (`float`):
            Share that would be won at equal length.
        length_controlled_interval (`tuple[float, float]`):
            Interval of `length_controlled`.
    """

    n: int
    value: float
    interval: tuple[float, float]
    length_controlled: float
    length_controlled_interval: tuple[float, float]


def win_rate(
    before: Sequence[Sequence[float]],
    after: Sequence[Sequence[float]],
    lengths_before: Sequence[Sequence[float]],
    lengths_after: Sequence[Sequence[float]],
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
) -> WinRate:
    r"""
    Compare two models' answers to the same items by their scores, every answer with every other one of its item.

    Length control follows the idea of Dubois et al. 2024, "Length-controlled AlpacaEval": a logistic regression
    $P(\text{win}) = \sigma(a + b \cdot d)$ on the difference $d$ of the lengths, in units of its standard deviation,
    evaluated at $d = 0$. A weak prior (normal, standard deviation 5) keeps the coefficients finite where one model
    wins everything. Both intervals draw whole items: the answers to one question are not independent.

    Args:
        before (`Sequence[Sequence[float]]`):
            The first model's scores: for each item those of its answers.
        after (`Sequence[Sequence[float]]`):
            The second model's, in the same order of items.
        lengths_before (`Sequence[Sequence[float]]`), lengths_after (`Sequence[Sequence[float]]`):
            Lengths of the answers, in any unit.
        confidence (`float`, *optional*, defaults to `0.95`):
            Share of such intervals that contain the true value.
        resamples (`int`, *optional*, defaults to `1000`):
            Bootstrap samples of the length-controlled rate.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the resampling.
        clusters (`Sequence[Hashable]`, *optional*):
            Source of each item; whole sources are then drawn.

    Returns:
        [`WinRate`]: plain and length-controlled.

    Raises:
        ValueError: if the items or the numbers of scores and lengths differ, or there are fewer than 2 items.
    """
    sides = {"after": after, "lengths_before": lengths_before, "lengths_after": lengths_after}
    for name, side in sides.items():
        if len(side) != len(before):
            raise ValueError(f"before has {len(before)} items and {name} {len(side)}: both answer the same items")
    wins, differences, items = [], [], []
    for item, (old, new, old_lengths, new_lengths) in enumerate(
        zip(before, after, lengths_before, lengths_after, strict=True)
    ):
        if not len(old) == len(old_lengths) > 0 or not len(new) == len(new_lengths) > 0:
            raise ValueError(f"item {item} needs at least one answer on each side, and a length for each score")
        # (new answers x old answers,): every answer against every other one.
        margin = np.subtract.outer(np.asarray(new, dtype=float), np.asarray(old, dtype=float)).ravel()
        wins.append(np.where(margin == 0, 0.5, margin > 0))
        differences.append(np.subtract.outer(np.asarray(new_lengths), np.asarray(old_lengths)).ravel())
        items.append(np.full(margin.size, item))
    values = [float(item.mean()) for item in wins]
    names = list(range(len(values)) if clusters is None else clusters)
    sources = np.unique([str(name) for name in names], return_inverse=True)[1]
    groups = int(sources.max()) + 1

    won, item_of = np.concatenate(wins), np.concatenate(items)
    length = np.concatenate(differences).astype(float)
    length = length / (length.std() or 1.0)
    share = 1 / np.bincount(item_of)[item_of]  # each item counts once, however many answers it has
    # A bootstrap sample of clusters is a weight for each pair: how often its cluster was drawn. Many regressions are
    # then solved at once, one for each row of weights.
    rng = np.random.default_rng(seed)
    rates = np.empty(resamples)
    chunk = max(1, 2_000_000 // len(won))
    for start in range(0, resamples, chunk):
        draws = rng.multinomial(groups, np.full(groups, 1 / groups), size=min(chunk, resamples - start))
        rates[start : start + chunk] = _at_equal_length(won, length, draws[:, sources[item_of]] * share)
    return WinRate(
        n=len(values),
        value=float(np.mean(values)),
        interval=bootstrap_mean(values, confidence, seed=seed, clusters=names),
        length_controlled=float(_at_equal_length(won, length, share[None])[0]),
        length_controlled_interval=expanded_percentiles(rates, groups, confidence),
    )


def _at_equal_length(won: np.ndarray, length: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Win rates (R,) at length difference 0: logistic regressions of `won` (P,) on `length` (P,), weighted (R, P)."""
    design = np.stack([np.ones_like(length), length], axis=1)
    coefficients = np.zeros((len(weights), 2))
    prior = np.eye(2) / 5.0**2
    for _ in range(30):  # Newton's method on a concave function
        probability = 1 / (1 + np.exp(-(coefficients @ design.T).clip(-30, 30)))
        gradient = (weights * (won - probability)) @ design - coefficients @ prior
        curvature = (
            np.einsum("rp,pi,pj->rij", weights * probability * (1 - probability), design, design, optimize=True)
            + prior
        )
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        coefficients += step.clip(-2, 2)
        if abs(step).max() < 1e-8:
            break
    return stats.logistic.cdf(coefficients[:, 0])
