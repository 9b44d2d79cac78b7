"""
Generation and likelihoods of a causal language model, in batches.

Samples are reproducible and resumable. Each generated token takes one uniform number, fixed by the seed, the prompt,
the sample's index and the token's position, and inverts the cumulative distribution with it. So a sample does not
depend on the other samples of its batch, except for the rounding of batched matrix products. To exclude that too,
batches are planned from the whole list of prompts, whatever was sampled before: a batch with one missing sample is
generated whole. An interrupted run that continues with the same arguments therefore gives the samples of an
uninterrupted one.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np


if TYPE_CHECKING:
    import torch
    from transformers import (
        GenerationConfig,
        LogitsProcessor,
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

# Most logits that a batch for likelihoods holds at once: 0.5 GB in fp32.
_LOGITS_PER_BATCH = 2**27
# Longest window of held-out text, in tokens; half of it is context for the next window.
_LONGEST_WINDOW = 2048


@dataclass(frozen=True)
class Sampling:
    """
    Sampling parameters.

    Args:
        temperature (`float`, *optional*, defaults to `0.0`):
            Temperature of the softmax; 0 is greedy decoding.
        top_p (`float`, *optional*, defaults to `1.0`):
            Probability mass of the likeliest tokens, from which is sampled (nucleus sampling, Holtzman et al. 2020).
        max_new_tokens (`int`, *optional*, defaults to `256`):
            Length at which a completion is cut.
        stop (`tuple[str, ...]`, *optional*, defaults to `()`):
            Texts that end a completion, like the end-of-sequence token; they and all that follows are cut off.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the samples; greedy decoding does not use it.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Sample:
    """
    A completion.

    Args:
        text (`str`):
            The generated text, without special tokens.
        tokens (`int`):
            Number of generated tokens, the end-of-sequence token included.
        finish_reason (`str`):
            `"stop"`: the model ended its turn; `"length"`: it was cut at `max_new_tokens`.
    """

    text: str
    tokens: int
    finish_reason: str


def render(tokenizer: "PreTrainedTokenizerBase", prompt: list[dict[str, str]] | str) -> list[int]:
    """
    Tokenize a prompt that the model will continue.

    Messages are rendered with the chat template up to the assistant's turn. A text is used as it is, with the special
    tokens that the tokenizer adds by itself.
    """
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"] or [start_token(tokenizer)]
    return tokenizer(_render_text(tokenizer, prompt), add_special_tokens=False)["input_ids"]


def _render_text(tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, str]]) -> str:
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def start_token(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the token before a document: BOS, or the EOS that separates documents if there is no BOS."""
    return tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id


def stop_token_ids(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """
    Return the ids of the tokens that end a turn, ascending: the tokenizer's EOS and those of the model's generation
    config. `ValueError` if neither names one.
    """
    own = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
    if not ids:
        raise ValueError(f"{tokenizer.name_or_path}: neither tokenizer nor model names an EOS token to end a turn")
    return sorted(ids)


def plan_batches(lengths: Sequence[int], batch_size: int, tokens_per_batch: int) -> list[list[int]]:
    """
    Group sequences of similar length, the longest first: a batch that is too large for the memory fails at once.

    Args:
        lengths (`Sequence[int]`):
            Tokens of each sequence, with those to be generated.
        batch_size (`int`):
            Most sequences of a batch.
        tokens_per_batch (`int`):
            Most tokens of a batch, with padding. A longer sequence is a batch of its own.

    Returns:
        `list[list[int]]`: positions in `lengths`, each in exactly one batch.
    """
    batches: list[list[int]] = []
    rows = 0
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        if not batches or len(batches[-1]) == rows:
            batches.append([])
            rows = max(1, min(batch_size, tokens_per_batch // lengths[position]))
        batches[-1].append(position)
    return batches


def generate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[list[int]],
    indices: Sequence[int],
    sampling: Sampling,
    batch_size: int = 64,
    tokens_per_batch: int = 32_768,
    is_done: Callable[[int], bool] = lambda position: False,
) -> Iterator[list[tuple[int, Sample]]]:
    """
    Complete prompts batch by batch; the head of this file explains how to resume.

    Of the model's own `generation_config.json` only the stop tokens are used: its temperature or repetition penalty
    would make the results of two models incomparable.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model, in evaluation mode.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The tokenizer.
        prompts (`Sequence[list[int]]`):
            Token ids, from [`render`]. A prompt to be sampled k times is given k times.
        indices (`Sequence[int]`):
            For each entry its number among those with the same prompt.
        sampling ([`Sampling`]):
            Sampling parameters.
        batch_size (`int`, *optional*, defaults to `64`):
            Most sequences of a batch.
        tokens_per_batch (`int`, *optional*, defaults to `32_768`):
            Most tokens of a batch, prompt and completion, which limits the memory of the key-value cache.
        is_done (`Callable[[int], bool]`, *optional*):
            Returns `True` if the entry at a position has its sample; a batch in which all have one is skipped.

    Yields:
        `list[tuple[int, Sample]]`: the new samples of a batch with their positions in `prompts`.

    Raises:
        ValueError: If a prompt and its completion do not fit into the model's context.
    """
    check_context(model.config, prompts, sampling.max_new_tokens)
    lengths = [len(prompt) + sampling.max_new_tokens for prompt in prompts]
    for batch in plan_batches(lengths, batch_size, tokens_per_batch):
        missing = [position for position in batch if not is_done(position)]
        if missing:
            rows = [(prompts[position], indices[position]) for position in batch]
            samples = dict(zip(batch, _generate_batch(model, tokenizer, rows, sampling), strict=True))
            yield [(position, samples[position]) for position in missing]


def context_length(config: "PretrainedConfig") -> int:
    """Return the longest sequence of a model, in tokens; unlimited if its config names none."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 62


def check_context(config: "PretrainedConfig", prompts: Sequence[list[int]], max_new_tokens: int) -> None:
    """
    Raise a `ValueError` for prompts that leave too little room for a completion: beyond its context a model silently
    writes nonsense.
    """
    longest, context = max(map(len, prompts), default=0), context_length(config)
    if longest + max_new_tokens > context:
        raise ValueError(
            f"a prompt of {longest} tokens and max_new_tokens {max_new_tokens} exceed the model's context of "
            f"{context} tokens: lower max_new_tokens or leave the task out"
        )


def loglikelihood(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    contexts: Sequence[list[dict[str, str]] | str],
    continuations: Sequence[str],
    batch_size: int = 64,
) -> list[float]:
    r"""
    Log-likelihood of each continuation after its context, $\sum_t \log p(y_t \mid x, y_{<t})$, natural logarithm.

    Context and continuation are tokenized together, as the model would read them. All tokens from the first one that
    differs from those of the context alone belong to the continuation; `ValueError` if it adds none.

    Args:
        contexts (`Sequence[list[dict[str, str]]` or `str`]):
            Messages (rendered up to the assistant's turn) or texts, one per continuation.
        continuations (`Sequence[str]`):
            Texts, with their leading space if they need one.
        batch_size (`int`, *optional*, defaults to `64`):
            Most sequences of a batch.
    """
    pairs = []
    for context, continuation in zip(contexts, continuations, strict=True):
        is_text = isinstance(context, str)
        text = context if isinstance(context, str) else _render_text(tokenizer, context)
        alone = tokenizer(text, add_special_tokens=is_text)["input_ids"] if text else []
        whole = tokenizer(text + continuation, add_special_tokens=is_text)["input_ids"]
        differs = [position for position, ids in enumerate(zip(alone, whole, strict=False)) if ids[0] != ids[1]]
        start = min([*differs, len(alone)])
        if start >= len(whole):
            raise ValueError(f"continuation {continuation!r} adds no token to its context: it cannot be scored")
        pairs.append((whole[:start] or [start_token(tokenizer)], whole[start:]))
    return _score(model, pairs, batch_size)


def bits_per_byte(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], batch_size: int = 64
) -> list[tuple[float, int]]:
    r"""
    Code length of each text, comparable between tokenizers: $-\sum_t \log_2 p(x_t \mid x_{<t})$ bits, and its bytes.

    A text is read after [`start_token`]. A text longer than the context (at most 2048 tokens) is read in windows that
    overlap by half, so that after the first window each token has at least half a window of context.

    Returns:
        `list[tuple[float, int]]`: bits and UTF-8 bytes of each text. The value of a corpus is the ratio of the sums.
    """
    window = min(context_length(model.config), _LONGEST_WINDOW)
    pairs, owners = [], []
    for owner, text in enumerate(texts):
        ids = [start_token(tokenizer), *tokenizer(text, add_special_tokens=False)["input_ids"]]
        start = 1
        while start < len(ids):
            end = min(len(ids), window if start == 1 else start + window // 2)
            pairs.append((ids[max(0, end - window) : start], ids[start:end]))
            owners.append(owner)
            start = end
    bits = [0.0] * len(texts)
    for owner, value in zip(owners, _score(model, pairs, batch_size), strict=True):
        bits[owner] -= value / float(np.log(2))
    return [(value, len(text.encode())) for value, text in zip(bits, texts, strict=True)]


def _score(model: "PreTrainedModel", pairs: Sequence[tuple[list[int], list[int]]], batch_size: int) -> list[float]:
    import torch

    scores = [0.0] * len(pairs)
    lengths = [len(context) + len(continuation) for context, continuation in pairs]
    context = context_length(model.config)
    if max(lengths, default=0) > context:
        raise ValueError(f"a sequence of {max(lengths)} tokens exceeds the model's context of {context} tokens")
    tokens_per_batch = _LOGITS_PER_BATCH // model.config.get_text_config().vocab_size
    for batch in plan_batches(lengths, batch_size, tokens_per_batch):
        # A causal model does not see padding on the right, so no position ids are needed.
        width = lengths[batch[0]]
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        for row, position in enumerate(batch):
            ids[row, : lengths[position]] = torch.tensor([*pairs[position][0], *pairs[position][1]])
        mask = torch.arange(width) < torch.tensor([[lengths[position]] for position in batch])
        with torch.inference_mode():
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.long().to(model.device)).logits
            for row, position in enumerate(batch):
                start, end = len(pairs[position][0]), lengths[position]
                # The logits at position t predict the token at t + 1.
                chances = logits[row, start - 1 : end - 1].float().log_softmax(-1)  # (continuation, vocabulary)
                targets = ids[row, start:end, None].to(model.device)
                scores[position] = float(chances.gather(1, targets).double().sum())
    return scores


def _generate_batch(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[tuple[list[int], int]],
    sampling: Sampling,
) -> list[Sample]:
    import torch
    from transformers import GenerationConfig

    stop_ids = stop_token_ids(model, tokenizer)
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([[stop_ids[0]] * (width - len(ids)) + ids for ids, _ in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids, _ in rows], device=model.device)
    config = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=False,  # the last logits processor has sampled already: only its token is left
        eos_token_id=stop_ids,
        pad_token_id=stop_ids[0],
        stop_strings=list(sampling.stop) or None,
    )
    with _generation_config(model, config), torch.inference_mode():
        output = model.generate(  # type: ignore[operator]  # a Tensor for mypy
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=sampling_processors(rows, sampling, width),
            tokenizer=tokenizer,
        )
    return [_read(tokenizer, row, stop_ids, sampling.stop) for row in output[:, width:].tolist()]


def _read(tokenizer: "PreTrainedTokenizerBase", ids: list[int], stop_ids: list[int], stop: tuple[str, ...]) -> Sample:
    end = next((position for position, token in enumerate(ids) if token in stop_ids), None)
    text = str(tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False))
    cut = min((position for position in map(text.find, stop) if position >= 0), default=None)
    is_finished = end is not None or cut is not None
    return Sample(text[:cut], len(ids) if end is None else end + 1, "stop" if is_finished else "length")


@contextmanager
def _generation_config(model: "PreTrainedModel", config: "GenerationConfig") -> Iterator[None]:
    # transformers takes settings that a given config leaves open from the model's own, such as the repetition penalty.
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    own, inner.generation_config = inner.generation_config, config
    try:
        yield
    finally:
        inner.generation_config = own


def sampling_processors(
    rows: Sequence[tuple[list[int], int]], sampling: Sampling, width: int
) -> "list[LogitsProcessor | InverseTransform]":
    """
    Build the logits processors of a batch: temperature, top-p and the choice of one token; none for greedy decoding.

    Args:
        rows (`Sequence[tuple[list[int], int]]`):
            Token ids of each prompt, and the sample's number among those with this prompt.
        width (`int`):
            Length of the padded prompts.
    """
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    if sampling.temperature == 0:
        return []
    processors: list[LogitsProcessor] = [TemperatureLogitsWarper(float(sampling.temperature))]
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    # A generator for each row, seeded by run, prompt and index, gives one uniform number for each new token.
    seeds = [[sampling.seed, *hashlib.sha256(repr(ids).encode()).digest(), index] for ids, index in rows]
    draws = np.stack([np.random.default_rng(seed).random(sampling.max_new_tokens) for seed in seeds])
    return [*processors, InverseTransform(draws, width)]


class InverseTransform:
    """
    Logits processor that keeps the one token that the row's uniform number selects (inverse transform sampling).

    Args:
        draws (`np.ndarray` of shape `(B, max_new_tokens)`):
            Uniform numbers in [0, 1).
        width (`int`):
            Length of the padded prompts.
    """

    def __init__(self, draws: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", width: int) -> None:
        self.draws = draws  # (rows, new tokens)
        self.width = width

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        import torch

        # The token is the first whose cumulative probability exceeds the uniform number. In fp32 the sums over a large
        # vocabulary lose the tail; MPS has no longer type.
        dtype = torch.float32 if scores.device.type == "mps" else torch.float64
        sums = scores.to(dtype).softmax(-1).cumsum(-1)  # (rows, vocabulary)
        draws = torch.tensor(self.draws[:, [input_ids.shape[1] - self.width]], dtype=dtype, device=scores.device)
        tokens = torch.searchsorted(sums, draws * sums[:, -1:], right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens, 0.0)
