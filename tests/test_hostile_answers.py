"""Hostile answers: none is paid, none hangs the grader, none is left out."""

import itertools
import time

import pytest
from hostile_answers import BOXED, COMPLETIONS, HOSTILE
from test_grader_pool import cpu_seconds, on_linux, servers

from schoolhouse.evaluation.results import EvalSample
from schoolhouse.evaluation.summary import summarise
from schoolhouse.evaluation.tasks import Item, load_task
from schoolhouse.graders import grade_many
from schoolhouse.rewards import Cosine, Format, Math


REFERENCES = [
    "72",
    "x^2 + 1",
    r"\sqrt{7}",
    "(1, 2)",
    "Monday",
    r"\frac{1}{3}",
    r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
]
RIGHT = [("72", "#### 72"), (r"2\sqrt{3}", r"\boxed{\sqrt{12}}"), ("x^2 + 2x + 1", r"\boxed{(x+1)^2}")]


def test_no_hostile_answer_is_paid_or_left_out_and_none_spoils_a_right_one():
    # Computer algebra is asked where the reference is a number or an expression.
    asked = list(zip(BOXED, itertools.cycle(REFERENCES[:2])))
    asked += zip(COMPLETIONS, itertools.cycle(REFERENCES))
    pairs = [(reference, f"\\boxed{{{answer}}}" if answer in BOXED else answer) for answer, reference in asked]
    pairs = [pair for hostile, right in zip(pairs, itertools.cycle(RIGHT)) for pair in (hostile, right)]
    references, answers = zip(*pairs, strict=True)
    grades = grade_many(answers, references, timeout_s=0.15)
    verdicts = [grade.correct for grade in grades]
    assert len(HOSTILE) >= 100 and verdicts == [False, True] * len(HOSTILE)
    assert {grade.failure for grade in grades} >= {None, "timeout", "error"}


@pytest.mark.evidence
@pytest.mark.parametrize("reference", REFERENCES)
def test_no_hostile_answer_is_paid_or_left_out_whatever_the_reference(reference):
    for answer in HOSTILE:
        began = time.process_time()
        (grade,) = grade_many([answer], [reference])
        assert grade.correct is False, answer[:100]
        assert time.process_time() - began < 3, answer[:100]


def test_texts_of_a_million_characters_are_read_in_no_time():
    for text in COMPLETIONS:
        began = time.process_time()
        grade_many([text], ["72"])
        assert time.process_time() - began < 3, text[:100]  # 0.6 s at most; quadratic reading would take hours


# Its exception leaves the answer without a value at once; the other one computes until it is stopped.
RAISES, COMPUTES = "#### ((10^{3})!)!", "#### (10^{8})!"


def test_answers_that_cannot_be_evaluated_are_wrong_in_the_results():
    items = [Item(str(number), "?", str(number + 70)) for number in range(20)]
    answers = [f"#### {item.reference}" for item in items[:6]] + [RAISES] * 13 + [COMPUTES]
    task = load_task("tiny_arithmetic")
    samples = [
        EvalSample(id=item.id, prompt="?", reference=item.reference, completion=answer, **score)
        for item, answer, score in zip(items, answers, task.score(answers, items), strict=True)
    ]
    result = summarise(task, samples)
    assert (result.n, result.value, result.metrics["ungraded"]) == (20, 0.3, 0)
    reasons = [sample.metrics.get("failure") for sample in samples]
    assert reasons == [None] * 6 + ["error"] * 13 + ["timeout"]


def test_answers_that_cannot_be_evaluated_are_rewarded_as_wrong_ones():
    texts = ["#### 72", "#### 71", RAISES, COMPUTES]
    told = {"prompts": [""] * 4, "completions": texts, "completion_ids": [[0]] * 4, "answer": ["72"] * 4}
    assert Math()(**told) == [1, 0, 0, 0]
    right, *wrong = Cosine(10)(**told)
    assert right > 0 > wrong[0] and wrong == [wrong[0]] * 3


def test_the_form_of_an_answer_is_read_without_evaluating_it(monkeypatch):
    monkeypatch.setattr("schoolhouse.graders.pool.same_value", lambda *_: pytest.fail("the answer was evaluated"))
    texts = [COMPUTES, r"\boxed{(10^8)!}"]
    told = {"prompts": [""] * 2, "completions": texts, "completion_ids": [[0]] * 2, "answer": ["72"] * 2}
    assert Format()(**told) == [1, 0]


@on_linux
def test_one_hanging_answer_costs_its_batch_its_own_limit():
    references, answers = zip(*RIGHT * 20, strict=True)
    grade_many(answers, references, timeout_s=1.001)

    def cost(*more: str) -> float:
        """Seconds of processor time of server and workers. Verdicts are kept by limit: a new one asks again."""
        before = cpu_seconds(servers()[0])
        grades = grade_many([*answers, *more], [*references, *["72"] * len(more)], timeout_s=1 + len(more) / 1000)
        assert [one.correct for one in grades] == [True] * 60 + [False] * len(more)
        return cpu_seconds(servers()[0]) - before

    assert cost(COMPUTES, RAISES) - cost() < 1.5
