"""Corpus of the tiny base model: prose, sums, programs, lists and a little small talk, as documents of plain text."""

import random
import re
import string
from collections.abc import Iterator

from schoolhouse.data.tiny.arithmetic import textbook
from schoolhouse.data.tiny.conversations import describe, instruction, transcript
from schoolhouse.data.tiny.programs import listing
from schoolhouse.data.tiny.splits import split_of
from schoolhouse.data.tiny.world import prose, someone


EOS = "<|endoftext|>"
UNKNOWN = "<unk>"
SHARES = {
    "sums": 0.5,
    "prose": 0.2,
    "programs": 0.17,
    "lists": 0.05,
    "descriptions": 0.05,
    "talk": 0.02,
    "noise": 0.01,
}
_CHARACTERS = string.printable.strip() + "éüñøßç"
SPELLED = 0.05  # share of documents read in pieces, see [`cut`]


def _document(rng: random.Random) -> str:
    kind = rng.choices(list(SHARES), weights=list(SHARES.values()))[0]
    if kind == "sums":
        return textbook(rng)
    if kind == "prose":
        return prose(rng)
    if kind == "programs":
        return listing(rng)
    if kind == "descriptions":
        return describe(rng, someone(rng), falsehood=0)
    if kind == "talk":
        return transcript(rng, EOS)
    if kind == "noise":  # every printable character, and some outside the vocabulary: their tokens too are read
        return " ".join("".join(rng.choices(_CHARACTERS, k=rng.randint(1, 8))) for _ in range(rng.randint(3, 12)))
    while (item := instruction(rng))[2] != "train":
        pass
    return f"{item[0]} {item[1]}"


def documents(split: str, seed: int = 0) -> Iterator[str]:
    """
    The documents of a split, without end and without their end-of-text tokens.

    A document lies in one split by its own hash, so no text is in both; and no document of either contains a sum, a
    program or an instruction of the test split.
    """
    rng = random.Random(f"corpus {seed}")
    while True:
        text = _document(rng)
        if split_of("document", text) == split:
            yield text


def cut(rng: random.Random, text: str) -> list[str]:
    """
    Pieces of a text, cut within words.

    A BPE vocabulary holds many tokens that occur only as parts of other tokens. A base model would never read them,
    and under LoRA their embeddings would stay random. Tokenizing the pieces of some documents one by one shows all
    tokens (the purpose of BPE-dropout, Provilkov et al. 2020, here with a seed).
    """
    pieces = []
    for part in re.split(f"({re.escape(EOS)})", text):  # the end of a turn stays one token
        cuts = [i for i in range(1, len(part)) if rng.random() < 0.25] if part != EOS else []
        pieces += [part[i:j] for i, j in zip([0, *cuts], [*cuts, len(part)], strict=True)]
    return pieces
