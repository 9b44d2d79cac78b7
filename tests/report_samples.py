"""Evals written as eval/run.py writes them, with the answers that a test wants."""

import functools
import json
from types import SimpleNamespace

from schoolhouse.core.files import write_json, write_json_lines
from schoolhouse.evaluation.results import build_results, summarise


def sample(item, correct, completion="#### 4", level=1, **more):
    return {
        "id": f"item-{item}",
        "index": 0,
        "prompt": [{"role": "user", "content": f"question {item}"}],
        "reference": "#### 4",
        "level": level,
        "completion": completion,
        "tokens": len(completion.split()),
        "finish_reason": "stop",
        "correct": correct,
        "extracted": "4",
        "format_ok": True,
        "right_in_any_form": correct,
        "metrics": {},
    } | more


def write_eval(folder, tasks):
    """`tasks`: name -> samples."""
    results = {
        name: summarise(SimpleNamespace(version=1, higher_is_better=True), lines) | {"max_new_tokens": 64}
        for name, lines in tasks.items()
    }
    write_json(folder / "results.json", _frame() | {"tasks": results})
    for name, lines in tasks.items():
        write_json_lines(folder / "samples" / f"{name}.jsonl", lines)
    return folder


@functools.cache  # it asks git and the versions of all packages, which hundreds of evals need not
def _frame():
    hashes = {"model": "m", "adapter": None, "chat_template": "t"}
    sampling = {"num_samples": 1, "temperature": 0.0, "top_p": 1.0, "seed": None, "dtype": "float32", "device": "cpu"}
    return build_results("base", None, hashes, "python eval/run.py", sampling, {})


def write_pipeline(folder, stages):
    """`stages`: name -> (name of the parent, tasks)."""
    entries = []
    for name, (parent, tasks) in stages.items():
        write_eval(folder / name / "eval", tasks)
        entries.append(
            {
                "name": name,
                "recipe": parent and "sft",
                "config": None,
                "after": parent,
                "folder": name,
                "key": "k",
                "status": "done",
                "seconds": 1.5,
                "eval": f"{name}/eval",
            }
        )
    path = folder / "pipeline.json"
    path.write_text(json.dumps({"schema": 1, "name": "small", "base": {"name": "b", "hash": "h"}, "stages": entries}))
    return path
