"""Progress of a program: for people in words, and for the pipeline that started it a line of JSON per event."""

import json
import os
from typing import Any

from schoolhouse.core.escape import one_line


# Set by a pipeline: the file that events are appended to.
PROGRESS_FILE = "SCHOOLHOUSE_PROGRESS"


def report_progress(what: str, step: int, of: int, metrics: dict[str, Any] | None = None) -> None:
    """
    Append an event to the file of the pipeline that started this program; without a pipeline do nothing.

    Args:
        what (`str`):
            The thing that is counted, such as `train` or the name of a task.
        step (`int`), of (`int`):
            Steps that are done, and all steps.
        metrics (`dict[str, Any]`, *optional*):
            Newest values that were logged.
    """
    if path := os.environ.get(PROGRESS_FILE):
        event = {"what": what, "step": step, "of": of, "metrics": metrics or {}}
        # One write of a short line in append mode arrives whole.
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(event, default=str) + "\n")


# Metrics that are shown, the most telling first, with their names for people. The log has all.
_SHOWN = {
    "reward": "reward",
    "loss": "loss",
    "eval_loss": "eval loss",
    "accuracy": "accuracy",
    "mean_token_accuracy": "token accuracy",
    "objective/kl": "KL",
    "kl": "KL",
    "frac_reward_zero_std": "groups without variance",
    "completions/mean_length": "length",
    "completions/clipped_ratio": "cut off",
    "entropy": "entropy",
    "learning_rate": "rate",
}


def metrics_line(metrics: dict[str, Any], most: int = 5) -> str:
    """Return the most telling of a trainer's metrics, by name."""
    found = [(name, metrics[key]) for key, name in _SHOWN.items() if key in metrics]
    if found and found[0][0] == "reward":  # the loss of a policy says nothing: its mean is near 0 by construction
        rewards = [(key.split("/")[1], value) for key, value in metrics.items() if _is_mean_of_a_reward(key)]
        found = [found[0], *(rewards if len(rewards) > 1 else ()), *(pair for pair in found[1:] if pair[0] != "loss")]
    return "  ".join(f"{name} {_figure(value)}" for name, value in found[:most])


def _is_mean_of_a_reward(key: str) -> bool:
    return key.startswith("rewards/") and key.endswith("/mean")


def _figure(value: Any) -> str:
    try:
        return f"{float(value):.4g}"
    except (TypeError, ValueError):
        return one_line(value, 20)


def clock(seconds: float) -> str:
    """Return seconds as `45 s`, `3:20 min` or `2:05 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02} min" if whole < 3600 else f"{whole // 3600}:{whole % 3600 // 60:02} h"
