"""Exact duplicates within the training data, and its overlap with eval sets.

Texts are compared as words: Unicode-normalised, case-folded, without the punctuation of prose, but with the signs of
arithmetic, which decide what a short problem asks ("3 + 2" and "3 - 2" are two problems).
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from schoolhouse.core.manifest import Overlap
from schoolhouse.data.columns import prompt_text


if TYPE_CHECKING:
    from datasets import Dataset

GRAM = 13  # words, as in GPT-3's contamination study (Brown et al., 2020, appendix C)
SHORTEST_GRAM = 8  # the same study's lower limit

# A hyphen within a word is punctuation, one beside a digit or a space is a minus sign.
_WORD = re.compile(r"\w+|[+*/=<>^%×÷−]|(?<![^\W\d_])-|-(?![^\W\d_])")


def words_of(text: str) -> list[str]:
    """Normalised words of a text; two texts are exact duplicates if these are equal."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def exact_duplicates(texts: Sequence[str]) -> list[int]:
    """Indices of the texts that repeat an earlier one; the first of several equal texts is not among them."""
    seen: set[str] = set()
    repeated = []
    for index, text in enumerate(texts):
        key = " ".join(words_of(text))
        if key in seen:
            repeated.append(index)
        seen.add(key)
    return repeated


class EvalIndex:
    """
    Index of the word 13-grams of eval prompts.

    A training text overlaps an eval item if it holds any 13 consecutive words of it. An item of 8 to 12 words is one
    gram of its own length. An even shorter item overlaps only an equal text: "What is 2 + 2?" overlaps a training text
    that asks just this, not a story that mentions it. Text without spaces counts as one word.

    Args:
        eval_sets (`dict[str, list[str]]`):
            Name of an eval set -> the text of each of its prompts.
    """

    def __init__(self, eval_sets: dict[str, list[str]]):
        self.sizes = {name: len(texts) for name, texts in eval_sets.items()}
        self._holders: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self._lengths: set[int] = set()
        self._short: dict[str, set[tuple[str, int]]] = defaultdict(set)
        for name, texts in eval_sets.items():
            for index, text in enumerate(texts):
                words = words_of(text)
                if not words:
                    continue
                if len(words) < SHORTEST_GRAM:  # only an equal text overlaps it
                    self._short[" ".join(words)].add((name, index))
                    continue
                # An item shorter than a gram is a gram of its own length; texts are searched for each length.
                length = min(GRAM, len(words))
                self._lengths.add(length)
                for gram in _grams(words, length):
                    self._holders[gram].add((name, index))

    def lookup(self, text: str) -> set[tuple[str, int]]:
        """Eval set and index of every eval item that `text` overlaps."""
        words = words_of(text)
        found = set(self._short.get(" ".join(words), ()))
        for length in self._lengths:
            for gram in _grams(words, length):
                found |= self._holders.get(gram, frozenset())
        return found

    def overlap(self, train_texts: Sequence[str]) -> dict[str, Overlap]:
        """Overlap of the training prompts with each eval set, by its name."""
        if not self.sizes:
            return {}
        train_ids: dict[str, list[int]] = {name: [] for name in self.sizes}
        eval_ids: dict[str, set[int]] = {name: set() for name in self.sizes}
        for index, text in enumerate(train_texts):
            found = self.lookup(text)
            for name in {name for name, _ in found}:
                train_ids[name].append(index)
            for name, item in found:
                eval_ids[name].add(item)
        return {
            name: Overlap(
                train_rows=len(train_ids[name]),
                train_share=len(train_ids[name]) / max(len(train_texts), 1),
                train_ids=train_ids[name],
                eval_rows=len(eval_ids[name]),
                eval_share=len(eval_ids[name]) / max(size, 1),
                eval_ids=sorted(eval_ids[name]),
            )
            for name, size in self.sizes.items()
        }


def drop_overlap(train: "Dataset", index: EvalIndex) -> "tuple[Dataset, dict[str, Overlap]]":
    """
    Leave out training rows that share a 13-gram with an eval prompt.

    Returns:
        `tuple[datasets.Dataset, dict[str, Overlap]]`: the other rows in their order, and the overlap of all rows.
    """
    report = index.overlap([prompt_text(row) for row in train])
    contaminated = {row for found in report.values() for row in found.train_ids}
    return train.select([row for row in range(len(train)) if row not in contaminated]), report


def _grams(words: Sequence[str], length: int) -> Iterator[str]:
    return (" ".join(words[start : start + length]) for start in range(len(words) - length + 1))
