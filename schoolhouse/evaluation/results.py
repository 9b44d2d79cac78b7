"""results.json: what was measured, how sure it is, and all that is needed to measure it again."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from schoolhouse.core.environment import git_state, versions
from schoolhouse.core.redaction import redact
from schoolhouse.evaluation.statistics import bootstrap_mean, clustered_standard_error, maj_at_k, pass_at_k, wilson
from schoolhouse.evaluation.tasks.base import Task


SCHEMA = 2  # 1 called `reference` `gold`, `contaminated` `seen` and `uncontaminated` `clean`


def summarise(task: Task, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """
    The results of one task.

    The value is the mean over the items of the share of their samples that are correct (for one sample: the accuracy);
    for held-out text it is bits per byte of the whole corpus. Samples without a verdict are left out and counted as
    `ungraded`. The interval is Wilson's for one sample per item, otherwise a bootstrap over the items.

    Args:
        task ([`Task`]):
            The task.
        lines (`Sequence[dict]`):
            Its samples, from [`schoolhouse.evaluation.run_task.run_task`].

    Returns:
        `dict`: `version`, `n` (items with a verdict), `value`, `standard_error`, `interval` (95 %), `metrics`,
        `by_level` and, where the training data is known, `uncontaminated` (the items that share nothing with it);
        value, error and interval are `None` where there is too little to tell.
    """
    levels: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        if "level" in line:
            levels[line["level"]].append(line)
    order = sorted(levels, key=lambda level: (isinstance(level, str), level))
    result = (
        {"version": task.version, "higher_is_better": task.higher_is_better, "items": len({x["id"] for x in lines})}
        | _estimate(lines)
        | {"metrics": _metrics(lines), "by_level": {str(level): _estimate(levels[level]) for level in order}}
    )
    if "contaminated" in lines[0]:
        result["uncontaminated"] = _estimate([line for line in lines if not line["contaminated"]])
    return result


def item_values(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """
    One number per item, whose mean is the task's value: what intervals and paired tests work on.

    For held-out text the value is a ratio of sums, so each document's number is that ratio plus the document's share
    of its linearisation: the mean is the ratio and the spread that of the delta method.

    Args:
        lines (`Sequence[dict]`):
            Samples of one task.

    Returns:
        `dict[str, float]`: item id -> value; items without a verdict are left out.
    """
    if lines and "bits" in lines[0]:
        bits, sizes = (np.array([line[name] for line in lines], dtype=float) for name in ("bits", "bytes"))
        ratio = bits.sum() / sizes.sum()
        values = ratio + (bits - ratio * sizes) / sizes.mean()
        return {line["id"]: float(value) for line, value in zip(lines, values, strict=True)}
    verdicts: dict[str, list[bool]] = defaultdict(list)
    for line in lines:
        if line["correct"] is not None:
            verdicts[line["id"]].append(line["correct"])
    return {name: sum(given) / len(given) for name, given in verdicts.items()}


def build_results(
    model: str,
    adapter: str | None,
    hashes: dict[str, str | None],
    command: str,
    sampling: dict[str, Any],
    tasks: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """
    The whole of results.json.

    Args:
        model (`str`):
            Base model, as the user named it.
        adapter (`str` or `None`):
            Adapter, as the user named it.
        hashes (`dict[str, str | None]`):
            `model`, `adapter` and `chat_template`.
        command (`str`):
            Command line of the run.
        sampling (`dict`):
            Sampling parameters, seed, dtype and device; a task that is sampled in another way has a `sampling` too.
        tasks (`dict[str, dict]`):
            Name -> results, from [`summarise`].

    Returns:
        `dict`: JSON-compatible, without tokens, without the environment, the home folder written as `~`.
    """
    git = git_state()
    return {
        "schema": SCHEMA,
        "model": without_secrets(model),
        "adapter": adapter and without_secrets(adapter),
        "hashes": hashes,
        "git": git and git.model_dump(),
        "versions": versions(),
        "command": without_secrets(command),
        "sampling": sampling,
        "tasks": tasks,
    }


def sampling_of(results: dict[str, Any], task: str) -> dict[str, Any]:
    """How the completions of a task were drawn."""
    return results["sampling"] | results["tasks"][task].get("sampling", {})


def read_results(folder: str | Path) -> dict[str, Any]:
    """
    Reads results.json.

    Args:
        folder (`str` or `Path`):
            An `output_dir`.

    Returns:
        `dict`: its content.

    Raises:
        ValueError: if there is none, or it is of another schema.
    """
    path = Path(folder) / "results.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds no results.json: name the output_dir of a finished eval/run.py")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(results, dict) or results.get("schema") not in (1, SCHEMA):
        raise ValueError(f"{path} is not a result of schema {SCHEMA}: evaluate again with this version")
    for task in results["tasks"].values() if results["schema"] == 1 and isinstance(results.get("tasks"), dict) else ():
        _rename(task, clean="uncontaminated")
    return results


def read_samples(folder: str | Path, task: str) -> list[dict[str, Any]]:
    """
    Reads the samples of one task.

    Args:
        folder (`str` or `Path`):
            An `output_dir`.
        task (`str`):
            Name of the task.

    Returns:
        `list[dict]`: one per sample.

    Raises:
        ValueError: if the file is missing or damaged.
    """
    path = Path(folder) / "samples" / f"{task}.jsonl"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: the samples belong beside results.json")
    lines = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            if line:
                lines.append(_rename(json.loads(line), gold="reference", seen="contaminated"))
        except ValueError as error:
            raise ValueError(f"{path}:{number} is not valid JSON: {error}; evaluate again") from None
    return lines


def without_secrets(text: str) -> str:
    """
    A text as it may be published.

    Args:
        text (`str`):
            A command or a path.

    Returns:
        `str`: without tokens, secrets of the environment and passwords in addresses, the home folder as `~`.
    """
    text = redact(text)
    home = str(Path.home())
    return text if home == "/" else re.sub(rf"{re.escape(home)}(?=/|\s|$)", "~", text)


def _rename(record: Any, **names: str) -> Any:
    """Give the keys of schema 1 their new names, in place."""
    for old, new in names.items():
        if isinstance(record, dict) and old in record:
            record[new] = record.pop(old)
    return record


def _estimate(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    values = item_values(lines)
    n = len(values)
    result = {"n": n, "value": None, "standard_error": None, "interval": None}
    if not n:
        return result
    result["value"] = float(np.mean(list(values.values())))
    sources = {line["id"]: line.get("cluster", line["id"]) for line in lines}
    clusters = [sources[name] for name in values]
    if len(set(clusters)) > 1:
        result["standard_error"] = clustered_standard_error(list(values.values()), clusters)
    is_binary = len(lines) == len(sources) and "bits" not in lines[0]
    if is_binary and len(set(clusters)) == n:
        result["interval"] = list(wilson(round(sum(values.values())), n))
    elif len(set(clusters)) > 1:
        result["interval"] = list(bootstrap_mean(list(values.values()), clusters=clusters))
    return result


def _metrics(lines: Sequence[dict[str, Any]]) -> dict[str, float | int]:
    metrics: dict[str, float | int] = {}
    for name in ("format_ok", "right_in_any_form"):
        flags = [line[name] for line in lines if line.get(name) is not None]
        if flags:
            metrics[name] = _mean(flags)
    if "completion" in lines[0]:
        metrics["truncated"] = _mean([line["finish_reason"] == "length" for line in lines])
        metrics["mean_tokens"] = _mean([line["tokens"] for line in lines])
    if "bits" not in lines[0]:
        metrics["ungraded"] = sum(line["correct"] is None for line in lines)
    names = dict.fromkeys(name for line in lines for name in line.get("metrics", {}))
    for name in names:
        values = [line["metrics"][name] for line in lines if line["metrics"].get(name) is not None]
        pooled = [part for value in values for part in (value if isinstance(value, list) else [value])]
        if pooled and all(isinstance(part, bool | int | float) for part in pooled):
            metrics[name] = _mean(pooled)
        if name == "status":
            metrics |= {f"status/{kind}": number / len(pooled) for kind, number in Counter(pooled).most_common()}
    return metrics | _of_k(lines)


def _of_k(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """pass@k, and maj@k where answers were extracted, for k = 1, 2, 4, ... of several samples per item."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        groups[line["id"]].append(line)
    samples = min(map(len, groups.values()))
    if samples == 1:
        return {}
    graded = [group for group in groups.values() if all(line["correct"] is not None for line in group)]
    metrics: dict[str, float] = {}
    for k in [2**power for power in range(samples.bit_length())] if graded else []:
        right = [sum(line["correct"] for line in group) for group in graded]
        metrics[f"pass@{k}"] = _mean(pass_at_k([len(group) for group in graded], right, k))
        if all("extracted" in line for line in lines):
            metrics[f"maj@{k}"] = _mean([_majority(group, k) for group in graded])
    return metrics


def _majority(group: Sequence[dict[str, Any]], k: int) -> float:
    # Right answers vote together however they are written; a right answer has an extract by definition.
    votes = ["right" if line["correct"] else line["extracted"] and ("wrong", line["extracted"]) for line in group]
    return maj_at_k(votes, [line["correct"] for line in group], k)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
