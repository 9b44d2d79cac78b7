"""Duplicates and overlap: what was planted is found, nothing else is."""

import random

import pytest
from datasets import Dataset

from schoolhouse.data import load_rows
from schoolhouse.data.columns import prompt_text
from schoolhouse.data.decontamination import (
    EvalIndex,
    drop_overlap,
    exact_duplicates,
    words_of,
)


VOCABULARY = [f"{a}{b}" for a in ("ka", "lo", "mi", "su", "te", "ra") for b in ("bin", "dor", "gal", "fen", "pos")]


def story(rng, length):
    return " ".join(rng.choices(VOCABULARY, k=length))


@pytest.mark.parametrize(
    "first, second, equal",
    [
        ("What is 3 + 2?", "what is  3+2", True),
        ("What is 3 + 2?", "What is 3 - 2?", False),
        ("What is 3 - 2?", "What is 3 −2?", False),  # another sign: kept apart rather than guessed
        ("What is 12 * 3?", "What is 1 2 * 3?", False),
        ("A well-known “fact”.", "a well known fact", True),
        ("ＦＵＬＬ width １２", "full width 12", True),
        ("Straße", "STRASSE", True),
        ("x - 1", "x 1", False),
    ],
)
def test_texts_are_equal_up_to_case_space_and_the_punctuation_of_prose(first, second, equal):
    assert (words_of(first) == words_of(second)) is equal
    assert exact_duplicates([first, second]) == ([1] if equal else [])


def test_all_but_the_first_of_equal_rows_are_duplicates():
    assert exact_duplicates(["a b", "c", "A, b!", "c d", "a  b", "C"]) == [2, 4, 5]


EVAL = " ".join(f"w{number}" for number in range(20))
OVERLAPS = {
    "13 words within": ("before " + " ".join(f"w{n}" for n in range(4, 17)) + " after", EVAL, True),
    "12 words within": ("before " + " ".join(f"w{n}" for n in range(4, 16)) + " after", EVAL, False),
    "13 words with a gap": (" ".join(f"w{n}" for n in range(14) if n != 6), EVAL, False),
    "case and commas": (", ".join(f"W{n}" for n in range(13)), EVAL, True),
    "a short item within": (
        "so: one two three four five six seven eight nine",
        "one two three four five six seven eight",
        True,
    ),
    "part of a short item": ("one two three four five six seven", "one two three four five six seven eight", False),
    "a very short item alone": ("What is 3 + 4?", "what is 3+4", True),
    "a very short item within": ("She asked: What is 3 + 4?", "What is 3 + 4?", False),
    "another sum": ("What is 3 - 4?", "What is 3 + 4?", False),
    "empty": ("", "", False),
}


@pytest.mark.parametrize("train, item, overlaps", OVERLAPS.values(), ids=OVERLAPS)
def test_overlap_is_13_words_or_the_whole_of_a_shorter_item(train, item, overlaps):
    found = EvalIndex({"mine": ["something else entirely", item]}).overlap([train])["mine"]
    assert (found.train_ids, found.eval_ids) == (([0], [1]) if overlaps else ([], []))
    assert (found.train_rows, found.eval_rows) == (int(overlaps), int(overlaps))
    assert (found.train_share, found.eval_share) == (float(overlaps), overlaps / 2)


def test_overlap_is_that_of_a_comparison_of_all_pairs():
    rng = random.Random(2)
    items = {name: [story(rng, rng.randint(14, 30)) for _ in range(30)] for name in ("a", "b")}
    texts = []
    for _ in range(100):
        piece = rng.choice(items[rng.choice("ab")]).split()
        start, length = rng.randrange(len(piece)), rng.randint(8, 20)
        texts.append(f"{story(rng, 5)} {' '.join(piece[start : start + length])} {story(rng, 5)}")

    def share(train, item):
        words = item.split()
        return any(f" {' '.join(words[at : at + 13])} " in f" {train} " for at in range(len(words) - 12))

    report = EvalIndex(items).overlap(texts)
    for name, prompts in items.items():
        pairs = [(i, j) for i, train in enumerate(texts) for j, item in enumerate(prompts) if share(train, item)]
        assert len(pairs) > 5
        assert report[name].train_ids == sorted({i for i, _ in pairs})
        assert report[name].eval_ids == sorted({j for _, j in pairs})


def test_drop_overlap_leaves_the_other_rows_in_their_order():
    prompts = ["keep one", "what is 1 + 1", "keep two", EVAL + " and more", "keep one"]
    train = Dataset.from_list([{"prompt": [{"role": "user", "content": text}], "answer": "x"} for text in prompts])
    kept, report = drop_overlap(train, EvalIndex({"sums": ["What is 1+1?"], "long": [EVAL], "none": []}))
    assert [prompt_text(row) for row in kept] == ["keep one", "keep two", "keep one"]
    assert {name: found.train_ids for name, found in report.items()} == {"sums": [1], "long": [3], "none": []}


def test_the_prompt_of_a_row_is_what_the_user_says():
    system, ask, reply = ({"role": role, "content": role.upper()} for role in ("system", "user", "assistant"))
    assert prompt_text({"prompt": [system, ask, reply, ask], "completion": [reply]}) == "USER\nASSISTANT\nUSER"
    assert prompt_text({"messages": [system, ask, reply, ask, reply]}) == "USER\nUSER"
    assert prompt_text({"chosen": [ask, reply], "rejected": [ask, reply]}) == "USER"
    assert prompt_text({"prompt": "plain", "completion": "text"}) == "plain"
    assert prompt_text({"text": "plain"}) == "plain"
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    assert prompt_text({"messages": [{"role": "user", "content": parts}]}).split() == ["a", "b"]


def test_a_quarter_of_svamps_training_problems_share_13_words_with_a_test_problem(shared):
    train, test = (
        [prompt_text(row) for row in load_rows("svamp", split, path=str(shared / "data/svamp"))]
        for split in ("train", "test")
    )
    found = EvalIndex({"svamp": test}).overlap(train)["svamp"]

    def grams(text):
        words = "".join(mark if mark.isalnum() else " " for mark in text.lower()).split()
        return {tuple(words[at : at + 13]) for at in range(len(words) - 12)}

    tested = set().union(*map(grams, test))
    assert found.train_ids == [row for row, text in enumerate(train) if grams(text) & tested]
    assert found.train_rows == 179 and 0.25 < found.train_share < 0.27
