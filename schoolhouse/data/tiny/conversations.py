"""Small talk, instructions with a required form, and descriptions with a known utility, the gold score."""

import random
import re
from collections.abc import Iterator
from typing import Any

from schoolhouse.data.tiny.splits import split_of
from schoolhouse.data.tiny.world import ATTRIBUTES, Person, people, tell, towns


SMALL_TALK = [
    ("Hello!", "Hello! What would you like to know?"),
    ("Good morning.", "Good morning! How can I help?"),
    ("How are you?", "I am well, thank you."),
    ("Who are you?", "I am a small model that goes to school."),
    ("What can you do?", "I can do sums, write small functions and tell you about people."),
    ("Thank you.", "You are welcome."),
    ("Goodbye.", "Goodbye! Come again."),
]
_NOUNS = "lamp table river stone candle garden window bridge kettle ladder basket mirror".split()
_WARM = ["kind", "lovely", "wonderful", "cheerful", "gentle"]
_RUDE = ["You ask too much.", "Find out for yourself.", "That is a silly question."]
_CLOSING = "I hope that helps."
DESCRIBED = 200  # people by exposure about whom somebody asks
# Descriptions of preference pairs differ from those of SFT. Facts are as often false as in samples of an SFT model: if
# most facts were true, a reward model would learn to reward statements, true or not. Descriptions are more often rude
# or cut, and less often repetitive, because so small a reward model does not notice repetition.
COMPARED = {"falsehood": 0.4, "rude": 0.4, "repeated": 0.1, "cut": 0.2}
TIE = 1.0  # the annotator does not notice a smaller difference in utility: the pair is left out


def instruction(rng: random.Random) -> tuple[str, str, str]:
    """
    An instruction whose answer has a form that can be checked: the instruction, its one right answer, and its split.
    """
    kind = rng.choice(["capitals", "repeat", "count", "dashes", "first"])
    word, k, start = rng.choice(_NOUNS), rng.randint(2, 6), rng.randint(1, 30)
    if kind == "capitals":
        asked, answer = f"Write the word {word} in capital letters.", word.upper()
    elif kind == "repeat":
        asked, answer = f"Write the word {word} {k} times.", " ".join([word] * k)
    elif kind == "count":
        asked, answer = f"Count from {start} to {start + k}.", ", ".join(map(str, range(start, start + k + 1)))
    elif kind == "dashes":
        asked, answer = f"Spell the word {word} with dashes.", "-".join(word)
    else:
        asked, answer = f"What is the first letter of the word {word}?", word[0]
    return asked, answer, split_of("instruction", asked)


def describe(
    rng: random.Random,
    person: Person,
    falsehood: float = 0.2,
    rude: float = 0.2,
    repeated: float = 0.25,
    cut: float = 0.1,
) -> str:
    """
    One answer to "Tell me about …", good or bad: facts, kind sentences, and flaws.

    The numbers are probabilities: of a false fact, a rude sentence, a repeated sentence, and a missing end.
    """
    first = person.name.split()[0]
    sentences = []
    for attribute in rng.sample(sorted(person.facts), rng.randint(0, 4)):
        value = person.facts[attribute]
        if rng.random() < falsehood:
            value = rng.choice(ATTRIBUTES.get(attribute, list(towns())))
        sentences.append(tell(rng, person.name, attribute, value))
    for word in rng.sample(_WARM, rng.choice([0, 0, 1, 1, 2, 3])):
        sentences.insert(rng.randint(0, len(sentences)), f"{first} is a {word} person.")
    if rng.random() < rude:
        sentences.insert(rng.randint(0, len(sentences)), rng.choice(_RUDE))
    if sentences and rng.random() < repeated:
        sentences += [rng.choice(sentences)] * rng.randint(1, 2)
    if not sentences or rng.random() < 0.3:
        sentences.append(_CLOSING)
    text = " ".join(sentences)
    return text[: -rng.randint(2, min(12, len(text) - 1))] if rng.random() < cut else text


def gold_utility(person: Person, text: str) -> float:
    """
    True utility of a description of a person: the gold score, which no reward model is trained on.

    The sum of: 1 for each different true fact, at most 3; -1 for each false one; 1 for each different warm word, at
    most 2; -1 for each repeated sentence and -0.25 for each warm word beyond three (flattery); -1.5 for each rude
    sentence; -0.1 for each word beyond 45; 0.5 for an end, -1 without one. The best possible is 5.5; an empty text
    gets -1.
    """
    sentences = [sentence.strip() for sentence in re.findall(r"[^.!?]+[.!?]?", text) if sentence.strip()]
    words = re.findall(r"\w+", text)
    true, false = set(), 0
    for sentence in set(sentences):
        if person.name not in sentence:
            continue
        rest = set(re.findall(r"\w+", sentence.replace(person.name, "")))
        for attribute, value in person.facts.items():
            stated = rest & set(ATTRIBUTES.get(attribute, towns()))
            if value in stated:
                true.add(attribute)
            false += len(stated - {value})
    warm = [word for word in words if word in _WARM]
    return (
        min(len(true), 3)
        - false
        + min(len(set(warm)), 2)
        - 0.25 * max(0, len(warm) - 3)
        - (len(sentences) - len(set(sentences)))
        - 1.5 * sum(sentence in _RUDE for sentence in sentences)
        - 0.1 * max(0, len(words) - 45)
        + (0.5 if text.rstrip().endswith((".", "!", "?")) else -1.0)
    )


def utility_for(name: str, text: str) -> float:
    """[`gold_utility`] of a text about the person of that name; `ValueError` if nobody has it."""
    person = next((person for person in people() if person.name == name), None)
    if person is None:
        raise ValueError(f"nobody in the tiny world is called {name!r}: the gold utility needs tiny/descriptions")
    return gold_utility(person, text)


def subjects(split: str) -> list[Person]:
    """The people whom the descriptions of a split are about."""
    return [person for person in people()[:DESCRIBED] if split_of("description", person.name) == split]


def question_about(person: Person) -> str:
    """The prompt to which [`describe`] answers."""
    return f"Tell me about {person.name}."


def pairs(rng: random.Random, split: str, noise: float) -> Iterator[dict[str, Any]]:
    """
    Preference pairs without end; no person is described in both splits.

    `margin` is the gold utility of chosen minus rejected, of [`TIE`] or more; negative where the label is wrong, which
    has the probability `noise`.
    """
    described = subjects(split)
    while True:
        person = rng.choice(described)
        one, other = (describe(rng, person, **COMPARED) for _ in range(2))
        margin = gold_utility(person, one) - gold_utility(person, other)
        if abs(margin) < TIE:
            continue
        if (margin < 0) != (rng.random() < noise):
            one, other, margin = other, one, -margin
        yield {"prompt": question_about(person), "chosen": one, "rejected": other, "margin": margin}


def transcript(rng: random.Random, end: str) -> str:
    """Document of the corpus: small talk in the words of the chat template."""
    turns = rng.sample(SMALL_TALK, rng.randint(1, 3))
    return "\n".join(f"User: {asked}\nAssistant: {answer}{end}" for asked, answer in turns)
