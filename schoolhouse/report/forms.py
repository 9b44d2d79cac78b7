"""What a pipeline's files look like, so that a damaged one is named instead of met half-way through the card."""

import math
from typing import Any


def fault(value: Any, form: Any, where: str = "") -> str:
    """
    Hold a JSON value against a form.

    Args:
        value (`Any`):
            The value.
        form (`Any`):
            A type; `"number"`, which is finite; `{key: form}`, a key ending in `?` where it may be missing or `None`,
            in `!` where it may be `None`; `{"*": form}` for any keys; `[form]` for a list, `(form, form)` for one of
            that length; or a function that chooses the form by the value.
        where (`str`, *optional*):
            Where the value stands.

    Returns:
        `str`: what is wrong, in a few words; empty where nothing is.
    """
    here = where or "it"
    if form == "number":
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return "" if is_number else f"{here} is no number"
    if isinstance(form, type):
        return "" if isinstance(value, form) else f"{here} is no {form.__name__}"
    if callable(form):
        return fault(value, form(value), where)
    if isinstance(form, tuple):
        if not isinstance(value, list) or len(value) != len(form):
            return f"{here} is no list of {len(form)}"
        pairs = enumerate(zip(value, form, strict=True))
        return next(filter(None, (fault(*pair, f"{where}[{n}]") for n, pair in pairs)), "")
    if isinstance(form, list):
        if not isinstance(value, list):
            return f"{here} is no list"
        return next(filter(None, (fault(item, form[0], f"{where}[{n}]") for n, item in enumerate(value))), "")
    if not isinstance(value, dict):
        return f"{here} is no object"
    for key, inner in form.items():
        name = key.rstrip("?!")
        if key != "*" and not key.endswith("?") and name not in value:
            return f"{here} has no {name}"
        for found in value if key == "*" else [name]:
            if key != name and value.get(found) is None:
                continue
            if said := fault(value[found], inner, f"{where}.{found}".lstrip(".")):
                return said
    return ""


PAIR = ("number", "number")
ESTIMATE = {"n": int, "value!": "number", "standard_error!": "number", "interval!": PAIR}
CALIBRATION = {
    "points": [{"predicted": "number", "observed": "number", "interval?": PAIR}],
    "ece": "number",
    "ece_by_chance?": PAIR,
}
PREFERENCE = {
    "calibration?": CALIBRATION,
    "calibration_with_noisy_labels?": CALIBRATION,
    "length_bias?": {"sd_per_10_tokens": "number", "interval": PAIR},
    "batch_invariance?": "number",
}
TASK = ESTIMATE | {"version": int, "metrics": {"*": "number"}, "by_level": {"*": ESTIMATE}, "preference?": PREFERENCE}
RESULTS = {
    "tasks": {"*": TASK},
    "hashes": {"model": str, "adapter!": str, "chat_template!": str},
    "sampling": dict,
    "git?": dict,
}
_ANY_SAMPLE = {"id": str, "index": int, "prompt": object, "reference": object}
_JUDGED = _ANY_SAMPLE | {"correct!": bool, "metrics": {"utility?": "number"}, "scores?": PAIR}


def sample_form(line: Any) -> dict[str, Any]:
    """The form of a line of held-out text, of a completion, or of any other sample."""
    if isinstance(line, dict) and "bits" in line:
        return _ANY_SAMPLE | {"bits": "number", "bytes": int}
    is_completion = isinstance(line, dict) and "completion" in line
    return _JUDGED | ({"completion": str, "tokens": int, "right_in_any_form?": bool} if is_completion else {})


RUN = {"command?": list, "seconds?": "number", "git?": dict, "data?": [dict]}
GOODHART = {
    "points": [{"step": int, "kl?": "number", "gold?": "number", "proxy?": "number"}],
    "peak?": {"step": int, "kl": "number", "gold": "number", "interval?": PAIR},
    "final_minus_peak?": {"value": "number", "interval": PAIR},
    "stopped?": {"by": str, "step": int},
}
COURSE = {
    "name?": str,
    "stages": [{"name": str, "recipe?": str, "after?": str, "folder?": str, "eval?": str, "seconds?": "number"}],
}
