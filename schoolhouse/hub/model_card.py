"""The model card: how an adapter was made and how well it does, from run.json and results.json and nothing else."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from schoolhouse.core.escape import code_span, fenced, markdown, one_line
from schoolhouse.core.redaction import anonymize
from schoolhouse.data import dataset_names, load_dataset_spec
from schoolhouse.evaluation.results import sampling_of
from schoolhouse.hub.artifacts import Artifact
from schoolhouse.hub.lineage import BaseOnHub


# Benchmarks with a data set on the Hub: (id, name of the configuration or split that is asked).
BENCHMARKS = {
    "gsm8k": ("openai/gsm8k", "main"),
    "gsm8k_5shot": ("openai/gsm8k", "main"),
    "svamp": ("ChilleD/SVAMP", "default"),
    "mbpp": ("google-research-datasets/mbpp", "full"),
    "humaneval": ("openai/openai_humaneval", "default"),
    "ifeval": ("google/IFEval", "default"),
}
_SMALL = 100
_KINDS = {
    "sft": "supervised fine-tuning",
    "grpo": "GRPO, reinforcement learning with verifiable rewards",
    "reward": "reward modelling on preference pairs",
    "ppo": "PPO against a reward model",
}


def model_card(
    repo_id: str, artifacts: list[Artifact], base: BaseOnHub, license: str | None, clashes: list[str]
) -> str:
    """
    Write README.md of a repository.

    Args:
        repo_id (`str`):
            Where it will lie.
        artifacts (`list[Artifact]`):
            One in the root, or several in sub-folders.
        base (`BaseOnHub`):
            The base model.
        license (`str` or `None`):
            The adapter's.
        clashes (`list[str]`):
            What is unclear in it.

    Returns:
        `str`: metadata and Markdown; every text from records is escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    # `ModelCard.from_template` renders the same template without escaping: one forgotten call, and a text of the data
    # is markup. Here `finalize` escapes every value that is not already Markdown.
    environment = Environment(
        loader=PackageLoader("schoolhouse.hub"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else markdown(value, limit=1000),
    )
    environment.globals |= {
        "code": lambda text: Markup(code_span(text)),
        "fenced": lambda *parts: Markup(fenced(*parts)),
        "failures": _failures,
        "rerun": lambda artifact: _rerun(artifact, artifacts, base.name, repo_id),
    }
    environment.filters |= {
        "kind_of": _kind,
        "parent_of": lambda artifact: Markup(_parent(artifact, artifacts)),
    }
    data = training_data(artifacts)
    text = environment.get_template("model_card.md.jinja").render(
        metadata=_metadata(artifacts, base.name, license),
        title=repo_id.split("/")[1],
        base=base,
        base_url=f"https://huggingface.co/{base.name}",
        artifacts=artifacts,
        is_pipeline=bool(artifacts[0].folder),
        table=_results_table(artifacts),
        usage=_usage(repo_id, artifacts, base.name),
        license=license,
        clashes=clashes,
        data=data,
        overlaps=_overlaps(data),
    )
    return text.strip() + "\n"


def training_data(artifacts: list[Artifact]) -> list[dict[str, Any]]:
    """
    List the data sets that adapters were trained on.

    Args:
        artifacts (`list[Artifact]`):
            The adapters.

    Returns:
        `list[dict]`: entries of run.json without local paths; the same content once.
    """
    entries = [entry for artifact in artifacts for entry in artifact.record["data"] if entry["role"] == "train"]
    return anonymize(list({entry["sha256"]: entry for entry in entries}.values()))


def eval_results(artifact: Artifact) -> dict[str, str]:
    """
    Write an adapter's results in the Hub's form.

    Args:
        artifact (`Artifact`):
            With its results.

    Returns:
        `dict[str, str]`: `<task>.yaml` -> content; tasks without a data set on the Hub are only in the card.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    files = {}
    for results in artifact.own_results:
        for name, task in results["tasks"].items():
            if name in BENCHMARKS and task["value"] is not None:
                entry = EvalResultEntry(
                    *BENCHMARKS[name],
                    value=task["value"],
                    notes=f"{artifact.name}: n={task['n']} items, 95% interval {_interval(task)}; share of right "
                    f"answers (0 to 1), {_sampling(sampling_of(results, name))}; "
                    f"task {name} version {task['version']} of Schoolhouse",
                )
                files[f"{name}.yaml"] = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
    return files


def eval_command(results: dict[str, Any], base: str, repo_id: str, artifact: Artifact) -> list[str]:
    """
    Write the command of an evaluation as a stranger can run it.

    Args:
        results (`dict[str, Any]`):
            results.json.
        base (`str`):
            Hub id of the base, instead of the folder it was measured in.
        repo_id (`str`):
            Where the adapter lies now.
        artifact (`Artifact`):
            One of a pipeline is in the folder that `share.py pull` brings.

    Returns:
        `list[str]`: its words, quoted for a shell, without local paths.
    """
    title = repo_id.split("/")[1]
    words = shlex.split(results["command"])
    names = {results["model"]: base, results["adapter"]: f"{title}/{artifact.folder}" if artifact.folder else repo_id}
    if "--output_dir" in words[:-1]:
        names[words[words.index("--output_dir") + 1]] = f"outputs/{title}-eval"
    return [shlex.quote(anonymize(names.get(word, word))) for word in words]


def _metadata(artifacts: list[Artifact], base: str, license: str | None) -> str:
    from huggingface_hub import ModelCardData

    names = [entry["name"] for entry in training_data(artifacts)]
    hub_ids = {load_dataset_spec(name).hub_id for name in names if name in dataset_names()}
    return ModelCardData(
        base_model=base,
        library_name="peft",
        license=license,
        datasets=sorted(filter(None, hub_ids)) or None,
        tags=["schoolhouse", "lora", *(artifact.name for artifact in artifacts)],
        pipeline_tag="text-classification"
        if all(artifact.is_reward_model for artifact in artifacts)
        else "text-generation",
        base_model_relation="adapter",
    ).to_yaml()


def _kind(artifact: Artifact) -> str:
    recipe = Path(artifact.record["command"][0]).stem
    return _KINDS.get(recipe, recipe)


def _parent(artifact: Artifact, artifacts: list[Artifact]) -> str:
    parent = artifact.record.get("parent_adapter")
    if parent is None:
        return "the base"
    known = next((other.folder for other in artifacts if other.hash == parent["hash"]), None)
    return code_span(known) if known else f"adapter {code_span(parent['hash'][:12])}"


def _usage(repo_id: str, artifacts: list[Artifact], base: str) -> list[str]:
    """Code that loads each kind of model; of several adapters of one kind it names the last, and the others beside."""
    blocks = {}
    for artifact in artifacts:
        subfolder = f', subfolder="{artifact.folder}"' if artifact.folder else ""
        is_scorer = artifact.is_reward_model
        others = [a.folder for a in artifacts if a.is_reward_model == is_scorer and a is not artifact]
        kind, labels = ("SequenceClassification", ", num_labels=1") if is_scorer else ("CausalLM", "")
        blocks[kind] = "\n".join(
            [
                f"from peft import PeftModel\nfrom transformers import AutoModelFor{kind}, AutoTokenizer\n",
                f'model = AutoModelFor{kind}.from_pretrained("{base}"{labels})',
                f'model = PeftModel.from_pretrained(model, "{repo_id}"{subfolder})'
                + (f"  # or {', '.join(others)}" if others else ""),
                f'tokenizer = AutoTokenizer.from_pretrained("{repo_id}"{subfolder})',
            ]
        )
    return list(blocks.values())


@dataclass
class _ResultRow:
    """A line of the table of results: a task, its number of items, and a cell for each column."""

    task: str
    n: int
    cells: list[str]


@dataclass
class _ResultsTable:
    """Results of the base and of each adapter that was measured."""

    columns: list[str]
    rows: list[_ResultRow]
    unmeasured: list[str]
    sampling: str


def _results_table(artifacts: list[Artifact]) -> _ResultsTable:
    measured = {artifact.folder or "This adapter": artifact.own_results for artifact in artifacts}
    columns = {name: results for name, results in measured.items() if results}
    of_base = [results for results in artifacts[0].results if results["hashes"]["adapter"] is None]
    if columns and of_base:
        columns = {"Base": of_base} | columns
    cells: dict[tuple[str, int], dict[str, str]] = {}  # (task, n) -> column -> cell
    for column, found in columns.items():
        for results in found:
            for name, task in results["tasks"].items():
                better = "" if task["higher_is_better"] else ", lower is better"
                own = f", {_drawn(task['sampling'])}" if task.get("sampling") else ""
                label = f"{one_line(name)} (version {one_line(task['version'])}{own}{better})"
                cells.setdefault((label, task["n"]), {})[column] = _estimate(task)
                clean = task.get("uncontaminated")
                if clean and clean["n"] and clean["n"] != task["n"]:
                    label += ": items that share nothing with the training data"
                    cells.setdefault((label, clean["n"]), {})[column] = _estimate(clean)
    return _ResultsTable(
        columns=list(columns),
        rows=[
            _ResultRow(label, n, [found.get(column, "—") for column in columns])
            for (label, n), found in cells.items()
            if found.keys() - {"Base"}
        ],
        unmeasured=[name for name, results in measured.items() if not results],
        sampling=_sampling(next(iter(columns.values()))[0]["sampling"]) if columns else "",
    )


def _failures(artifact: Artifact) -> list[str]:
    """What the measurements say against the adapter, one line for each task."""
    if not artifact.own_results:
        return ["Nobody knows: it was not measured."]
    of_base = [results for results in artifact.results if results["hashes"]["adapter"] is None]
    base = {name: task for results in of_base for name, task in results["tasks"].items()}
    lines = [
        f"{one_line(name)}: {'; '.join(told)}."
        for results in artifact.own_results
        for name, task in results["tasks"].items()
        if (told := list(_failures_of_task(task, base.get(name))))
    ]
    return lines or ["None was recorded by the measurements above; what they do not ask was not looked at."]


def _failures_of_task(task: dict[str, Any], before: dict[str, Any] | None) -> Iterator[str]:
    metrics = task["metrics"]
    if task["value"] is not None and task["higher_is_better"] and task["value"] < 0.5:
        yield f"{1 - task['value']:.0%} of the answers are wrong"
    levels = {level: part for level, part in task.get("by_level", {}).items() if part["interval"]}
    if len(levels) > 1 and task["higher_is_better"]:
        level, worst = min(levels.items(), key=lambda item: item[1]["value"])
        if worst["interval"][1] < task["value"]:
            yield f"worst at level {one_line(level)}, {_estimate(worst)} with n = {worst['n']}"
    if metrics.get("truncated", 0) > 0.02:
        yield f"{metrics['truncated']:.0%} of the answers did not end within {task['max_new_tokens']} tokens"
    if metrics.get("format_ok", 1) < 0.98:
        yield f"{1 - metrics['format_ok']:.0%} of the answers were not in the asked form"
    if metrics.get("ungraded"):
        yield f"{metrics['ungraded']} samples could not be graded and are left out"
    if before and task["interval"] and before["interval"]:
        low, high = sorted((before, task), key=lambda part: part["value"])
        if low["interval"][1] >= high["interval"][0]:
            yield "the intervals of base and adapter overlap, so this shows no change"
        elif (task["value"] > before["value"]) != task["higher_is_better"]:
            yield "it does worse than the base"
    if task["n"] < _SMALL:
        yield f"only {task['n']} items were asked, which tells little"


@dataclass
class _Rerun:
    """How to train and measure an adapter again; `missing_parent` is a folder where another adapter has to lie."""

    revision: str
    is_dirty: bool
    commands: str
    recipe: str
    facts: list[str]
    missing_parent: str | None


def _rerun(artifact: Artifact, artifacts: list[Artifact], base: str, repo_id: str) -> _Rerun:
    title = repo_id.split("/")[1]
    record = anonymize(artifact.record)
    text = json.dumps(artifact.record["config"])
    for other in artifacts if artifact.folder else []:
        # A path to the adapter of another stage becomes one into the folder that `pull` brings.
        text = text.replace(json.dumps(f"{other.origin}/adapter"), json.dumps(f"{title}/{other.folder}"))
    config = anonymize(json.loads(text))
    config |= {"model_name_or_path": base, "output_dir": f"outputs/{title}/{artifact.folder}".rstrip("/")}
    parent, missing_parent = record.get("parent_adapter"), None
    if parent and parent["hash"] not in {other.hash for other in artifacts}:
        config["adapter_name_or_path"] = missing_parent = f"adapter-{parent['hash'][:12]}"

    lines = [f"python recipes/share.py pull {repo_id} --output_dir {title}"] if artifact.folder else []
    script = shlex.quote(f"recipes/{record['command'][0]}")
    lines.append(f"accelerate launch --config_file accelerate_config.yaml {script} --config recipe.yaml")
    for results in artifact.own_results:
        words = eval_command(results, base, repo_id, artifact)
        lines.append(" ".join(f"\\\n  {word}" if word.startswith("--") else word for word in words))
    if artifact.own_results:
        stage = f" --stage {artifact.folder}" if artifact.folder else ""
        lines.append(f"python recipes/share.py verify {repo_id}{stage}")

    hardware, git = record["hardware"], record["git"] or {}
    tokens = [f"{name} tokens: {count:,}" for name, count in (record.get("tokens") or {}).items()]
    device = ", ".join(hardware["accelerators"]) or f"{hardware['cores']} CPU cores"
    packages = [name for name in record["versions"] if name in ("transformers", "trl", "peft", "torch")]
    return _Rerun(
        revision=git.get("revision", "unknown")[:12],
        is_dirty=bool(git.get("dirty")),
        commands="\n".join(lines),
        recipe=yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        facts=[
            f"LoRA of rank {artifact.config['r']}, alpha {artifact.config['lora_alpha']}",
            f"{record['steps']} steps",
            *tokens,
            f"{record['seconds']:.0f} s on {device}",
            ", ".join(f"{name} {record['versions'][name]}" for name in packages),
        ],
        missing_parent=missing_parent,
    )


def _overlaps(data: list[dict[str, Any]]) -> list[str]:
    return [
        f"{overlap['eval_share']:.1%} of {one_line(other)} also occurs in {one_line(entry['name'])}."
        for entry in data
        for other, overlap in (entry.get("overlap") or {}).items()
        if overlap["eval_rows"]
    ]


def _estimate(part: dict[str, Any]) -> str:
    return "—" if part["value"] is None else f"{part['value']:.3f} ({_interval(part)})"


def _interval(part: dict[str, Any]) -> str:
    return "no interval" if not part["interval"] else f"{part['interval'][0]:.3f} to {part['interval'][1]:.3f}"


def _sampling(sampling: dict[str, Any]) -> str:
    return f"{_drawn(sampling)}, {sampling['dtype']}"


def _drawn(sampling: dict[str, Any]) -> str:
    if not sampling["temperature"]:
        return "greedy"
    return f"temperature {sampling['temperature']}, {sampling['num_samples']} samples"
