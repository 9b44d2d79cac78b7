"""Whether what a card claims can be measured again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from schoolhouse.core.escape import one_line
from schoolhouse.evaluation.results import read_results


# Half the width of a 95 % interval beyond which a measurement of shares says nothing about a claim.
WIDEST = 0.1
# Share of the same items that may come out otherwise in another precision or on another device.
FLIPS = 0.02

REPRODUCED, DIFFERS, UNKNOWN = "reproduced", "differs", "cannot tell"


def read_claims(folder: Path, stage: str = "") -> dict[str, dict[str, Any]]:
    """
    What a downloaded repository claims of a stage.

    Args:
        folder (`Path`):
            Downloaded repository.
        stage (`str`, *optional*):
            Sub-folder of the stage.

    Returns:
        `dict[str, dict]`: task -> its part of results.json; empty where nothing is claimed.

    Raises:
        ValueError: a file of another form, or `.eval_results` that say something else than results.json.
    """
    claims = read_results(folder / stage).get("tasks") if (folder / stage / "results.json").is_file() else {}
    published = {}
    try:
        for claim in claims.values():
            judge(claim, claim)
        for path in sorted((folder / ".eval_results").glob("*.yaml")):
            place, _, task = path.stem.rpartition("-")
            if place == stage:
                published[task] = yaml.safe_load(path.read_text(encoding="utf-8"))[0]["value"]
        differing = [task for task, value in published.items() if claims[task]["value"] != value]
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(
            f"results.json or .eval_results is not of the form that is pushed: {one_line(error)}"
        ) from None
    if differing:
        task = differing[0]
        raise ValueError(
            f".eval_results says {one_line(published[task])} of {one_line(task)}, results.json something else"
        )
    return claims


def judge(claimed: dict[str, Any], found: dict[str, Any]) -> tuple[str, str]:
    """
    Compare a claimed result of one task with one that was measured now.

    On all the items of the claim only rounding may make a difference. On fewer items the difference has an interval:
    Newcombe's, which puts together the two intervals' arms (Newcombe, 1998, Statistics in Medicine 17, method 10).

    Args:
        claimed (`dict[str, Any]`):
            A task of results.json.
        found (`dict[str, Any]`):
            The same task, measured again, perhaps on fewer items.

    Returns:
        `tuple[str, str]`: `"reproduced"`, `"differs"` or `"cannot tell"`, and why.
    """
    numbers = f"claimed {_number(claimed)}, measured {_number(found)}"
    if claimed["version"] != found["version"]:
        return UNKNOWN, f"the claim is of version {claimed['version']} of the task, here is version {found['version']}"
    if claimed["value"] is None or found["value"] is None or not claimed["interval"]:
        return UNKNOWN, f"{numbers}: no value, or no interval"
    if not claimed["interval"][0] - 1e-9 <= claimed["value"] <= claimed["interval"][1] + 1e-9:
        return DIFFERS, f"{numbers}: the claim lies outside its own interval"
    difference = found["value"] - claimed["value"]
    if found["n"] == claimed["n"]:
        allowed = max(FLIPS, 2 / found["n"])
        if abs(difference) > allowed:
            return DIFFERS, f"{numbers}: on the same items at most {allowed:.3f} is rounding"
        return (REPRODUCED, numbers) if found["n"] >= 10 else (UNKNOWN, f"{numbers}: n too small")
    if not found["interval"]:
        return UNKNOWN, f"{numbers}: n too small"
    (claimed_low, claimed_high), (low, high) = claimed["interval"], found["interval"]
    below = difference - math.hypot(found["value"] - low, claimed_high - claimed["value"])
    above = difference + math.hypot(high - found["value"], claimed["value"] - claimed_low)
    numbers += f", difference {below:+.3f} to {above:+.3f}"
    if below > 0 or above < 0:
        return DIFFERS, numbers
    scale = 1 if found["higher_is_better"] else abs(claimed["value"])
    return (UNKNOWN, f"{numbers}: n too small") if (high - low) / 2 > WIDEST * scale else (REPRODUCED, numbers)


def overall(verdicts: list[str]) -> str:
    """
    One verdict for several tasks.

    Args:
        verdicts (`list[str]`):
            Of the tasks.

    Returns:
        `str`: `"differs"` if any does, `"reproduced"` if all are.
    """
    if DIFFERS in verdicts:
        return DIFFERS
    return REPRODUCED if verdicts and set(verdicts) == {REPRODUCED} else UNKNOWN


def _number(task: dict[str, Any]) -> str:
    if task["value"] is None:
        return "nothing"
    interval = f" ({task['interval'][0]:.3f} to {task['interval'][1]:.3f})" if task["interval"] else ""
    return f"{task['value']:.3f}{interval} with n={task['n']}"
