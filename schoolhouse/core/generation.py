"""
Text and likelihoods from a causal language model, in batches.

Samples are reproducible and resumable. Each generated token takes one uniform number, fixed by the seed, the prompt,
the sample's index and the token's position, and inverts the cumulative distribution with it; so a sample does not
depend on what else is in its batch, save for the rounding of batched matrix products. To be free of that too, batches
are planned from the whole list of prompts, whatever has been drawn before: a plan's batch with a hole is generated
whole, so an interrupted run that goes on with the same arguments gives the very samples of the uninterrupted one.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# Rows of logits that a likelihood batch holds at once, as numbers: 0.5 GB in fp32.
_LOGITS_PER_BATCH = 2**27
# Longest window of held-out text; half of it is context for the next.
_LONGEST_WINDOW = 2048


@dataclass(frozen=True)
class Sampling:
    """
    How completions are drawn.

    Args:
        temperature (`float`, *optional*, defaults to `0.0`):
            0 is greedy decoding.
        top_p (`float`, *optional*, defaults to `1.0`):
            Share of the probability that is sampled from, the likeliest tokens first.
        max_new_tokens (`int`, *optional*, defaults to `256`):
            Length at which a completion is cut.
        stop (`tuple[str, ...]`, *optional*, defaults to `()`):
            Texts that end a completion, beside the end-of-sequence token; cut off with all that follows.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the draws; greedy decoding does not read it.
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
            What the model wrote, without special tokens.
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
    Token ids of a prompt as the model is to continue it.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The tokenizer.
        prompt (`list[dict[str, str]]` or `str`):
            Messages are rendered with the chat template up to the assistant's turn; a text is taken as it is, with
            the special tokens that the tokenizer adds by itself.

    Returns:
        `list[int]`: the token ids.
    """
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"] or [start_token(tokenizer)]
    text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def start_token(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The token before a document: BOS, or the EOS that separates documents where there is none."""
    return tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id


def stop_token_ids(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """
    Tokens that end a turn: the tokenizer's EOS and those of the model's generation config.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The tokenizer.

    Returns:
        `list[int]`: token ids in ascending order.

    Raises:
        ValueError: if neither names one.
    """
    own = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
    if not ids:
        raise ValueError(f"{tokenizer.name_or_path}: neither tokenizer nor model names an EOS token to end a turn")
    return sorted(ids)


def plan_batches(lengths: Sequence[int], batch_size: int, tokens_per_batch: int) -> list[list[int]]:
    """
    Groups sequences of like length, the longest first: a batch too large for the memory shows at once.

    Args:
        lengths (`Sequence[int]`):
            Tokens of each sequence, those to be generated included.
        batch_size (`int`):
            Most sequences of a batch.
        tokens_per_batch (`int`):
            Most tokens of a batch, padding included. A longer sequence makes a batch of its own.

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
    Completes prompts batch by batch, see the head of this file for what makes it resumable.

    The model's own `generation_config.json` has no say but in the stop tokens: its temperature or repetition penalty
    would make two models' results incomparable.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model, in evaluation mode.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The tokenizer.
        prompts (`Sequence[list[int]]`):
            Token ids, from [`render`]. A prompt that is to be sampled k times comes k times.
        indices (`Sequence[int]`):
            Of each entry, its number among those with the same prompt.
        sampling ([`Sampling`]):
            How completions are drawn.
        batch_size (`int`, *optional*, defaults to `64`):
            Most sequences of a batch.
        tokens_per_batch (`int`, *optional*, defaults to `32_768`):
            Most tokens of a batch, prompt and completion: what bounds the memory of the key-value cache.
        is_done (`Callable[[int], bool]`, *optional*):
            Whether the entry at a position has its sample; a batch in which all have is skipped.

    Yields:
        `list[tuple[int, Sample]]`: the new samples of a batch with their positions in `prompts`.

    Raises:
        ValueError: if a prompt and its completion do not fit into the model's context.
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
    """The longest sequence, in tokens, that a model was made for; unlimited where its config names none."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 62


def check_context(config: "PretrainedConfig", prompts: Sequence[list[int]], max_new_tokens: int) -> None:
    """
    Refuses prompts that leave a completion too little room: beyond its context a model writes nonsense silently.

    Args:
        config ([`~transformers.PretrainedConfig`]):
            The model's.
        prompts (`Sequence[list[int]]`):
            Token ids.
        max_new_tokens (`int`):
            Length at which completions are cut.

    Raises:
        ValueError: if the longest prompt and its completion do not fit.
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
    Log-likelihood of each continuation after its context, $\sum_t \log p(y_t \mid x, y_{<t})$.

    Context and continuation are tokenized together, as the model would read them; the tokens from the first one that
    differs from the context's own belong to the continuation.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model, in evaluation mode.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The tokenizer.
        contexts (`Sequence[list[dict[str, str]]` or `str]`):
            Messages (rendered up to the assistant's turn) or texts, one per continuation.
        continuations (`Sequence[str]`):
            Texts; a leading space, where one is wanted, is part of them.
        batch_size (`int`, *optional*, defaults to `64`):
            Most sequences of a batch.

    Returns:
        `list[float]`: natural logarithms, in the order given.

    Raises:
        ValueError: if a continuation adds no token.
    """
    pairs = []
    for context, continuation in zip(contexts, continuations, strict=True):
        add_special_tokens = isinstance(context, str)
        if not add_special_tokens:
            context = tokenizer.apply_chat_template(context, add_generation_prompt=True, tokenize=False)
        alone = tokenizer(context, add_special_tokens=add_special_tokens)["input_ids"] if context else []
        whole = tokenizer(context + continuation, add_special_tokens=add_special_tokens)["input_ids"]
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

    A text is read after [`start_token`]. One longer than the context (at most 2048 tokens) is read in windows that
    overlap by half, so that but for the first half window each token has at least that much context.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model, in evaluation mode.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The tokenizer.
        texts (`Sequence[str]`):
            Held-out documents.
        batch_size (`int`, *optional*, defaults to `64`):
            Most windows of a batch.

    Returns:
        `list[tuple[float, int]]`: bits and UTF-8 bytes of each text. A corpus has the ratio of their sums.
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
        # On the right, padding is out of a causal model's sight and needs no position ids.
        width = lengths[batch[0]]
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        for row, position in enumerate(batch):
            ids[row, : lengths[position]] = torch.tensor([*pairs[position][0], *pairs[position][1]])
        mask = torch.arange(width) < torch.tensor([[lengths[position]] for position in batch])
        with torch.inference_mode():
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.long().to(model.device)).logits
            for row, position in enumerate(batch):
                start, end = len(pairs[position][0]), lengths[position]
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
        do_sample=False,  # the processor below has drawn by then
        eos_token_id=stop_ids,
        pad_token_id=stop_ids[0],
        stop_strings=list(sampling.stop) or None,
    )
    with _generation_config(model, config), torch.inference_mode():
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=_sampling_processors(rows, sampling, width),
            tokenizer=tokenizer,
        )
    return [_read(tokenizer, row, stop_ids, sampling.stop) for row in output[:, width:].tolist()]


def _read(tokenizer: "PreTrainedTokenizerBase", ids: list[int], stop_ids: list[int], stop: tuple[str, ...]) -> Sample:
    end = next((position for position, token in enumerate(ids) if token in stop_ids), None)
    text = tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    cut = min((position for position in map(text.find, stop) if position >= 0), default=None)
    is_finished = end is not None or cut is not None
    return Sample(text[:cut], len(ids) if end is None else end + 1, "stop" if is_finished else "length")


@contextmanager
def _generation_config(model: "PreTrainedModel", config) -> Iterator[None]:
    # transformers fills what a given config leaves open from the model's own, repetition penalty and all.
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    own, inner.generation_config = inner.generation_config, config
    try:
        yield
    finally:
        inner.generation_config = own


def _sampling_processors(rows: Sequence[tuple[list[int], int]], sampling: Sampling, width: int) -> list:
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    if sampling.temperature == 0:
        return []
    processors = [TemperatureLogitsWarper(float(sampling.temperature))]
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    seeds = [[sampling.seed, *hashlib.sha256(repr(ids).encode()).digest(), index] for ids, index in rows]
    draws = np.stack([np.random.default_rng(seed).random(sampling.max_new_tokens) for seed in seeds])
    return [*processors, _InverseTransform(draws, width)]


class _InverseTransform:
    """Leaves of each row's scores only the token that its uniform number points at (inverse transform sampling)."""

    def __init__(self, draws: np.ndarray, width: int):
        self.draws = draws  # (rows, new tokens)
        self.width = width

    def __call__(self, input_ids: "torch.LongTensor", scores: "torch.FloatTensor") -> "torch.FloatTensor":
        import torch

        # In fp32 the sums over a large vocabulary lose the tail; MPS has nothing longer.
        dtype = torch.float32 if scores.device.type == "mps" else torch.float64
        sums = scores.to(dtype).softmax(-1).cumsum(-1)  # (rows, vocabulary)
        draws = torch.tensor(self.draws[:, [input_ids.shape[1] - self.width]], dtype=dtype, device=scores.device)
        tokens = torch.searchsorted(sums, draws * sums[:, -1:], right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens, 0.0)
