"""The model card: what an adapter is and how well it does, from run.json and results.json and nothing else."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from data.builders import SOURCES
from recipes.sharing.secrets import fenced, markdown, published
from recipes.sharing.stages import Stage


# Benchmarks with a data set on the Hub: (id, name of the configuration or split that is asked).
BENCHMARKS = {
    "gsm8k": ("openai/gsm8k", "main"),
    "gsm8k_5shot": ("openai/gsm8k", "main"),
    "svamp": ("ChilleD/SVAMP", "default"),
    "mbpp": ("google-research-datasets/mbpp", "full"),
    "humaneval": ("openai/openai_humaneval", "default"),
    "ifeval": ("google/IFEval", "default"),
}
PERMISSIVE = {
    "apache-2.0",
    "mit",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-3.0",
    "cc-by-4.0",
    "odc-by",
    "unlicense",
    "pddl",
    "isc",
}
_SMALL = 100
_KINDS = {
    "sft": "supervised fine-tuning",
    "grpo": "GRPO, reinforcement learning with verifiable rewards",
    "reward": "reward modelling on preference pairs",
    "ppo": "PPO against a reward model",
}


def derive_licence(base: str | None, data: list[tuple[str, str | None]]) -> tuple[str | None, list[str]]:
    """
    The licence of an adapter, from those of what it was made of.

    Only clear cases are decided: what is permissive throughout takes the base's licence. All else is flagged and left
    to the owner.

    Args:
        base (`str` or `None`):
            The base model's.
        data (`list[tuple[str, str | None]]`):
            Name and licence of each data set.

    Returns:
        `tuple`: the licence, or `None` where none can be derived, and one line for each clash.
    """
    clashes = [] if base else ["the base model states no licence"]
    base = base and base.lower()
    for name, licence in data:
        if not licence:
            clashes.append(f"the data set {name} states no licence")
        elif base in PERMISSIVE and licence.lower() not in PERMISSIVE:
            clashes.append(f"the data set {name} is under {licence}, which binds more than the base's {base}")
        elif base and licence.lower() not in PERMISSIVE | {base}:
            clashes.append(f"the base is under {base}, the data set {name} under {licence}")
    return (base if base and not clashes else None), clashes


def training_data(stages: list[Stage]) -> list[tuple[str, dict[str, Any]]]:
    """
    The data sets that stages were trained on.

    Args:
        stages (`list[Stage]`):
            The stages.

    Returns:
        `list[tuple[str, dict]]`: name, without a local path, and entry of run.json; the same content once.
    """
    entries = [entry for stage in stages for entry in stage.record["data"] if entry["role"] == "train"]
    return [(published(entry["name"]), entry) for entry in {entry["sha256"]: entry for entry in entries}.values()]


def eval_results(stage: Stage) -> dict[str, str]:
    """
    A stage's results in the Hub's form.

    Args:
        stage (`Stage`):
            With its results.

    Returns:
        `dict[str, str]`: `<task>.yaml` -> content; tasks without a data set on the Hub are only in the card.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    files = {}
    for results in stage.own_results:
        for name, task in results["tasks"].items():
            if name in BENCHMARKS and task["value"] is not None:
                entry = EvalResultEntry(
                    *BENCHMARKS[name],
                    value=task["value"],
                    notes=f"{stage.name}: n={task['n']} items, 95% interval {_interval(task)}; share of right answers "
                    f"(0 to 1), {_sampling(results)}; task {name} version {task['version']} of Schoolhouse",
                )
                files[f"{name}.yaml"] = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
    return files


def model_card(
    repo_id: str, stages: list[Stage], base: str, revision: str | None, licence: str | None, clashes: list[str]
) -> str:
    """
    README.md of a repository.

    Args:
        repo_id (`str`):
            Where it will lie.
        stages (`list[Stage]`):
            One in the root, or several in sub-folders.
        base (`str`):
            Hub id of the base model.
        revision (`str` or `None`):
            Commit of the base.
        licence (`str` or `None`):
            The adapter's.
        clashes (`list[str]`):
            What is unclear in it.

    Returns:
        `str`: metadata and Markdown; every text from records is escaped.
    """
    title = repo_id.split("/")[1]
    parts = [_metadata(repo_id, stages, base, licence), f"# {markdown(title)}"]
    about = " and ".join(dict.fromkeys(_KINDS.get(stage.name, stage.name) for stage in stages))
    noun = "A LoRA adapter" if len(stages) == 1 else f"{len(stages)} LoRA adapters, one per stage of a course,"
    at = f" at revision `{revision}`" if revision else ""
    parts.append(f"{noun} on [{markdown(base)}](https://huggingface.co/{base}){at}, made by {markdown(about)}.")
    if len(stages) > 1:
        rows = [
            f"| [`{stage.folder}`](#stage-{stage.folder}) | {_after(stage, stages)} | `{stage.tag}` |"
            for stage in stages
        ]
        parts.append("\n".join(["| Sub-folder | Begun from | Tag |", "|---|---|---|", *rows]))
    parts += ["## Use", _usage(repo_id, stages[-1], base)]
    for stage in stages:
        level = "##"
        if stage.folder:
            parts.append(f"## Stage {stage.folder}")
            level = "###"
        parts += [f"{level} Results", _results(stage, base, repo_id), f"{level} Known failures", _failures(stage)]
        parts += [f"{level} Training", _training(stage, base)]
    parts += ["## Training data", _data(stages)]
    parts += ["## Intended use and licence", _licence(stages, licence, clashes)]
    parts += [
        "## Check it yourself",
        "`run.json` holds the record of the run, `results.json` the measurements and `lineage.json` the hashes of the "
        "adapter, its parents and every file. From a checkout of Schoolhouse:",
        fenced(f"python recipes/share.py verify {repo_id}", "bash"),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(repo_id: str, stages: list[Stage], base: str, licence: str | None) -> str:
    from huggingface_hub import ModelCardData

    hubs = [SOURCES[name].hub for name, _ in training_data(stages) if name in SOURCES]
    tasks = {stage.config.get("task_type") for stage in stages}
    tags = ["schoolhouse", "lora", *dict.fromkeys(stage.name for stage in stages)]
    card = ModelCardData(
        base_model=base,
        library_name="peft",
        license=licence,
        datasets=sorted({name for name in hubs if name and "://" not in name}) or None,
        tags=[tag for tag in tags if tag.isascii()],
        pipeline_tag="text-classification" if tasks == {"SEQ_CLS"} else "text-generation",
        base_model_relation="adapter",
    )
    return f"---\n{card.to_yaml()}\n---"


def _usage(repo_id: str, stage: Stage, base: str) -> str:
    sub = f', subfolder="{stage.folder}"' if stage.folder else ""
    is_scorer = stage.config.get("task_type") == "SEQ_CLS"
    kind, extra = ("SequenceClassification", ", num_labels=1") if is_scorer else ("CausalLM", "")
    return fenced(
        f"from peft import PeftModel\nfrom transformers import AutoModelFor{kind}, AutoTokenizer\n\n"
        f'model = AutoModelFor{kind}.from_pretrained("{base}"{extra})\n'
        f'model = PeftModel.from_pretrained(model, "{repo_id}"{sub})\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{repo_id}"{sub})',
        "python",
    )


def _after(stage: Stage, stages: list[Stage]) -> str:
    parent = stage.record.get("parent_adapter")
    if parent is None:
        return "the base"
    known = next((other.folder for other in stages if other.hash == parent["hash"]), None)
    return f"`{known}`" if known else f"adapter `{parent['hash'][:12]}`"


def eval_command(results: dict[str, Any], base: str, repo_id: str) -> str:
    """
    The command of an eval as a stranger can run it.

    Args:
        results (`dict[str, Any]`):
            results.json.
        base (`str`):
            Hub id of the base, for the folder it was measured in.
        repo_id (`str`):
            Where the adapter lies now.

    Returns:
        `str`: without local paths of model and adapter.
    """
    names = {results["model"]: base, results["adapter"]: repo_id}
    return published(shlex.join(names.get(word, word) for word in shlex.split(results["command"])))


def _results(stage: Stage, base_model: str, repo_id: str) -> str:
    if not stage.own_results:
        return "**Not measured.** Nothing is claimed."
    base = {
        name: task
        for found in stage.results
        if found["hashes"]["adapter"] is None
        for name, task in found["tasks"].items()
    }
    rows = [
        "| Task | n | " + ("Base | " if base else "") + "This adapter | 95 % interval |",
        "|---|---|" + "---|" * (3 if base else 2),
    ]
    for results in stage.own_results:
        for name, task in results["tasks"].items():
            cells = [f"{markdown(name)} (version {task['version']})", str(task["n"])]
            if base:
                before = base.get(name)
                same = before is not None and before["version"] == task["version"]
                cells.append(f"{_value(before)} ({_interval(before)})" if same else "not measured")
            rows.append("| " + " | ".join([*cells, _value(task), _interval(task)]) + " |")
            clean = task.get("clean")
            if clean and clean["n"] and clean["n"] != task["n"]:
                cells = ["— items that share nothing with the training data", str(clean["n"])] + [""] * bool(base)
                rows.append("| " + " | ".join([*cells, _value(clean), _interval(clean)]) + " |")
    first = stage.own_results[0]
    return "\n".join(rows) + (
        f"\n\nShares of right answers, bits per byte for held-out text (lower is better); {_sampling(first)}, code "
        f"revision `{(first['git'] or {}).get('revision', 'unknown')[:12]}`"
        + (" with local changes" if (first["git"] or {}).get("dirty") else "")
        + ".\n\n"
        + fenced(eval_command(first, base_model, repo_id), "bash")
    )


def _failures(stage: Stage) -> str:
    lines = []
    base = {
        name: task
        for found in stage.results
        if found["hashes"]["adapter"] is None
        for name, task in found["tasks"].items()
    }
    for results in stage.own_results:
        for name, task in results["tasks"].items():
            told = f"{markdown(name)}:"
            metrics = task["metrics"]
            if task["n"] < _SMALL:
                lines.append(f"{told} only {task['n']} items were asked, which tells little.")
            if metrics.get("truncated", 0) > 0.02:
                lines.append(
                    f"{told} {metrics['truncated']:.0%} of the answers did not end within {task['max_new_tokens']} "
                    "tokens."
                )
            if metrics.get("format_ok", 1) < 0.98:
                lines.append(f"{told} {1 - metrics['format_ok']:.0%} of the answers were not in the asked form.")
            if metrics.get("ungraded"):
                lines.append(f"{told} {metrics['ungraded']} samples could not be graded and are left out.")
            before = base.get(name)
            if before and task["interval"] and before["interval"] and before["value"] is not None:
                low, high = sorted((before, task), key=lambda part: part["value"])
                if low["interval"][1] >= high["interval"][0]:
                    lines.append(f"{told} the intervals of base and adapter overlap; this table shows no gain.")
                elif (task["value"] > before["value"]) != task["higher_is_better"]:
                    lines.append(f"{told} it does worse than the base.")
            if task["value"] is not None and task["higher_is_better"] and task["value"] < 0.5:
                lines.append(f"{told} {1 - task['value']:.0%} of the answers are wrong.")
    if not lines:
        lines = ["None was recorded by the measurements above; what they do not ask was not looked at."]
    return "\n".join(f"- {line}" for line in lines)


def _training(stage: Stage, base: str) -> str:
    record = published(stage.record)
    config = record["config"] | {"model_name_or_path": base}
    if record.get("parent_adapter"):
        config["adapter_name_or_path"] = f"adapter {record['parent_adapter']['hash'][:12]}"
    facts = [f"{record['steps']} steps", f"{record['seconds']:.0f} s"]
    facts += [f"{name} tokens: {count:,}" for name, count in (record.get("tokens") or {}).items()]
    facts += [
        f"{name} {markdown(version)}"
        for name, version in record["versions"].items()
        if name in ("transformers", "trl", "peft", "torch")
    ]
    hardware = record["hardware"]
    facts.append(markdown(", ".join(hardware["accelerators"]) or f"{hardware['cores']} CPU cores"))
    lora = stage.config
    facts.insert(0, f"LoRA of rank {lora['r']}, alpha {lora['lora_alpha']}")
    return "\n\n".join(
        [
            "; ".join(facts) + ".",
            fenced(shlex.join(["python", f"recipes/{record['command'][0]}", *record["command"][1:]]), "bash"),
            "The recipe, every key that was set:",
            fenced(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), "yaml"),
        ]
    )


def _data(stages: list[Stage]) -> str:
    rows = ["| Data set | Rows | Licence | Revision | SHA-256 |", "|---|---|---|---|---|"]
    notes = []
    for name, entry in training_data(stages):
        cells = [markdown(name), f"{entry['used_rows']:,}", markdown(entry["licence"] or "not stated")]
        rows.append(
            "| "
            + " | ".join([*cells, markdown(published(entry["revision"]) or "—"), f"`{entry['sha256'][:12]}`"])
            + " |"
        )
        for other, overlap in (entry.get("overlap") or {}).items():
            if overlap["eval_rows"]:
                notes.append(
                    f"- {overlap['eval_share']:.1%} of {markdown(published(other))} also occurs in {markdown(name)}."
                )
    return "\n".join(rows) + ("\n\n" + "\n".join(notes) if notes else "")


def _licence(stages: list[Stage], licence: str | None, clashes: list[str]) -> str:
    is_scorer = all(stage.config.get("task_type") == "SEQ_CLS" for stage in stages)
    use = (
        "For scoring answers in training and study, within the kind of text it was trained on; a score is no fact."
        if is_scorer
        else "For study and research on small models, within what the results show; not for decisions about people."
    )
    lines = [use, f"Licence: **{markdown(licence)}**." if licence else "**No licence is given.**"]
    if clashes:
        lines.append(
            "Licences that do not simply fit together:\n\n" + "\n".join(f"- {markdown(line)}" for line in clashes)
        )
    return "\n\n".join(lines)


def _value(task: dict[str, Any]) -> str:
    return "—" if task["value"] is None else f"{task['value']:.3f}"


def _interval(task: dict[str, Any]) -> str:
    return "none" if not task["interval"] else f"{task['interval'][0]:.3f} to {task['interval'][1]:.3f}"


def _sampling(results: dict[str, Any]) -> str:
    sampling = results["sampling"]
    how = (
        "greedy"
        if not sampling["temperature"]
        else f"temperature {sampling['temperature']}, {sampling['num_samples']} samples"
    )
    return f"{how}, {sampling['dtype']}"
