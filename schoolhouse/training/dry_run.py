"""Output of `--check`: what a recipe would train on and what that takes, in seconds and without loading the model."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from schoolhouse.core.chat_templates import template_tokens
from schoolhouse.training.checks import find_unsupported, prompts_per_rollout, steps_per_rollout
from schoolhouse.training.loss_mask import encode, evenly_spaced, frequent, mark
from schoolhouse.training.memory import estimate_memory
from schoolhouse.training.untrained_tokens import EmbeddingRows


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainingArguments
    from trl import GRPOConfig, RewardConfig, SFTConfig

    from schoolhouse.config.arguments import ModelArguments, RecipeParser
    from schoolhouse.data.mixture import LoadedData
    from schoolhouse.rewards import Reward
    from schoolhouse.training.pairs import Pairs

TRAINED = ("⟦", "⟧")
TRAINED_COLOURED = ("\x1b[32;1m", "\x1b[0m")
Lines = list[tuple[str, str]]  # label and text


def dry_run_sft(
    parser: RecipeParser,
    training_args: SFTConfig,
    model_args: ModelArguments,
    data: LoadedData,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """
    Print one rendered sample with its trained tokens marked, token lengths, shares of trained tokens and truncated
    rows, EOS and padding, batch arithmetic, memory, and tokens that the base never read.

    Up to 256 training rows, evenly spaced, are encoded. A row that would train no token is an error of the recipe.
    """
    chosen = evenly_spaced(data.train)
    try:
        whole = encode(data.train.select(chosen), tokenizer, training_args)
    except (RuntimeError, ValueError) as error:  # TRL's words for a row or a template that it cannot train on
        parser.error("assistant_only_loss" if training_args.assistant_only_loss else None, str(error))
    limit = training_args.max_length or math.inf
    lengths = [len(ids) for ids in whole["input_ids"]]
    trained = [sum(label != -100 for label in labels) for labels in whole["labels"]]
    for row, labels in zip(chosen, whole["labels"], strict=True):
        if all(label == -100 for label in labels):
            parser.error(None, f"row {row} of the training data has no token to train: its answer is empty")
        if not training_args.packing and all(label == -100 for label in labels[: training_args.max_length]):
            parser.error(
                "max_length",
                f"row {row} of the training data keeps no trained token within {limit}: its prompt alone is that long",
            )
    seen = "" if len(chosen) == len(data.train) else f"; {len(chosen)} of them, evenly spaced, are shown here"
    _print(
        [
            ("data", f"{len(data.train):,} rows to train on, {_test_rows(data)}{seen}"),
            *_sample(whole[0], tokenizer),
            *_lengths(lengths),
            ("trained", f"{100 * sum(trained) / sum(lengths):.1f} % of all tokens"),
            ("truncated", _truncated(lengths, training_args)),
            *_end_of_sequence(whole, tokenizer),
            *_batches(training_args, len(data.train), sum(lengths) / len(lengths)),
            ("memory", _memory(model_args, training_args, tokenizer, min(max(lengths), limit), frequent(whole))),
            ("never read", never_read(model_args, tokenizer, frequent(whole))),
        ]
    )


def dry_run_reward(
    training_args: RewardConfig,
    model_args: ModelArguments,
    data: LoadedData,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Pairs,
    num_members: int,
) -> None:
    """
    Print the counts of pairs, the first one as the model reads it, lengths, batch arithmetic, and tokens that the base
    never read.
    """
    epoch, run = training_steps(len(pairs.rows), training_args)
    size = training_args.per_device_train_batch_size * training_args.gradient_accumulation_steps
    members = f", for each of {num_members} members" if num_members > 1 else ""
    _print(
        [
            ("data", f"{pairs}; {_test_rows(data)}"),
            ("chosen", repr(tokenizer.decode(pairs.rows[0]["chosen_ids"]))),
            ("rejected", repr(tokenizer.decode(pairs.rows[0]["rejected_ids"]))),
            (
                "lengths",
                f"tokens of the longer side: {_quantiles(pairs.lengths)}; max_length {training_args.max_length}",
            ),
            (
                "batch",
                f"{size * training_args.world_size} pairs a step, {epoch} steps an epoch, {run} in all{members}",
            ),
            ("never read", never_read(model_args, tokenizer)),
        ]
    )


def dry_run_grpo(
    training_args: GRPOConfig,
    model_args: ModelArguments,
    data: LoadedData,
    tokenizer: PreTrainedTokenizerBase,
    rewards: Sequence[Reward],
) -> None:
    """
    Print one rendered prompt, prompt lengths, batch arithmetic, the number of rows that each reward applies to, and
    tokens that the base never read.
    """
    from schoolhouse.core.generation import render

    rows, every = data.train, data.train.to_list()
    lengths = sorted(len(render(tokenizer, prompt)) for prompt in rows["prompt"][:256])
    prompts, group = prompts_per_rollout(training_args), training_args.num_generations
    period = steps_per_rollout(training_args)
    epoch = round(len(rows) // prompts * period)
    run = training_args.max_steps if training_args.max_steps > 0 else round(epoch * training_args.num_train_epochs)
    _print(
        [
            ("data", f"{len(rows):,} prompts; columns {', '.join(rows.column_names)}"),
            ("prompt", repr(tokenizer.decode(render(tokenizer, rows[0]["prompt"])))),
            ("lengths", f"prompts of {lengths[0]} to {lengths[-1]} tokens, completions of at most "
                        f"{training_args.max_completion_length}"),
            ("batch", f"{prompts} prompts x {group} completions, {period:g} steps on them"),
            ("", f"{epoch} steps an epoch, {run} in all"),
            *(
                ("reward", f"{reward.__name__}, weight {reward.weight:g}, applies to "
                           f"{sum(reward.function.applies(row) for row in every):,} rows{_unsupported(reward, rows)}")
                for reward in rewards
            ),
            *_biased_ratio(training_args),
            ("never read", never_read(model_args, tokenizer)),
        ]
    )  # fmt: skip


def _unsupported(reward: Reward, rows: Dataset) -> str:
    found = find_unsupported(reward, rows) if reward.weight else None
    return f", and can never reward {found}" if found else ""


def training_steps(rows: int, training_args: TrainingArguments) -> tuple[int, int]:
    """
    Return the optimizer steps of an epoch and of the run, counted as the trainer counts them. `rows` are training
    rows, or packed sequences.
    """
    devices, batch = training_args.world_size, training_args.per_device_train_batch_size
    if training_args.dataloader_drop_last:
        batches = rows // batch // devices
    else:
        batches = math.ceil(math.ceil(rows / batch) / devices)
    epoch = math.ceil(batches / training_args.gradient_accumulation_steps)
    run = training_args.max_steps if training_args.max_steps > 0 else math.ceil(epoch * training_args.num_train_epochs)
    return epoch, run


def never_read(
    model_args: ModelArguments, tokenizer: PreTrainedTokenizerBase, answer_tokens: Sequence[int] = ()
) -> str:
    """
    Describe the tokens of the chat template (EOS included) and of the answers that the base never read, and what can
    be done about them.
    """
    embeddings = EmbeddingRows.find(model_args.model_name_or_path, model_args.model_revision)
    if embeddings is None:
        return "not known: the weights are not on this machine yet"
    unread = embeddings.untrained(sorted({*template_tokens(tokenizer), *answer_tokens}))
    if not unread:
        return "none of the tokens that the chat template, EOS and the answers need"
    names = ", ".join(repr(tokenizer.convert_ids_to_tokens(i)) for i in unread)
    if not model_args.use_peft:
        return f"{names}: their rows are trained with everything else"
    if model_args.trainable_new_tokens:
        return f"{names}: their rows are trained too (trainable_new_tokens)"
    return f"{names}: LoRA leaves these rows as they are, and what needs them fails; set trainable_new_tokens: true"


def _print(lines: Iterable[tuple[str, str]]) -> None:
    for label, text in lines:
        print(f"{label:<11}{text}".rstrip())


def _test_rows(data: LoadedData) -> str:
    return f"{len(data.test):,} to evaluate on" if data.test is not None else "none to evaluate on"


def _quantiles(lengths: Sequence[int]) -> str:
    ordered = sorted(lengths)
    most = ordered[math.ceil(0.95 * len(ordered)) - 1]
    return f"{ordered[0]} to {ordered[-1]}, median {ordered[len(ordered) // 2]}, 95 % at most {most}"


def _sample(row: dict[str, list[int]], tokenizer: PreTrainedTokenizerBase) -> Lines:
    is_terminal = sys.stdout.isatty()
    text = mark(row["input_ids"], row["labels"], tokenizer, TRAINED_COLOURED if is_terminal else TRAINED)
    trained = sum(label != -100 for label in row["labels"])
    how = "in green" if is_terminal else f"between {TRAINED[0]} and {TRAINED[1]}"
    head = f"row 0: {len(row['labels'])} tokens, {trained} of them trained ({how})"
    return [("sample", head), *(("", f"| {line}") for line in text.split("\n"))]


def _lengths(lengths: list[int]) -> Lines:
    shortest, longest = min(lengths), max(lengths)
    width = math.ceil((longest - shortest + 1) / 10)  # at most ten bars
    lines = [("lengths", f"tokens of a row: {_quantiles(lengths)}")]
    for start in range(shortest, longest + 1, width):
        count = sum(start <= length < start + width for length in lengths)
        bar = "█" * math.ceil(40 * count / len(lengths))
        lines.append(("", f"{start:>6}-{start + width - 1:<6} {bar} {count}"))
    return lines


def _truncated(lengths: list[int], training_args: SFTConfig) -> str:
    limit = training_args.max_length
    if limit is None:
        return "0.0 % of rows: max_length is not set"
    share = 100 * sum(length > limit for length in lengths) / len(lengths)
    return f"{share:.1f} % of rows are longer than max_length {limit}" + ", before packing" * training_args.packing


def _end_of_sequence(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Lines:
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    ended = sum(any(label == eos for label in labels) for labels in rows["labels"])
    text = f"{tokenizer.eos_token!r}, trained in {100 * ended / len(rows):.1f} % of rows"
    if not ended:
        last = [next(label for label in reversed(labels) if label != -100) for labels in rows["labels"]]
        common = tokenizer.convert_ids_to_tokens(max(set(last), key=last.count))
        text += f": the model would not learn to stop (rows end in {common!r}; is that its eos_token?)"
    same = "EOS again: no clash, padding is masked by position and not by token"
    return [("EOS", text), ("padding", same if pad == eos else repr(tokenizer.pad_token))]


def _batches(training_args: SFTConfig, rows: int, mean_length: float) -> Lines:
    devices, batch = training_args.world_size, training_args.per_device_train_batch_size
    accumulation = training_args.gradient_accumulation_steps
    unit = "rows"
    if training_args.packing:
        rows, unit = math.ceil(rows * mean_length / training_args.max_length), "sequences (about)"
    epoch, run = training_steps(rows, training_args)
    size = devices * batch * accumulation
    lines = [
        ("batch", f"{devices} devices x {batch} a device x {accumulation} accumulated = {size} {unit} a step"),
        ("", f"{rows:,} {unit}: {epoch} steps an epoch, {run} in all ({run / epoch:.3g} epochs)"),
    ]
    if rows < size:
        lines.append(("", f"fewer {unit} than one batch: every step sees all of them, {rows} and not {size}"))
    return lines


def _biased_ratio(training_args: GRPOConfig) -> Lines:
    top_p, top_k = training_args.top_p, training_args.top_k
    if top_p == 1 and not top_k:
        return []
    return [("sampling", f"top_p {top_p:g} and top_k {top_k} cut the distribution that is sampled, but not the "
                         "log-probabilities of the loss: its importance ratio is biased")]  # fmt: skip


def _memory(
    model_args: ModelArguments,
    training_args: SFTConfig,
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
    answer_tokens: list[int],
) -> str:
    tokens = training_args.per_device_train_batch_size * longest
    estimate = estimate_memory(model_args, training_args, tokenizer, tokens, answer_tokens)
    return (
        f"about {_size(estimate.total)} a device, and what the libraries need themselves: weights "
        f"{_size(estimate.weights)} ({estimate.parameters:,} parameters), gradients and optimizer "
        f"{_size(estimate.optimizer)} ({estimate.trained:,} trained), activations {_size(estimate.activations)}"
    )


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
