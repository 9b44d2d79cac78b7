"""Functions that TRL calls, built from a recipe's `rewards`."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import queue
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, get_type_hints

from schoolhouse.config.errors import ConfigError, nearest
from schoolhouse.config.key_rules import apply_renames
from schoolhouse.config.user_code import UserCodeError, error_in, load_function
from schoolhouse.config.value_types import check_type
from schoolhouse.rewards.base import Batch, Reward, RewardFunction, Values
from schoolhouse.rewards.columns import Completion, Row
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
    A function of the user's own or of a package, sync or async, with TRL's signature; see `docs/add_a_reward.md`.

    Args:
        name (`str`):
            `my_folder/my_reward.py:my_function`, or `trl.rewards.accuracy_reward`.
        parameters (`dict[str, Any]`, *optional*):
            Further keyword arguments of every call.
        timeout_s (`float`, *optional*, defaults to `600.0`):
            Seconds that a call may take.

    Raises:
        ValueError: if there is no such function.
        ConfigError: if it has no such parameter.
    """

    name: str
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    timeout_s: float = 600.0

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
        arguments = {
            "prompts": batch.prompts,
            "completions": batch.completions,
            "completion_ids": batch.completion_ids,
            **{**batch.columns, **self.parameters},
        }
        answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        # A thread that hangs cannot be ended, but it does not keep the program from ending.
        threading.Thread(target=_call, args=(self.function, arguments, answers), daemon=True).start()
        try:
            values, error = answers.get(timeout=self.timeout_s)
        except queue.Empty:
            raise UserCodeError(
                f"{self.name} did not return in {self.timeout_s:g} s: let it give up earlier, or raise its timeout_s"
            ) from None
        if error is not None:
            raise error_in(self.name, error) from error
        return _checked(self.name, values, batch)

    def try_on(self, rows: Sequence[Row]) -> None:
        """Call it once with a short answer to each row, so that a mistake in it is found before weights load."""
        from transformers import TrainerState

        columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in rows[0]}
        prompts = columns.pop("prompt")
        columns |= {"trainer_state": TrainerState(), "log_extra": _ignore, "log_metric": _ignore}
        said = [{"role": "assistant", "content": "42"}]
        answers: list[Completion] = ["42" if isinstance(prompt, str) else said for prompt in prompts]
        self.score(Batch(prompts, answers, [[0]] * len(rows), columns))


def _ignore(name: str, value: Any) -> None:
    pass


def _call(function: Callable[..., Any], arguments: dict[str, Any], answers: queue.SimpleQueue[Any]) -> None:
    try:
        values = function(**arguments)
        answers.put((asyncio.run(_awaited(values)) if inspect.isawaitable(values) else values, None))
    except BaseException as error:  # also `SystemExit`, which would end this thread alone
        answers.put((None, error))


async def _awaited(values: Awaitable[Any]) -> Any:
    return await values


def _checked(name: str, values: Any, batch: Batch) -> Values:
    """Return the values of a reward function as numbers, `None` and NaN, one for each completion."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise UserCodeError(f"{name} returned {type(values).__name__}, not a list with one number per completion")
    values = list(values)
    if len(values) != len(batch.completions):
        raise UserCodeError(f"{name} returned {len(values)} values for {len(batch.completions)} completions")
    numbers: Values = []
    for index, value in enumerate(values):
        try:
            if isinstance(value, str):
                raise TypeError
            numbers.append(None if value is None else float(value))
        except (TypeError, ValueError, OverflowError):
            told = f"{value!r:.40} for completion {index} ({batch.texts[index]!r:.60})"
            raise UserCodeError(f"{name} returned {told}: a number, None or NaN is needed") from None
    return numbers


def build_rewards(entries: Sequence[Mapping[str, Any] | str], max_completion_length: int) -> list[Reward]:
    """
    Build the rewards that a recipe names, in the same order.

    An entry is `{name, weight, and the reward's own parameters}`, or the name alone; `name` is a key of [`REWARDS`],
    `file.py:function` or `trl.rewards.NAME`. `max_completion_length` is the limit of rewards that have one and were
    given none.

    Raises:
        ConfigError: if a name or a parameter is wrong, with its place in `rewards`.
    """
    rewards = []
    seen: Counter[str] = Counter()
    for index, entry in enumerate(entries):
        parameters: dict[str, Any] = {"name": entry} if isinstance(entry, str) else dict(entry)
        name, weight = parameters.pop("name", None), parameters.pop("weight", 1.0)
        check_type(weight, float, ("rewards", index, "weight"))
        if not isinstance(name, str):
            raise ConfigError(("rewards", index), f"an entry needs a name: {', '.join(REWARDS)} or file.py:function")
        label = name.rpartition(":")[2].rpartition(".")[2]
        try:
            if name in REWARDS:
                function = _built_in(name, parameters, max_completion_length)
            elif ":" in name or name.startswith("trl."):
                limit: Any = parameters.pop("timeout_s", UserFunction.timeout_s)
                check_type(limit, float, ("timeout_s",))
                function = UserFunction(name, parameters, limit)
            else:
                near = nearest(name, REWARDS)
                raise ConfigError(
                    ("name",),
                    f"{name!r} is no reward; {near}; one of your own is file.py:function, one of TRL trl.rewards.NAME",
                )
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
