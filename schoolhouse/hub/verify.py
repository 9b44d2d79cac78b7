"""Check whether the results that a model card claims can be measured again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from schoolhouse.config.yaml_file import parse_value
from schoolhouse.core.escape import one_line
from schoolhouse.evaluation.results import TaskResult, load_results
from schoolhouse.hub.model_card import BENCHMARKS


# Half the width of a 95 % interval beyond which a measurement of shares says nothing about a claim.
WIDEST = 0.1
# Share of the same items that may come out otherwise in another precision or on another device.
FLIPS = 0.02


class Verdict(StrEnum):
    """Outcome of measuring a claim again."""

    REPRODUCED = "reproduced"
    DIFFERS = "differs"
    UNKNOWN = "cannot tell"


def read_claims(folder: Path, stage: str = "") -> dict[str, TaskResult]:
    """
    Return what a downloaded repository claims of a stage, by task; empty where nothing is claimed.

    `ValueError` for a file of another form, or `.eval_results` that say something else than results.json.
    """
    claims: dict[str, TaskResult] = {}
    published = {}
    try:
        if (folder / stage / "results.json").is_file():
            claims = load_results(folder / stage).tasks
        for path in sorted((folder / ".eval_results").glob("*.yaml")):
            place, _, task = path.stem.rpartition("-")
            if place == stage:
                published[task] = parse_value(path.read_text(encoding="utf-8"))[0]["value"]
        differing = [task for task, value in published.items() if not _is_claim(task, value, claims[task])]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        told = one_line(error)
        raise ValueError(f"results.json or .eval_results is not of the form that is pushed: {told}") from None
    if differing:
        task = differing[0]
        told = f"{one_line(published[task])} of {one_line(task)}"
        raise ValueError(f".eval_results says {told}, results.json something else")
    return claims


def _is_claim(task: str, published: float, claim: TaskResult) -> bool:
    """Check a published value, on the benchmark's scale (earlier versions wrote the share of right answers itself)."""
    scales = {1, BENCHMARKS[task][2]} if task in BENCHMARKS else {1}
    return claim.value is not None and any(
        math.isclose(published, scale * claim.value, abs_tol=1e-4) for scale in scales
    )


def check_claim(claimed: TaskResult, found: TaskResult) -> tuple[Verdict, str]:
    """
    Compare a claimed result of one task with one that was measured now, perhaps on fewer items, and say why.

    On all the items of the claim only rounding may make a difference. On fewer items the difference has an interval:
    Newcombe's hybrid score interval (Newcombe, 1998, Statistics in Medicine 17, method 10). Its lower arm is the root
    of the summed squares of the measurement's lower and the claim's upper arm, and its upper arm the other way round.
    """
    numbers = f"claimed {_number(claimed)}, measured {_number(found)}"
    if claimed.version != found.version:
        told = f"the claim is of version {claimed.version} of the task, here is version {found.version}"
        return Verdict.UNKNOWN, told
    if claimed.value is None or found.value is None or not claimed.interval:
        return Verdict.UNKNOWN, f"{numbers}: no value, or no interval"
    claimed_low, claimed_high = claimed.interval
    if not claimed_low - 1e-9 <= claimed.value <= claimed_high + 1e-9:
        return Verdict.DIFFERS, f"{numbers}: the claim lies outside its own interval"
    difference = found.value - claimed.value
    if found.n == claimed.n:
        allowed = max(FLIPS, 2 / found.n)  # always at least two items
        if abs(difference) > allowed:
            return Verdict.DIFFERS, f"{numbers}: on the same items at most {allowed:.3f} is rounding"
        return (Verdict.REPRODUCED, numbers) if found.n >= 10 else (Verdict.UNKNOWN, f"{numbers}: n too small")
    if not found.interval:
        return Verdict.UNKNOWN, f"{numbers}: n too small"
    low, high = found.interval
    below = difference - math.hypot(found.value - low, claimed_high - claimed.value)
    above = difference + math.hypot(high - found.value, claimed.value - claimed_low)
    numbers += f", difference {below:+.3f} to {above:+.3f}"
    if below > 0 or above < 0:
        return Verdict.DIFFERS, numbers
    # Bits per byte have no range from 0 to 1: their interval is measured relative to the claim.
    scale = 1 if found.higher_is_better else abs(claimed.value)
    is_wide = (high - low) / 2 > WIDEST * scale
    return (Verdict.UNKNOWN, f"{numbers}: n too small") if is_wide else (Verdict.REPRODUCED, numbers)


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """Return one verdict for several tasks: `DIFFERS` if any does, `REPRODUCED` if all are."""
    if Verdict.DIFFERS in verdicts:
        return Verdict.DIFFERS
    return Verdict.REPRODUCED if verdicts and set(verdicts) == {Verdict.REPRODUCED} else Verdict.UNKNOWN


def _number(claim: TaskResult) -> str:
    if claim.value is None:
        return "nothing"
    interval = f" ({claim.interval[0]:.3f} to {claim.interval[1]:.3f})" if claim.interval else ""
    return f"{claim.value:.3f}{interval} with n={claim.n}"
