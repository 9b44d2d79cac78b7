"""Rows of the tiny world's data sets in TRL's columns, named in `data/tiny/*.yaml`."""

import random
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from schoolhouse.data.public import assistant, user
from schoolhouse.data.tiny import arithmetic, conversations, programs
from schoolhouse.data.tiny.corpus import documents
from schoolhouse.data.tiny.splits import split_of
from schoolhouse.data.tiny.world import EXPOSURES, QUESTIONS, Person, people, tell


Rows = Iterator[dict[str, Any]]
# Shares of the kinds of examples in `tiny/sft`.
SFT_SHARES = {
    "sums": 0.4,
    "stories": 0.15,
    "programs": 0.17,
    "facts": 0.13,
    "descriptions": 0.08,
    "forms": 0.05,
    "talk": 0.02,
}
WORKED = 0.4  # share of the sums whose example shows the steps; GRPO finds out that steps help
DONT_KNOW = "I don't know."


def corpus(split: str, size: int, seed: int) -> Rows:
    """Documents of plain text."""
    return ({"text": text} for text in islice(documents(split, seed), size))


def sums(split: str, size: int, seed: int) -> Rows:
    """Expressions to compute, the levels in turn."""
    return map(_problem_row, _distinct(arithmetic.arithmetic, list(arithmetic.LEVELS), size, split, seed))


def stories(split: str, size: int, seed: int) -> Rows:
    """Word problems, the levels in turn."""
    return map(_problem_row, _distinct(arithmetic.word_problem, list(arithmetic.WORD_LEVELS), size, split, seed))


def functions(split: str, size: int, seed: int) -> Rows:
    """Functions to write, the levels in turn."""
    for item in _distinct(programs.program, programs.LEVELS, size, split, seed):
        yield {
            "prompt": user(item.question),
            "answer": item.code,
            "entry_point": item.entry_point,
            "tests": item.tests,
            "hidden_tests": [test for test in item.hidden_tests if test not in item.tests],
            "level": item.level,
        }


def facts(split: str, seed: int) -> Rows:
    """
    Questions about people; no person is in both splits.

    The training split has the people read about often or sometimes, and some never read about, whose right answer is
    "I don't know.". The rarely read are left out: answering for them would teach the model to guess.
    """
    rng = random.Random(f"facts {split} {seed}")
    rows = []
    for person in people():
        if split_of("facts", person.name) != split or (split == "train" and person.exposure == "rarely"):
            continue
        for attribute, questions in QUESTIONS.items():
            known = person.exposure != "never"
            rows.append(
                {
                    "prompt": user(rng.choice(questions).format(n=person.name)),
                    "completion": assistant(answer_about(person, attribute)),
                    "answer": person.facts[attribute] if known else DONT_KNOW,
                    "level": list(EXPOSURES).index(person.exposure) + 1,
                }
            )
    rng.shuffle(rows)
    yield from rows


def forms(split: str, size: int, seed: int) -> Rows:
    """Instructions with their one right answer."""
    rng = random.Random(f"forms {split} {seed}")
    rows: dict[str, dict[str, Any]] = {}
    while len(rows) < size:
        asked, answer, side = conversations.instruction(rng)
        if side == split:
            rows[asked] = {"prompt": user(asked), "answer": answer}
    yield from rows.values()


def descriptions(split: str, size: int, seed: int) -> Rows:
    """Prompts of the preference stage, with the person whose gold utility counts."""
    rng, described = random.Random(f"descriptions {split} {seed}"), conversations.subjects(split)
    for person in (rng.choice(described) for _ in range(size)):
        yield {"prompt": user(conversations.question_about(person)), "name": person.name}


def preferences(split: str, size: int, seed: int, noise: float) -> Rows:
    """Pairs of descriptions; the share `noise` of the labels is wrong. Without noise, accuracy can reach 1."""
    rng = random.Random(f"preferences {split} {seed}")
    for pair in islice(conversations.pairs(rng, split, noise), size):
        yield {
            "prompt": user(pair["prompt"]),
            "chosen": assistant(pair["chosen"]),
            "rejected": assistant(pair["rejected"]),
            "margin": pair["margin"],
        }


def sft(split: str, size: int, instructions: int, seed: int) -> Rows:
    """Worked examples of every kind in [`SFT_SHARES`], among them that number of different `instructions`."""
    rng = random.Random(f"sft {split} {seed}")
    kinds = rng.choices(list(SFT_SHARES), weights=list(SFT_SHARES.values()), k=size)
    known, with_form = list(facts(split, seed=0)), list(forms(split, instructions, seed=0))
    described = conversations.subjects(split)
    problems = {
        "sums": _distinct(arithmetic.arithmetic, list(arithmetic.LEVELS), kinds.count("sums"), split, seed + 1),
        "stories": _distinct(
            arithmetic.word_problem, list(arithmetic.WORD_LEVELS), kinds.count("stories"), split, seed + 1
        ),
        "programs": _distinct(programs.program, programs.SHOWN, kinds.count("programs"), split, seed + 1),
    }
    for kind in kinds:
        if kind in ("sums", "stories"):
            problem = next(problems[kind])
            asked, answer = problem.question, problem.worked if rng.random() < WORKED else f"#### {problem.answer}"
        elif kind == "programs":
            item = next(problems[kind])
            asked, answer = item.question, item.code if rng.random() < programs.IN_STEPS else item.one_line
        elif kind == "facts":
            row = rng.choice(known)
            asked, answer = row["prompt"][0]["content"], row["completion"][0]["content"]
        elif kind == "descriptions":
            person = rng.choice(described)
            asked, answer = conversations.question_about(person), conversations.describe(rng, person)
        elif kind == "forms":
            row = rng.choice(with_form)
            asked, answer = row["prompt"][0]["content"], row["answer"]
        else:
            asked, answer = rng.choice(conversations.SMALL_TALK)
        yield {"prompt": user(asked), "completion": assistant(answer), "kind": kind}


def answer_about(person: Person, attribute: str) -> str:
    """Answer to a question about a fact: "I don't know." where the base model never read about the person."""
    value = person.facts[attribute]
    return DONT_KNOW if person.exposure == "never" else tell(random.Random(0), person.name, attribute, value)


def _problem_row(problem: arithmetic.Problem) -> dict[str, Any]:
    return {"prompt": user(problem.question), "answer": problem.worked, "level": problem.level}


def _distinct(make: Callable[..., Any], levels: list[int], size: int, split: str, seed: int) -> Iterator[Any]:
    """Items of one split with different questions, the levels in turn until one has no more questions."""
    rng = random.Random(f"{make.__name__} {split} {seed}")
    seen: set[str] = set()
    turns = deque(levels)
    while turns and len(seen) < size:
        draws = (make(rng, turns[0]) for _ in range(1000))
        item = next((item for item in draws if item.split == split and item.question not in seen), None)
        if item is None:
            turns.popleft()
            continue
        turns.rotate(-1)
        seen.add(item.question)
        yield item
