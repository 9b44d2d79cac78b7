"""Rows from the Hub, JSON Lines, JSON, CSV, TSV, Parquet, a folder of these, or what `save_to_disk` wrote.

A malformed row is named by file and line. More than 1 % of them is an error; fewer are left out with a warning, listed
in the [`LoadReport`], which goes into the run manifest: none is dropped silently.
"""

import csv
import gzip
import itertools
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schoolhouse.core.escape import one_line
from schoolhouse.data.columns import columns_of, form_of, require_kind, surplus_of, validate_row
from schoolhouse.data.files import MissingSplitError, check_size, file_type, find_files, is_saved_dataset, read_json
from schoolhouse.data.forms import OPTIONAL, TEXT_COLUMNS, find_form, plain_messages, unread_columns


if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

MALFORMED_PERCENT = 1
SHOWN = 5  # malformed rows named in messages and in the run manifest


@dataclass
class LoadReport:
    """
    Findings of the reading of a data set.

    Args:
        malformed: `"file:line: reason"` for each malformed row.
        revision: Commit of the Hub data set that was read.
    """

    malformed: list[str] = field(default_factory=list)
    revision: str | None = None


@dataclass
class Table:
    """
    Rows that are not checked yet.

    Args:
        label: Name of the data set in messages.
        rows: The rows; a text stands for one that could not be read and says why.
        places: File and line of each row.
    """

    label: str
    rows: "Dataset | list[dict[str, Any] | str]"
    places: list[str] | None = None

    def place(self, index: int) -> str:
        """File and line of a row, or its number."""
        return self.places[index] if self.places else f"{self.label} row {index}"

    def select(self, indices: Sequence[int]) -> "Table":
        """Return the table of some of the rows."""
        rows = [self.rows[index] for index in indices] if isinstance(self.rows, list) else self.rows.select(indices)
        return Table(self.label, rows, [self.place(index) for index in indices])


def open_table(
    location: str,
    split: str | None,
    config: str | None = None,
    revision: str | None = None,
    max_rows: int | None = None,
    report: LoadReport | None = None,
) -> Table:
    """
    Read a split as it is.

    Args:
        location (`str`):
            Local file or folder, Hub id, or `https://` address of a JSON file.
        split (`str` or `None`):
            Split to read: in a folder the files `split.jsonl`, `split-*.parquet`, `split/*` and such; `None` for all.
        config (`str`, *optional*), revision (`str`, *optional*):
            Configuration of a Hub data set, and its branch, tag or commit.
        max_rows (`int`, *optional*):
            Number of rows to read, from the top.
        report ([`LoadReport`], *optional*):
            Takes the commit.

    Raises:
        `ValueError`: if there is no such data; [`MissingSplitError`] if only other splits are there.
    """
    from datasets import DownloadManager, load_dataset
    from datasets.exceptions import DatasetGenerationError

    path = Path(location).expanduser()
    if is_saved_dataset(path):
        rows = _saved_split(path, split)
    elif path.exists():
        files = find_files(path, split)
        types = sorted({kind for file in files if (kind := file_type(file))})
        if len(types) > 1:
            raise ValueError(f"{location}: {', '.join(file.name for file in files)} mix {' with '.join(types)}")
        if types == ["json"]:
            # Our own reader: that of `datasets` names no line, and one bad line would lose the whole file.
            entries = list(itertools.islice(itertools.chain.from_iterable(map(read_json, files)), max_rows))
            return Table(location, [row for _, row in entries], [place for place, _ in entries])
        for file in files:
            check_size(file)
        try:
            options = _csv_options(files, types[0]) if types[0] in ("csv", "tsv") else {}
            reader = "csv" if options else types[0]
            rows = load_dataset(reader, data_files=[str(file) for file in files], split="train", **options)
        except (DatasetGenerationError, UnicodeError) as error:
            reason = one_line(error.__cause__ or error)
            raise ValueError(f"{location} cannot be read as {types[0]}: {reason}") from None
    elif location.startswith("https://"):
        check_size(Path(DownloadManager().download(location)), location)
        rows = load_dataset("json", data_files=location, split="train")
    else:
        plain = split is not None and re.fullmatch(r"[\w.-]+", split)  # no "train[:10%]" or "train+test"
        rows = load_dataset(location, config, revision=revision, split=None if plain else split or "all")
        if plain:
            if split not in rows:
                raise MissingSplitError(f"{location} has no split {split!r}; it has {', '.join(rows)}")
            rows = rows[split]
        # `datasets` keeps a Hub data set in a folder named after its commit.
        commits = [re.search(r"[/\\]([0-9a-f]{40})[/\\]", file["filename"]) for file in rows.cache_files]
        if report is not None and commits and commits[0]:
            report.revision = commits[0][1]
    return Table(location, rows if max_rows is None else rows.select(range(min(max_rows, len(rows)))))


def _csv_options(files: Sequence[Path], kind: str) -> dict[str, Any]:
    """
    Check that all rows of CSV files have as many fields as the header, of which pandas would silently make an index or
    nothing, and return options by which the columns that hold text stay text, also where all of them are numbers.
    """
    separator = "," if kind == "csv" else "\t"
    csv.field_size_limit(1 << 28)
    header: list[str] = []
    for file in files:
        with file.open("rb") as raw:
            is_packed = raw.read(2) == b"\x1f\x8b"  # whatever its name says, as for `datasets`
        with (gzip.open if is_packed else open)(file, "rt", encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream, delimiter=separator, strict=True)
            try:
                header = next(rows, [])
                for row in rows:
                    if row and len(row) != len(header):
                        raise ValueError(
                            f"{file}:{rows.line_num}: {len(row)} fields, but the header has {len(header)}: a text "
                            "with separators or line breaks stands in double quotes"
                        )
            except csv.Error as error:
                raise ValueError(f"{file} cannot be read as {kind}: line {rows.line_num}: {error}") from None
    texts = [name for name in header if name in TEXT_COLUMNS]
    return {
        "sep": separator,
        "converters": dict.fromkeys(texts, str),
        # "NA" and "null" are texts like others.
        "keep_default_na": False,
        "na_values": {name: [""] for name in header if name not in texts},
    }


def _saved_split(path: Path, split: str | None) -> "Dataset":
    """A split of what `save_to_disk` wrote; a data set without splits is the train split."""
    from datasets import Dataset, concatenate_datasets, load_from_disk

    saved = load_from_disk(str(path))
    splits = {"train": saved} if isinstance(saved, Dataset) else dict(saved)
    if split is not None and split not in splits:
        raise MissingSplitError(f"{path} has no split {split!r}; it has {', '.join(splits)}")
    return splits[split] if split is not None else concatenate_datasets(list(splits.values()))


def read_rows(
    location: str,
    split: str | None,
    validate: Callable[[dict[str, Any]], str | None],
    config: str | None = None,
    revision: str | None = None,
    columns: Sequence[str] = (),
    report: LoadReport | None = None,
) -> list[dict[str, Any]]:
    """
    Valid rows of a data set in its upstream columns, for a function to convert; other arguments as in [`open_table`].

    Args:
        validate (`Callable[[dict], str | None]`):
            Error text of a malformed row, `None` for a valid one.
        columns (`Sequence[str]`, *optional*):
            Columns that are needed; all by default.
        report ([`LoadReport`], *optional*):
            Takes the malformed rows and the commit.

    Raises:
        `ValueError`: if nothing is there, or over 1 % of the rows are malformed.
    """
    table = open_table(location, split, config, revision, report=report)
    if columns and not isinstance(table.rows, list):
        table.rows = table.rows.select_columns([name for name in columns if name in table.rows.column_names])
    rows = list(table.rows)
    errors = [row if isinstance(row, str) else validate(row) for row in rows]
    return [rows[index] for index in _valid_indices(table, errors, report)]


def load_table(
    location: str,
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    columns: dict[str, str] | None = None,
    max_rows: int | None = None,
    kinds: Sequence[str] | None = None,
    report: LoadReport | None = None,
) -> "Dataset":
    """
    Data set that is already in TRL's columns, or becomes so by renaming; other arguments as in [`open_table`].

    Args:
        columns (`dict[str, str]`, *optional*):
            TRL's column name -> name in the data set.
        max_rows (`int`, *optional*):
            Number of rows, malformed ones included.
        kinds (`Sequence[str]`, *optional*):
            As in [`to_dataset`].
    """
    table = open_table(location, split, config, revision, max_rows, report)
    if columns:
        rename_columns(table, columns)
    return to_dataset(table, kinds, report)


def to_dataset(table: Table, kinds: Sequence[str] | None = None, report: LoadReport | None = None) -> "Dataset":
    """
    Check a table in TRL's columns and leave out its malformed rows.

    Args:
        kinds (`Sequence[str]`, *optional*):
            Kinds ([`schoolhouse.data.columns.KINDS`]) that the stage can use, the preferred one first.
        report ([`LoadReport`], *optional*):
            Takes the malformed rows.

    Returns:
        `datasets.Dataset`: columns of one kind, and every extra column.

    Raises:
        `ValueError`: if the columns make no kind that is wanted, or over 1 % of the rows are malformed.
    """
    from datasets import Dataset

    table = _in_known_form(table, kinds) if kinds else table
    names = _columns(table)
    # Where no line could be read there are no columns to decide by: _valid_indices says what is wrong.
    kind = require_kind(table.label, names, kinds) if names else None
    required = columns_of(kind, names) if kind else ()
    errors: list[str | None] = []
    forms: list[str | None] = []
    for row in table.rows:
        if isinstance(row, str):
            errors.append(row)
        else:
            errors.append(validate_row(row, kind, required) if kind else "has no columns")
        forms.append(form_of(row, kind) if kind and isinstance(row, dict) and not errors[-1] else None)
    # Text and messages do not mix within a column: the rarer form is malformed.
    usual = Counter(form for form in forms if form).most_common(1)
    for index, form in enumerate(forms):
        if form and form != usual[0][0]:
            errors[index] = f"is {form} where most rows are {usual[0][0]} (text, not messages, or the reverse)"
    valid = _valid_indices(table, errors, report)
    if isinstance(table.rows, list):
        good = [row for index in valid if isinstance(row := table.rows[index], dict)]
        every = dict.fromkeys(name for row in good for name in row)
        surplus = surplus_of(every, required)
        rows = [{name: row.get(name) for name in every if name not in surplus} for row in good]
        # Without `use_json` a number among the strings of any extra column is an error of Arrow's.
        return Dataset.from_list(rows, on_mixed_types="use_json")
    rows = table.rows if len(valid) == len(table.rows) else table.rows.select(valid)
    return rows.remove_columns(surplus_of(rows.column_names, required))


def _in_known_form(table: Table, kinds: Sequence[str]) -> Table:
    """Return the table with rows in TRL's columns and messages of text, where they are in another common form."""
    form = find_form(_columns(table) | _optional_columns(table), kinds)
    is_list = isinstance(table.rows, list)
    if form is None and not is_list and not any(_has_parts(feature) for feature in table.rows.features.values()):
        return table
    read: list[dict[str, Any] | str] = []
    for row in table.rows:
        try:
            row = form.read(row) if form and isinstance(row, dict) else row
            read.append({name: plain_messages(value) for name, value in row.items()} if isinstance(row, dict) else row)
        except ValueError as error:
            read.append(str(error))
    result = Table(table.label, read, table.places)
    first = next((index for index, row in enumerate(read) if isinstance(row, dict)), None)
    if form and first is not None and read[first] != table.rows[first]:
        logger.info("%s: read as %s: %s", table.label, form.name, form.reading)
    unread = unread_columns(_columns(result) | _optional_columns(result))
    if unread := sorted({*unread, *(form.unread if form else ())}):
        logger.warning(
            "%s: not read: %s; dataset_columns, or a YAML file that describes the data, can bring it into the prompt",
            table.label,
            ", ".join(unread),
        )
    return result


def _has_parts(feature: Any) -> bool:
    """Whether a column of an Arrow table holds messages whose content is no text."""
    entry = getattr(feature, "feature", None)
    return isinstance(entry, dict) and getattr(entry.get("content"), "dtype", None) not in (None, "string")


def _valid_indices(table: Table, errors: list[str | None], report: LoadReport | None) -> list[int]:
    """Indices of the rows without an error; raises where too many have one, warns and reports where some have."""
    if not errors:
        raise ValueError(f"{table.label} holds no rows")
    malformed = [f"{table.place(index)}: {error}" for index, error in enumerate(errors) if error]
    first = "; ".join(malformed[:SHOWN]) + ("; ..." if len(malformed) > SHOWN else "")
    counts = f"{len(malformed)} of {len(errors)} rows"
    if 100 * len(malformed) > MALFORMED_PERCENT * len(errors):
        raise ValueError(f"{table.label}: {counts} are malformed, more than {MALFORMED_PERCENT} %: {first}")
    if malformed:
        logger.warning("%s: left out %s as malformed: %s", table.label, counts, first)
        if report is not None:
            report.malformed += malformed
    return [index for index, error in enumerate(errors) if not error]


def _columns(table: Table) -> set[str]:
    if not isinstance(table.rows, list):
        return set(table.rows.column_names)
    # A malformed row may lack a column or bring one of its own: the majority says which ones the file has.
    rows = [row for row in table.rows if isinstance(row, dict)]
    counts = Counter(name for row in rows for name, value in row.items() if value is not None)
    return {name for name, count in counts.items() if 2 * count > len(rows)}


def _optional_columns(table: Table) -> set[str]:
    """Columns of a question that some rows fill and others leave out."""
    if not isinstance(table.rows, list):
        return set()
    rows = [row for row in table.rows if isinstance(row, dict)]
    return {name for row in rows for name in OPTIONAL.intersection(row) if row[name] not in (None, "")}


def rename_columns(table: Table, columns: dict[str, str]) -> None:
    """
    Give columns TRL's names, in place; a column that had the new name is dropped.

    Args:
        columns (`dict[str, str]`):
            TRL's column name -> name in the data set.

    Raises:
        `ValueError`: a column does not exist or is named twice.
    """
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
