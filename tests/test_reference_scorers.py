"""`score_as` against lm-eval's and math-verify's own code, and against GSM8K's published rule."""

import random
import sys
import types
from functools import partial
from pathlib import Path

import pytest

from schoolhouse.graders import LM_EVAL_STOP, REFERENCE_SCORERS, score_as


NUMBERS = ["18", "1,234", "0", "-7", "72.50", "5", "1000000", "3"]

WORDINGS = [
    *(
        "#### {}",
        "#### {}.",
        "#### {}..",
        "####{}",
        "####  {}",
        "#### ${}",
        "#### {} dollars",
        "#### {}.00",
        "### {}",
        "#### **{}**",
    ),
    *(
        "**{}**",
        "$\\boxed{{{}}}$.",
        "\\boxed{{{}}}",
        "The answer is {}.",
        "The answer is ${}.",
        "Answer: {}",
        "{}",
        "{}.",
    ),
    *("{},", "-{}", "#### -{}", "= {}", "={}eggs", "#### {}\n#### 99", "#### 99\n#### {}", "#### {} #### 99"),
    *("#### {}\n\nI hope this helps!", "#### {}\nThere are 2 ways to see it.", "#### {}<|im_end|>", "#### {}</s>"),
    *(
        "#### {}\n\nQuestion: 2 + 2?\nAnswer: #### 4",
        "{}\n\nQuestion: Tom has 5 apples.",
        "#### {}%",
        "{}%",
        "#### .5{}",
    ),
    *(
        "9 * 2 = <<9*2={0}>>{0}\n#### {0}",
        "{} or 99",
        "#### {},99",
        "#### {} \n",
        "\n\n#### {}\n",
        "#### \\${}",
        "￥{}",
    ),
    *("#### {}۳", "#### {}…", "no number", "", "#### ", "#### abc", "#### ,", "#### .", "#### -", "$", "[invalid]"),
]


def variations() -> list[tuple[str, str]]:
    random.seed(0)
    pairs = []
    for number in NUMBERS:
        for wording in WORDINGS:
            stated = random.choice([number, number, number.replace(",", ""), random.choice(NUMBERS)])
            reference = random.choice([number, f"She has {number} <<1+1=2>>of them.\n#### {number}"])
            pairs.append((wording.format(stated), reference))
            pairs.append((f"First 3 + 4 = 7. Then {wording.format(stated)}", reference))
    pieces = ["#### ", "####", "1", "23", ",", ".", "-", "$", " ", "\n", "x", "٣", "\x00", "[invalid]"]
    pairs += [
        ("".join(random.choices(pieces, k=random.randint(1, 8))), random.choice(["1", "23"])) for _ in range(500)
    ]
    return pairs


def lm_eval_scorers() -> dict:
    """Task gsm8k's filters and metric, configured by the file that lm-eval ships."""
    why = "lm-eval is not installed: pip install --no-deps -c constraints.txt lm_eval"
    package = pytest.importorskip("lm_eval", reason=why)
    try:
        import sacrebleu  # noqa: F401
    except ImportError:
        sys.modules["sacrebleu"] = types.ModuleType("sacrebleu")  # other metrics in the same file use it
    import yaml
    from lm_eval.api.metrics import exact_match_fn
    from lm_eval.filters import get_filter

    task = yaml.safe_load((Path(package.__file__).parent / "tasks/gsm8k/gsm8k.yaml").read_text())
    (metric,) = task["metric_list"]
    options = {key: metric[key] for key in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}

    def score(steps: list[dict], completion: str, reference: str) -> bool:
        responses = [[completion]]
        for step in steps:
            arguments = {key: value for key, value in step.items() if key != "function"}
            responses = list(get_filter(step["function"])(**arguments).apply(responses, [{}]))
        return bool(exact_match_fn(predictions=responses, references=[reference], **options)["exact_match"])

    scorers = {entry["name"]: partial(score, entry["filter"]) for entry in task["filter_list"]}
    return {"stop": tuple(task["generation_kwargs"]["until"]), "version": task["metadata"]["version"], **scorers}


def test_it_agrees_with_lm_eval_on_hundreds_of_variations():
    theirs = lm_eval_scorers()
    pairs = variations()
    assert len(set(pairs)) >= 500
    for ours, name in [("gsm8k/lm-eval-strict", "strict-match"), ("gsm8k/lm-eval-flexible", "flexible-extract")]:
        expected = [theirs[name](completion, reference) for completion, reference in pairs]
        assert 0.05 < sum(expected) / len(expected) < 0.9
        verdicts = score_as(ours, *zip(*pairs, strict=True))
        assert not [row for row in zip(pairs, verdicts, expected, strict=True) if row[1] is not row[2]]


def test_its_stop_strings_and_version_are_those_of_the_task_it_follows():
    theirs = lm_eval_scorers()
    assert theirs["stop"] == LM_EVAL_STOP and theirs["version"] == 3.0


@pytest.mark.parametrize(
    ("completion", "correct"),
    [
        ("#### 1234", True),
        ("#### 1,234", True),
        ("#### 1,234.", False),  # the rule keeps the period
        ("#### 1,234\n#### 99", True),  # and the first match
        ("#### 99\n#### 1,234", False),
        ("#### $1,234", False),
        ("####1234", False),
        ("The answer is 1234", False),
        ("[invalid]", False),
    ],
)
def test_official_scoring_is_the_published_rule(completion, correct):
    references = ["1234", "1,234", "She has 1234 of them.\n#### 1,234"]
    assert score_as("gsm8k/official", [completion] * 3, references) == [correct] * 3


def test_official_scoring_needs_a_number_in_the_reference():
    with pytest.raises(ValueError, match="needs a reference with a number, got 'Monday'"):
        score_as("gsm8k/official", ["#### 5"], ["Monday"])


def test_math_verify_scoring_is_its_default():
    from math_verify import parse, verify

    completions = [
        *("#### 18", "The answer is $18$.", "\\boxed{18}", "**18**", "18 dollars", "\\boxed{17}", "no number", ""),
        *("$\\frac{36}{2}$", "9 + 9", "#### 18\n#### 99", "It is \\boxed{18} or \\boxed{19}", "18%", "$18.0$"),
    ]
    theirs = [verify(parse("18"), parse(completion)) for completion in completions]
    assert len(set(theirs)) == 2
    references = ["9 * 2 = 18\n#### 18"] * len(completions)
    assert score_as("math-verify", completions, references) == theirs


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="'gsm8k/lm-eval' is unknown: use one of 'gsm8k/lm-eval-strict'"):
        score_as("gsm8k/lm-eval", ["#### 5"], ["5"])
    with pytest.raises(ValueError, match="1 completions came with 2 references"):
        score_as("gsm8k/official", ["#### 5"], ["5", "6"])
    names = {"gsm8k/lm-eval-strict", "gsm8k/lm-eval-flexible", "gsm8k/official", "math-verify"}
    assert set(REFERENCE_SCORERS) == names
