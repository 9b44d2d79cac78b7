"""Thoughts, `<think>…</think>`, are no part of a response, for all who read the response only."""

import pytest
from transformers import AutoTokenizer

from schoolhouse.config.paths import shipped
from schoolhouse.core.chat_templates import opened_thought
from schoolhouse.core.escape import response_of
from schoolhouse.core.generation import Sample, Sampling, render
from schoolhouse.evaluation.results import EvalSample
from schoolhouse.evaluation.tasks.items import Item
from schoolhouse.evaluation.tasks.kinds import GenerateTask
from schoolhouse.evaluation.tasks.spec import GenerationPlan, LoadedModel
from schoolhouse.graders import grade_many
from schoolhouse.graders.instructions import check_instructions, check_instructions_loose
from schoolhouse.graders.program import extract_program
from schoolhouse.report.audit import has_exit
from schoolhouse.rewards.base import Batch


@pytest.mark.parametrize(
    ("completion", "response"),
    [
        ("no thought\nat all\n", "no thought\nat all\n"),
        ("<think>a thought</think>\n\nthe answer", "the answer"),
        ("opened by the prompt</think>the answer", "the answer"),
        ("\nopened\n</think>\n<think>again</think>\nthe answer", "the answer"),
        ("<think>one</think>First. <think>two</think>\nSecond.", "First. Second."),
        ("First.\n<think>a second thought", "First.\n"),
        ("<think>never ended", ""),
        ("<think>ended</think>", ""),
        ("<think></think>", ""),
        ("<think>9<think>8</think>7</think>the answer", "the answer"),
        ("a</think>b</think>the answer", "the answer"),
        ("</think>", ""),
        ("", ""),
    ],
)
def test_a_response_is_what_stands_outside_of_thoughts(completion, response):
    assert response_of(completion) == response


@pytest.mark.parametrize(
    ("completion", "kind", "arguments", "follows"),
    [
        ("<think>They want few words, so I shall be short.</think>\nOnly two", "words", (3, "less than"), True),
        ("<think>one two three four</think>", "words", (3, "at least"), False),
        ("they want few words</think>Only two", "words", (3, "less than"), True),
        ("<think>so many many words</think>two words", "words", (3, "at least"), False),
        ("<think>Well, no commas.</think>\n\nNone here.", "comma", None, True),
        ("<think>Well</think>One, here.", "comma", None, False),
        ("<think>Well, then</think>None <think>so, far</think>here", "comma", None, True),
        ("<think>no commas, or none", "comma", None, False),  # an empty response follows nothing
        ('<think>quotes?</think>\n"all of it"', "quotation", None, True),
        ("<think>\nquotes\n</think>\nSure:\n<<A title>>", "title", None, True),
        ("<think><<A title>></think>text", "title", None, False),
    ],
)
def test_instructions_are_checked_in_the_response(completion, kind, arguments, follows):
    kind = {
        "words": "length_constraints:number_words",
        "comma": "punctuation:no_comma",
        "quotation": "startend:quotation",
        "title": "detectable_format:title",
    }[kind]
    given = {"num_words": arguments[0], "relation": arguments[1]} if arguments else {}
    assert check_instructions(completion, [kind], [given]) == [follows]
    assert check_instructions_loose(completion, [kind], [given]) == [follows]


def test_the_loose_reading_leaves_out_the_first_line_of_the_response():
    completion = "<think>so, then</think>\n\nSure, here:\nno commas"
    assert check_instructions(completion, ["punctuation:no_comma"], [{}]) == [False]
    assert check_instructions_loose(completion, ["punctuation:no_comma"], [{}]) == [True]


def task(scorer):
    return GenerateTask(version=1, description="d", rows="r", prompt="p", scorer=scorer)


def test_scorers_read_the_response():
    def verdict(scorer, completion, reference="Paris"):
        (score,) = task(scorer).score([completion], [Item(id="1", prompt="p", reference=reference, row={})])
        return score["correct"]

    assert verdict("exact", "<think>Rome? No.</think>\nParis")
    assert not verdict("exact", "<think>Paris")
    assert not verdict("contains", "<think>Paris or Rome</think>Rome")
    assert not verdict("contains", "Paris or Rome</think>Rome")
    assert not verdict("contains", "<think>Rome, Paris")
    assert verdict("tiny_fact", "<think>red or blue</think>red", "red")


def test_a_final_answer_and_a_program_may_stand_between_thoughts():
    (grade,) = grade_many(["<think>6?</think>The answer is 5. <think>Is it?</think> Yes."], ["5"])
    assert grade.correct
    program = "def double(x):\n    return 2 * x"
    completion = f"<think>hm</think>```python\n{program}\n```\n<think>done?</think>"
    assert extract_program(completion, None, "double").strip() == program


def test_rewards_that_judge_text_get_the_response():
    batch = Batch(
        ["q"] * 2, ["<think>kind</think>rude", [{"role": "assistant", "content": "x</think>y"}]], [[]] * 2, {}
    )
    assert batch.responses == ["rude", "y"]
    assert batch.texts == ["<think>kind</think>rude", "x</think>y"]


def test_the_audit_looks_for_tricks_in_the_program_that_ran():
    tricks = "if x == 1: os._exit(0)\n"
    thought, written = (
        EvalSample(id="1", index=0, prompt="p", reference="", correct=True, metrics={}, completion=text)
        for text in (f"<think>{tricks}</think>def f(x): return 2 * x", f"<think>hm</think>def f(x):\n{tricks}")
    )
    assert not has_exit(thought)
    assert has_exit(written)


def test_a_thought_that_the_prompt_opened_and_nothing_ended_is_no_response():
    tokenizer = AutoTokenizer.from_pretrained(shipped("data/tiny/base"))
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<think>\n{% endif %}"
    )
    items = [Item(id="1", prompt=[{"role": "user", "content": "Which town?"}], reference="Paris", row={})]
    plan = GenerationPlan([render(tokenizer, items[0].prompt)], Sampling(), num_samples=2)
    drawn = [Sample("Paris or", 4, "length"), Sample("or Rome?</think>Paris", 9, "stop")]
    cut, ended = task("contains").ask(LoadedModel(None, tokenizer, 1, lambda plan: drawn), items, plan)
    assert (cut.completion, cut.correct) == ("<think>\nParis or", False)
    assert (ended.completion, ended.correct) == ("<think>\nor Rome?</think>Paris", True)
    asked = [{"role": "user", "content": "What does <think> mean?"}]
    assert opened_thought(tokenizer, tokenizer(asked[0]["content"])["input_ids"]) == ""
