"""Functions that TRL calls, built from a recipe's `rewards`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

from schoolhouse.config.errors import ConfigError, nearest
from schoolhouse.config.key_rules import apply_renames
from schoolhouse.config.user_code import load_function
from schoolhouse.config.value_types import check_type
from schoolhouse.rewards.base import Batch, Reward, RewardFunction, Values
from schoolhouse.rewards.columns import Row
from schoolhouse.rewards.format import Format, Overlong, Repetition
from schoolhouse.rewards.gold_scorer import GoldScorer
from schoolhouse.rewards.reward_model import RewardModel
from schoolhouse.rewards.verifiable import Code, Cosine, Math


REWARDS: dict[str, type[RewardFunction]] = {
    "math": Math,
    "code": Code,
    "cosine": Cosine,
    "format": Format,
    "gold": GoldScorer,
    "overlong": Overlong,
    "repetition": Repetition,
    "reward_model": RewardModel,
}
# Parameters that default to the recipe's `max_completion_length`.
_COMPLETION_LIMITS = ("max_completion_len", "max_len")
_AT_LEAST_ONE = (*_COMPLETION_LIMITS, "soft_punish_cache", "ngram_size", "max_length", "batch_size")
# Arguments that TRL passes to every reward function, beside the data's columns.
_FROM_TRL = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")


@dataclasses.dataclass
class UserFunction(RewardFunction):
    """
    A function of the user's own, with TRL's signature; see `docs/add_a_reward.md`.

    Args:
        name (`str`):
            `my_folder/my_reward.py:my_function`.
        parameters (`dict[str, Any]`, *optional*):
            Further keyword arguments of every call.

    Raises:
        ValueError: if there is no such function.
        ConfigError: if it has no such parameter.
    """

    name: str
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        own = {
            name: parameter
            for name, parameter in inspect.signature(self.function).parameters.items()
            if name not in _FROM_TRL and parameter.kind is not parameter.VAR_KEYWORD
        }
        # Like TRL's, a reward function takes and ignores `**kwargs`: a misspelt parameter would change nothing.
        for key in self.parameters:
            if key not in own:
                raise ConfigError((key,), f"{self.name} has no parameter of this name; {nearest(key, own)}")
        self.columns = [
            name
            for name, parameter in own.items()
            if parameter.default is parameter.empty and name not in self.parameters
        ]

    @property
    def reads(self) -> str:  # type: ignore[override]
        return "a column " + ", a column ".join(f"`{name}`" for name in self.columns) if self.columns else "any row"

    @functools.cached_property
    def function(self) -> Callable[..., Values]:
        """The function itself."""
        return load_function(self.name)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "function"}  # it is loaded again

    def applies(self, row: Row) -> bool:
        return all(name in row for name in self.columns)

    def score(self, batch: Batch) -> Values:
        return self.function(
            prompts=batch.prompts,
            completions=batch.completions,
            completion_ids=batch.completion_ids,
            **{**batch.columns, **self.parameters},
        )


def build_rewards(entries: Sequence[Mapping[str, Any]], max_completion_length: int) -> list[Reward]:
    """
    Build the rewards that a recipe names, in the same order.

    An entry is `{name, weight, and the reward's own parameters}`; `name` is a key of [`REWARDS`] or
    `file.py:function`. `max_completion_length` is the limit of rewards that have one and were given none.

    Raises:
        ConfigError: if a name or a parameter is wrong, with its place in `rewards`.
    """
    rewards = []
    seen: Counter[str] = Counter()
    for index, entry in enumerate(entries):
        parameters = dict(entry)
        name, weight = parameters.pop("name", None), parameters.pop("weight", 1.0)
        check_type(weight, float, ("rewards", index, "weight"))
        if not isinstance(name, str):
            raise ConfigError(("rewards", index), f"an entry needs a name: {', '.join(REWARDS)} or file.py:function")
        label = name.rpartition(":")[2]
        try:
            if name in REWARDS:
                function = _built_in(name, parameters, max_completion_length)
            elif ":" in name:
                function = UserFunction(name, parameters)
            else:
                near = nearest(name, REWARDS)
                raise ConfigError(("name",), f"{name!r} is no reward; {near}; one of your own is file.py:function")
        except ConfigError as error:
            raise ConfigError(("rewards", index, *error.path), str(error)) from None
        except ValueError as error:
            where = ("rewards", index) if name in REWARDS else ("rewards", index, "name")
            raise ConfigError(where, str(error)) from None
        seen[label] += 1
        rewards.append(Reward(label if seen[label] == 1 else f"{label}-{seen[label]}", float(weight), function))
    if not any(reward.weight for reward in rewards):
        raise ConfigError(("rewards",), "no entry has a weight other than 0, so nothing is rewarded")
    return rewards


def _built_in(name: str, parameters: dict[str, Any], max_completion_length: int) -> RewardFunction:
    cls = REWARDS[name]
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    parameters = apply_renames(f"rewards.{name}", parameters)
    for limit in _COMPLETION_LIMITS:
        if limit in fields and parameters.get(limit) is None:
            parameters[limit] = max_completion_length
    for key, value in parameters.items():
        if key not in fields:
            raise ConfigError((key,), f"unknown key; {nearest(key, ['name', 'weight', *fields])}")
        check_type(value, hints[key], (key,))
        if key in _AT_LEAST_ONE and value is not None and value < 1:
            raise ConfigError((key,), f"must be at least 1, got {value}")
    for key, field in fields.items():
        if field.default is dataclasses.MISSING and key not in parameters:
            raise ConfigError((), f"the reward {name!r} needs the key {key}")
    return cls(**parameters)
