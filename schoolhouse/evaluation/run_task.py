"""One task put to one model: items in, graded samples out."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schoolhouse.core.generation import (
    Sampling,
    bits_per_byte,
    check_context,
    generate,
    loglikelihood,
    render,
    stop_token_ids,
)
from schoolhouse.core.progress import report_progress
from schoolhouse.evaluation.arguments import EvalArguments
from schoolhouse.evaluation.contamination import contaminated_items
from schoolhouse.evaluation.preference import rate_pairs
from schoolhouse.evaluation.results import EvalSample
from schoolhouse.evaluation.sample_cache import Sample, SampleKey, SampleStore, prompt_hash, sampling_json
from schoolhouse.evaluation.tasks.base import Item, Task


if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class PreparedTask:
    """
    A task made ready for a model's tokenizer.

    Args:
        task ([`Task`]):
            The task.
        items (`list[Item]`):
            Its items.
        prompts (`list[list[int]]`):
            Token ids of each item's prompt; empty unless completions are asked for.
        sampling ([`Sampling`]):
            How completions are drawn.
        num_samples (`int`):
            Completions per item.
        contaminated (`set[str]` or `None`):
            Ids of the items that overlap the training data; `None` where nobody said what it was.
    """

    task: Task
    items: list[Item]
    prompts: list[list[int]]
    sampling: Sampling
    num_samples: int
    contaminated: set[str] | None = None


def prepare(
    task: Task, arguments: EvalArguments, tokenizer: "PreTrainedTokenizerBase", config: "PretrainedConfig"
) -> PreparedTask:
    """
    Builds a task's items and renders their prompts: whatever can be wrong with them shows before weights load.

    Args:
        task ([`Task`]):
            The task.
        arguments ([`EvalArguments`]):
            Of which `limit`, `task_paths` and the sampling parameters are read.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The tokenizer.
        config ([`~transformers.PretrainedConfig`]):
            The model's, for the length of its context.

    Returns:
        [`PreparedTask`]: the task, ready to be asked.

    Raises:
        ValueError: if there are no items, two have the same id, several greedy samples are asked for, or a prompt does
            not fit into the model's context.
    """
    items = task.build(arguments.limit, arguments.task_paths.get(task.name))
    if not items:
        raise ValueError(f"task {task.name} has no items: look at what its path names")
    if len({item.id for item in items}) < len(items):
        raise ValueError(f"task {task.name} has two items with the same id")
    temperature = task.temperature if arguments.temperature is None else arguments.temperature
    is_greedy = temperature == 0
    num_samples = arguments.num_samples or (1 if is_greedy else task.num_samples)
    if is_greedy and num_samples > 1:
        raise ValueError(f"num_samples is {num_samples} at temperature 0: greedy samples are all the same")
    sampling = Sampling(
        temperature=temperature,
        top_p=1.0 if is_greedy else arguments.top_p,
        max_new_tokens=arguments.max_new_tokens or task.max_new_tokens,
        stop=task.stop,
        seed=0 if is_greedy else arguments.seed,
    )
    prompts = [render(tokenizer, item.prompt) for item in items] if task.kind == "generate" else []
    if prompts:
        check_context(config, prompts, sampling.max_new_tokens)
    contaminated = contaminated_items(items, arguments.trained_on) if arguments.trained_on else None
    return PreparedTask(task, items, prompts, sampling, num_samples, contaminated)


def run_task(
    prepared: PreparedTask,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    arguments: EvalArguments,
    store: SampleStore,
    hashes: dict[str, str | None],
) -> list[EvalSample]:
    """
    Asks, grades and returns the samples of a task.

    Completions go through `store`: those drawn before are graded again but not drawn again. Likelihoods are computed
    anew.

    Args:
        prepared ([`PreparedTask`]):
            From [`prepare`].
        model ([`~transformers.PreTrainedModel`]):
            The model, in evaluation mode.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The tokenizer.
        arguments ([`EvalArguments`]):
            Of which the batch sizes are read.
        store ([`SampleStore`]):
            Where completions are kept.
        hashes (`dict[str, str | None]`):
            `model` and `adapter`.

    Returns:
        `list[EvalSample]`: in the order of items.
    """
    lines = _ask(prepared, model, tokenizer, arguments, store, hashes)
    known = prepared.contaminated
    lines = lines if known is None else [line | {"contaminated": line["id"] in known} for line in lines]
    return [EvalSample.model_validate(line) for line in lines]


def _ask(
    prepared: PreparedTask,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    arguments: EvalArguments,
    store: SampleStore,
    hashes: dict[str, str | None],
) -> list[dict[str, Any]]:
    task, items = prepared.task, prepared.items
    if task.kind == "preference":
        rated = rate_pairs(model, tokenizer, items, arguments.batch_size)
        return [_line(item) | line for item, line in zip(items, rated, strict=True)]
    if task.kind == "bits_per_byte":
        measured = bits_per_byte(model, tokenizer, [item.prompt for item in items], arguments.batch_size)
        return [
            _line(item) | {"bits": bits, "bytes": size} for item, (bits, size) in zip(items, measured, strict=True)
        ]
    if task.kind == "loglikelihood":
        pairs = [(item.prompt, choice) for item in items for choice in item.meta["choices"]]
        values = iter(loglikelihood(model, tokenizer, *zip(*pairs, strict=True), batch_size=arguments.batch_size))
        answers = [list(itertools.islice(values, len(item.meta["choices"]))) for item in items]
        scores = score_answers(task, answers, items)
        return [
            _line(item) | {"loglikelihoods": answer} | score
            for item, answer, score in zip(items, answers, scores, strict=True)
        ]
    asked = [item for item in items for _ in range(prepared.num_samples)]
    samples = _draw(prepared, model, tokenizer, arguments, store, hashes)
    scores = score_answers(task, [sample.text for sample in samples], asked)
    return [
        _line(item, number % prepared.num_samples)
        | {"completion": sample.text, "tokens": sample.tokens, "finish_reason": sample.finish_reason}
        | score
        for number, (item, sample, score) in enumerate(zip(asked, samples, scores, strict=True))
    ]


def score_answers(task: Task, answers: Sequence[Any], items: Sequence[Item]) -> list[dict[str, Any]]:
    """
    Scores answers with a task's scorer and sorts the entries.

    Args:
        task ([`Task`]):
            The task.
        answers (`Sequence[Any]`):
            Completions, or log-likelihoods of the choices.
        items (`Sequence[Item]`):
            The item that each answers.

    Returns:
        `list[dict]`: `correct` and, where the task has them, `extracted`, `format_ok` and `right_in_any_form`; every
        other entry of the task's under `metrics`.
    """
    if task.score_many:
        scores = task.score_many(answers, items)
    else:
        scores = [task.score(answer, item) for answer, item in zip(answers, items, strict=True)]
    heads = ("correct", "extracted", "format_ok", "right_in_any_form")
    return [
        {name: score[name] for name in heads if name in score}
        | {"metrics": {name: value for name, value in score.items() if name not in heads}}
        for score in scores
    ]


def _line(item: Item, index: int = 0) -> dict[str, Any]:
    kept = {name: item.meta[name] for name in ("level", "cluster") if name in item.meta}
    return {"id": item.id, "index": index, "prompt": item.prompt, "reference": item.reference} | kept


def _draw(
    prepared: PreparedTask,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    arguments: EvalArguments,
    store: SampleStore,
    hashes: dict[str, str | None],
) -> list[Sample]:
    from tqdm import tqdm

    sampling = prepared.sampling
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
            model=hashes["model"],
            adapter=hashes["adapter"],
            prompt=prompt_hash(prompt),
            sampling=sampling_json(parameters),
            seed=sampling.seed,
            index=index,
        )
        for prompt in prepared.prompts
        for index in range(prepared.num_samples)
    ]
    batches = generate(
        model,
        tokenizer,
        prompts=[prompt for prompt in prepared.prompts for _ in range(prepared.num_samples)],
        indices=[key.index for key in keys],
        sampling=sampling,
        batch_size=arguments.batch_size,
        tokens_per_batch=arguments.tokens_per_batch,
        is_done=lambda position: store.get(keys[position]) is not None,
    )
    done = sum(store.get(key) is not None for key in keys)
    # Without a terminal tqdm stays silent.
    with tqdm(total=len(keys), initial=done, desc=prepared.task.name, unit="sample", disable=None) as bar:
        for batch in batches:
            store.add((keys[position], sample) for position, sample in batch)
            bar.update(len(batch))
            report_progress(prepared.task.name, bar.n, len(keys))
    return [store.get(key) for key in keys]
