"""The model card: what an adapter is and how well it does, from run.json and results.json and nothing else."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import yaml

from schoolhouse.core.escape import fenced, markdown
from schoolhouse.core.redaction import anonymize
from schoolhouse.data import dataset_names, load_dataset_spec
from schoolhouse.evaluation.results import sampling_of
from schoolhouse.hub.artifacts import Stage


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
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "cc0-1.0", "cc-by-3.0", "cc-by-4.0",
    "odc-by", "pddl",
}  # fmt: skip
_SMALL = 100
_KINDS = {
    "sft": "supervised fine-tuning",
    "grpo": "GRPO, reinforcement learning with verifiable rewards",
    "reward": "reward modelling on preference pairs",
    "ppo": "PPO against a reward model",
}


def derive_licence(base: str | None, data: list[tuple[str, str | None]]) -> tuple[str | None, list[str]]:
    """
    The license of an adapter, from those of what it was made of.

    Only clear cases are decided: what is permissive throughout takes the base's license. All else is flagged and left
    to the owner.

    Args:
        base (`str` or `None`):
            The base model's.
        data (`list[tuple[str, str | None]]`):
            Name and license of each data set.

    Returns:
        `tuple`: the license, or `None` where none can be derived, and one line for each clash.
    """
    clashes = [] if base else ["the base model states no license"]
    base = base and base.lower()
    for name, license in data:
        if not license:
            clashes.append(f"the data set {name} states no license")
        elif base in PERMISSIVE and license.lower() not in PERMISSIVE:
            clashes.append(f"the data set {name} is under {license}, which binds more than the base's {base}")
        elif base and license.lower() not in PERMISSIVE | {base}:
            clashes.append(f"the base is under {base}, the data set {name} under {license}")
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
    return [(anonymize(entry["name"]), entry) for entry in {entry["sha256"]: entry for entry in entries}.values()]


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
                    f"(0 to 1), {_sampling(sampling_of(results, name))}; "
                    f"task {name} version {task['version']} of Schoolhouse",
                )
                files[f"{name}.yaml"] = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
    return files


def model_card(
    repo_id: str, stages: list[Stage], base: str, revision: str | None, license: str | None, clashes: list[str]
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
        license (`str` or `None`):
            The adapter's.
        clashes (`list[str]`):
            What is unclear in it.

    Returns:
        `str`: metadata and Markdown; every text from records is escaped.
    """
    title = repo_id.split("/")[1]
    parts = [_metadata(stages, base, license), f"# {markdown(title)}", _about(stages, base, revision)]
    if stages[0].folder:
        rows = [
            f"| [`{stage.folder}`](#stage-{stage.folder.lower()}) | {_kind(stage)} | {_after(stage, stages)} | "
            f"`{stage.tag}` |"
            for stage in stages
        ]
        parts.append("\n".join(["| Sub-folder | Made by | Begun from | Tag |", "|---|---|---|---|", *rows]))
    parts += ["## Results", _results(stages), "## Load it", *_usage(repo_id, stages, base)]
    if not stages[0].folder:
        parts += ["## What it fails at", _failures(stages[0])]
    parts += ["## Intended use and license", _licence(stages, license, clashes), "## Training data", _data(stages)]
    for stage in stages:
        if stage.folder:
            parts += [f"## Stage {stage.folder}", "### What it fails at", _failures(stage)]
        parts += [f"{'###' if stage.folder else '##'} Run it again", *_training(stage, stages, base, repo_id)]
    return "\n\n".join(parts) + "\n"


def _metadata(stages: list[Stage], base: str, license: str | None) -> str:
    from huggingface_hub import ModelCardData

    hubs = [load_dataset_spec(name).hub_id for name, _ in training_data(stages) if name in dataset_names()]
    tasks = {stage.config.get("task_type") for stage in stages}
    card = ModelCardData(
        base_model=base,
        library_name="peft",
        license=license,
        datasets=sorted({name for name in hubs if name}) or None,
        tags=["schoolhouse", "lora", *(stage.name for stage in stages)],
        pipeline_tag="text-classification" if tasks == {"SEQ_CLS"} else "text-generation",
        base_model_relation="adapter",
    )
    return f"---\n{card.to_yaml()}\n---"


def _about(stages: list[Stage], base: str, revision: str | None) -> str:
    noun = f"{len(stages)} LoRA adapters, one per stage of a pipeline," if stages[0].folder else "A LoRA adapter"
    kinds = list(dict.fromkeys(_kind(stage) for stage in stages))
    at = f" at revision `{revision[:12]}`" if revision else ""
    about = f"{noun} on [{markdown(base)}](https://huggingface.co/{base}){at}, made by {', '.join(kinds)}"
    if len(data := training_data(stages)) == 1:
        about += f" from {data[0][1]['used_rows']:,} rows of {markdown(data[0][0])}"
    return about + "."


def _kind(stage: Stage) -> str:
    recipe = Path(stage.record["command"][0]).stem
    return _KINDS.get(recipe, markdown(recipe))


def _usage(repo_id: str, stages: list[Stage], base: str) -> list[str]:
    blocks = {}
    for stage in stages:
        sub = f', subfolder="{stage.folder}"' if stage.folder else ""
        is_scorer = stage.config.get("task_type") == "SEQ_CLS"
        kind, extra = ("SequenceClassification", ", num_labels=1") if is_scorer else ("CausalLM", "")
        others = [s.folder for s in stages if (s.config.get("task_type") == "SEQ_CLS") == is_scorer and s != stage]
        blocks[kind] = fenced(  # of stages that load alike the last one
            f"from peft import PeftModel\nfrom transformers import AutoModelFor{kind}, AutoTokenizer\n\n"
            f'model = AutoModelFor{kind}.from_pretrained("{base}"{extra})\n'
            f'model = PeftModel.from_pretrained(model, "{repo_id}"{sub})'
            + (f"  # or {', '.join(others)}" if others else "")
            + f'\ntokenizer = AutoTokenizer.from_pretrained("{repo_id}"{sub})',
            "python",
        )
    return list(blocks.values())


def _after(stage: Stage, stages: list[Stage]) -> str:
    parent = stage.record.get("parent_adapter")
    if parent is None:
        return "the base"
    known = next((other.folder for other in stages if other.hash == parent["hash"]), None)
    return f"`{known}`" if known else f"adapter `{parent['hash'][:12]}`"


def eval_command(results: dict[str, Any], base: str, repo_id: str, stage: Stage) -> list[str]:
    """
    The command of an eval as a stranger can run it.

    Args:
        results (`dict[str, Any]`):
            results.json.
        base (`str`):
            Hub id of the base, for the folder it was measured in.
        repo_id (`str`):
            Where the adapter lies now.
        stage (`Stage`):
            Of a pipeline, the adapter is in the folder that `share.py pull` brings.

    Returns:
        `list[str]`: its words, quoted for a shell, without local paths.
    """
    title = repo_id.split("/")[1]
    words = shlex.split(results["command"])
    names = {results["model"]: base, results["adapter"]: f"{title}/{stage.folder}" if stage.folder else repo_id}
    if "--output_dir" in words[:-1]:
        names[words[words.index("--output_dir") + 1]] = f"outputs/{title}-eval"
    return [shlex.quote(anonymize(names.get(word, word))) for word in words]


def _results(stages: list[Stage]) -> str:
    measured = [results for stage in stages for results in stage.own_results]
    if not measured:
        return "**Not measured.** Nothing is claimed."
    columns = [(stage.folder or "This adapter", stage.own_results) for stage in stages if stage.own_results]
    if base := [results for results in stages[0].results if results["hashes"]["adapter"] is None]:
        columns.insert(0, ("Base", base))
    cells: dict[tuple[str, Any], dict[str, str]] = {}  # row -> column -> cell
    for column, found in columns:
        for name, task in ((name, task) for results in found for name, task in results["tasks"].items()):
            better = "" if task["higher_is_better"] else ", lower is better"
            own = f", {_drawn(task['sampling'])}" if "sampling" in task else ""
            row = f"{markdown(name)} (version {markdown(task['version'])}{own}{better})"
            cells.setdefault((row, task["n"]), {})[column] = _estimate(task)
            clean = task.get("uncontaminated")
            if clean and clean["n"] and clean["n"] != task["n"]:
                row = f"{row}: items that share nothing with the training data"
                cells.setdefault((row, clean["n"]), {})[column] = _estimate(clean)
    names = [column for column, _ in columns]
    unknown = [stage.folder for stage in stages if not stage.own_results]
    lines = ["| Task | n | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    lines += [
        f"| {row} | {markdown(n)} | " + " | ".join(found.get(column, "—") for column in names) + " |"
        for (row, n), found in cells.items()
        if set(found) - {"Base"}
    ]
    return "\n".join(lines) + (
        "\n\nShare of n items answered right (bits per byte for held-out text) with its 95 % interval; "
        f"{_sampling(measured[0]['sampling'])}." + (f" Not measured: {', '.join(unknown)}." if unknown else "")
    )


def _failures(stage: Stage) -> str:
    lines = []
    base = {
        name: task
        for found in stage.results
        if found["hashes"]["adapter"] is None
        for name, task in found["tasks"].items()
    }
    for name, task in ((name, task) for results in stage.own_results for name, task in results["tasks"].items()):
        told, metrics, before = [], task["metrics"], base.get(name)
        if task["value"] is not None and task["higher_is_better"] and task["value"] < 0.5:
            told.append(f"{1 - task['value']:.0%} of the answers are wrong")
        levels = {level: part for level, part in task.get("by_level", {}).items() if part["interval"]}
        if len(levels) > 1 and task["higher_is_better"]:
            level, worst = min(levels.items(), key=lambda item: item[1]["value"])
            if worst["interval"][1] < task["value"]:
                told.append(f"worst at level {markdown(level)}, {_estimate(worst)} with n = {worst['n']}")
        if metrics.get("truncated", 0) > 0.02:
            told.append(
                f"{metrics['truncated']:.0%} of the answers did not end within {task['max_new_tokens']} tokens"
            )
        if metrics.get("format_ok", 1) < 0.98:
            told.append(f"{1 - metrics['format_ok']:.0%} of the answers were not in the asked form")
        if metrics.get("ungraded"):
            told.append(f"{metrics['ungraded']} samples could not be graded and are left out")
        if before and task["interval"] and before["interval"]:
            low, high = sorted((before, task), key=lambda part: part["value"])
            if low["interval"][1] >= high["interval"][0]:
                told.append("the intervals of base and adapter overlap, so this shows no change")
            elif (task["value"] > before["value"]) != task["higher_is_better"]:
                told.append("it does worse than the base")
        if task["n"] < _SMALL:
            told.append(f"only {task['n']} items were asked, which tells little")
        if told:
            lines.append(f"{markdown(name)}: {'; '.join(told)}.")
    if not stage.own_results:
        lines = ["Nobody knows: it was not measured."]
    elif not lines:
        lines = ["None was recorded by the measurements above; what they do not ask was not looked at."]
    return "\n".join(f"- {line}" for line in lines)


def _training(stage: Stage, stages: list[Stage], base: str, repo_id: str) -> list[str]:
    title, pipeline = (
        repo_id.split("/")[1],
        {f"{other.origin}/adapter": other.folder for other in stages if other.folder},
    )
    text = json.dumps(stage.record["config"])
    for path, folder in pipeline.items():  # a stage's path to another is one into what `pull` brings
        text = text.replace(json.dumps(path), json.dumps(f"{title}/{folder}"))
    record = anonymize(stage.record)
    config = anonymize(json.loads(text)) | {
        "model_name_or_path": base,
        "output_dir": f"outputs/{title}/{stage.folder}".rstrip("/"),
    }
    parent = record.get("parent_adapter")
    needed = "; `verify` measures the claims of this card again" if stage.own_results else ""
    if parent and parent["hash"] not in {other.hash for other in stages}:
        config["adapter_name_or_path"] = name = f"adapter-{parent['hash'][:12]}"
        needed += f"; it goes on from another adapter, which is not here and has to lie in `{name}`"
    lines = [f"python recipes/share.py pull {repo_id} --output_dir {title}"] if stage.folder else []
    script = shlex.quote(f"recipes/{record['command'][0]}")
    lines.append(f"accelerate launch --config_file accelerate_config.yaml {script} --config recipe.yaml")
    for results in stage.own_results:
        words = eval_command(results, base, repo_id, stage)
        lines.append(" ".join(f"\\\n  {word}" if word.startswith("--") else word for word in words))
    if stage.own_results:
        lines.append(
            f"python recipes/share.py verify {repo_id}" + (f" --stage {stage.folder}" if stage.folder else "")
        )
    lora, hardware, git = stage.config, record["hardware"], record["git"] or {}
    facts = [f"LoRA of rank {lora['r']}, alpha {lora['lora_alpha']}", f"{record['steps']} steps"]
    facts += [f"{name} tokens: {count:,}" for name, count in (record.get("tokens") or {}).items()]
    facts.append(
        f"{record['seconds']:.0f} s on "
        + markdown(", ".join(hardware["accelerators"]) or f"{hardware['cores']} CPU cores")
    )
    versions = [
        f"{name} {markdown(version)}"
        for name, version in record["versions"].items()
        if name in ("transformers", "trl", "peft", "torch")
    ]
    changes = " with local changes" if git.get("dirty") else ""
    return [
        f"From a checkout of Schoolhouse (this was revision `{git.get('revision', 'unknown')[:12]}`{changes}), with "
        f"the recipe below as `recipe.yaml`{needed}:",
        fenced("\n".join(lines), "bash"),
        fenced(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), "yaml"),
        "; ".join([*facts, ", ".join(versions)]) + ". `run.json` has the whole record and `lineage.json` the hash of "
        "every file and of the adapter's parent.",
    ]


def _data(stages: list[Stage]) -> str:
    rows = ["| Data set | Rows | License | Revision | SHA-256 |", "|---|---|---|---|---|"]
    notes = []
    for name, entry in training_data(stages):
        cells = [markdown(name), f"{entry['used_rows']:,}", markdown(entry["license"] or "not stated")]
        cells += [markdown(anonymize(entry["revision"]) or "—"), f"`{entry['sha256'][:12]}`"]
        rows.append("| " + " | ".join(cells) + " |")
        for other, overlap in (entry.get("overlap") or {}).items():
            if overlap["eval_rows"]:
                notes.append(
                    f"- {overlap['eval_share']:.1%} of {markdown(anonymize(other))} also occurs in {markdown(name)}."
                )
    return "\n".join(rows) + ("\n\n" + "\n".join(notes) if notes else "")


def _licence(stages: list[Stage], license: str | None, clashes: list[str]) -> str:
    is_scorer = all(stage.config.get("task_type") == "SEQ_CLS" for stage in stages)
    use = (
        "For scoring answers in training and study, within the kind of text it was trained on; a score is no fact."
        if is_scorer
        else "For study and research on small models, within what the results show; not for decisions about people."
    )
    lines = [use, f"License: **{markdown(license)}**." if license else "**No license is given.**"]
    if clashes:
        lines.append(
            "Licences that do not simply fit together:\n\n" + "\n".join(f"- {markdown(line)}" for line in clashes)
        )
    return "\n\n".join(lines)


def _estimate(task: dict[str, Any]) -> str:
    return "—" if task["value"] is None else f"{task['value']:.3f} ({_interval(task)})"


def _interval(task: dict[str, Any]) -> str:
    return "no interval" if not task["interval"] else f"{task['interval'][0]:.3f} to {task['interval'][1]:.3f}"


def _sampling(sampling: dict[str, Any]) -> str:
    return f"{_drawn(sampling)}, {sampling['dtype']}"


def _drawn(sampling: dict[str, Any]) -> str:
    if not sampling["temperature"]:
        return "greedy"
    return f"temperature {sampling['temperature']}, {sampling['num_samples']} samples"
