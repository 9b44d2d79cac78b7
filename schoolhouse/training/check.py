"""`--check`: what a recipe would train on and what that takes, in seconds and without loading the model."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from schoolhouse.core.chat_templates import template_tokens
from schoolhouse.training.loss_mask import encode, frequent, mark, spread
from schoolhouse.training.memory import estimate_memory
from schoolhouse.training.untrained_tokens import EmbeddingRows


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig

    from schoolhouse.config.arguments import RecipeParser
    from schoolhouse.data.loading import LoadedData

TRAINED = ("⟦", "⟧")
TRAINED_COLOURED = ("\x1b[32;1m", "\x1b[0m")


def check_sft(
    parser: RecipeParser,
    training_args: SFTConfig,
    model_args: Any,
    data: LoadedData,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """
    Print one rendered sample with its trained tokens marked, token lengths, shares of trained tokens and truncated
    rows, EOS and padding, batch arithmetic, memory, and tokens the base never read.

    Args:
        parser (`RecipeParser`):
            The parsed recipe, which reports errors.
        training_args ([`~trl.SFTConfig`]):
            Decides what is trained.
        model_args (`ModelArguments`):
            Names the model.
        data (`LoadedData`):
            Up to 256 of its training rows are looked at, spread over all of them.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            With its chat template.

    Raises:
        `SystemExit`: status 2 and one line, if a row would train no token.
    """
    chosen = spread(data.train)
    rows = data.train.select(chosen)
    try:
        whole = encode(rows, tokenizer, training_args)
    except (RuntimeError, ValueError) as error:  # TRL's words for a row or a template it cannot train on
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
    table = [
        ("data", f"{len(data.train):,} rows to train on" + _evaluated(data) + _seen(len(rows), len(data.train))),
        *_sample(whole[0], tokenizer),
        *_lengths(lengths),
        ("trained", f"{100 * sum(trained) / sum(lengths):.1f} % of all tokens"),
        ("truncated", _truncated(lengths, training_args)),
        *_end_of_sequence(whole, tokenizer),
        *_batches(training_args, len(data.train), sum(lengths) / len(lengths)),
        ("memory", _memory(model_args, training_args, tokenizer, min(max(lengths), limit), frequent(whole))),
        ("never read", never_read(model_args, tokenizer, frequent(whole))),
    ]
    for label, text in table:
        print(f"{label:<11}{text}".rstrip())


@contextlib.contextmanager
def config_errors(parser: RecipeParser, *keys: str) -> Iterator[None]:
    """
    Report what loading says about the user's data or model as an error of the recipe: one line, status 2.

    Args:
        parser (`RecipeParser`):
            The parsed recipe.
        *keys (`str`):
            The first of these that the recipe sets is to blame.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        parser.error(next((key for key in keys if key in parser.resolved), None), str(error))


def training_steps(rows: int, training_args: SFTConfig) -> tuple[int, int]:
    """
    Optimizer steps of an epoch and of the run, as the trainer counts them.

    Args:
        rows (`int`):
            Training rows (or packed sequences).
        training_args ([`~trl.SFTConfig`]):
            Batch sizes, epochs and `max_steps`.

    Returns:
        `tuple[int, int]`: both.
    """
    devices, batch = training_args.world_size, training_args.per_device_train_batch_size
    if training_args.dataloader_drop_last:
        batches = rows // batch // devices
    else:
        batches = math.ceil(math.ceil(rows / batch) / devices)
    epoch = math.ceil(batches / training_args.gradient_accumulation_steps)
    run = training_args.max_steps if training_args.max_steps > 0 else math.ceil(epoch * training_args.num_train_epochs)
    return epoch, run


def validate_sft(parser: RecipeParser, training_args: SFTConfig, rows: Dataset) -> None:
    """
    Refuse what would be found only after the model is loaded, or not at all: masks that the data has no place for, and
    a run that ends before its first step.

    Args:
        parser (`RecipeParser`):
            The parsed recipe, which reports the error.
        training_args ([`~trl.SFTConfig`]):
            Decides what is masked and how batches are made.
        rows (`datasets.Dataset`):
            Training rows.
    """
    from trl import is_conversational

    if training_args.assistant_only_loss and not is_conversational(rows[0]):
        parser.error("assistant_only_loss", "the training data is text without turns: leave it out, or use messages")
    if training_args.completion_only_loss and "completion" not in rows.column_names:
        parser.error(
            "completion_only_loss",
            "the training data has no column 'completion', so everything would be trained; for messages set "
            "assistant_only_loss",
        )
    batch = training_args.world_size * training_args.per_device_train_batch_size
    if training_args.dataloader_drop_last and len(rows) < batch and not training_args.packing:
        parser.error(
            "dataloader_drop_last", f"{len(rows)} training rows do not fill one batch of {batch}: set it to false"
        )


def never_read(model_args: Any, tokenizer: PreTrainedTokenizerBase, answer_tokens: Sequence[int] = ()) -> str:
    """
    In words: which tokens of the chat template and the answers, EOS included, the base never read.

    Args:
        model_args (`ModelArguments`):
            Names the model.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            With its chat template.
        answer_tokens (`Sequence[int]`, *optional*):
            What [`answer_tokens`] found.

    Returns:
        `str`: the tokens, and what can be done about them.
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


def _evaluated(data: LoadedData) -> str:
    return f", {len(data.test):,} to evaluate on" if data.test is not None else ", none to evaluate on"


def _seen(seen: int, rows: int) -> str:
    return "" if seen == rows else f"; {seen} of them, evenly spread, are looked at here"


def _sample(row: dict[str, list[int]], tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, str]]:
    is_terminal = sys.stdout.isatty()
    text = mark(row["input_ids"], row["labels"], tokenizer, TRAINED_COLOURED if is_terminal else TRAINED)
    trained = sum(label != -100 for label in row["labels"])
    how = "in green" if is_terminal else f"between {TRAINED[0]} and {TRAINED[1]}"
    head = f"row 0: {len(row['labels'])} tokens, {trained} of them trained ({how})"
    return [("sample", head), *(("", f"| {line}") for line in text.split("\n"))]


def _lengths(lengths: list[int], bins: int = 10) -> list[tuple[str, str]]:
    ordered = sorted(lengths)
    head = (
        f"tokens of a row: {ordered[0]} to {ordered[-1]}, median {ordered[len(ordered) // 2]}, "
        f"95 % at most {ordered[math.ceil(0.95 * len(ordered)) - 1]}"
    )
    width = math.ceil((ordered[-1] - ordered[0] + 1) / bins)
    lines = []
    for start in range(ordered[0], ordered[-1] + 1, width):
        count = sum(start <= length < start + width for length in ordered)
        bar = "█" * math.ceil(40 * count / len(ordered))
        lines.append(("", f"{start:>6}-{start + width - 1:<6} {bar} {count}"))
    return [("lengths", head), *lines]


def _truncated(lengths: list[int], training_args: SFTConfig) -> str:
    limit = training_args.max_length
    if limit is None:
        return "0.0 % of rows: max_length is not set"
    share = 100 * sum(length > limit for length in lengths) / len(lengths)
    return f"{share:.1f} % of rows are longer than max_length {limit}" + ", before packing" * training_args.packing


def _end_of_sequence(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, str]]:
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    ended = sum(any(label == eos for label in labels) for labels in rows["labels"])
    text = f"{tokenizer.eos_token!r}, trained in {100 * ended / len(rows):.1f} % of rows"
    if not ended:
        last = [next(label for label in reversed(labels) if label != -100) for labels in rows["labels"]]
        common = tokenizer.convert_ids_to_tokens(max(set(last), key=last.count))
        text += f": the model would not learn to stop (rows end in {common!r}; is that its eos_token?)"
    lines = [("EOS", text)]
    if pad == eos:
        lines.append(("padding", "EOS again: no clash, padding is masked by position and not by token"))
    else:
        lines.append(("padding", repr(tokenizer.pad_token)))
    return lines


def _batches(training_args: SFTConfig, rows: int, mean_length: float) -> list[tuple[str, str]]:
    devices, batch = training_args.world_size, training_args.per_device_train_batch_size
    accumulation = training_args.gradient_accumulation_steps
    unit = "rows"
    if training_args.packing:
        rows, unit = math.ceil(rows * mean_length / training_args.max_length), "sequences (about)"
    epoch, run = training_steps(rows, training_args)
    size = devices * batch * accumulation
    text = f"{devices} devices x {batch} a device x {accumulation} accumulated = {size} {unit} a step"
    lines = [
        ("batch", text),
        ("", f"{rows:,} {unit}: {epoch} steps an epoch, {run} in all ({run / epoch:.3g} epochs)"),
    ]
    if rows < size:
        lines.append(("", f"fewer {unit} than one batch: every step sees all of them, {rows} and not {size}"))
    return lines


def _memory(
    model_args: Any,
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
