"""Evals written as eval/run.py writes them, with the answers that a test wants."""

import functools
import json
import random
from dataclasses import asdict
from types import SimpleNamespace

from schoolhouse.core.files import write_json, write_json_lines
from schoolhouse.core.manifest import DataSource, RunManifest
from schoolhouse.evaluation.results import EvalSample, Hashes, SamplingSettings, build_results
from schoolhouse.evaluation.statistics.preference import calibration
from schoolhouse.evaluation.summary import summarise


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
        name: summarise(
            SimpleNamespace(version=1, higher_is_better="bits" not in lines[0]), [EvalSample(**line) for line in lines]
        ).to_json()
        | {"max_new_tokens": 64}
        for name, lines in tasks.items()
    }
    write_json(folder / "results.json", _frame() | {"tasks": results})
    for name, lines in tasks.items():
        write_json_lines(folder / "samples" / f"{name}.jsonl", lines)
    return folder


@functools.cache  # it asks git and the versions of all packages, which hundreds of evals need not
def _frame():
    hashes = Hashes(model="m", adapter=None, chat_template="t")
    sampling = SamplingSettings(num_samples=1, temperature=0.0, top_p=1.0, seed=None, dtype="float32", device="cpu")
    return build_results("base", None, hashes, "python eval/run.py", sampling, {}).to_json()


def write_manifest(folder, recipe="sft", **values):
    """The run.json of a run that is done."""
    manifest = RunManifest(status="done", recipe=recipe, **{"seconds": 61.5} | values)
    write_json(folder / "run.json", manifest.model_dump(mode="json", by_alias=True))


def data_source(**values):
    given = {
        "role": "train",
        "name": "tiny/sft",
        "location": "generated",
        "split": "train",
        "kind": "prompt_completion",
    }
    return DataSource(**given | {"rows": 1000, "used_rows": 900, "sha256": "ab", "license": "CC0-1.0"} | values)


def write_pipeline(folder, stages):
    """`stages`: name -> (name of the parent, tasks)."""
    entries = []
    for name, (parent, tasks) in stages.items():
        write_eval(folder / name / "eval", tasks)
        recipe = parent and name.split("_")[0]
        entry = {"name": name, "recipe": recipe, "config": None, "parent": parent, "folder": name, "status": "done"}
        entries.append(entry | {"eval": f"{name}/eval"})
    path = folder / "pipeline.json"
    write_json(path, {"schema": 2, "name": "small", "base": {"name": "b", "hash": "h"}, "stages": entries})
    return path


def write_full_pipeline(folder):
    """A pipeline of six stages that holds every kind of data which a report shows."""
    rng = random.Random(0)

    def answers(chance, tokens=12, text="3 + 4 = 7, so the total is 7.\n#### 7", **more):
        return [
            sample(i, rng.random() < chance, text, level=i % 5 + 1, tokens=tokens + rng.randint(0, 6), **more)
            | {"right_in_any_form": rng.random() < chance + 0.1, "metrics": {"shows_work": rng.random() < 0.8}}
            for i in range(120)
        ]

    def programs(chance):
        text = "def f(n):\n    total = 0\n    for i in range(n):\n        total += i\n    return total"
        lines = [sample(i, rng.random() < chance, text, level=i % 3 + 1) for i in range(80)]
        for line in lines:
            passed = line["correct"]
            line["metrics"] = {"status": "passed" if passed else "failed", "hidden_passed": rng.random() < 0.9}
        lines[3]["completion"] = "import os\ndef f(n):\n    os._exit(0)"
        return lines

    def talks(mean, tokens):
        return [
            sample(i, rng.random() < mean / 5, "Anna is kind. " * 3, index=k, tokens=tokens + rng.randint(0, 9))
            | {"metrics": {"utility": rng.gauss(mean, 1.0)}}
            for i in range(40)
            for k in range(4)
        ]

    def texts(bits):
        return [
            {
                "id": f"doc-{i}",
                "index": 0,
                "prompt": "",
                "reference": "",
                "bits": bits * 90 + rng.gauss(0, 9),
                "bytes": 90,
            }
            for i in range(60)
        ]

    def pairs():
        lines = []
        for i in range(200):
            difference, label_is_right = rng.gauss(0.6, 1.2), rng.random() < 0.75
            metrics = {"log_loss": 0.5, "agrees_with_noisy_label": float((difference > 0) == label_is_right)}
            metrics |= {"ceiling_with_noisy_labels": label_is_right, "members_agree": abs(difference) > 0.4}
            metrics |= {"longer_is_chosen": rng.random() < 0.55}
            bare = {"id": f"pair-{i}", "index": 0, "prompt": "q", "reference": "", "correct": difference > 0}
            lines.append(bare | {"scores": [difference, 0.0], "lengths": [3, 4], "metrics": metrics})
        return lines

    base = {"tiny_arithmetic": answers(0.18), "tiny_code": programs(0.02), "tiny_heldout": texts(0.34)}
    pipeline = write_pipeline(
        folder,
        {
            "base": (None, base | {"tiny_descriptions": talks(1.0, 20)}),
            "sft": (
                "base",
                {
                    "tiny_arithmetic": answers(0.48),
                    "tiny_code": programs(0.37),
                    "tiny_heldout": texts(0.57),
                    "tiny_descriptions": talks(1.4, 18),
                },
            ),
            "grpo_math": ("sft", {"tiny_arithmetic": answers(0.76, tokens=22), "tiny_code": programs(0.36)}),
            "grpo_code": ("grpo_math", {"tiny_arithmetic": answers(0.75, tokens=22), "tiny_code": programs(0.63)}),
            "reward": ("sft", {"tiny_pairs": (judged := pairs())}),
            "ppo": ("sft", {"tiny_descriptions": talks(3.0, 34), "tiny_heldout": texts(0.6)}),
        },
    )
    path = folder / "reward/eval/results.json"
    results = json.loads(path.read_text())
    differences = [line["scores"][0] for line in judged]
    agrees = [line["metrics"]["agrees_with_noisy_label"] == 1 for line in judged]
    results["tasks"]["tiny_pairs"]["preference"] = {
        "calibration": asdict(calibration(differences, [x > 0 for x in differences])),
        "calibration_with_noisy_labels": asdict(calibration(differences, agrees)),
        "length_bias": {"sd_per_10_tokens": 0.12, "interval": [0.05, 0.19]},
        "batch_invariance": 2.4e-7,
    }
    path.write_text(json.dumps(results))
    steps = range(1, 31)
    logs = {
        "sft": [{"step": s, "loss": 1 + 2 / s, "num_tokens": 900.0 * s} for s in steps]
        + [{"step": s, "eval_loss": 1.1 + 2 / s} for s in steps if s % 5 == 0],
        "grpo_math": [
            {"step": s, "loss": 0.01, "reward": 0.4 + s / 80, "kl": s / 900, "completions/mean_length": 12 + s / 3}
            | {"reasoning/corrects_itself": s / 300, "reasoning/shows_work": 0.5 + s / 90}
            for s in steps
        ],
        "reward": [{"step": s, "loss": 0.7 - s / 90, "eval_accuracy": 0.5 + s / 90} for s in steps],
        "ppo": [{"step": s, "reward": s / 10, "objective/kl": 0.4 * s, "entropy": 2 - s / 40} for s in steps],
    }
    for name, log in logs.items():
        (folder / name / "log.json").write_text(json.dumps(log))
        write_manifest(
            folder / name,
            name.split("_")[0],
            command=["recipes/x.py", "--config", f"{name}.yaml", "--learning_rate", "1e-4"],
            git={"revision": "e52abb5", "dirty": False},
            steps=30,
            versions={"torch": "2.13.0"},
            data=[data_source()],
            tokens={"input": 9},
        )
    points = [
        {"step": s, "kl": 0.4 * s, "proxy": s / 10, "gold": 1 - (s - 14) ** 2 / 200, "length": 20.0 + s}
        | {"eos_rate": 0.9, "entropy": 2 - s / 40, "repetition": s / 100, "spread": 0.1 + s / 300}
        for s in steps
    ]
    measured = {"points": points, "peak": {"step": 14, "kl": 5.6, "gold": 1.0, "interval": [4.4, 6.8]}}
    measured |= {"final_minus_peak": {"value": -1.28, "interval": [-1.4, -1.1]}}
    measured |= {"stopped": {"by": "kl_budget", "step": 30}}
    (folder / "ppo/overoptimization.json").write_text(json.dumps(measured))
    return pipeline
