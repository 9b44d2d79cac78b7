"""From a recipe's `rewards` to the functions that TRL calls, and how their values add up."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_type_hints

from schoolhouse.config.errors import ConfigError, nearest
from schoolhouse.config.value_types import check_type
from schoolhouse.rewards.registry import REWARDS
from schoolhouse.rewards.reward_model import RewardModel, UserFunction


if TYPE_CHECKING:
    from torch import Tensor


class Reward:
    """
    One entry of a recipe's `rewards`, with TRL's signature.

    TRL makes one thing, NaN, of all that is no number. A failure of a reward that counts therefore travels as
    infinity, which [`mask_invalid`] finds again after the processes' values are gathered.

    Args:
        name (`str`):
            Its name in logs.
        weight (`float`):
            Its share in the sum; with 0 it is only logged.
        function (`Callable`):
            Reward with TRL's signature, and `applies(row)`.
    """

    def __init__(self, name: str, weight: float, function: Any):
        self.__name__ = name  # what TRL logs it as
        self.weight = weight
        self.function = function

    def __call__(self, prompts: list, completions: list, completion_ids: list, **columns: Any) -> list[float | None]:
        values = self.function(prompts=prompts, completions=completions, completion_ids=completion_ids, **columns)
        return [self._carry(value) for value in values]

    def _carry(self, value: float | None) -> float | None:
        if value is None or math.isfinite(value):
            return value
        return math.inf if self.weight else None


def build_rewards(entries: Sequence[dict[str, Any]], max_completion_length: int) -> list[Reward]:
    """
    The rewards that a recipe names.

    Args:
        entries (`Sequence[dict[str, Any]]`):
            `{name, weight, and the reward's own parameters}`; `name` is a key of [`REWARDS`] or `file.py:function`.
        max_completion_length (`int`):
            The `max_length` of rewards that have one and were given none.

    Returns:
        `list[Reward]`: in the same order.

    Raises:
        ConfigError: a name or a parameter is wrong; says where in `rewards`.
    """
    rewards, seen = [], Counter()
    for index, entry in enumerate(entries):
        parameters = dict(entry)
        name, weight = parameters.pop("name", None), parameters.pop("weight", 1.0)
        check_type(weight, float, ("rewards", index, "weight"))
        if not isinstance(name, str):
            raise ConfigError(("rewards", index), f"an entry needs a name: {', '.join(REWARDS)} or file.py:function")
        if ".py:" in name:
            function, label = _user_function(name, parameters, index), name.rpartition(":")[2]
        elif name in REWARDS:
            function, label = _known(name, parameters, index, max_completion_length), name
        else:
            raise ConfigError(
                ("rewards", index, "name"),
                f"{name!r} is no reward; {nearest(name, REWARDS)}; one of your own is file.py:function",
            )
        seen[label] += 1
        rewards.append(Reward(label if seen[label] == 1 else f"{label}-{seen[label]}", float(weight), function))
    if not any(reward.weight for reward in rewards):
        raise ConfigError(("rewards",), "no entry has a weight other than 0, so nothing is rewarded")
    return rewards


def _known(name: str, parameters: dict[str, Any], index: int, max_completion_length: int) -> Any:
    cls = REWARDS[name]
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key, value in parameters.items():
        if key not in fields:
            raise ConfigError(("rewards", index, key), f"unknown key; {nearest(key, ['name', 'weight', *fields])}")
        check_type(value, hints[key], ("rewards", index, key))
        if key in ("soft", "ngram", "max_length", "batch_size") and value is not None and value < 1:
            raise ConfigError(("rewards", index, key), f"must be at least 1, got {value}")
    for key, field in fields.items():
        if field.default is dataclasses.MISSING and key not in parameters:
            raise ConfigError(("rewards", index), f"the reward {name!r} needs the key {key}")
    # A reward model's limit is of prompt and completion together.
    if "max_length" in fields and cls is not RewardModel and parameters.get("max_length") is None:
        parameters["max_length"] = max_completion_length
    try:
        return cls(**parameters)
    except ValueError as error:
        raise ConfigError(("rewards", index), str(error)) from None


def _user_function(name: str, parameters: dict[str, Any], index: int) -> UserFunction:
    path, _, function = name.rpartition(":")
    reward = UserFunction(path, function, parameters)
    try:
        reward.load()
    except ValueError as error:
        raise ConfigError(("rewards", index, "name"), str(error)) from None
    return reward


def mask_invalid(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """
    Take completions that cannot be paid out of the reckoning: those with a failed reward that counts, and those to
    which no reward that counts applies.

    TRL leaves out the rows whose values are all NaN, with advantage 0 and without a say in their group's mean and
    deviation. In other rows it takes a NaN for 0, which is what a reward that does not apply adds to the sum.

    Args:
        values (`torch.Tensor` of shape `(B, R)`):
            What each [`Reward`] said of each completion.
        weights (`torch.Tensor` of shape `(R,)`):
            Weights of the rewards.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: the values, NaN in the rows left out, and which rows failed `(B,)`.
    """
    counted = values[:, weights.to(values.device) != 0]
    failed = counted.isinf().any(dim=1)
    idle = counted.isnan().all(dim=1)
    values = values.masked_fill(values.isinf(), math.nan)
    return values.masked_fill((failed | idle).unsqueeze(1), math.nan), failed


def total(values: Tensor, weights: Tensor) -> Tensor:
    """
    The weighted sum of each completion, as TRL forms it after [`mask_invalid`].

    Args:
        values (`torch.Tensor` of shape `(B, R)`):
            What each [`Reward`] said of each completion.
        weights (`torch.Tensor` of shape `(R,)`):
            Weights of the rewards.

    Returns:
        `torch.Tensor` of shape `(B,)`: NaN for completions that take no part.
    """
    values, _ = mask_invalid(values, weights)
    return (values * weights).nansum(dim=1).masked_fill(values.isnan().all(dim=1), math.nan)
