"""Graders as TRL reward functions, named and parameterised in YAML.

A reward is a picklable callable with TRL's signature. It returns a number per completion, `None` where it does not
apply to the row (it is then left out of that row's sum) and NaN where its grader failed (the completion then takes no
part in training).
"""

from recipes.rewards.answers import Code, Cosine, Math
from recipes.rewards.compose import Reward, build_rewards, leave_out, total
from recipes.rewards.learned import RewardModel, UserFunction, reward_models
from recipes.rewards.names import REWARDS
from recipes.rewards.shape import Format, Overlong, Repetition


__all__ = [
    "REWARDS",
    "Code",
    "Cosine",
    "Format",
    "Math",
    "Overlong",
    "Repetition",
    "Reward",
    "RewardModel",
    "UserFunction",
    "build_rewards",
    "leave_out",
    "reward_models",
    "total",
]
