"""Rows from the Hub, JSON Lines, JSON, Parquet or a folder of these.

A malformed row is named by file and line and counted. More than 1 % of them is an error; fewer are left out with a
warning and reported to the open [`Account`], which the run record holds: none is dropped silently.
"""

import contextlib
import itertools
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schoolhouse.data.columns import columns_of, find_fault, form_of, require_kind, surplus_of
from schoolhouse.data.files import SUFFIX, MissingSplitError, find_files, read_json


if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

MALFORMED_PERCENT = 1
SHOWN = 5  # malformed rows named in messages and in the run record


@dataclass
class Account:
    """
    What reading has met, for the run record.

    Args:
        read (`int`, *optional*, defaults to `0`):
            Rows looked at, malformed ones included.
        malformed (`list[str]`, *optional*):
            `"file:line: reason"` for each malformed row.
        revision (`str`, *optional*):
            Commit of the Hub data set that was read.
    """

    read: int = 0
    malformed: list[str] = field(default_factory=list)
    revision: str | None = None


@dataclass(frozen=True)
class LoadedData:
    """
    What a recipe trains on.

    Args:
        train (`datasets.Dataset`):
            Training rows; of a mixture each has its data set's name in `source` (unless it has a `source` of its own).
        test (`datasets.Dataset` or `None`):
            Rows for the loss during training, `None` without a test split.
        sources (`list[dict]`):
            A JSON-able entry for the run record per data set and split: `role`, `name`, `location`, `config`,
            `revision`, `split`, `kind`, `rows`, `used_rows`, `weight`, `malformed`, `malformed_rows`, `sha256`,
            `license`; for training rows also `exact_duplicates` and `overlap`.
    """

    train: "Dataset"
    test: "Dataset | None"
    sources: list[dict[str, Any]]


_account: ContextVar[Account | None] = ContextVar("account", default=None)


@contextlib.contextmanager
def accounting() -> Iterator[Account]:
    """Collects what every read inside the `with` block meets, however deep in a builder it happens."""
    token = _account.set(Account())
    try:
        yield _account.get()
    finally:
        _account.reset(token)


@dataclass
class _Table:
    label: str
    rows: "Dataset | list[dict | str]"  # a string says why there is no row
    places: list[str] | None = None

    def place(self, index: int) -> str:
        return self.places[index] if self.places else f"{self.label} row {index}"


def read_rows(
    location: str,
    split: str | None,
    fault_of: Callable[[dict], str | None],
    config: str | None = None,
    revision: str | None = None,
    only: Sequence[str] = (),
) -> list[dict]:
    """
    Rows of a data set in its upstream columns, for a builder to convert.

    Args:
        location (`str`):
            Local file or folder, Hub id, or `https://` address of a JSON file.
        split (`str` or `None`):
            Split to read; `None` reads all of them, for a builder that draws the line itself.
        fault_of (`Callable[[dict], str | None]`):
            Says why a row is malformed, `None` for a sound one.
        config (`str`, *optional*):
            Configuration of a Hub data set.
        revision (`str`, *optional*):
            Branch, tag or commit of a Hub data set.
        only (`Sequence[str]`, *optional*):
            Columns that are needed; all by default.

    Returns:
        `list[dict]`: the sound rows.

    Raises:
        `ValueError`: if nothing is there, or over 1 % of the rows are malformed.
    """
    table = _open(location, split, config, revision)
    if only and not isinstance(table.rows, list):
        table.rows = table.rows.select_columns([name for name in only if name in table.rows.column_names])
    rows = list(table.rows)
    return [rows[index] for index in _screen(table, [row if isinstance(row, str) else fault_of(row) for row in rows])]


def load_table(
    location: str,
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    columns: dict[str, str] | None = None,
    max_rows: int | None = None,
    kinds: Sequence[str] | None = None,
) -> "Dataset":
    """
    Data set that is already in TRL's columns, or becomes so by renaming.

    Args:
        location (`str`):
            Local file or folder, or Hub id.
        split (`str`, *optional*, defaults to `"train"`):
            Split of a Hub data set; in a folder the files `split.jsonl`, `split-*.parquet`, `split/*` and such.
        config (`str`, *optional*):
            Configuration of a Hub data set.
        revision (`str`, *optional*):
            Branch, tag or commit of a Hub data set.
        columns (`dict[str, str]`, *optional*):
            TRL's column name -> name in the data set.
        max_rows (`int`, *optional*):
            Number of rows to look at, from the top; malformed ones count.
        kinds (`Sequence[str]`, *optional*):
            Kinds ([`schoolhouse.data.columns.KINDS`]) that the stage can use, the preferred one first.

    Returns:
        `datasets.Dataset`: columns of one kind, and every extra column.

    Raises:
        `ValueError`: if the columns make no kind that is wanted, or over 1 % of the rows are malformed.
    """
    from datasets import Dataset

    table = _open(location, split, config, revision, max_rows)
    if columns:
        _rename(table, columns)
    names = _columns(table)
    # Where no line could be read there are no columns to judge by: _screen says what is wrong.
    kind = require_kind(table.label, names, kinds) if names else None
    required = columns_of(kind, names) if kind else ()
    faults, forms = [], []
    for row in table.rows:
        faults.append(row if isinstance(row, str) else find_fault(row, kind, required))
        forms.append(None if faults[-1] else form_of(row, kind))
    usual = Counter(form for form in forms if form).most_common(1)
    for index, form in enumerate(forms):
        if form and form != usual[0][0]:
            faults[index] = f"is {form} where most rows are {usual[0][0]} (text, not messages, or the reverse)"
    good = _screen(table, faults)
    if isinstance(table.rows, list):
        every = dict.fromkeys(name for index in good for name in table.rows[index])
        surplus = surplus_of(every, required)
        rows = [{name: table.rows[index].get(name) for name in every if name not in surplus} for index in good]
        # Without `use_json` a number among the strings of any extra column is an error of Arrow's.
        return Dataset.from_list(rows, on_mixed_types="use_json")
    rows = table.rows if len(good) == len(table.rows) else table.rows.select(good)
    return rows.remove_columns(surplus_of(rows.column_names, required))


def _screen(table: _Table, faults: list[str | None]) -> list[int]:
    """Indices of the sound rows; raises, warns and keeps the account."""
    if not faults:
        raise ValueError(f"{table.label} holds no rows")
    malformed = [f"{table.place(index)}: {fault}" for index, fault in enumerate(faults) if fault]
    first = "; ".join(malformed[:SHOWN]) + ("; ..." if len(malformed) > SHOWN else "")
    counts = f"{len(malformed)} of {len(faults)} rows"
    if 100 * len(malformed) > MALFORMED_PERCENT * len(faults):
        raise ValueError(f"{table.label}: {counts} are malformed, more than {MALFORMED_PERCENT} %: {first}")
    if malformed:
        logger.warning("%s: left out %s as malformed: %s", table.label, counts, first)
    if account := _account.get():
        account.read += len(faults)
        account.malformed += malformed
    return [index for index, fault in enumerate(faults) if not fault]


def _columns(table: _Table) -> set[str]:
    if not isinstance(table.rows, list):
        return set(table.rows.column_names)
    # A malformed row may lack a column or bring one of its own: the majority says which ones the file has.
    rows = [row for row in table.rows if isinstance(row, dict)]
    counts = Counter(name for row in rows for name, value in row.items() if value is not None)
    return {name for name, count in counts.items() if 2 * count > len(rows)}


def _rename(table: _Table, columns: dict[str, str]) -> None:
    present = _columns(table)
    if twice := [theirs for theirs, count in Counter(columns.values()).items() if count > 1]:
        raise ValueError(f"{table.label}: two columns are to be made of {twice[0]!r}; one is possible")
    if absent := sorted(set(columns.values()) - present):
        raise ValueError(f"{table.label} has no column {absent[0]!r} to rename; it has {sorted(present)}")
    gone = set(columns) | set(columns.values())
    if isinstance(table.rows, list):
        for index, row in enumerate(table.rows):
            if isinstance(row, dict):
                renamed = {ours: row.get(theirs) for ours, theirs in columns.items()}
                table.rows[index] = {name: value for name, value in row.items() if name not in gone} | renamed
    else:
        rows = table.rows.remove_columns(sorted(set(columns) & present - set(columns.values())))
        table.rows = rows.rename_columns({theirs: ours for ours, theirs in columns.items() if ours != theirs})


def _open(
    location: str,
    split: str | None,
    config: str | None = None,
    revision: str | None = None,
    max_rows: int | None = None,
) -> _Table:
    from datasets import load_dataset

    path = Path(location).expanduser()
    if path.exists():
        files = find_files(path, split)
        types = {SUFFIX.search(file.name)[1] is None for file in files}
        if types == {True, False}:
            raise ValueError(f"{location}: {', '.join(file.name for file in files)} mix Parquet with JSON")
        if types == {False}:
            entries = itertools.chain.from_iterable(map(read_json, files))
            entries = list(itertools.islice(entries, max_rows))
            return _Table(str(location), [row for _, row in entries], [place for place, _ in entries])
        rows = load_dataset("parquet", data_files=[str(file) for file in files], split="train")
    elif location.startswith("https://"):
        rows = load_dataset("json", data_files=location, split="train")
    else:
        plain = split is not None and re.fullmatch(r"[\w.-]+", split)  # no "train[:10%]" or "train+test"
        rows = load_dataset(location, config, revision=revision, split=None if plain else split or "all")
        if plain:
            if split not in rows:
                raise MissingSplitError(f"{location} has no split {split!r}; it has {', '.join(rows)}")
            rows = rows[split]
        # datasets keeps a Hub data set in a folder named after its commit.
        commits = [re.search(r"[/\\]([0-9a-f]{40})[/\\]", file["filename"]) for file in rows.cache_files]
        if (account := _account.get()) and commits and commits[0]:
            account.revision = commits[0][1]
    return _Table(str(location), rows if max_rows is None else rows.select(range(min(max_rows, len(rows)))))
