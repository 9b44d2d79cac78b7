"""Reward of a trained reward model, or of an ensemble of them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from schoolhouse.core.reward_models import (
    conversation_ids,
    is_adapter,
    load_scorer,
    load_statistics,
    member_folders,
    score_ids,
)
from schoolhouse.rewards.base import Batch, Reward, RewardFunction, Values


if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Combine = Literal["mean", "min", "mean-std"]


@dataclass
class RewardModel(RewardFunction):
    """
    Score of a reward model, or of an ensemble, for prompt and completion.

    It judges the response: a thought, `<think>…</think>`, is no part of the answers that people compared.

    With messages, every completion ends as the chat template ends a turn, so a reward model cannot see truncation. To
    plain text EOS is appended, as in its training.

    Args:
        model (`str`):
            Reward adapter (its base is the one that its configuration names), reward model, or the folder `members`
            of an ensemble.
        base (`str`, *optional*):
            Base of a reward adapter, where it lies elsewhere than the adapter says.
        normalize (`bool`, *optional*, defaults to `True`):
            Return standard deviations from the mean that the model had on its reference texts
            (`reward_statistics.json`), for each member its own.
        combine (`str`, *optional*, defaults to `"mean"`):
            How the scores of an ensemble become one: `"mean"`, `"min"` (worst case) or `"mean-std"` (mean minus
            `uncertainty_coef` standard deviations of the members; Coste et al. 2024, "Reward model ensembles help
            mitigate overoptimization").
        uncertainty_coef (`float`, *optional*, defaults to `1.0`):
            Coefficient of the members' standard deviation in `"mean-std"`.
        max_length (`int`, *optional*):
            Limit of prompt and completion together in tokens; by default the positions of the base. The beginning of a
            longer text is cut off, and counted in `truncated`.
        batch_size (`int`, *optional*, defaults to `32`):
            Texts scored at once.

    Attributes:
        truncated (`int`): number of texts so far that were cut.
        spread (`list[float]`): standard deviation of the members for each text of the last call; 0 for a single model.

    Raises:
        ValueError: for another `combine`, or for normalisation without statistics.
    """

    model: str
    base: str | None = None
    normalize: bool = True
    combine: Combine = "mean"
    uncertainty_coef: float = 1.0
    max_length: int | None = None
    batch_size: int = 32
    truncated: int = field(default=0, init=False, compare=False)
    spread: list[float] = field(default_factory=list, init=False, repr=False, compare=False)
    _loaded: tuple[Any, Any] | None = field(default=None, init=False, repr=False, compare=False)  # model, tokenizer

    def __post_init__(self) -> None:
        if self.combine not in get_args(Combine):
            raise ValueError(f"combine is {self.combine!r}: it must be one of {', '.join(get_args(Combine))}")
        if self.normalize:
            self.statistics  # noqa: B018  missing statistics are reported before weights load

    @functools.cached_property
    def statistics(self) -> list[dict[str, float]]:
        """Mean and deviation of each member's scores on its reference texts."""
        return [load_statistics(folder) for folder in member_folders(self.model)]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def shares_base(self, base: str) -> bool:
        """Return whether this is an adapter, or an ensemble of them, on that base model."""
        from peft import PeftConfig

        folder = member_folders(self.model)[0]
        if not is_adapter(folder):
            return False
        own = self.base or PeftConfig.from_pretrained(folder).base_model_name_or_path
        return own == base or (Path(own).is_dir() and Path(own).resolve() == Path(base).resolve())

    def attach_to(self, classifier: PreTrainedModel) -> None:
        """
        Attach the adapter to a one-label classifier in memory, whose tensors may be shared, instead of loading a base.
        """
        self._loaded = load_scorer(self.model, classifier)

    def score(self, batch: Batch) -> Values:
        if self._loaded is None:
            self._loaded = load_scorer(self.model, self.base)
        scorer, tokenizer = self._loaded
        # 1. Tokenize prompt and completion as in the reward model's training; cut long texts at their beginning.
        rows = [
            conversation_ids(
                tokenizer,
                prompt,
                text if isinstance(completion, str) else [*completion[:-1], {**completion[-1], "content": text}],
            )
            for prompt, completion, text in zip(batch.prompts, batch.completions, batch.responses, strict=True)
        ]
        limit = self.max_length or scorer.config.get_text_config().max_position_embeddings
        long = sum(len(row) > limit for row in rows)
        if long and not self.truncated:
            warnings.warn(
                f"{self.model}: {long} of {len(rows)} texts are over {limit} tokens: their beginning is not read",
                stacklevel=2,
            )
        self.truncated += long
        # 2. Score with every member: (members, B), each in its own standard deviations.
        scores = score_ids(scorer, [row[-limit:] for row in rows], self.batch_size, tokenizer.pad_token_id).double()
        if self.normalize:
            mean, sd = (scores.new_tensor([own[key] for own in self.statistics])[:, None] for key in ("mean", "sd"))
            scores = (scores - mean) / sd
        # 3. Combine the members. Where they disagree, the text is unlike their training data.
        self.spread = scores.std(dim=0, correction=0).tolist()
        if len(scores) > 1 and "log_metric" in batch.columns:
            batch.columns["log_metric"]("reward_model/spread", sum(self.spread) / len(self.spread))
        return list(combined(scores, self.combine, self.uncertainty_coef).tolist())


def combined(scores: Tensor, how: Combine, uncertainty_coef: float = 1.0) -> Tensor:
    """
    Combine the scores of an ensemble.

    Args:
        scores (`torch.Tensor` of shape `(members, B)`):
            Scores of each member.
        how (`str`):
            `"mean"`, `"min"` or `"mean-std"`.
        uncertainty_coef (`float`, *optional*, defaults to `1.0`):
            Coefficient of the members' standard deviation (that of the population) in `"mean-std"`.

    Returns:
        `torch.Tensor` of shape `(B,)`
    """
    if how == "min":
        return scores.min(dim=0).values
    if how == "mean-std":
        return scores.mean(dim=0) - uncertainty_coef * scores.std(dim=0, correction=0)
    return scores.mean(dim=0)


def reward_models(rewards: Iterable[Reward]) -> list[RewardModel]:
    """Return those of a recipe's rewards that are reward models."""
    return [reward.function for reward in rewards if isinstance(reward.function, RewardModel)]
