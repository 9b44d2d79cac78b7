"""Duplicates within the training data, and what it shares with the eval sets.

Texts are compared as words: Unicode-normalised, case-folded, without the punctuation of prose, but with the signs of
arithmetic, which decide what a short problem asks ("3 + 2" and "3 - 2" are two problems).
"""

import re
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from schoolhouse.data.columns import prompt_text


if TYPE_CHECKING:
    from datasets import Dataset

GRAM = 13  # words, as in GPT-3's contamination study (Brown et al., 2020, appendix C)
SHORTEST_GRAM = 8  # the same study's lower limit
SHINGLE = 5  # words, and Jaccard similarity 0.8: as in Lee et al. (2022), "Deduplicating Training Data ..."
SIMILAR = 0.8

# A hyphen within a word is punctuation, one beside a digit or a space is a minus sign.
_WORD = re.compile(r"\w+|[+*/=<>^%×÷−]|(?<![^\W\d_])-|-(?![^\W\d_])")


def words_of(text: str) -> list[str]:
    """Normalised words of a text; two texts are exact duplicates if these are equal."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def exact_duplicates(texts: Sequence[str]) -> list[int]:
    """
    Rows that repeat an earlier row.

    Args:
        texts (`Sequence[str]`):
            A text per row.

    Returns:
        `list[int]`: their indices; the first of several equal rows is not among them.
    """
    seen: set[str] = set()
    repeated = []
    for index, text in enumerate(texts):
        key = " ".join(words_of(text))
        if key in seen:
            repeated.append(index)
        seen.add(key)
    return repeated


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int, float]]:
    """
    Pairs of rows that share most of their wording but are not equal.

    MinHash finds the candidates, the true Jaccard similarity of their 5-word shingles decides, so that no pair is
    reported wrongly; of those at 0.8 it misses one in ten million.

    Args:
        texts (`Sequence[str]`):
            A text per row.

    Returns:
        `list[tuple[int, int, float]]`: earlier row, later row, similarity in [0.8, 1]. Of several equal rows only the
        first is compared.
    """
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        raise ImportError("near duplicates need datasketch: pip install -e '.[hygiene]'") from None

    lsh = MinHashLSH(num_perm=128, params=(32, 4))
    shingles: dict[int, set[bytes]] = {}
    pairs = []
    repeated = set(exact_duplicates(texts))
    for index, text in enumerate(texts):
        words = words_of(text)
        if index in repeated or not words:
            continue
        mine = {gram.encode() for gram in _grams(words, min(SHINGLE, len(words)))}
        # crc32: the default, SHA-1 per shingle, takes most of the time.
        sketch = MinHash(num_perm=128, hashfunc=zlib.crc32)
        sketch.update_batch(list(mine))
        for other in sorted(lsh.query(sketch)):
            similarity = len(mine & shingles[other]) / len(mine | shingles[other])
            if similarity >= SIMILAR:
                pairs.append((other, index, similarity))
        lsh.insert(index, sketch)
        shingles[index] = mine
    return pairs


class EvalIndex:
    """
    The word 13-grams of eval prompts, to look training prompts up in.

    A training text overlaps an eval item if it holds any 13 consecutive words of it. An item of 8 to 12 words is one
    gram of its own length. Of a shorter item nothing but the whole text counts: "What is 2 + 2?" overlaps a training
    text that asks just this, not a story that mentions it. A run of writing without spaces counts as one word.

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
                if len(words) < SHORTEST_GRAM:
                    self._short[" ".join(words)].add((name, index))
                    continue
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

    def overlap(self, train_texts: Sequence[str]) -> dict[str, dict[str, Any]]:
        """
        What training texts share with each eval set.

        Args:
            train_texts (`Sequence[str]`):
                Text of each training prompt.

        Returns:
            `dict[str, dict]`: name of the eval set -> `train_rows`, `train_share`, `train_ids`, `eval_rows`,
            `eval_share`, `eval_ids`. The eval items that are not in `eval_ids` are the clean subset.
        """
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
            name: {
                "train_rows": len(train_ids[name]),
                "train_share": len(train_ids[name]) / max(len(train_texts), 1),
                "train_ids": train_ids[name],
                "eval_rows": len(eval_ids[name]),
                "eval_share": len(eval_ids[name]) / max(size, 1),
                "eval_ids": sorted(eval_ids[name]),
            }
            for name, size in self.sizes.items()
        }


def hygiene_report(train_texts: Sequence[str], eval_sets: dict[str, list[str]]) -> dict[str, Any]:
    """
    Everything this module finds, as one JSON-able report.

    Args:
        train_texts (`Sequence[str]`):
            Text of each training row, usually [`schoolhouse.data.columns.prompt_text`].
        eval_sets (`dict[str, list[str]]`):
            Name of an eval set -> the text of each of its prompts.

    Returns:
        `dict`: `rows`; `exact_duplicates` with `rows` and `ids`; `near_duplicates` with `rows` and `pairs`; `overlap`
        from [`EvalIndex.overlap`].
    """
    exact = exact_duplicates(train_texts)
    near = near_duplicates(train_texts)
    return {
        "rows": len(train_texts),
        "exact_duplicates": {"rows": len(exact), "ids": exact},
        "near_duplicates": {"rows": len({later for _, later, _ in near}), "pairs": [list(pair) for pair in near]},
        "overlap": EvalIndex(eval_sets).overlap(train_texts),
    }


def drop_overlap(
    train: "Dataset",
    eval_sets: "dict[str, list[str]] | EvalIndex",
    text_of: Callable[[dict], str] = prompt_text,
) -> "tuple[Dataset, dict[str, dict[str, Any]]]":
    """
    Training rows that share no 13-gram with any eval prompt.

    Args:
        train (`datasets.Dataset`):
            Rows in TRL's columns.
        eval_sets (`dict[str, list[str]]` or [`EvalIndex`]):
            Name of an eval set -> the text of each of its prompts.
        text_of (`Callable[[dict], str]`, *optional*, defaults to [`schoolhouse.data.columns.prompt_text`]):
            The text of a row to compare.

    Returns:
        `tuple[datasets.Dataset, dict]`: the clean rows in their order, and what [`EvalIndex.overlap`] says of all.
    """
    index = eval_sets if isinstance(eval_sets, EvalIndex) else EvalIndex(eval_sets)
    report = index.overlap([text_of(row) for row in train])
    dirty = {row for found in report.values() for row in found["train_ids"]}
    return train.select([row for row in range(len(train)) if row not in dirty]), report


def _grams(words: Sequence[str], length: int) -> Iterator[str]:
    return (" ".join(words[start : start + length]) for start in range(len(words) - length + 1))
