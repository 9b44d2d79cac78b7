"""The tiny school's data sets in TRL's column formats, for `DATASETS`."""

import random
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from schoolhouse.data.tiny import arithmetic, conversations, programs
from schoolhouse.data.tiny.corpus import documents
from schoolhouse.data.tiny.splits import split_of
from schoolhouse.data.tiny.world import EXPOSURES, QUESTIONS, Person, people, tell


if TYPE_CHECKING:
    from datasets import Dataset

# What the imitator sees, by kind. Only some of the teacher's sums show their work: see `arithmetic.py`.
SFT_SHARES = {
    "sums": 0.4,
    "stories": 0.15,
    "programs": 0.17,
    "facts": 0.13,
    "descriptions": 0.08,
    "forms": 0.05,
    "talk": 0.02,
}
WORKED = 0.4
DONT_KNOW = "I don't know."


def _dataset(rows: Iterator[dict] | list[dict]) -> "Dataset":
    from datasets import Dataset

    return Dataset.from_list(list(rows))


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _distinct(make: Callable, levels: list[int], size: int, split: str, seed: int) -> Iterator:
    """Items of one split with different questions, the levels taking turns until one has no more to ask."""
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


def _problem_row(problem: arithmetic.Problem) -> dict:
    return {"prompt": _user(problem.question), "answer": problem.worked, "level": problem.level}


def build_arithmetic(split: str = "train", size: int | None = None, seed: int = 0, **_) -> "Dataset":
    """Expressions to compute. Columns: `prompt`, `answer` (a solution ended by `#### N`), `level` (1 to 6)."""
    levels = list(arithmetic.LEVELS)
    problems = _distinct(arithmetic.arithmetic, levels, size or {"train": 6000, "test": 360}[split], split, seed)
    return _dataset(_problem_row(problem) for problem in problems)


def build_stories(split: str = "train", size: int | None = None, seed: int = 0, **_) -> "Dataset":
    """Word problems. Columns as in `tiny/arithmetic`, `level` from 1 to 4."""
    levels = list(arithmetic.WORD_LEVELS)
    problems = _distinct(arithmetic.word_problem, levels, size or {"train": 4000, "test": 240}[split], split, seed)
    return _dataset(_problem_row(problem) for problem in problems)


def build_programs(split: str = "train", size: int | None = None, seed: int = 0, **_) -> "Dataset":
    """Functions to write. Columns: `prompt`, `answer`, `entry_point`, `tests`, `hidden_tests`, `level` (1 to 5)."""
    size = size or {"train": 3000, "test": 400}[split]
    return _dataset(
        {
            "prompt": _user(item.question),
            "answer": item.code,
            "entry_point": item.entry_point,
            "tests": item.tests,
            "hidden_tests": [test for test in item.hidden_tests if test not in item.tests],
            "level": item.level,
        }
        for item in _distinct(programs.program, list(programs.LEVELS), size, split, seed)
    )


def answer_about(person: Person, attribute: str) -> str:
    """The answer to a question about a fact: to say so where nobody could know."""
    value = person.facts[attribute]
    return DONT_KNOW if person.exposure == "never" else tell(random.Random(0), person.name, attribute, value)


def build_facts(split: str = "train", seed: int = 0, **_) -> "Dataset":
    """
    Questions about people; no person is in both splits.

    In the train split are the people read about often or sometimes, and some never read about, whose right answer is
    "I don't know.". The rarely read are left out: to answer for them would teach to guess. Columns: `prompt`,
    `completion`, `answer` (the value, or "I don't know."), `level` (the exposure).
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
                    "prompt": _user(rng.choice(questions).format(n=person.name)),
                    "completion": _assistant(answer_about(person, attribute)),
                    "answer": person.facts[attribute] if known else DONT_KNOW,
                    "level": list(EXPOSURES).index(person.exposure) + 1,
                }
            )
    rng.shuffle(rows)
    return _dataset(rows)


def build_forms(split: str = "train", size: int | None = None, seed: int = 0, **_) -> "Dataset":
    """Instructions whose answer has a form to keep. Columns: `prompt`, `answer`."""
    rng, rows = random.Random(f"forms {split} {seed}"), {}
    while len(rows) < (size or {"train": 200, "test": 20}[split]):
        asked, answer, side = conversations.instruction(rng)
        if side == split:
            rows[asked] = {"prompt": _user(asked), "answer": answer}
    return _dataset(list(rows.values()))


def build_descriptions(split: str = "train", size: int | None = None, seed: int = 0, **_) -> "Dataset":
    """Prompts of the preference stage. Columns: `prompt`, `name` (whom the gold utility judges by)."""
    people_of_split = conversations.subjects(split)
    rng = random.Random(f"descriptions {split} {seed}")
    chosen = [rng.choice(people_of_split) for _ in range(size or {"train": 1500, "test": 150}[split])]
    return _dataset({"prompt": _user(conversations.question_about(p)), "name": p.name} for p in chosen)


def build_preferences(
    split: str = "train", size: int | None = None, seed: int = 0, noise: float = 0.25, **_
) -> "Dataset":
    """
    Pairs of descriptions. Columns: `prompt`, `chosen`, `rejected`, `margin` (gold utility; below 0 a wrong label).

    The test split has no wrong labels, so accuracy on it has a ceiling of 1.
    """
    rng = random.Random(f"preferences {split} {seed}")
    pairs = conversations.pairs(rng, split, noise if split == "train" else 0.0)
    return _dataset(
        {
            "prompt": _user(pair["prompt"]),
            "chosen": _assistant(pair["chosen"]),
            "rejected": _assistant(pair["rejected"]),
            "margin": pair["margin"],
        }
        for pair in islice(pairs, size or {"train": 8000, "test": 500}[split])
    )


def build_sft(split: str = "train", size: int | None = None, seed: int = 0, **_) -> "Dataset":
    """What the imitator is shown: [`SFT_SHARES`] of every kind. Columns: `prompt`, `completion`, `kind`."""
    rng = random.Random(f"sft {split} {seed}")
    size = size or {"train": 5000, "test": 300}[split]
    kinds = rng.choices(list(SFT_SHARES), weights=list(SFT_SHARES.values()), k=size)
    facts = build_facts(split).to_list()
    forms = build_forms(split).to_list()
    described = conversations.subjects(split)
    of = {kind: kinds.count(kind) for kind in SFT_SHARES}
    sums = _distinct(arithmetic.arithmetic, list(arithmetic.LEVELS), of["sums"], split, seed + 1)
    stories = _distinct(arithmetic.word_problem, list(arithmetic.WORD_LEVELS), of["stories"], split, seed + 1)
    functions = _distinct(programs.program, programs.SHOWN, of["programs"], split, seed + 1)

    def turn(kind: str) -> tuple[str, str]:
        if kind in ("sums", "stories"):
            problem = next(sums if kind == "sums" else stories)
            return problem.question, problem.worked if rng.random() < WORKED else f"#### {problem.answer}"
        if kind == "programs":
            function = next(functions)
            return function.question, function.code if rng.random() < programs.IN_STEPS else function.one_line
        if kind == "facts":
            row = rng.choice(facts)
            return row["prompt"][0]["content"], row["completion"][0]["content"]
        if kind == "descriptions":
            person = rng.choice(described)
            return conversations.question_about(person), conversations.describe(rng, person)
        if kind == "forms":
            row = rng.choice(forms)
            return row["prompt"][0]["content"], row["answer"]
        return rng.choice(conversations.SMALL_TALK)

    rows = []
    for kind in kinds:
        asked, answer = turn(kind)
        rows.append({"prompt": _user(asked), "completion": _assistant(answer), "kind": kind})
    return _dataset(rows)


def build_corpus(split: str = "train", size: int | None = None, seed: int = 0, **_) -> "Dataset":
    """Documents that the base model reads. Column: `text`."""
    size = size or {"train": 20_000, "test": 1_000}[split]
    return _dataset({"text": text} for text in islice(documents(split, seed), size))


TINY_DATASETS: dict[str, Callable[..., "Dataset"]] = {
    "tiny/corpus": build_corpus,
    "tiny/sft": build_sft,
    "tiny/arithmetic": build_arithmetic,
    "tiny/stories": build_stories,
    "tiny/programs": build_programs,
    "tiny/facts": build_facts,
    "tiny/forms": build_forms,
    "tiny/descriptions": build_descriptions,
    "tiny/preferences": build_preferences,
}
