"""The tiny world's data: right answers, known levels, and disjoint splits."""

import hashlib
import random
import re
from collections import Counter
from itertools import islice

import pytest

from schoolhouse.data import dataset_names, load_rows
from schoolhouse.data.tiny import arithmetic, conversations, programs
from schoolhouse.data.tiny.builders import DONT_KNOW, answer_about
from schoolhouse.data.tiny.corpus import EOS, cut, documents
from schoolhouse.data.tiny.splits import split_of
from schoolhouse.data.tiny.world import ATTRIBUTES, EXPOSURES, NEVER_READ, PEOPLE, people, prose, towns


def _value(expression):
    assert re.fullmatch(r"[\d+*-]+", expression)
    return eval(expression)


@pytest.mark.parametrize("make", [arithmetic.arithmetic, arithmetic.word_problem])
def test_every_link_of_a_worked_solution_has_the_same_value(make):
    rng = random.Random(1)
    for _ in range(2000):
        problem = make(rng)
        for step in problem.steps:
            assert len({_value(link) for link in step.split(" = ")}) == 1, problem
        assert problem.worked.endswith(f"\n#### {problem.answer}")
        assert problem.answer >= 0


def test_the_answer_to_an_expression_is_its_value():
    rng = random.Random(2)
    for _ in range(2000):
        problem = arithmetic.arithmetic(rng)
        assert _value(re.search(r"\d[\d+*-]*[+*-]\d+", problem.question)[0]) == problem.answer


def test_a_story_tells_every_number_of_its_solution():
    rng = random.Random(3)
    for _ in range(500):
        problem = arithmetic.word_problem(rng)
        told = re.findall(r"\d+", problem.question)
        assert len(told) == max(2, problem.level), problem
        assert len(problem.steps) == max(1, problem.level - 1)


def test_tests_accept_the_right_program_and_reject_one_without_its_first_step():
    rng, rejected, changed = random.Random(4), 0, 0
    for number in range(500):
        item = programs.program(rng, number % 5 + 1)
        for code, right in ((item.code, True), (re.sub(r"\n    .*", "", item.code, count=1), False)):
            namespace = {}
            try:
                exec(code, namespace)
                for test in item.tests + item.hidden_tests:
                    exec(test, namespace)
                passed = True
            except (AssertionError, SyntaxError, TypeError):
                passed = False
            if right:
                assert passed, item
            else:
                changed += 1
                rejected += not passed
    assert rejected / changed > 0.7  # some first steps change nothing: to sort before a sum


@pytest.mark.parametrize(
    "name",
    sorted(
        {name for name in dataset_names() if name.startswith("tiny/")}
        - {"tiny/facts", "tiny/descriptions", "tiny/preferences"}
    ),
)
def test_no_question_is_in_both_splits(name):
    def asked(split):
        rows = load_rows(name, split)
        return {row["prompt"][0]["content"] if "prompt" in row else row["text"] for row in rows}

    small_talk = {question for question, _ in conversations.SMALL_TALK}
    common = (asked("train") & asked("test")) - small_talk
    described = {f"Tell me about {person.name}." for person in people()}
    assert common - described == set()
    assert {text for text in common if "Tell me" not in text} == set()


@pytest.mark.parametrize("name", ["tiny/facts", "tiny/descriptions", "tiny/preferences"])
def test_nobody_is_asked_about_in_both_splits(name):
    def named(split):
        prompts = " ".join(row["prompt"][0]["content"] for row in load_rows(name, split))
        return {person.name for person in people() if person.name in prompts}

    assert named("train") and named("test")
    assert not named("train") & named("test")


def test_rewording_a_problem_does_not_move_it_to_the_other_split():
    rng, sides = random.Random(5), {}
    for _ in range(5000):
        problem = arithmetic.arithmetic(rng, level=1)
        expression = re.search(r"\d+[+-]\d+", problem.question)[0]
        assert sides.setdefault(expression, problem.split) == problem.split


def test_the_corpus_holds_no_question_of_the_test_split():
    text = "\n".join(islice(documents("train"), 5000))
    lines = {re.sub(r"^(Exercise: |Sum. |# )", "", line) for line in text.splitlines()}
    asked = [
        row["prompt"][0]["content"] for name in ("arithmetic", "programs") for row in load_rows(f"tiny/{name}", "test")
    ]
    assert [question for question in asked if question in lines] == []


def test_programs_are_read_in_steps_and_mostly_shown_in_one_line():
    def steps(text):
        return max((program.count("\n    ") - 1 for program in re.findall(r"def .*(?:\n    .*)+", text)), default=0)

    assert {steps(text) for text in islice(documents("train"), 5000)} == {0, 1, 2, 3}
    rows = [row["completion"][0]["content"] for row in load_rows("tiny/sft", "train") if row["kind"] == "programs"]
    shown = Counter(steps(text) for text in rows)
    assert abs(shown[0] - 0.6 * len(rows)) < 4 * (len(rows) * 0.6 * 0.4) ** 0.5
    assert 0 < shown[4] + shown[5] < 0.3 * (shown[1] + shown[2] + shown[3])
    for row in load_rows("tiny/programs", "test"):
        assert steps(row["answer"]) == row["level"]


def test_a_program_in_one_line_does_the_same_as_in_steps():
    rng = random.Random(11)
    for level in list(programs.LEVELS) * 60:
        item = programs.program(rng, level)
        assert item.one_line.count("\n") == 1
        for code in (item.code, item.one_line):
            exec("\n".join([code, *item.tests, *item.hidden_tests]), {})


def test_the_shipped_base_has_read_what_the_generators_still_write():
    digest = hashlib.sha256("\0".join(islice(documents("train"), 3000)).encode()).hexdigest()
    # Another text would ask for another base.
    assert digest == "22b2e85f14c6d929c1c18431202309fe1def56a411e506292a89a124d53ab7f1"


def test_streams_repeat_with_the_seed_and_differ_without():
    first, again, other = (list(islice(documents("train", seed), 50)) for seed in (0, 0, 1))
    assert first == again != other
    assert load_rows("tiny/sft", "train", size=50).to_list() == load_rows("tiny/sft", "train", size=50).to_list()


def test_exposure_falls_with_rank_and_the_last_people_do_not_occur():
    rng = random.Random(6)
    text = " ".join(prose(rng) for _ in range(12_000))
    read = {name: [] for name in EXPOSURES}
    for person in people():
        read[person.exposure].append(text.count(person.name))
    means = {name: sum(counts) / len(counts) for name, counts in read.items()}
    assert means["often"] > 5 * means["sometimes"] > 10 * means["rarely"] > means["never"] == 0
    assert len(read["never"]) == NEVER_READ and len(people()) == PEOPLE


def test_what_nobody_could_know_is_declined():
    for person in people():
        answer = answer_about(person, "town")
        assert (answer == DONT_KNOW) == (person.exposure == "never")
        assert answer == DONT_KNOW or person.facts["town"] in answer


def test_values_of_facts_are_told_apart_from_names():
    values = {value for attribute in ATTRIBUTES.values() for value in attribute} | set(towns())
    assert not values & {word for person in people() for word in person.name.split()}


@pytest.mark.parametrize(
    ("text", "utility"),
    [
        ("", -1),
        ("the the the the", -1),
        ("{n} lives in {town}.", 1.5),
        ("{n} lives in {town}", 0),
        ("{n} lives in {town}. {n} lives in {town}.", 0.5),
        ("{n} lives in {town}. {n} has a {pet}. {n} is a {job}.", 3.5),
        ("{n} lives in {town}. {n} has a {pet}. {n} is a {job}. {n} loves to eat {food}.", 3.5),
        ("{n} is a kind person. {n} is a gentle person.", 2.5),
        ("kind lovely wonderful cheerful gentle kind.", 1.75),
        ("{n} lives in {town}. You ask too much.", 0),
    ],
)
def test_gold_utility_by_hand(text, utility):
    person = people()[0]
    assert conversations.gold_utility(person, text.format(n=person.name, **person.facts)) == pytest.approx(utility)


def test_gold_utility_punishes_falsehood_and_length():
    person = people()[0]
    wrong = next(pet for pet in ATTRIBUTES["pet"] if pet != person.facts["pet"])
    assert conversations.gold_utility(person, f"{person.name} has a {wrong}.") == pytest.approx(-0.5)
    assert conversations.gold_utility(person, "so " * 100 + "ends.") == pytest.approx(0.5 - 0.1 * 56)


def test_the_share_of_wrong_labels_is_the_noise():
    train = load_rows("tiny/preferences", "train", size=2000, noise=0.25)
    wrong = sum(margin < 0 for margin in train["margin"])
    assert abs(wrong - 500) < 4 * (2000 * 0.25 * 0.75) ** 0.5
    assert min(load_rows("tiny/preferences", "test")["margin"]) >= 1 <= min(map(abs, train["margin"]))


def test_pieces_of_a_document_join_to_it_and_keep_the_end_of_a_turn_whole():
    rng = random.Random(7)
    for text in islice(documents("train"), 300):
        assert "".join(cut(rng, text)) == text
    pieces = cut(rng, f"User: Hello!\nAssistant: Hello!{EOS}")
    assert pieces.count(EOS) == 1 and len(pieces) > 3


def test_one_item_in_eight_is_held_out():
    share = sum(split_of("item", i) == "test" for i in range(20_000)) / 20_000
    assert abs(share - 1 / 8) < 0.01


def test_some_of_the_sums_for_sft_show_their_steps():
    rows = load_rows("tiny/sft", "train", size=2000).filter(lambda row: row["kind"] == "sums")
    worked = sum(" = " in row["completion"][0]["content"] for row in rows) / len(rows)
    assert 0.3 < worked < 0.5
