"""Over-optimization of a proxy reward: where along a run a gold reward, never optimised, stops rising."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


LEAST_POINTS = 8  # with fewer, the two halves that check each other are too short to be smoothed


@dataclass(frozen=True)
class TurningPoint:
    """
    Peak of a gold reward along a run, and the fall after it.

    Args:
        index (`int`):
            Index of the peak in the series.
        kl (`float`):
            KL divergence from the reference policy at the peak, in nats per sequence.
        gold (`float`):
            Gold reward at the peak, smoothed.
        kl_interval (`tuple[float, float]`):
            Interval of the peak's KL.
        final_minus_peak (`float`):
            Gold reward at the end minus that at the peak: near 0 where it only rose, negative where it turned over.
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
    Find the peak of a gold reward along a run, and estimate the fall after it without selection bias.

    The reward is smoothed along the run by locally quadratic regression (Cleveland 1979, "Robust locally weighted
    regression", without the robustness). The highest of many noisy values is too high, so a fall from it would always
    be found. Here every second point chooses the peak and the others measure it, both ways, and the two estimates are
    averaged. The intervals are a bootstrap of the residuals; that of the fall is the basic one
    ($2\hat\theta - \theta^*$), which corrects the bias of the smoothing. Turns within fewer than about five points are
    smoothed away, so log often where the turn matters. Gao et al. 2023, "Scaling laws for reward model
    overoptimization", show such curves.

    Args:
        kl (`Sequence[float]`):
            KL divergence of each point in the order of training, in nats per sequence.
        gold (`Sequence[float]`):
            Mean gold reward of each point.
        confidence (`float`, *optional*, defaults to `0.95`):
            Share of such intervals that contain the true value.
        resamples (`int`, *optional*, defaults to `2000`):
            Bootstrap samples.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the resampling.

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
        """Final minus peak of each row of (R, n), cross-fitted: (R,)."""
        first, second = (series @ half.T for half in halves)
        rows = np.arange(len(series))
        one = second[:, -1] - second[rows, first.argmax(axis=1)]
        other = first[:, -1] - first[rows, second.argmax(axis=1)]
        return (one + other) / 2

    # A smoothed value contains its own point, so residuals are too small. The leverage (diagonal) says by how much.
    residuals = (score - smooth) / np.sqrt(1 - np.diag(smoother).clip(max=0.9))
    drawn = np.random.default_rng(seed).choice(residuals - residuals.mean(), size=(resamples, n))
    series = smooth + drawn  # (R, n): runs as they might have been logged, with the smoothed curve as the truth
    tail = (1 - confidence) / 2
    peaks = divergence[(series @ smoother.T).argmax(axis=1)]
    estimate, truth = fall(score[None])[0], smooth[-1] - smooth.max()
    low, high = np.quantile(fall(series) - truth, [tail, 1 - tail])
    peak = int(smooth.argmax())
    return TurningPoint(
        index=peak,
        kl=float(divergence[peak]),
        gold=float(smooth[peak]),
        kl_interval=(float(np.quantile(peaks, tail)), float(np.quantile(peaks, 1 - tail))),
        final_minus_peak=float(estimate),
        final_minus_peak_interval=(float(estimate - high), float(estimate - low)),
    )


def _smoother(n: int, known: np.ndarray) -> np.ndarray:
    """
    Return the matrix (n, n) that smooths a series of n points from those in `known`: local quadratic fits, tricube
    weights.
    """
    width = min(len(known), max(5, round(0.6 * len(known))))
    matrix = np.zeros((n, n))
    # A fit is linear in the values, and its prediction at the centre is its constant term: one row of the matrix.
    for here in range(n):
        nearest = known[np.argsort(abs(known - here), kind="stable")[:width]]
        offsets = (nearest - here) / (abs(nearest - here).max() + 1)
        weights = np.sqrt((1 - abs(offsets) ** 3) ** 3)
        design = np.vander(offsets, 3, increasing=True)
        matrix[here, nearest] = np.linalg.pinv(design * weights[:, None])[0] * weights
    return matrix


def summarise_run(points: Sequence[Mapping[str, float]]) -> dict[str, dict[str, object] | None]:
    """
    Return the turning point of a run's logged points (`step`, `kl` and `gold`, in the order of training), as
    `overoptimization.json` holds it.

    These are `peak` (`step`, `kl`, `gold`, `interval` of the KL) and `final_minus_peak` (`value`, `interval`). With
    fewer than [`LEAST_POINTS`] points the peak is the highest point and nothing has an interval; without points both
    are `None`.
    """
    if not points:
        return {"peak": None, "final_minus_peak": None}
    if len(points) < LEAST_POINTS:
        best = max(points, key=lambda point: point["gold"])
        peak: dict[str, object] = {name: best[name] for name in ("step", "kl", "gold")}
        return {"peak": peak | {"interval": None}, "final_minus_peak": None}
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
