"""
Pure tensor functions of PPO: rewards of tokens, advantages, clipped losses.

Shapes: B completions, T tokens of the longest. A mask is 1 on the tokens that the policy chose; it may be ragged on
either side and have gaps (a tool's answer in the middle of a completion). Values on masked tokens, NaN included, are
never read.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """
    Return the sum of unmasked entries.

    Args:
        values (`torch.Tensor`):
            Any shape.
        mask (`torch.Tensor`):
            Same shape, 0 or 1.

    Returns:
        `torch.Tensor`: a scalar, without the gradient of masked entries.
    """
    return torch.where(mask.bool(), values, 0).sum()


def last_token(mask: Tensor) -> Tensor:
    """
    Mark the last unmasked token of every row.

    Args:
        mask (`torch.Tensor`):
            Shape (B, T).

    Returns:
        `torch.Tensor`: shape (B, T), boolean; a row without an unmasked token has none marked.
    """
    mask = mask.bool()
    remaining = mask.flip(1).cumsum(1).flip(1)
    return mask & (remaining == 1)


def penalize_missing_eos(scores: Tensor, ended: Tensor, penalty: float | None) -> Tensor:
    """
    Lower the score of completions that were cut off.

    Args:
        scores (`torch.Tensor`):
            Shape (B,).
        ended (`torch.Tensor`):
            Shape (B,), boolean: the completion has its end-of-sequence token.
        penalty (`float`, *optional*):
            Penalty where it has none; `None` for no penalty.

    Returns:
        `torch.Tensor`: shape (B,).
    """
    return scores if penalty is None else torch.where(ended, scores, scores - penalty)


def token_rewards(scores: Tensor, logps: Tensor, ref_logps: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """
    Return the reward of every token: the KL penalty on each, the score on the last one.

    r_t = -kl_coef · (log π(a_t) - log π_ref(a_t)) + score · [t is last]: the k1 estimate of the KL divergence, whose
    sum over a completion is unbiased ([Ziegler et al., 2019](https://huggingface.co/papers/1909.08593), eq. 2).

    Args:
        scores (`torch.Tensor`):
            Shape (B,).
        logps (`torch.Tensor`):
            Log-probabilities under the policy that sampled, shape (B, T), in nats.
        ref_logps (`torch.Tensor`):
            The same under the reference, shape (B, T).
        mask (`torch.Tensor`):
            Shape (B, T).
        kl_coef (`float`):
            Reward per nat.

    Returns:
        `torch.Tensor`: shape (B, T), 0 on masked tokens.
    """
    rewards = torch.where(mask.bool(), -kl_coef * (logps - ref_logps), 0)
    return torch.where(last_token(mask), rewards + scores.unsqueeze(1), rewards)


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """
    Estimate advantages by GAE (generalized advantage estimation), over the unmasked tokens alone.

    δ_t = r_t + γ·V_t' - V_t and A_t = δ_t + γλ·A_t', where t' is the next unmasked token; past the last one, both V
    and A are 0 ([Schulman et al., 2015](https://huggingface.co/papers/1506.02438), eq. 16).

    Args:
        rewards (`torch.Tensor`):
            Shape (B, T).
        values (`torch.Tensor`):
            Estimates before each token is chosen, shape (B, T).
        mask (`torch.Tensor`):
            Shape (B, T).
        gamma (`float`):
            Discount per token.
        lam (`float`):
            λ: 1 for the whole return, 0 for one step.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: advantages and returns (advantages + values), each of shape (B, T) and 0
        on masked tokens.
    """
    mask = mask.bool()
    advantages = torch.zeros_like(values)
    advantage, value = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    # Backwards, with the advantage and the value of the next unmasked token in hand. A masked token hands them on.
    for t in reversed(range(values.size(1))):
        chosen = mask[:, t]
        delta = rewards[:, t] + gamma * value - values[:, t]
        advantage = torch.where(chosen, delta + gamma * lam * advantage, advantage)
        value = torch.where(chosen, values[:, t], value)
        advantages[:, t] = torch.where(chosen, advantage, 0)
    return advantages, torch.where(mask, advantages + values, 0)


def whiten(values: Tensor, mask: Tensor, reduce: Callable[[Tensor], Tensor] = lambda total: total) -> Tensor:
    """
    Shift and scale the unmasked entries to mean 0 and variance 1.

    Args:
        values (`torch.Tensor`):
            Any shape.
        mask (`torch.Tensor`):
            Same shape.
        reduce (`Callable`, *optional*):
            Sums a tensor over all processes, so that they whiten alike. By default there is one process.

    Returns:
        `torch.Tensor`: same shape, 0 on masked entries; all 0 where the entries are equal.
    """
    mask = mask.bool()
    count = reduce(mask.sum().to(values.dtype)).clamp(min=1)
    centered = torch.where(mask, values - reduce(masked_sum(values, mask)) / count, 0)
    # Centred before it is squared: the difference of two large sums would lose the variance.
    variance = reduce(centered.square().sum()) / count
    return centered * torch.rsqrt(variance + 1e-8)


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, cliprange: float, tokens: Tensor | float
) -> Tensor:
    """
    Return half the squared error of the values, or of the values clipped to `cliprange` around the old ones, whichever
    is larger: a value gains nothing from moving further than that on the same samples.

    Args:
        values (`torch.Tensor`):
            Shape (B, T).
        old_values (`torch.Tensor`):
            Values when the completions were sampled, shape (B, T).
        returns (`torch.Tensor`):
            Targets, shape (B, T).
        mask (`torch.Tensor`):
            Shape (B, T).
        cliprange (`float`):
            In units of the reward.
        tokens (`torch.Tensor` or `float`):
            Divisor of the sum: the unmasked tokens of the whole batch, not of this part of it.

    Returns:
        `torch.Tensor`: a scalar.
    """
    values = torch.where(mask.bool(), values, 0)
    clipped = values.clamp(old_values - cliprange, old_values + cliprange)
    error = torch.max((values - returns).square(), (clipped - returns).square())
    return 0.5 * masked_sum(error, mask) / tokens
