"""Rewards that the house does not know: a trained reward model, and a function of the user's own."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schoolhouse.config.user_code import load_function
from schoolhouse.core.reward_models import (
    conversation_ids,
    is_adapter,
    load_scorer,
    load_statistics,
    member_folders,
    score_ids,
)
from schoolhouse.rewards.columns import Row


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor
    from transformers import PreTrainedModel

    from schoolhouse.rewards.build import Reward

COMBINE = ("mean", "min", "mean-std")


@dataclass
class RewardModel:
    """
    The score of a reward model, or of an ensemble, on prompt and completion.

    With messages every completion ends as the chat template ends a turn, so a reward model cannot see truncation; to
    plain text EOS is appended, as its trainer did.

    Args:
        model (`str`):
            Reward adapter (its base is the one that its configuration names), reward model, or the folder `members`
            of an ensemble.
        base (`str`, *optional*):
            Base of a reward adapter, where it lies elsewhere than the adapter says.
        normalize (`bool`, *optional*, defaults to `True`):
            Count in standard deviations from the mean that the model had on its reference samples
            (`reward_statistics.json`), each member in its own.
        combine (`str`, *optional*, defaults to `"mean"`):
            What an ensemble says: `"mean"`, `"min"` (worst case) or `"mean-std"` (mean minus `lam` standard
            deviations of the members; Coste et al. 2024, "Reward model ensembles help mitigate overoptimization").
        lam (`float`, *optional*, defaults to `1.0`):
            See `combine`.
        max_length (`int`, *optional*):
            Tokens of prompt and completion that are read, by default as many as the base has positions. Of a longer
            text the beginning is left out, and `truncated` counts it.
        batch_size (`int`, *optional*, defaults to `32`):
            Texts scored at once.

    Attributes:
        truncated (`int`): texts so far that were cut.
        spread (`list[float]`): standard deviation of the members on each text of the last call; 0 for a single model.

    Raises:
        ValueError: for another `combine`, or normalisation without statistics.
    """

    model: str
    base: str | None = None
    normalize: bool = True
    combine: str = "mean"
    lam: float = 1.0
    max_length: int | None = None
    batch_size: int = 32
    reads = "any row"
    truncated: int = field(default=0, init=False, compare=False)
    spread: list[float] = field(default_factory=list, init=False, repr=False, compare=False)
    _loaded: tuple[Any, Any] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self):
        if self.combine not in COMBINE:
            raise ValueError(f"combine is {self.combine!r}: it must be one of {', '.join(COMBINE)}")
        if self.normalize:
            self.statistics  # noqa: B018  what is missing shows before weights load

    @functools.cached_property
    def statistics(self) -> list[dict[str, float]]:
        """Mean and deviation of each member's scores on its reference samples."""
        return [load_statistics(folder) for folder in member_folders(self.model)]

    def applies(self, row: Row) -> bool:
        return True

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def shares_base(self, base: str) -> bool:
        """Whether this is an adapter, or an ensemble of them, on that base model."""
        from peft import PeftConfig

        folder = member_folders(self.model)[0]
        if not is_adapter(folder):
            return False
        own = self.base or PeftConfig.from_pretrained(folder).base_model_name_or_path
        return own == base or (Path(own).is_dir() and Path(own).resolve() == Path(base).resolve())

    def attach_to(self, classifier: PreTrainedModel) -> None:
        """
        Put the adapter on a base in memory, whose tensors may be shared, rather than load one.

        Args:
            classifier ([`~transformers.PreTrainedModel`]):
                One-label classifier without adapters.
        """
        self._loaded = load_scorer(self.model, classifier)

    def __call__(self, prompts: list, completions: list, completion_ids: list, **columns: Any) -> list[float | None]:
        if self._loaded is None:
            self._loaded = load_scorer(self.model, self.base)
        scorer, tokenizer = self._loaded
        rows = [
            conversation_ids(tokenizer, prompt, completion)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        limit = self.max_length or scorer.config.get_text_config().max_position_embeddings
        long = sum(len(row) > limit for row in rows)
        if long and not self.truncated:
            warnings.warn(
                f"{self.model}: {long} of {len(rows)} texts are over {limit} tokens: their beginning is not read",
                stacklevel=2,
            )
        self.truncated += long
        scores = score_ids(scorer, [row[-limit:] for row in rows], self.batch_size, tokenizer.pad_token_id).double()
        if self.normalize:
            mean, sd = (scores.new_tensor([own[key] for own in self.statistics])[:, None] for key in ("mean", "sd"))
            scores = (scores - mean) / sd
        self.spread = scores.std(dim=0, correction=0).tolist()
        if len(scores) > 1 and "log_metric" in columns:
            columns["log_metric"]("reward_model/spread", sum(self.spread) / len(self.spread))
        return combined(scores, self.combine, self.lam).tolist()


def combined(scores: Tensor, how: str, lam: float = 1.0) -> Tensor:
    """
    What an ensemble says.

    Args:
        scores (`torch.Tensor` of shape `(members, B)`):
            Of each member.
        how (`str`):
            `"mean"`, `"min"` or `"mean-std"`.
        lam (`float`, *optional*, defaults to `1.0`):
            Weight of the members' standard deviation (that of the population) in `"mean-std"`.

    Returns:
        `torch.Tensor` of shape `(B,)`
    """
    if how == "min":
        return scores.min(dim=0).values
    return scores.mean(dim=0) - (lam * scores.std(dim=0, correction=0) if how == "mean-std" else 0)


def reward_models(rewards: Iterable[Reward]) -> list[RewardModel]:
    """Those of a recipe's rewards that are reward models."""
    return [reward.function for reward in rewards if isinstance(reward.function, RewardModel)]


@dataclass
class UserFunction:
    """
    A function of the user's own, `my_folder/my_reward.py:my_function`, with TRL's signature.

    It returns a number for each completion, `None` where it does not apply and NaN where it failed.

    Args:
        path (`str`):
            Python file.
        function (`str`):
            Name in it.
        parameters (`dict[str, Any]`, *optional*):
            Further keyword arguments of every call.
    """

    path: str
    function: str
    parameters: dict[str, Any] = field(default_factory=dict)
    reads = "any row"
    _loaded: Callable | None = field(default=None, init=False, repr=False, compare=False)

    def applies(self, row: Row) -> bool:
        return True

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def load(self) -> Callable:
        """
        The function itself.

        Raises:
            ValueError: if the file or the function in it does not exist.
        """
        if self._loaded is None:
            self._loaded = load_function(f"{self.path}:{self.function}")
        return self._loaded

    def __call__(self, prompts: list, completions: list, completion_ids: list, **columns: Any) -> list[float | None]:
        given = {"prompts": prompts, "completions": completions, "completion_ids": completion_ids}
        return self.load()(**given, **columns, **self.parameters)
