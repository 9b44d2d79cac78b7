"""Scores of GSM8K answers by other projects' rules, so that our numbers stand beside theirs.

- `gsm8k/official`: `extract_answer` and `is_correct` of github.com/openai/grade-school-math.
- `gsm8k/lm-eval-strict`, `gsm8k/lm-eval-flexible`: the filters `strict-match` and `flexible-extract` of task `gsm8k`
  version 3 of lm-evaluation-harness, with its `exact_match` metric.
- `math-verify`: `verify(parse(reference), parse(completion))` of that package with its defaults. The reference is what
  follows `####`.

lm-eval never sees what a model writes after a stop string of its task. To compare `gsm8k/lm-eval-flexible`, which
reads the last number, with published figures, generate with [`LM_EVAL_STOP`].
"""

import re
from collections.abc import Callable, Sequence

from schoolhouse.graders import pool


LM_EVAL_STOP = ("Question:", "</s>", "<|im_end|>")
# math-verify allows itself five seconds for each of two parses and for the comparison.
MATH_VERIFY_TIMEOUT_S = 16.0

_FINAL = re.compile(r"#### (\-?[0-9\.\,]+)")
_ANY_NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = [re.compile(pattern) for pattern in (",", r"\$", r"(?s).*#### ", r"\.$")]
_INVALID = "[invalid]"


def _exact_match(prediction: str, reference: str) -> bool:
    for pattern in _IGNORED:
        prediction, reference = pattern.sub("", prediction), pattern.sub("", reference)
    return prediction.lower() == reference.lower()


def _lm_eval_strict(completion: str, reference: str) -> bool:
    found = _FINAL.search(completion)
    return _exact_match(found[1] if found else _INVALID, reference)


def _lm_eval_flexible(completion: str, reference: str) -> bool:
    numbers = _ANY_NUMBER.findall(completion)
    return _exact_match("".join(numbers[-1]) if numbers else _INVALID, reference)


def _official(completion: str, reference: str) -> bool:
    expected = _FINAL.search(reference if "#### " in reference else f"#### {reference}")
    if expected is None:
        raise ValueError(f"gsm8k/official needs a reference with a number, got {reference[:80]!r}")
    stated = _FINAL.search(completion)
    return stated is not None and stated[1].replace(",", "") == expected[1].replace(",", "")


def _each(rule: Callable[[str, str], bool]) -> Callable[[Sequence[str], Sequence[str]], list[bool]]:
    return lambda completions, references: list(map(rule, completions, references))


def _math_verify(completions: Sequence[str], references: Sequence[str]) -> list[bool]:
    pairs = [
        (reference.rpartition("####")[2].strip(), completion)
        for completion, reference in zip(completions, references, strict=True)
    ]
    return [verdict is True for _, verdict in pool.run("math_verify_default", pairs, MATH_VERIFY_TIMEOUT_S)]


REFERENCE_SCORERS: dict[str, Callable[[Sequence[str], Sequence[str]], list[bool]]] = {
    "gsm8k/lm-eval-strict": _each(_lm_eval_strict),
    "gsm8k/lm-eval-flexible": _each(_lm_eval_flexible),
    "gsm8k/official": _each(_official),
    "math-verify": _math_verify,
}


def score_as(name: str, completions: Sequence[str], references: Sequence[str]) -> list[bool]:
    """
    Score completions by another project's published rule.

    Args:
        name (`str`): A key of `REFERENCE_SCORERS`.
        completions (`Sequence[str]`): Texts that a model generated.
        references (`Sequence[str]`): For each completion the answer, or a whole GSM8K solution ending in `#### N`.

    Raises:
        ValueError: If the name is unknown, the lists differ in length, or a reference has no number where the rule
            needs one.
    """
    if name not in REFERENCE_SCORERS:
        raise ValueError(f"reference scorer {name!r} is unknown: use one of {', '.join(map(repr, REFERENCE_SCORERS))}")
    if len(completions) != len(references):
        raise ValueError(f"{len(completions)} completions came with {len(references)} references: pass one each")
    return REFERENCE_SCORERS[name](completions, references)
