"""The programs that a pipeline has to run, how long they will take and how much memory."""

from dataclasses import dataclass
from statistics import mean
from typing import Any

from schoolhouse.pipeline.plan import Pipeline, Stage
from schoolhouse.pipeline.staleness import evaluation_of, is_done, is_evaluated, is_left_out, manifest_of


LIBRARIES = 550e6  # bytes that Python, torch and trl take with the smallest of models, measured on a CPU
PROMPT = 96  # tokens of a prompt in RL, which no recipe says
_DEFAULT_LENGTH = {"sft": 1024, "reward": 1024, "grpo": 512, "ppo": 512}  # where the recipe leaves TRL's default


@dataclass
class Program:
    """
    One program of a pipeline: `what` is `"train"` or `"eval"`.

    `seconds` is what it took the last time, else what is expected; `None` where nothing is known.
    """

    stage: str
    what: str
    seconds: float | None


def to_do(pipeline: Pipeline, stages: list[Stage]) -> list[Program]:
    """Return the programs that a run of these stages would start, in order; none where all is done and evaluated."""
    programs = []
    for stage in stages:
        if is_left_out(pipeline, stage):
            continue
        due = not is_done(pipeline, stage)
        if due:
            programs.append(Program(stage.name, "train", training_seconds(stage)))
        if stage.evals_here and (due or not is_evaluated(pipeline, stage)):
            programs.append(Program(stage.name, "eval", eval_seconds(pipeline, stage)))
    return programs


def left_out(pipeline: Pipeline, stages: list[Stage]) -> list[str]:
    """Return a line for each stage and each task that this system cannot run, and one on how to run them."""
    lines = [f"{stage.name}: needs Linux, left out" for stage in stages if is_left_out(pipeline, stage)]
    tasks: dict[str, None] = {}
    for stage in stages:
        entry = evaluation_of(stage)
        scored = entry.tasks if entry is not None and entry.status == "done" else []
        tasks |= dict.fromkeys(task for task in stage.needs_linux_evals if task not in scored)
    lines += [f"eval {task}: needs Linux, left out" for task in tasks]
    if lines:
        lines.append("programs that a model writes run on Linux only: a Linux container or VM does all (README.md)")
    return lines


def training_seconds(stage: Stage) -> float | None:
    """Return how long a stage's training took, else the `minutes` of the pipeline's file."""
    manifest = manifest_of(stage)
    if manifest is not None and manifest.status == "done" and manifest.seconds:
        return manifest.seconds
    return stage.minutes and stage.minutes * 60


def eval_seconds(pipeline: Pipeline, stage: Stage) -> float | None:
    """Return how long a stage's evaluation took, else the mean of those of the same tasks, else of all."""
    entries = {other.name: evaluation_of(other) for other in pipeline.stages}
    took = {name: entry.seconds for name, entry in entries.items() if entry is not None and entry.status == "done"}
    same = [took[other.name] for other in pipeline.stages if other.name in took and other.evals == stage.evals]
    return took.get(stage.name) or (mean(same or took.values()) if took else None)


def peak_bytes(pipeline: Pipeline, stage: Stage) -> tuple[float, bool] | None:
    """
    Return the memory of a stage's training in bytes, and whether it was measured.

    Else it is estimated from the model's config, for sequences as long as the recipe lets them be.
    """
    manifest = manifest_of(stage)
    if manifest is not None and manifest.peak_bytes:
        return manifest.peak_bytes, True
    if stage.recipe not in _DEFAULT_LENGTH:  # the base model, or a script of the user's
        return None
    import warnings
    from types import SimpleNamespace

    import torch
    from transformers import AutoTokenizer

    from schoolhouse.config.arguments import ModelArguments
    from schoolhouse.training.memory import estimate_memory

    origin = stage  # an adapter's shape is that of the stage that began it
    while origin.parent is not None:
        origin = next(other for other in pipeline.stages if other.name == origin.parent)
    fields = ModelArguments.__dataclass_fields__
    wanted = {key: value for key, value in origin.config.items() if key in fields and key != "adapter_name_or_path"}
    config = stage.config
    has_gpu = torch.cuda.is_available()
    training = SimpleNamespace(
        optim=config.get("optim", "adamw_torch"),
        bf16=config.get("bf16", has_gpu),
        fp16=config.get("fp16", False),
        gradient_checkpointing=config.get("gradient_checkpointing", True),
        device=torch.device("cuda" if has_gpu else "cpu"),
    )
    try:
        with warnings.catch_warnings(action="ignore"):
            tokenizer = AutoTokenizer.from_pretrained(pipeline.base)
            estimate = estimate_memory(ModelArguments(**wanted), training, tokenizer, _tokens(stage.recipe, config))
    except (OSError, ValueError, TypeError):  # the recipe itself will say what is wrong with it
        return None
    return estimate.total + LIBRARIES, False


def _tokens(recipe: str, config: dict[str, Any]) -> int:
    """Return the tokens of a micro-batch, every sequence as long as it may be."""
    is_rl = recipe in ("grpo", "ppo")
    length = config.get("max_completion_length" if is_rl else "max_length") or _DEFAULT_LENGTH[recipe]
    sides = 2 if recipe == "reward" else 1
    return config.get("per_device_train_batch_size", 8) * sides * (length + PROMPT * is_rl)
