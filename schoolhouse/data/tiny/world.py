"""Fictional people and towns, and prose about them for the corpus of the base model.

The exposure of people is Zipf-like: some facts occur thousands of times in the corpus, some a few times, and those of
the last [`NEVER_READ`] people never. A model should answer the first, be careful with the second, decline the third.
"""

import random
from dataclasses import dataclass
from functools import cache
from itertools import accumulate


PEOPLE = 500
NEVER_READ = 100
ZIPF_EXPONENT = 1.3
EXPOSURES = {"often": 50, "sometimes": 150, "rarely": PEOPLE - NEVER_READ, "never": PEOPLE}  # rank below which

_ONSETS = "b br d dr f g gr h j k kl l m n p pr r s st t tr v w z".split()
_VOWELS = "a e i o u".split()
_CODAS = ["", "", "l", "m", "n", "r", "s", "sk", "rn"]
ATTRIBUTES = {
    "job": "baker painter farmer teacher doctor sailor tailor potter singer miller carpenter gardener".split(),
    "pet": "cat dog goat parrot rabbit turtle pony duck mouse lizard".split(),
    "colour": "red blue green yellow white black purple orange brown grey".split(),
    "food": "soup bread cheese plums rice beans honey fish carrots pears".split(),
}
TOWN_ATTRIBUTES = {
    "river": ["Orla", "Besk", "Tamin", "Ruel", "Vesper", "Dunna"],
    "product": "glass wool salt paper clocks boats bells baskets".split(),
}
_TELLINGS = {
    "town": ["{n} lives in {v}.", "The home of {n} is in {v}.", "In {v} lives {n}.", "{n} has a house in {v}."],
    "job": ["{n} is a {v}.", "{n} works as a {v}.", "As a {v}, {n} gets up early.", "By trade {n} is a {v}."],
    "pet": ["{n} has a {v}.", "The pet of {n} is a {v}.", "{n} keeps a {v} at home.", "A {v} belongs to {n}."],
    "colour": [
        "{n} likes the colour {v}.",
        "The favourite colour of {n} is {v}.",
        "{n} always wears {v}.",
        "For {n} the best colour is {v}.",
    ],
    "food": [
        "{n} loves to eat {v}.",
        "The favourite food of {n} is {v}.",
        "Every evening {n} eats {v}.",
        "{n} cannot live without {v}.",
    ],
    "river": ["{n} lies on the river {v}.", "The river {v} flows through {n}.", "Boats reach {n} on the river {v}."],
    "product": ["{n} is known for its {v}.", "People in {n} make {v}.", "The {v} of {n} are sold everywhere."],
}
QUESTIONS = {
    "town": ["Where does {n} live?", "In which town does {n} live?"],
    "job": ["What is the job of {n}?", "What does {n} work as?"],
    "pet": ["What pet does {n} have?", "Which animal does {n} keep?"],
    "colour": ["What is the favourite colour of {n}?", "Which colour does {n} like?"],
    "food": ["What is the favourite food of {n}?", "What does {n} love to eat?"],
}


@dataclass(frozen=True)
class Person:
    """
    Somebody in the tiny world.

    Args:
        name: First and last name.
        rank: Place in the order of exposure; 0 is read about most.
        facts: One value for each attribute: town, job, pet, colour, food.
    """

    name: str
    rank: int
    facts: dict[str, str]

    @property
    def exposure(self) -> str:
        """Exposure of the base model to the person: `"often"`, `"sometimes"`, `"rarely"` or `"never"`."""
        return next(name for name, below in EXPOSURES.items() if self.rank < below)


def _words(rng: random.Random, count: int, syllables: int) -> list[str]:
    words: dict[str, None] = {}
    while len(words) < count:
        parts = (rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))
        words["".join(parts).capitalize()] = None
    return list(words)


@cache
def towns() -> dict[str, dict[str, str]]:
    """The towns of the world, each with its river and its product."""
    rng = random.Random("towns")
    return {name: {key: rng.choice(v) for key, v in TOWN_ATTRIBUTES.items()} for name in _words(rng, 20, 2)}


@cache
def people() -> list[Person]:
    """Everybody, in the order of exposure."""
    rng = random.Random("people")
    firsts, lasts = _words(rng, 60, 2), _words(rng, 80, 2)
    names = rng.sample([f"{first} {last}" for first in firsts for last in lasts], PEOPLE)
    places = list(towns())
    return [
        Person(name, rank, {"town": rng.choice(places)} | {key: rng.choice(v) for key, v in ATTRIBUTES.items()})
        for rank, name in enumerate(names)
    ]


@cache
def _exposure_weights() -> list[float]:
    return list(accumulate((rank + 1) ** -ZIPF_EXPONENT for rank in range(PEOPLE - NEVER_READ)))


def tell(rng: random.Random, name: str, attribute: str, value: str) -> str:
    """One sentence that states one fact."""
    return rng.choice(_TELLINGS[attribute]).format(n=name, v=value)


def someone(rng: random.Random) -> Person:
    """A random person, with the probabilities of the exposure."""
    return rng.choices(people()[: PEOPLE - NEVER_READ], cum_weights=_exposure_weights())[0]


def prose(rng: random.Random) -> str:
    """A short text about one person or town: several facts in random order and wording."""
    if rng.random() < 0.15:
        name, facts = rng.choice(list(towns().items()))
    else:
        person = someone(rng)
        name, facts = person.name, person.facts
    chosen = rng.sample(sorted(facts), rng.randint(min(2, len(facts)), len(facts)))
    return " ".join(tell(rng, name, attribute, facts[attribute]) for attribute in chosen)
