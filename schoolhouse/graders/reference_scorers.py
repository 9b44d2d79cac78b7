"""GSM8K answers scored as other projects score them, so that our numbers stand beside theirs.

`gsm8k/official`: `extract_answer` and `is_correct` of github.com/openai/grade-school-math. `gsm8k/lm-eval-strict` and
`gsm8k/lm-eval-flexible`: the filters `strict-match` and `flexible-extract` of task `gsm8k` version 3 of
lm-evaluation-harness, and its `exact_match` metric. `math-verify`: `verify(parse(gold), parse(completion))` of the
package of that name with its defaults, where gold is what follows `####`.

lm-eval never sees what a model writes after a stop string of its task: to compare `gsm8k/lm-eval-flexible`, which
reads the last number, with published figures, generate with [`LM_EVAL_STOP`].
"""

import re

from schoolhouse.graders import pool


LM_EVAL_STOP = ("Question:", "</s>", "<|im_end|>")
# math-verify gives itself five seconds for each of two parses and for the comparison.
MATH_VERIFY_TIMEOUT_S = 16.0

_FINAL = re.compile(r"#### (\-?[0-9\.\,]+)")
_ANY_NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = [re.compile(pattern) for pattern in (",", r"\$", r"(?s).*#### ", r"\.$")]
_INVALID = "[invalid]"


def _exact_match(prediction: str, gold: str) -> bool:
    for pattern in _IGNORED:
        prediction, gold = pattern.sub("", prediction), pattern.sub("", gold)
    return prediction.lower() == gold.lower()


def _lm_eval_strict(completion: str, gold: str) -> bool:
    found = _FINAL.search(completion)
    return _exact_match(found[1] if found else _INVALID, gold)


def _lm_eval_flexible(completion: str, gold: str) -> bool:
    numbers = _ANY_NUMBER.findall(completion)
    return _exact_match("".join(numbers[-1]) if numbers else _INVALID, gold)


def _official(completion: str, gold: str) -> bool:
    stated, expected = (_FINAL.search(text) for text in (completion, gold if "#### " in gold else f"#### {gold}"))
    if expected is None:
        raise ValueError(f"gsm8k/official needs a gold answer with a number, got {gold[:80]!r}")
    return stated is not None and stated[1].replace(",", "") == expected[1].replace(",", "")


def _math_verify(completion: str, gold: str) -> bool:
    verdict = pool.run("stock", [(gold.rpartition("####")[2].strip(), completion)], MATH_VERIFY_TIMEOUT_S)[0]
    return verdict is True


CONVENTIONS = {
    "gsm8k/lm-eval-strict": _lm_eval_strict,
    "gsm8k/lm-eval-flexible": _lm_eval_flexible,
    "gsm8k/official": _official,
    "math-verify": _math_verify,
}


def score_as(name: str, completion: str, gold: str) -> bool:
    """Scores a completion by another project's published rule.

    Args:
        name (`str`): `"gsm8k/lm-eval-strict"`, `"gsm8k/lm-eval-flexible"`, `"gsm8k/official"` or `"math-verify"`.
        completion (`str`): What a model generated.
        gold (`str`): The answer, or a whole GSM8K rationale ending in `#### N`.

    Returns:
        `bool`: That project's verdict.

    Raises:
        ValueError: For an unknown name.
    """
    if name not in CONVENTIONS:
        raise ValueError(f"scoring convention {name!r} is unknown: use one of {', '.join(map(repr, CONVENTIONS))}")
    return CONVENTIONS[name](completion, gold)
