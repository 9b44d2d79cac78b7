"""Training data that a recipe names: one data set or a weighted mixture, with a record of each source."""

import difflib
import hashlib
import itertools
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from schoolhouse.config.errors import ConfigError
from schoolhouse.core.fingerprint import fingerprint
from schoolhouse.core.manifest import DataSource
from schoolhouse.data.columns import TRL_COLUMNS, columns_of, form_of, prompt_text, require_kind, whole_text
from schoolhouse.data.decontamination import EvalIndex, drop_overlap, exact_duplicates
from schoolhouse.data.files import MissingSplitError, file_type
from schoolhouse.data.loading import SHOWN, LoadReport, load_table, to_dataset
from schoolhouse.data.specs import dataset_names, is_dataset_spec, load_dataset_spec, open_dataset


if TYPE_CHECKING:
    from datasets import Dataset

    from schoolhouse.config.arguments import DataArguments, DatasetEntry

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedData:
    """
    Rows that a recipe trains on.

    Args:
        train (`datasets.Dataset`):
            Training rows; in a mixture the column `source` names the data set of each (a `source` of its own is kept).
        test (`datasets.Dataset` or `None`):
            Rows for the loss during training, `None` without a test split.
        sources (`list[DataSource]`):
            A record for each data set and split.
    """

    train: "Dataset"
    test: "Dataset | None"
    sources: list[DataSource]


def load_training_data(
    data_args: "DataArguments",
    seed: int,
    kinds: Sequence[str] | None = None,
    eval_sets: dict[str, list[str]] | None = None,
) -> LoadedData:
    """
    Load what `dataset_name`, `dataset_path` or `datasets` name.

    A mixture with weights takes as many rows as possible without repeating one: the source that runs out first limits
    the size, and exactly its share is drawn of each source, at random by `seed`. Without weights every row is taken.
    In both cases the rows are shuffled by `seed`. A single data set keeps its order.

    Args:
        data_args (`DataArguments`):
            The recipe's keys about data, as the parser has checked them.
        seed (`int`):
            Decides which rows a mixture draws, and their order.
        kinds (`Sequence[str]`, *optional*):
            Kinds ([`schoolhouse.data.columns.KINDS`]) that the stage can train on, the preferred one first.
        eval_sets (`dict[str, list[str]]`, *optional*):
            Name of an eval set in use -> its prompts. The overlap of the training prompts with these and with the test
            split is always recorded, and removed where `drop_overlap` asks for it.

    Returns:
        [`LoadedData`]

    Raises:
        `ValueError`: for an unknown data set, rows that do not fit the stage or each other, over 1 % malformed rows.
    """
    mixed = bool(data_args.datasets)
    entries = _entries(data_args)
    tests, trains = [], []
    test_split = None if data_args.validation_split is not None else data_args.dataset_test_split
    for entry in entries:
        if test_split is None:
            break
        max_rows = None if mixed else data_args.max_eval_rows
        try:
            tests.append(_load(entry, "test", test_split, max_rows, kinds))
        except MissingSplitError as error:
            # "test" is the default, which a user's file need not have; a recipe that needs one says so.
            if test_split != "test":
                raise
            logger.debug("nothing to evaluate on: %s", error)
    loaded = []
    for entry in entries:
        max_rows = entry.get("max_rows") if mixed else data_args.max_train_rows
        loaded.append(_load(entry, "train", entry.get("split") or data_args.dataset_train_split, max_rows, kinds))
    if data_args.validation_split is not None:
        loaded, tests = _hold_out(loaded, data_args.validation_split)
    prompts = {f"{record.name}:{record.split}": list(map(prompt_text, rows)) for rows, record in tests}
    index = EvalIndex({**prompts, **(eval_sets or {})})
    for (rows, record), entry in zip(loaded, entries, strict=True):
        trains.append((_decontaminate(rows, record, index, entry.get("drop_overlap", False)), record))
    sources = [record for _, record in (*trains, *tests)]
    _require_one_kind([*trains, *tests])
    if not mixed:
        return LoadedData(trains[0][0], tests[0][0] if tests else None, sources)
    train = _mix(trains, seed, [entry.get("weight") for entry in entries], data_args.max_train_rows)
    test = _mix(tests, seed, [None] * len(tests), data_args.max_eval_rows) if tests else None
    return LoadedData(train, test, sources)


def _entries(data_args: "DataArguments") -> "list[DatasetEntry]":
    single = data_args.dataset_name or data_args.dataset_path
    if bool(single) == bool(data_args.datasets):
        both = "both are given" if single else "none is given"
        raise ValueError(f"name the data with either dataset_name / dataset_path or datasets: {both}")
    if data_args.datasets:
        return data_args.datasets
    values = {
        "name": data_args.dataset_name,
        "path": data_args.dataset_path,
        "config": data_args.dataset_config,
        "revision": data_args.dataset_revision,
        "columns": data_args.dataset_columns,
        "drop_overlap": data_args.drop_overlap,
    }
    return [cast("DatasetEntry", {key: value for key, value in values.items() if value})]


def _load(
    entry: "DatasetEntry",
    role: Literal["train", "test"],
    split: str,
    max_rows: int | None,
    kinds: Sequence[str] | None,
) -> "tuple[Dataset, DataSource]":
    """Rows of one data set in one split, and their record."""
    report, path, name = LoadReport(), entry.get("path"), entry.get("name") or entry["path"]
    config, revision = entry.get("config"), entry.get("revision")
    if is_dataset_spec(name):
        for key in ("config", "columns"):
            if entry.get(key):
                raise ValueError(f"{key} does not apply to {name!r}, which has its own: remove it")
        spec = load_dataset_spec(name)
        rows = to_dataset(open_dataset(spec, split, path, revision, max_rows, report), kinds, report)
        location, license, hub_id = path or spec.location, spec.license, spec.hub_id
        config, revision = (None, None) if path else (spec.config, revision or spec.revision)
    else:
        location = path or _checked_location(name)
        rows = load_table(location, split, config, revision, entry.get("columns"), max_rows, kinds, report)
        license, hub_id = rows.info.license or None, None if Path(location).expanduser().exists() else location
    if not len(rows):
        raise ValueError(f"{name}: no rows in split {split!r}" + (" (max_rows is 0)" if max_rows == 0 else ""))
    return rows, DataSource(
        role=role,
        name=name,
        location=location,
        hub_id=hub_id,
        config=config,
        revision=report.revision or revision,
        split=split,
        kind=require_kind(name, rows.column_names, kinds),
        rows=len(rows),
        used_rows=len(rows),
        weight=entry.get("weight"),
        malformed=len(report.malformed),
        malformed_rows=report.malformed[:SHOWN],
        sha256=fingerprint(rows),
        license=license,
    )


def _hold_out(
    parts: "list[tuple[Dataset, DataSource]]", size: float | int
) -> "tuple[list[tuple[Dataset, DataSource]], list[tuple[Dataset, DataSource]]]":
    """
    Divide the rows into those to train on and those held out, by a hash of the prompt. A share compares the hash with
    a fixed number, so rows that are added later leave the others where they were; a number of rows takes the smallest
    hashes, and all rows of a prompt.
    """
    hashes = [[_unit_hash(prompt_text(row)) for row in rows] for rows, _ in parts]
    every = sorted(itertools.chain.from_iterable(hashes))
    is_share = isinstance(size, float)
    if not (0 < size < 1 if is_share else 0 < size < len(every)):
        allowed = "between 0 and 1, or a number of rows" if is_share else f"from 1 to {len(every) - 1}, or a share"
        raise ConfigError(("validation_split",), f"must be {allowed}, got {size}")
    bound = size if is_share else every[int(size) - 1]
    kept, held = [], []
    for (rows, record), values in zip(parts, hashes, strict=True):
        sides = [value < bound if is_share else value <= bound for value in values]
        for into, side, role in ((kept, False, "train"), (held, True, "test")):
            part = rows.select([index for index, is_held in enumerate(sides) if is_held == side])
            if len(part):
                changed = {"role": role, "rows": len(part), "used_rows": len(part), "sha256": fingerprint(part)}
                split = "validation_split" if side else record.split
                into.append((part, record.model_copy(update={**changed, "split": split})))
    if len(kept) < len(parts) or not held:
        raise ConfigError(
            ("validation_split",), f"{size} of {len(every)} rows leave nothing to train or to evaluate on"
        )
    return kept, held


def _unit_hash(text: str) -> float:
    """Hash of a text as a number from 0 to 1."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _checked_location(name: str) -> str:
    if Path(name).expanduser().exists():
        return name
    if file_type(Path(name)):
        raise ValueError(f"{name}: no such file")
    # "tiny/fact" has the form of a Hub id, but nobody means the Hub by it.
    namespaces = {known.split("/")[0] for known in dataset_names() if "/" in known}
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.split("/", maxsplit=1)[0] in namespaces:
        nearest = difflib.get_close_matches(name, dataset_names(), n=1)
        hint = f", did you mean {nearest[0]!r}?" if nearest else "."
        raise ValueError(
            f"unknown data set {name!r}{hint} Known are {', '.join(dataset_names())}, "
            "any Hub id of the form user/name, a local file or folder, and a YAML file that describes other data."
        )
    return name


def _decontaminate(rows: "Dataset", record: DataSource, index: EvalIndex, drop: bool) -> "Dataset":
    """Enter duplicates and overlap into the record, and drop the overlapping rows if asked."""
    record.exact_duplicates = len(exact_duplicates(list(map(whole_text, rows))))
    kept, record.overlap = drop_overlap(rows, index)
    for name, found in record.overlap.items():
        if found.train_rows:
            logger.warning(
                "%s: %d of %d training prompts (%.1f %%) overlap prompts of %s%s",
                record.name,
                found.train_rows,
                len(rows),
                100 * found.train_share,
                name,
                ": dropped" if drop else " (drop_overlap removes them)",
            )
    if not drop:
        return rows
    if not len(kept):
        raise ValueError(f"{record.name}: drop_overlap leaves no training row")
    record.dropped_overlap = len(rows) - len(kept)
    record.rows = record.used_rows = len(kept)
    record.sha256 = fingerprint(kept)
    return kept


def _require_one_kind(parts: "list[tuple[Dataset, DataSource]]") -> None:
    described = []
    for rows, record in parts:
        columns = columns_of(record.kind, rows.column_names)
        described.append((f"{', '.join(columns)} ({form_of(rows[0], record.kind)})", record.name))
    for (first, first_name), (other, other_name) in itertools.pairwise(described):
        if first != other:
            raise ValueError(
                f"the data sets do not mix: {first_name!r} has {first}, {other_name!r} has {other}; "
                "bring them to the same columns, or train on one after the other"
            )


def _mix(
    parts: "list[tuple[Dataset, DataSource]]", seed: int, weights: list[float | None], limit: int | None
) -> "Dataset":
    """Rows of all parts in random order; with weights, exactly its share of each."""
    import numpy as np
    from datasets import concatenate_datasets

    sizes = [len(rows) for rows, _ in parts]
    if given := [weight for weight in weights if weight is not None]:
        sizes = _allot(sizes, given, limit)
    drawn = []
    for (rows, record), size in zip(parts, sizes, strict=True):
        if not size:
            raise ValueError(f"the weight of {record.name!r} leaves it no row of the mixture: raise it")
        if "source" not in rows.column_names:
            rows = rows.add_column("source", [record.name] * len(rows))
        drawn.append(rows.shuffle(seed).select(range(size)) if size < len(rows) else rows)
    mixture = concatenate_datasets(_align(drawn, parts))
    # One permutation of all rows; the limit may cut off more rows of one source than of another, so they are counted.
    order = np.random.default_rng(seed).permutation(len(mixture))[:limit]
    origins = np.repeat(np.arange(len(parts)), sizes)[order]
    for (_, record), used in zip(parts, np.bincount(origins, minlength=len(parts)), strict=True):
        record.used_rows = int(used)
    return mixture.select(order)


def _align(drawn: "list[Dataset]", parts: "list[tuple[Dataset, DataSource]]") -> "list[Dataset]":
    """The parts with equal column types, as Arrow needs them in one table."""
    from datasets import Json, List, Value

    for column in dict.fromkeys(name for rows in drawn for name in rows.column_names):
        types = [rows.features[column] for rows in drawn if column in rows.column_names]
        types = [kind for kind in types if kind != Value("null")]
        if all(kind == types[0] for kind in types):
            continue
        if column in TRL_COLUMNS:
            # Messages with tool calls or names beside messages without.
            drawn = [rows.cast_column(column, List(Json())) for rows in drawn]
        else:
            names = [record.name for rows, (_, record) in zip(drawn, parts, strict=True) if column in rows.features]
            logger.warning("column %r is left out: its type differs between %s", column, ", ".join(names))
            drawn = [rows.remove_columns(column) if column in rows.features else rows for rows in drawn]
    return drawn


def _allot(sizes: list[int], weights: list[float], limit: int | None) -> list[int]:
    """
    Number of rows to draw from each source: exactly its share, none twice, at most `limit` in all.

    A number is within one row of `share * total`; the total is the largest that no source falls short of. The weights
    may be in any unit.
    """
    shares = [weight / sum(weights) for weight in weights]
    # The largest total at which no source has to give more rows than it has. 1e-9 is for rounding errors.
    total = math.floor(min(size / share for size, share in zip(sizes, shares, strict=True)) + 1e-9)
    total = total if limit is None else min(total, limit)
    counts = [min(math.floor(share * total + 1e-9), size) for share, size in zip(shares, sizes, strict=True)]
    # Rounding down leaves some rows over: they go to the sources that are furthest below their share.
    by_remainder = sorted(range(len(sizes)), key=lambda index: counts[index] - shares[index] * total)
    for index in by_remainder:
        if sum(counts) < total and counts[index] < sizes[index]:
            counts[index] += 1
    return counts
