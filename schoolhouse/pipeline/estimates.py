"""What there is to do, how long it will take and how much memory."""

from dataclasses import dataclass
from statistics import mean
from typing import Any

from schoolhouse.pipeline.fingerprints import is_done, is_evaluated, read_json
from schoolhouse.pipeline.plan import Pipeline, Stage


LIBRARIES = 550e6  # bytes that Python, torch and trl take with the smallest of models, measured on a CPU
PROMPT = 96  # tokens of a practice question, which no recipe says
_DEFAULT_LENGTH = {"sft": 1024, "reward": 1024, "grpo": 512, "ppo": 512}  # where the recipe leaves TRL's default


@dataclass
class Program:
    """
    One program of a pipeline: a stage's training, or its eval.

    Args:
        stage (`str`):
            Its name.
        what (`str`):
            `"train"` or `"eval"`.
        seconds (`float` or `None`):
            What it took the last time, else what is expected; `None` where nothing is known.
    """

    stage: str
    what: str
    seconds: float | None


def to_do(pipeline: Pipeline, stages: list[Stage]) -> list[Program]:
    """
    The programs that a run would start, in order.

    Args:
        pipeline ([`~schoolhouse.pipeline.plan.Pipeline`]):
            The pipeline.
        stages (`list[Stage]`):
            The stages that were asked for.

    Returns:
        `list[Program]`: empty where everything is done and measured.
    """
    programs = []
    for stage in stages:
        due = not is_done(pipeline, stage)
        if due:
            programs.append(Program(stage.name, "train", training_seconds(stage)))
        if stage.evals and (due or not is_evaluated(pipeline, stage)):
            programs.append(Program(stage.name, "eval", eval_seconds(pipeline, stage)))
    return programs


def training_seconds(stage: Stage) -> float | None:
    """What a stage's training took, else the `minutes` of the pipeline's file."""
    state = read_json(stage.folder / "stage.json")
    if state.get("status") == "done" and state.get("seconds"):
        return state["seconds"]
    return stage.minutes and stage.minutes * 60


def eval_seconds(pipeline: Pipeline, stage: Stage) -> float | None:
    """What a stage's eval took, else the mean of those that asked the same tasks, else of all."""
    took = {}
    for other in pipeline.stages:
        state = read_json(other.folder / "eval" / "stage.json")
        if state.get("status") == "done" and state.get("seconds"):
            took[other.name] = state["seconds"]
    same = [took[other.name] for other in pipeline.stages if other.name in took and other.evals == stage.evals]
    return took.get(stage.name) or (mean(same or took.values()) if took else None)


def peak_bytes(pipeline: Pipeline, stage: Stage) -> tuple[float, bool] | None:
    """
    Memory of a stage's training.

    Args:
        pipeline ([`~schoolhouse.pipeline.plan.Pipeline`]), stage ([`~schoolhouse.pipeline.plan.Stage`]):
            The stage and its pipeline.

    Returns:
        `tuple[float, bool]` or `None`: bytes, and whether they were measured; else they are estimated from the
        model's config, for sequences as long as the recipe lets them be.
    """
    if measured := read_json(stage.folder / "stage.json").get("peak_bytes"):
        return measured, True
    if stage.recipe is None:
        return None
    import warnings
    from types import SimpleNamespace

    import torch
    from transformers import AutoTokenizer

    from schoolhouse.config.arguments import ModelArguments
    from schoolhouse.training.memory import estimate_memory

    origin = stage  # an adapter's shape is that of the stage that began it
    while origin.after is not None:
        origin = next(other for other in pipeline.stages if other.name == origin.after)
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
    """Tokens of a micro-batch, every sequence as long as it may be."""
    is_practice = recipe in ("grpo", "ppo")
    length = config.get("max_completion_length" if is_practice else "max_length") or _DEFAULT_LENGTH[recipe]
    sides = 2 if recipe == "reward" else 1
    return config.get("per_device_train_batch_size", 8) * sides * (length + PROMPT * is_practice)
