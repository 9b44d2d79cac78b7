"""The training data that a configuration names: one set or a weighted mixture, with a record of every source."""

import difflib
import itertools
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schoolhouse.core.fingerprint import fingerprint
from schoolhouse.data.builders import DATASETS, SOURCES
from schoolhouse.data.columns import (
    TRL_COLUMNS,
    columns_of,
    form_of,
    kind_of,
    prompt_text,
    require_kind,
    surplus_of,
    whole_text,
)
from schoolhouse.data.decontamination import EvalIndex, drop_overlap, exact_duplicates
from schoolhouse.data.files import SUFFIX, MissingSplitError
from schoolhouse.data.loading import SHOWN, LoadedData, accounting, load_table


if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

ENTRY_KEYS = ("name", "path", "config", "revision", "split", "weight", "columns", "max_rows", "drop_overlap")


def load_training_data(
    data_args: Any,
    seed: int,
    kinds: Sequence[str] | None = None,
    eval_sets: dict[str, list[str]] | None = None,
) -> LoadedData:
    """
    Loads what `dataset_name`, `dataset_path` or `datasets` name.

    A mixture with weights takes as many rows as it can without repeating one: the source that runs out first sets the
    size, and of every source exactly its share is drawn, at random by `seed`. Without weights every row is taken.
    Either way the rows are shuffled by `seed`. A single data set keeps its order.

    Args:
        data_args (`DataArguments`):
            Has `dataset_name`, `dataset_path`, `dataset_config`, `dataset_revision`, `dataset_train_split`,
            `dataset_test_split`, `dataset_columns`, `datasets`, `max_train_rows` and `max_eval_rows`, and may have
            `drop_overlap`. Each of the `datasets` is a dict with keys of `ENTRY_KEYS`.
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
    for entry in entries if data_args.dataset_test_split else ():
        max_rows = None if mixed else data_args.max_eval_rows
        try:
            tests.append(_load(entry, "test", data_args.dataset_test_split, max_rows, kinds))
        except MissingSplitError as error:
            # "test" is the default, which a file of one's own need not have; the trainer says if it needs one.
            if data_args.dataset_test_split != "test":
                raise
            logger.info("nothing to evaluate on: %s", error)
    prompts = {f"{record['name']}:{record['split']}": list(map(prompt_text, rows)) for rows, record in tests}
    index = EvalIndex({**prompts, **(eval_sets or {})})
    for entry in entries:
        max_rows = entry.get("max_rows") if mixed else data_args.max_train_rows
        rows, record = _load(entry, "train", entry.get("split") or data_args.dataset_train_split, max_rows, kinds)
        trains.append((_clean(rows, record, index, bool(entry.get("drop_overlap"))), record))
    sources = [record for _, record in (*trains, *tests)]
    _require_one_kind([*trains, *tests])
    if not mixed:
        return LoadedData(trains[0][0], tests[0][0] if tests else None, sources)
    train = _mix(trains, seed, [entry.get("weight") for entry in entries], data_args.max_train_rows)
    test = _mix(tests, seed, [None] * len(tests), data_args.max_eval_rows) if tests else None
    return LoadedData(train, test, sources)


def _entries(data_args: Any) -> list[dict[str, Any]]:
    single = data_args.dataset_name or data_args.dataset_path
    if bool(single) == bool(data_args.datasets):
        both = "both are given" if single else "none is given"
        raise ValueError(f"name the data with either dataset_name / dataset_path or datasets: {both}")
    if single:
        return [
            {
                "name": data_args.dataset_name,
                "path": data_args.dataset_path,
                "config": data_args.dataset_config,
                "revision": data_args.dataset_revision,
                "columns": data_args.dataset_columns,
                "drop_overlap": getattr(data_args, "drop_overlap", False),
            }
        ]
    for number, entry in enumerate(data_args.datasets, start=1):
        where = f"datasets, entry {number}"
        if not isinstance(entry, dict) or not (entry.get("name") or entry.get("path")):
            raise ValueError(f"{where}: wanted is a mapping with a name or a path, not {entry!r}")
        if unknown := [key for key in entry if key not in ENTRY_KEYS]:
            raise ValueError(f"{where}: unknown key {unknown[0]!r}{_nearest(unknown[0], ENTRY_KEYS)}")
        weight = entry.get("weight")
        sound = isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight < math.inf
        if weight is not None and not sound:
            raise ValueError(f"{where}: weight must be a positive number, not {weight!r}")
    if len({entry.get("weight") is None for entry in data_args.datasets}) > 1:
        raise ValueError("datasets: give every entry a weight, or none (then every row is taken)")
    return data_args.datasets


def _load(
    entry: dict[str, Any], role: str, split: str, max_rows: int | None, kinds: Sequence[str] | None
) -> "tuple[Dataset, dict[str, Any]]":
    """The rows of one source in one split, and their record."""
    name, path = entry.get("name"), entry.get("path")
    source = SOURCES.get(name)
    with accounting() as account:
        if name in DATASETS:
            for key in ("config", "columns"):
                if entry.get(key):
                    raise ValueError(f"{key} does not apply to {name!r}, which knows its own; leave it out")
            rows = DATASETS[name](split, path=path, revision=entry.get("revision"))
            kind = require_kind(name, rows.column_names, kinds)
            required = columns_of(kind, rows.column_names)
            rows = rows.remove_columns(surplus_of(rows.column_names, required))
            rows = rows if max_rows is None else rows.select(range(min(max_rows, len(rows))))
            # Data sets without a source are generated here.
            location = path or (source.hub if source else "generated")
            license = source.license if source else "Apache-2.0"
        else:
            location = path or _checked_location(name)
            rows = load_table(
                location,
                split,
                config=entry.get("config"),
                revision=entry.get("revision"),
                columns=entry.get("columns"),
                max_rows=max_rows,
                kinds=kinds,
            )
            kind, license = kind_of(rows.column_names, kinds), rows.info.license or None
    if not len(rows):
        raise ValueError(f"{name or path}: no rows in split {split!r}" + (" (max_rows is 0)" if max_rows == 0 else ""))
    return rows, {
        "role": role,
        "name": name or path,
        "location": location,
        "config": entry.get("config"),
        "revision": account.revision or entry.get("revision"),
        "split": split,
        "kind": kind,
        "rows": len(rows),
        "used_rows": len(rows),
        "weight": entry.get("weight"),
        "malformed": len(account.malformed),
        "malformed_rows": account.malformed[:SHOWN],
        "sha256": fingerprint(rows),
        "license": license,
    }


def _checked_location(name: str) -> str:
    if Path(name).expanduser().exists():
        return name
    if SUFFIX.search(name):
        raise ValueError(f"{name}: no such file")
    # "tiny/fact" has the form of a Hub id, but nobody means the Hub by it.
    namespaces = {known.split("/")[0] for known in DATASETS if "/" in known}
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.split("/", maxsplit=1)[0] in namespaces:
        raise ValueError(
            f"unknown data set {name!r}{_nearest(name, DATASETS)} Known are {', '.join(sorted(DATASETS))}, "
            "any Hub id of the form user/name, and a local file or folder."
        )
    return name


def _nearest(name: str, known: Sequence[str] | dict[str, Any]) -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {nearest[0]!r}?" if nearest else "."


def _clean(rows: "Dataset", record: dict[str, Any], index: EvalIndex, drop: bool) -> "Dataset":
    """Enters duplicates and overlap into the record, and drops the overlapping rows if asked."""
    record["exact_duplicates"] = len(exact_duplicates(list(map(whole_text, rows))))
    kept, report = drop_overlap(rows, index)
    record["overlap"] = {
        name: {key: value for key, value in found.items() if not key.endswith("_ids")}
        for name, found in report.items()
    }
    for name, found in report.items():
        if found["train_rows"]:
            logger.warning(
                "%s: %d of %d training prompts (%.1f %%) overlap prompts of %s%s",
                record["name"],
                found["train_rows"],
                len(rows),
                100 * found["train_share"],
                name,
                ": dropped" if drop else " (drop_overlap removes them)",
            )
    if not drop:
        return rows
    if not len(kept):
        raise ValueError(f"{record['name']}: drop_overlap leaves no training row")
    record["dropped_overlap"] = len(rows) - len(kept)
    record["rows"] = record["used_rows"] = len(kept)
    record["sha256"] = fingerprint(kept)
    return kept


def _require_one_kind(parts: "list[tuple[Dataset, dict[str, Any]]]") -> None:
    described = []
    for rows, record in parts:
        columns = columns_of(record["kind"], rows.column_names)
        described.append((f"{', '.join(columns)} ({form_of(rows[0], record['kind'])})", record["name"]))
    for (first, first_name), (other, other_name) in itertools.pairwise(described):
        if first != other:
            raise ValueError(
                f"the data sets do not mix: {first_name!r} has {first}, {other_name!r} has {other}; "
                "bring them to the same columns, or train on one after the other"
            )


def _mix(
    parts: "list[tuple[Dataset, dict[str, Any]]]", seed: int, weights: list[float | None], limit: int | None
) -> "Dataset":
    import numpy as np
    from datasets import concatenate_datasets

    sizes = [len(rows) for rows, _ in parts]
    weighted = weights[0] is not None
    if weighted:
        sizes = _allot(sizes, weights, limit)
    drawn = []
    for (rows, record), size in zip(parts, sizes, strict=True):
        if not size:
            raise ValueError(f"the weight of {record['name']!r} leaves it no row of the mixture: raise it")
        if "source" not in rows.column_names:
            rows = rows.add_column("source", [record["name"]] * len(rows))
        drawn.append(rows.shuffle(seed).select(range(size)) if size < len(rows) else rows)
    mixture = concatenate_datasets(_align(drawn, parts))
    order = np.random.default_rng(seed).permutation(len(mixture))[:limit]
    origins = np.repeat(np.arange(len(parts)), sizes)[order]
    for (_, record), used in zip(parts, np.bincount(origins, minlength=len(parts)), strict=True):
        record["used_rows"] = int(used)
    return mixture.select(order)


def _align(drawn: "list[Dataset]", parts: "list[tuple[Dataset, dict[str, Any]]]") -> "list[Dataset]":
    """The parts with equal column types, which Arrow wants of rows that stand in one table."""
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
            names = [record["name"] for rows, (_, record) in zip(drawn, parts, strict=True) if column in rows.features]
            logger.warning("column %r is left out: its type differs between %s", column, ", ".join(names))
            drawn = [rows.remove_columns(column) if column in rows.features else rows for rows in drawn]
    return drawn


def _allot(sizes: list[int], weights: list[float], limit: int | None) -> list[int]:
    """
    Rows to draw from each source: exactly its share, none twice.

    Args:
        sizes (`list[int]`):
            Rows of each source.
        weights (`list[float]`):
            Weight of each source, in any unit.
        limit (`int` or `None`):
            Most rows in all.

    Returns:
        `list[int]`: within one row of `share * total`; the total is the largest that no source falls short of.
    """
    shares = [weight / sum(weights) for weight in weights]
    total = math.floor(min(size / share for size, share in zip(sizes, shares, strict=True)) + 1e-9)
    total = total if limit is None else min(total, limit)
    counts = [min(math.floor(share * total + 1e-9), size) for share, size in zip(shares, sizes, strict=True)]
    by_remainder = sorted(range(len(sizes)), key=lambda index: counts[index] - shares[index] * total)
    for index in by_remainder:
        if sum(counts) < total and counts[index] < sizes[index]:
            counts[index] += 1
    return counts
