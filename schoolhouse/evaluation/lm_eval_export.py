"""Results in the layout of lm-evaluation-harness, for the tools that read its folders."""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from schoolhouse.core.files import write_json, write_json_lines
from schoolhouse.evaluation.results import (
    EvalSample,
    EvaluationResults,
    SamplingSettings,
    TaskResult,
    by_item,
    load_results,
    load_samples,
)


Line = dict[str, Any]  # lm-eval's JSON, whose fields are its own


def export_lm_eval(results_folder: str | Path, output_dir: str | Path) -> Path:
    """
    Write an eval as lm-eval's `EvaluationTracker` writes its own: `<output_dir>/<model>/results_<date>.json` and
    `samples_<task>_<date>.jsonl`, one line per item.

    Metrics are those of this project under the filter `none`: `acc` is the grader's verdict (of several samples, the
    share that is right), `bits_per_byte` that of held-out text, beside all other metrics. What this project does not
    know of a run, such as lm-eval's version, is left out. The date is that of the results, so writing them again
    replaces the files. Missing results or samples are a `ValueError`.

    Returns the file with the results.
    """
    results = load_results(results_folder)
    written = (Path(results_folder) / "results.json").stat().st_mtime
    date = datetime.fromtimestamp(written).isoformat().replace(":", "-")
    name = results.adapter or results.model
    sanitised = re.sub(r'["<>:/|\\?*\[\]]+', "__", name)
    folder = Path(output_dir) / (sanitised.strip(".") or "model")
    lines = {}
    for task in results.tasks:
        groups = by_item(load_samples(results_folder, task)).values()
        lines[task] = [_document(number, group, results, task) for number, group in enumerate(groups)]
    for task, documents in lines.items():
        file_task = re.sub(r"\W", "_", task)
        write_json_lines(folder / f"samples_{file_task}_{date}.jsonl", documents)
    tasks = results.tasks
    record = {
        "results": {task: _aggregate(task, result, lines[task]) for task, result in tasks.items()},
        "group_subtasks": {task: [] for task in tasks},
        "configs": {task: _config(task, results, lines[task]) for task in tasks},
        "versions": {task: result.version for task, result in tasks.items()},
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {
            task: {_value_name(lines[task]): result.higher_is_better} for task, result in tasks.items()
        },
        "n-samples": {task: {"original": result.items, "effective": result.items} for task, result in tasks.items()},
        "config": {
            "model": "schoolhouse",
            "model_args": {"pretrained": results.model} | ({"peft": name} if results.adapter else {}),
            "model_dtype": results.sampling.dtype,
            "model_sha": results.hashes.model,
            "device": results.sampling.device,
            "gen_kwargs": _generation_kwargs(results.sampling),
        },
        "git_hash": results.git.revision if results.git else None,
        "date": written,
        "transformers_version": results.versions.get("transformers"),
        "task_hashes": {
            task: _hash("".join(line[f"{part}_hash"] for line in documents for part in ("doc", "prompt", "target")))
            for task, documents in lines.items()
        },
        "model_source": "schoolhouse",
        "model_name": name,
        "model_name_sanitized": folder.name,
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": None,
        "chat_template": None,
        "chat_template_sha": results.hashes.chat_template,
        "total_evaluation_time_seconds": None,
    }
    path = folder / f"results_{date}.json"
    write_json(path, record)
    return path


def _document(number: int, group: Sequence[EvalSample], results: EvaluationResults, task: str) -> Line:
    """Return the line of an item, with every answer to it."""
    first = group[0]
    keys = ("id", "prompt", "reference", "level", "cluster")
    doc = {key: value for key, value in first.to_json().items() if key in keys}
    # lm-eval logs a conversation that it does not render itself as JSON.
    prompt = first.prompt if isinstance(first.prompt, str) else json.dumps(first.prompt, ensure_ascii=False)
    arguments: Line = {"arg_0": prompt}
    if first.has("completion"):
        length = results.tasks[task].max_new_tokens
        arguments["arg_1"] = _generation_kwargs(results.sampling_of(task)) | {"max_gen_toks": length}
        given = [[sample.completion for sample in group]]
    elif first.has("bits"):
        given = [[str(_nats(first))]]
    else:  # the log-likelihood of each choice, the score of each answer in a pair
        given = [[str(value)] for value in first.loglikelihoods or first.scores]
    metrics = _metrics(group)
    return {
        "doc_id": number,
        "doc": doc,
        "target": first.reference,
        "arguments": {"gen_args_0": arguments},
        "resps": given,
        "filtered_resps": [answers[0] for answers in given],
        "filter": "none",
        "metrics": list(metrics),
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(prompt),
        "target_hash": _hash(first.reference),
    } | metrics


def _metrics(group: Sequence[EvalSample]) -> Line:
    if group[0].has("bits"):
        return {"bits_per_byte": [_nats(group[0]), group[0].bytes]}
    rows: list[Line] = [
        {"acc": bool(sample.correct)}
        | {key: getattr(sample, key) for key in ("format_ok", "right_in_any_form") if sample.has(key)}
        | sample.metrics
        for sample in group
    ]
    metrics = {}
    for name in rows[0]:
        values = [row[name] for row in rows if isinstance(row.get(name), bool | int | float)]
        if values:
            metrics[name] = sum(values) / len(values)
    return metrics


def _aggregate(task: str, result: TaskResult, lines: Sequence[Line]) -> Line:
    value, error = _value_name(lines), result.standard_error
    row: Line = {"name": task, "alias": task, "sample_len": result.items, f"{value},none": result.value}
    row[f"{value}_stderr,none"] = "N/A" if error is None else error
    for name in dict.fromkeys(name for line in lines for name in line["metrics"] if name != value):
        values = [line[name] for line in lines if name in line]
        row |= {f"{name},none": sum(values) / len(values), f"{name}_stderr,none": "N/A"}
    return row


def _config(task: str, results: EvaluationResults, lines: Sequence[Line]) -> Line:
    is_generated = "arg_1" in lines[0]["arguments"]["gen_args_0"]
    kind = "generate_until" if is_generated else "loglikelihood"
    config = {
        "task": task,
        "output_type": "loglikelihood_rolling" if "bits_per_byte" in lines[0]["metrics"] else kind,
        "num_fewshot": 0,
        "repeats": results.sampling_of(task).num_samples if is_generated else 1,
        "metadata": {"version": results.tasks[task].version},
    }
    return config | ({"generation_kwargs": lines[0]["arguments"]["gen_args_0"]["arg_1"]} if is_generated else {})


def _value_name(lines: Sequence[Line]) -> str:
    name: str = lines[0]["metrics"][0]
    return name


def _generation_kwargs(sampling: SamplingSettings) -> Line:
    return {"do_sample": sampling.temperature > 0, "temperature": sampling.temperature, "top_p": sampling.top_p}


def _nats(sample: EvalSample) -> float:
    return -sample.bits * math.log(2)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
