"""When a measure becomes a target: where optimising a proxy stops helping, and who wins by the judge that counts."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from schoolhouse.evaluation.statistics.intervals import bootstrap_mean, expanded_percentiles


LEAST_POINTS = 8  # below them the two halves that check each other are too short to be smoothed


@dataclass(frozen=True)
class TurningPoint:
    """
    Where a gold score stopped rising along a run, and what optimising on from there cost.

    Args:
        index (`int`):
            The peak's place in the series.
        kl (`float`):
            KL divergence from the reference there, in nats per sequence.
        gold (`float`):
            Gold score there, smoothed.
        kl_interval (`tuple[float, float]`):
            Interval of the peak's KL.
        final_minus_peak (`float`):
            Gold at the end minus gold at the peak: near 0 where it only rose, below it where it turned over.
        final_minus_peak_interval (`tuple[float, float]`):
            Its interval.
    """

    index: int
    kl: float
    gold: float
    kl_interval: tuple[float, float]
    final_minus_peak: float
    final_minus_peak_interval: tuple[float, float]


def turning_point(
    kl: Sequence[float], gold: Sequence[float], confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> TurningPoint:
    r"""
    Find the peak of a gold score along a run, and measure the fall behind it without the luck of the draw.

    Gold is smoothed along the run by locally quadratic regression (Cleveland 1979, "Robust locally weighted
    regression", without the robustness). The highest of many noisy values is too high, so the fall would always look
    real: here every second point chooses the peak and the others measure it, both ways, and the two are averaged. The
    intervals are a bootstrap of the residuals; that of the fall is of the basic kind ($2\hat\theta - \theta^*$), which
    undoes what smoothing adds. Turns within fewer than some five points are smoothed away: a run that is to be judged
    closely is logged often.

    Args:
        kl (`Sequence[float]`):
            KL divergence of each point in the order of training, in nats per sequence.
        gold (`Sequence[float]`):
            Mean gold score of each point.
        confidence (`float`, *optional*, defaults to `0.95`):
            Of the intervals.
        resamples (`int`, *optional*, defaults to `2000`):
            Bootstrap samples.
        seed (`int`, *optional*, defaults to `0`):
            Of the resampling.

    Returns:
        [`TurningPoint`]: the peak and the fall.

    Raises:
        ValueError: if the lengths differ, there are fewer than [`LEAST_POINTS`] points, or one is not finite.
    """
    divergence, score = np.asarray(kl, dtype=float), np.asarray(gold, dtype=float)
    n = len(score)
    if len(divergence) != n:
        raise ValueError(f"kl has {len(divergence)} points and gold {n}: both come from the same steps")
    if n < LEAST_POINTS:
        raise ValueError(f"{n} points: a turning point needs at least {LEAST_POINTS}; log more often or train on")
    if not (np.isfinite(divergence).all() and np.isfinite(score).all()):
        raise ValueError("kl or gold holds a missing or infinite value: drop such points")

    smoother = _smoother(n, np.arange(n))
    halves = [_smoother(n, np.arange(start, n, 2)) for start in (0, 1)]
    smooth = smoother @ score

    def fall(series: np.ndarray) -> np.ndarray:
        """Cross-fitted final minus peak of each row of (R, n)."""
        first, second = (series @ half.T for half in halves)
        rows = np.arange(len(series))
        falls = [
            judge[:, -1] - judge[rows, chooser.argmax(axis=1)] for chooser, judge in ((first, second), (second, first))
        ]
        return (falls[0] + falls[1]) / 2

    # A smoother follows its own points: their residuals are too small by what they weigh on themselves.
    residuals = (score - smooth) / np.sqrt(1 - np.diag(smoother).clip(max=0.9))
    drawn = np.random.default_rng(seed).choice(residuals - residuals.mean(), size=(resamples, n))
    series = smooth + drawn
    tail = (1 - confidence) / 2
    peaks = divergence[(series @ smoother.T).argmax(axis=1)]
    estimate, truth = fall(score[None])[0], smooth[-1] - smooth.max()
    low, high = np.quantile(fall(series) - truth, [tail, 1 - tail])
    peak = int(smooth.argmax())
    return TurningPoint(
        index=peak,
        kl=float(divergence[peak]),
        gold=float(smooth[peak]),
        kl_interval=tuple(map(float, np.quantile(peaks, [tail, 1 - tail]))),
        final_minus_peak=float(estimate),
        final_minus_peak_interval=(float(estimate - high), float(estimate - low)),
    )


def _smoother(n: int, known: np.ndarray) -> np.ndarray:
    """Matrix (n, n) that smooths a series of n points, reading only those in `known`."""
    width = min(len(known), max(5, round(0.6 * len(known))))
    matrix = np.zeros((n, n))
    for here in range(n):
        nearest = known[np.argsort(abs(known - here), kind="stable")[:width]]
        offsets = (nearest - here) / (abs(nearest - here).max() + 1)
        weights = np.sqrt((1 - abs(offsets) ** 3) ** 3)
        design = np.vander(offsets, 3, increasing=True)
        matrix[here, nearest] = np.linalg.pinv(design * weights[:, None])[0] * weights
    return matrix


def summarise_run(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """
    The turning point of a run's logged points, as `overoptimization.json` holds it.

    Args:
        points (`Sequence[dict]`):
            With `step`, `kl` and `gold`, in the order of training.

    Returns:
        `dict`: `peak` (`step`, `kl`, `gold`, `interval` of the KL) and `final_minus_peak` (`value`, `interval`). With
        fewer than [`LEAST_POINTS`] points the peak is the best point and nothing has an interval; with none both are
        `None`.
    """
    if not points:
        return {"peak": None, "final_minus_peak": None}
    if len(points) < LEAST_POINTS:
        best = max(points, key=lambda point: point["gold"])
        peak = {name: best[name] for name in ("step", "kl", "gold")} | {"interval": None}
        return {"peak": peak, "final_minus_peak": None}
    turn = turning_point([point["kl"] for point in points], [point["gold"] for point in points])
    return {
        "peak": {
            "step": points[turn.index]["step"],
            "kl": turn.kl,
            "gold": turn.gold,
            "interval": list(turn.kl_interval),
        },
        "final_minus_peak": {"value": turn.final_minus_peak, "interval": list(turn.final_minus_peak_interval)},
    }


@dataclass(frozen=True)
class WinRate:
    """
    How often the second model's answer is the better one, a tie being half a win.

    Args:
        n (`int`):
            Items.
        value (`float`):
            Mean over the items of the share of pairs won.
        interval (`tuple[float, float]`):
            Its interval.
        length_controlled (`float`):
            Share that would be won at equal length.
        length_controlled_interval (`tuple[float, float]`):
            Its interval.
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
    Compare two models' answers to the same items by a judge's scores, every answer with every other one of its item.

    Length control follows the idea of Dubois et al. 2024, "Length-controlled AlpacaEval": a logistic regression
    $P(\text{win}) = \sigma(a + b \cdot d)$ on the difference $d$ of the lengths in units of its deviation, read at
    $d = 0$. A weak prior (normal, deviation 5) keeps the coefficients finite where one model wins everything. Both
    intervals draw whole items: the answers to one question are not independent.

    Args:
        before (`Sequence[Sequence[float]]`):
            The first model's scores: for each item those of its answers.
        after (`Sequence[Sequence[float]]`):
            The second model's, in the same order of items.
        lengths_before (`Sequence[Sequence[float]]`), lengths_after (`Sequence[Sequence[float]]`):
            Lengths of the answers, in any unit.
        confidence (`float`, *optional*, defaults to `0.95`):
            Of the intervals.
        resamples (`int`, *optional*, defaults to `1000`):
            Bootstrap samples of the length-controlled rate.
        seed (`int`, *optional*, defaults to `0`):
            Of the resampling.
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
    """Logistic regressions of `won` (P,) on `length` (P,), one for each row of weights (R, P), read at 0: (R,)."""
    design = np.stack([np.ones_like(length), length], axis=1)
    coefficients = np.zeros((len(weights), 2))
    prior = np.eye(2) / 5.0**2
    for _ in range(30):  # Newton's method on a concave function
        chance = 1 / (1 + np.exp(-(coefficients @ design.T).clip(-30, 30)))
        gradient = (weights * (won - chance)) @ design - coefficients @ prior
        curvature = np.einsum("rp,pi,pj->rij", weights * chance * (1 - chance), design, design, optimize=True) + prior
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        coefficients += step.clip(-2, 2)
        if abs(step).max() < 1e-8:
            break
    return stats.logistic.cdf(coefficients[:, 0])
