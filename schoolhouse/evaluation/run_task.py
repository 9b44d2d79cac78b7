"""One task put to one model: items are prepared before weights load, then asked, scored and summarised."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schoolhouse.core.generation import Sample, Sampling, check_context, generate, render, stop_token_ids
from schoolhouse.core.progress import report_progress
from schoolhouse.evaluation.arguments import EvalArguments
from schoolhouse.evaluation.contamination import contaminated_items
from schoolhouse.evaluation.results import EvalSample, SamplingSettings, TaskResult, TaskSampling
from schoolhouse.evaluation.sample_cache import SampleCache, SampleKey, prompt_hash, sampling_json
from schoolhouse.evaluation.summary import summarise
from schoolhouse.evaluation.tasks import Item, Task
from schoolhouse.evaluation.tasks.kinds import GenerateTask
from schoolhouse.evaluation.tasks.spec import GenerationPlan, LoadedModel


if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedTask:
    """
    A task made ready for a model's tokenizer.

    Args:
        task ([`Task`]), items (`list[Item]`):
            The task and its items.
        plan ([`GenerationPlan`] or `None`):
            How completions are drawn; `None` for a kind of task that generates nothing.
        contaminated (`set[str]`, *optional*):
            Ids of the items that overlap the training data; `None` where the training data is not known.
    """

    task: Task
    items: list[Item]
    plan: GenerationPlan | None
    contaminated: set[str] | None = None


def prepare(
    task: Task,
    arguments: EvalArguments,
    tokenizer: "PreTrainedTokenizerBase",
    config: "PretrainedConfig",
    path: str | None = None,
) -> PreparedTask:
    """
    Build a task's items and render their prompts, so that mistakes in them show before weights load.

    `config` gives the length of the model's context; `path` is read instead of the task's data set. Wrong items,
    several greedy samples, or a prompt that exceeds the context are a `ValueError`.
    """
    items = task.build(arguments.limit, path)
    if isinstance(task, GenerateTask):
        _warn_of_unsupported(task, items)
    plan = _plan(task, items, arguments, tokenizer) if isinstance(task, GenerateTask) else None
    if plan:
        check_context(config, plan.prompts, plan.sampling.max_new_tokens)
    contaminated = contaminated_items(items, arguments.trained_on) if arguments.trained_on else None
    return PreparedTask(task, items, plan, contaminated)


def run_task(
    prepared: PreparedTask,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    arguments: EvalArguments,
    cache: SampleCache,
    hashes: Mapping[str, str | None],
    run_sampling: SamplingSettings,
) -> tuple[list[EvalSample], TaskResult]:
    """
    Ask a task's items, score the answers and summarise them: samples in the order of the items, and the result.

    Completions go through `cache`: those drawn before are scored again but not drawn again. Likelihoods and a reward
    model's scores are computed anew. `hashes` are those of `model` and `adapter`; a task whose sampling is not
    `run_sampling` records its own.
    """
    task, items, plan = prepared.task, prepared.items, prepared.plan

    def draw(plan: GenerationPlan) -> list[Sample]:
        return _draw(task.name, plan, model, tokenizer, arguments, cache, hashes)

    loaded = LoadedModel(model, tokenizer, arguments.batch_size, draw)
    samples = task.ask(loaded, items, plan)
    if (known := prepared.contaminated) is not None:
        samples = [sample.model_copy(update={"contaminated": sample.id in known}) for sample in samples]
    result = summarise(task, samples)
    more: dict[str, object] = {}
    if plan:
        more["max_new_tokens"] = plan.sampling.max_new_tokens
        own = TaskSampling(num_samples=plan.num_samples, temperature=plan.sampling.temperature)
        if (own.num_samples, own.temperature) != (run_sampling.num_samples, run_sampling.temperature):
            more["sampling"] = own
    if report := task.report(loaded, items, samples):
        more["preference"] = report
    return samples, result.model_copy(update=more)


def _warn_of_unsupported(task: GenerateTask, items: list[Item]) -> None:
    reasons = task.scorer_with_parameters.unsupported(items)
    found = [f"{item.id} ({reason})" for item, reason in zip(items, reasons, strict=True) if reason]
    if found:
        logger.warning(
            f"{task.name}: on {len(found)} of {len(items)} items no answer can be right: "
            f"{'; '.join(found[:3])}{'; …' if found[3:] else ''}"
        )


def _plan(
    task: GenerateTask, items: list[Item], arguments: EvalArguments, tokenizer: "PreTrainedTokenizerBase"
) -> GenerationPlan:
    temperature = task.temperature if arguments.temperature is None else arguments.temperature
    is_greedy = temperature == 0
    num_samples = arguments.num_samples or (1 if is_greedy else task.num_samples)
    if is_greedy and num_samples > 1:
        raise ValueError(f"num_samples is {num_samples} at temperature 0: greedy samples are all the same")
    sampling = Sampling(
        temperature=temperature,
        top_p=1.0 if is_greedy else arguments.top_p,
        max_new_tokens=arguments.max_new_tokens or task.max_new_tokens,
        stop=tuple(task.stop),
        seed=0 if is_greedy else arguments.seed,
    )
    return GenerationPlan([render(tokenizer, item.prompt) for item in items], sampling, num_samples)


def _draw(
    name: str,
    plan: GenerationPlan,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    arguments: EvalArguments,
    cache: SampleCache,
    hashes: Mapping[str, str | None],
) -> list[Sample]:
    """Return the completions of a plan, prompt by prompt; those missing in the cache are drawn and added to it."""
    from tqdm import tqdm

    sampling = plan.sampling
    # Everything that decides about a completion is part of its key: another value asks for another completion.
    parameters = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_new_tokens": sampling.max_new_tokens,
        "stop": sampling.stop,
        "stop_ids": stop_token_ids(model, tokenizer),
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    keys = [
        SampleKey(
            model=str(hashes["model"]),
            adapter=hashes["adapter"],
            prompt=prompt_hash(prompt),
            sampling=sampling_json(parameters),
            seed=sampling.seed,
            index=index,
        )
        for prompt in plan.prompts
        for index in range(plan.num_samples)
    ]
    batches = generate(
        model,
        tokenizer,
        prompts=[prompt for prompt in plan.prompts for _ in range(plan.num_samples)],
        indices=[key.index for key in keys],
        sampling=sampling,
        batch_size=arguments.batch_size,
        tokens_per_batch=arguments.tokens_per_batch,
        is_done=lambda position: cache.get(keys[position]) is not None,
    )
    done = sum(cache.get(key) is not None for key in keys)
    # Without a terminal tqdm prints nothing.
    with tqdm(total=len(keys), initial=done, desc=name, unit="sample", disable=None) as bar:
        for batch in batches:
            cache.add((keys[position], sample) for position, sample in batch)
            bar.update(len(batch))
            report_progress(name, bar.n, len(keys))
    return [sample for key in keys if (sample := cache.get(key)) is not None]
