"""The model card: how an adapter was made and how well it does, from run.json and results.json and nothing else."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from schoolhouse.config.paths import shipped
from schoolhouse.core.escape import code_span, fenced, markdown, one_line
from schoolhouse.core.manifest import DataSource
from schoolhouse.core.redaction import anonymize
from schoolhouse.data import dataset_names, load_dataset_spec
from schoolhouse.evaluation.results import Estimate, EvaluationResults, SamplingSettings, TaskResult, TaskSampling
from schoolhouse.hub.artifacts import Artifact, all_tasks, unmerged_refusal
from schoolhouse.hub.lineage import BaseOnHub


# Tasks whose data set the Hub knows as a benchmark: its id, the id of the task in its eval.yaml, and the value of a
# perfect score there. The Hub takes results of registered benchmarks only; those of other tasks are in the card.
BENCHMARKS = {"gsm8k": ("openai/gsm8k", "gsm8k", 100), "gsm8k_5shot": ("openai/gsm8k", "gsm8k", 100)}
_SMALL = 100
_QUESTION = "What is 17 + 25?"
_CHAT = f'{{"role": "user", "content": "{_QUESTION}"}}'
# Lines of the card's code that render a chat, and that ask the model.
_ASK = (
    f"chat = [{_CHAT}]\n"
    'inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")',
    "ids = model.generate(**inputs, max_new_tokens=64, do_sample=False)\n"
    'print(tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
)
_ASK_SCORER = (
    f'chat = [{_CHAT}, {{"role": "assistant", "content": "42"}}]\n'
    'inputs = tokenizer.apply_chat_template(chat, return_dict=True, return_tensors="pt")',
    "print(float(model(**inputs).logits[0, 0]))  # higher is better",
)
_KINDS = {
    "sft": "supervised fine-tuning",
    "grpo": "GRPO, reinforcement learning with verifiable rewards",
    "reward": "reward modelling on preference pairs",
    "ppo": "PPO against a reward model",
}
_TAGS = {"sft": ["trl", "sft"], "grpo": ["trl", "grpo"], "reward": ["trl", "reward-trainer"], "ppo": ["trl", "ppo"]}


def model_card(
    repo_id: str, artifacts: Sequence[Artifact], base: BaseOnHub, license: str | None, clashes: list[str]
) -> str:
    """
    Write README.md of a repository: metadata and Markdown, in which every text from these files is escaped.

    Args:
        artifacts (`Sequence[Artifact]`):
            One in the root, or several in sub-folders.
        license (`str` or `None`), clashes (`list[str]`):
            License of the adapter, and reasons why none could be derived.
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
        "kind": _kind,
        "rerun": lambda artifact: _rerun(artifact, artifacts, base.name, repo_id),
    }
    columns, rows = _results_table(artifacts)
    text = environment.get_template("model_card.md.jinja").render(
        metadata=_metadata(artifacts, base.name, license),
        title=repo_id.split("/")[1],
        base=base,
        base_url=f"https://huggingface.co/{base.name}",
        artifacts=artifacts,
        folders={artifact.hash: artifact.folder for artifact in artifacts if artifact.folder},
        is_pipeline=bool(artifacts[0].folder),
        kinds=list(dict.fromkeys(map(_kind, artifacts))),
        columns=columns,
        rows=rows,
        refusals=list(dict.fromkeys(filter(None, (unmerged_refusal(artifact.config) for artifact in artifacts)))),
        unmeasured=[artifact.folder for artifact in artifacts if not artifact.results],
        sampling=next((_sampling(artifact.results[0].sampling) for artifact in artifacts if artifact.results), ""),
        usage=_usage(repo_id, artifacts, base.name),
        license=license,
        clashes=clashes,
        data=training_data(artifacts),
    )
    return text.strip() + "\n"


def training_data(artifacts: Sequence[Artifact]) -> list[DataSource]:
    """List the data sets that adapters were trained on, without local paths, the same content once."""
    sources = {entry.sha256: entry for one in artifacts for entry in one.manifest.data if entry.role == "train"}
    return [DataSource.model_validate(anonymize(source.model_dump())) for source in sources.values()]


def eval_results(repo_id: str, artifact: Artifact) -> dict[str, str]:
    """Write an adapter's results in the Hub's form, by file name; tasks not in `BENCHMARKS` are only in the card."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    files = {}
    place = f"{artifact.folder}/" if artifact.folder else ""
    for results in artifact.results:
        for name, task in results.tasks.items():
            if name in BENCHMARKS and task.value is not None:
                dataset, task_id, perfect = BENCHMARKS[name]
                interval = task.interval and " to ".join(f"{perfect * bound:.1f}" for bound in task.interval)
                entry = EvalResultEntry(
                    dataset,
                    task_id,
                    value=round(perfect * task.value, 4),
                    date=results.date,
                    source_url=f"https://huggingface.co/{repo_id}/blob/{artifact.tag}/{place}results.json",
                    source_name="results of this adapter",
                    notes=f"{artifact.name}: n={task.n} items, 95% interval {interval or 'none'}; "
                    f"{_sampling(results.sampling_of(name))}; task {name} version {task.version} of Schoolhouse",
                )
                files[f"{name}.yaml"] = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
    return files


def eval_command(results: EvaluationResults, base: str, repo_id: str, artifact: Artifact) -> list[str]:
    """
    Write the words of an evaluation's command as a stranger can run it, quoted for a shell, without local paths.

    The base is its Hub id; an adapter of a pipeline is in the folder that `share.py pull` brings.
    """
    title = repo_id.split("/")[1]
    words = shlex.split(results.command)
    names = {results.model: base, results.adapter: f"{title}/{artifact.folder}" if artifact.folder else repo_id}
    if "--output_dir" in words[:-1]:
        names[words[words.index("--output_dir") + 1]] = f"outputs/{title}-eval"
    return [shlex.quote(anonymize(names.get(word, word))) for word in words]


def _metadata(artifacts: Sequence[Artifact], base: str, license: str | None) -> str:
    from huggingface_hub import ModelCardData

    sources = training_data(artifacts)
    # Manifests of the first version name the data set alone.
    known = {source.name for source in sources} & set(dataset_names())
    hub_ids = {source.hub_id for source in sources} | {load_dataset_spec(name).hub_id for name in known}
    is_scorer = all(artifact.is_reward_model for artifact in artifacts)
    methods = dict.fromkeys(tag for one in artifacts for tag in _TAGS.get(one.manifest.recipe, ()))
    stages = [artifact.name for artifact in artifacts if artifact.name not in methods]
    return ModelCardData(
        base_model=base,
        library_name="peft",
        license=license,
        datasets=sorted(filter(None, hub_ids)) or None,
        # Those of peft and TRL, by which the Hub finds the adapters of a base and of a method.
        tags=[f"base_model:adapter:{base}", "lora", "transformers", *methods, "schoolhouse", *stages],
        pipeline_tag="text-classification" if is_scorer else "text-generation",
        base_model_relation="adapter",
    ).to_yaml()


def _kind(artifact: Artifact) -> str:
    return _KINDS.get(artifact.manifest.recipe, artifact.manifest.recipe)


def _usage(repo_id: str, artifacts: Sequence[Artifact], base: str) -> list[str]:
    """Write code that loads and asks each kind of model: the last adapter of a kind, the others in a comment."""
    blocks = {}
    for artifact in artifacts:
        is_scorer = artifact.is_reward_model
        others = [a.folder for a in artifacts if a.is_reward_model == is_scorer and a is not artifact]
        comment = f"  # or {', '.join(others)}" if others else ""
        subfolder = f', subfolder="{artifact.folder}"' if artifact.folder else ""
        kind, labels = ("SequenceClassification", ", num_labels=1") if is_scorer else ("CausalLM", "")
        prompt, use = _ASK_SCORER if is_scorer else _ASK
        if not (artifact.adapter / "chat_template.jinja").is_file():
            prompt = f'inputs = tokenizer("{_QUESTION}", return_tensors="pt")'
        blocks[kind] = f"""\
from peft import PeftModel
from transformers import AutoModelFor{kind}, AutoTokenizer

model = AutoModelFor{kind}.from_pretrained("{base}"{labels})
model = PeftModel.from_pretrained(model, "{repo_id}"{subfolder}){comment}
tokenizer = AutoTokenizer.from_pretrained("{repo_id}"{subfolder})  # not the base's: this one has the chat template
{prompt}
{use}"""
    return list(blocks.values())


def _results_table(artifacts: Sequence[Artifact]) -> tuple[list[str], list[list[str]]]:
    """Return columns (base, then measured adapters) and rows of the table: task, n, a cell for each column."""
    columns = {artifact.folder or "This adapter": artifact.results for artifact in artifacts if artifact.results}
    if columns and artifacts[0].base_results:
        columns = {"Base": artifacts[0].base_results} | columns
    cells: dict[tuple[str, int], dict[str, str]] = {}  # (task, n) -> column -> cell
    for column, found in columns.items():
        for name, task in all_tasks(found).items():
            better = "" if task.higher_is_better else ", lower is better"
            own = f", {_drawn(task.sampling)}" if task.sampling else ""
            label = f"{one_line(name)} (version {task.version}{own}{better})"
            cells.setdefault((label, task.n), {})[column] = _estimate(task)
            clean = task.uncontaminated
            if clean and clean.n and clean.n != task.n:
                label += ": items that share nothing with the training data"
                cells.setdefault((label, clean.n), {})[column] = _estimate(clean)
    rows = [
        [label, str(n), *(found.get(column, "—") for column in columns)]
        for (label, n), found in cells.items()
        if found.keys() - {"Base"}
    ]
    return list(columns), rows


def _failures(artifact: Artifact) -> list[str]:
    """List measurements that speak against the adapter, one line for each task."""
    base = all_tasks(artifact.base_results)
    return [
        f"{one_line(name)}: {'; '.join(told)}."
        for name, task in all_tasks(artifact.results).items()
        if (told := list(_failures_of_task(task, base.get(name))))
    ]


def _failures_of_task(task: TaskResult, before: TaskResult | None) -> Iterator[str]:
    if task.value is not None and task.higher_is_better:
        if task.value < 0.5:
            yield f"{1 - task.value:.0%} of the answers are wrong"
        levels = [
            (part.value, part.interval[1], level, part)
            for level, part in task.by_level.items()
            if part.value is not None and part.interval
        ]
        if len(levels) > 1:
            _, high, level, worst = min(levels, key=lambda entry: entry[0])
            if high < task.value:
                yield f"worst at level {one_line(level)}, {_estimate(worst)} with n = {worst.n}"
    if task.metrics.get("truncated", 0) > 0.02:
        yield f"{task.metrics['truncated']:.0%} of the answers did not end within {task.max_new_tokens} tokens"
    if task.metrics.get("format_ok", 1) < 0.98:
        yield f"{1 - task.metrics['format_ok']:.0%} of the answers were not in the asked form"
    if task.metrics.get("ungraded"):
        yield f"{task.metrics['ungraded']} samples could not be graded and count as wrong"
    if task.metrics.get("unsupported"):
        yield f"{task.metrics['unsupported']} items are left out: their tests run on no program"
    if before and task.interval and before.interval:
        (low, high), (low_before, high_before) = task.interval, before.interval
        if max(low, low_before) <= min(high, high_before):
            yield "the intervals of base and adapter overlap, so this shows no change"
        elif (low > high_before) != task.higher_is_better:
            yield "it does worse than the base"
    if task.n < _SMALL:
        yield f"only {task.n} items were asked, which tells little"


@dataclass
class _Rerun:
    """Commands and recipe that make an adapter again, and the folder where a parent that is not here has to lie."""

    commands: str
    recipe: str
    missing_parent: str | None


def _rerun(artifact: Artifact, artifacts: Sequence[Artifact], base: str, repo_id: str) -> _Rerun:
    title = repo_id.split("/")[1]
    text = json.dumps(artifact.manifest.config)
    for other in artifacts if artifact.folder else []:
        # A path to the adapter of another stage becomes one into the folder that `pull` brings.
        text = text.replace(json.dumps(f"{other.origin}/adapter"), json.dumps(f"{title}/{other.folder}"))
    config = anonymize(json.loads(text))
    config |= {"model_name_or_path": base, "output_dir": f"outputs/{title}/{artifact.folder}".rstrip("/")}
    parent, missing_parent = artifact.manifest.parent_adapter, None
    if parent and parent.hash not in {other.hash for other in artifacts}:
        config["adapter_name_or_path"] = missing_parent = f"adapter-{parent.hash[:12]}"

    lines = [f"python recipes/share.py pull {repo_id} --output_dir {title}"] if artifact.folder else []
    script = f"recipes/{artifact.manifest.recipe}.py"
    if not shipped(script).is_file():  # the user's own
        script = Path(script).name
    lines.append(f"accelerate launch --config_file accelerate_config.yaml {shlex.quote(script)} --config recipe.yaml")
    for results in artifact.results:
        words = eval_command(results, base, repo_id, artifact)
        lines.append(" ".join(f"\\\n  {word}" if word.startswith("--") else word for word in words))
    if artifact.results:
        stage = f" --stage {artifact.folder}" if artifact.folder else ""
        lines.append(f"python recipes/share.py verify {repo_id}{stage}")
    return _Rerun("\n".join(lines), yaml.safe_dump(config, sort_keys=False, allow_unicode=True), missing_parent)


def _estimate(part: Estimate) -> str:
    return "—" if part.value is None else f"{part.value:.3f} ({_interval(part)})"


def _interval(part: Estimate) -> str:
    return "no interval" if not part.interval else f"{part.interval[0]:.3f} to {part.interval[1]:.3f}"


def _sampling(sampling: SamplingSettings) -> str:
    return f"{_drawn(sampling)}, {sampling.dtype}"


def _drawn(sampling: SamplingSettings | TaskSampling) -> str:
    if not sampling.temperature:
        return "greedy"
    return f"temperature {sampling.temperature}, {sampling.num_samples} samples"
