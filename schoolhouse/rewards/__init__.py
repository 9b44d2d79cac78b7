"""Graders as TRL reward functions, named and parameterised in YAML.

A reward is a picklable callable with TRL's signature. It returns a number per completion, `None` where it does not
apply to the row (it is then left out of that row's sum) and NaN where its grader failed (the completion then takes no
part in training).
"""

from schoolhouse.rewards.build import Reward, build_rewards, mask_invalid, total
from schoolhouse.rewards.format import Format, Overlong, Repetition
from schoolhouse.rewards.registry import REWARDS
from schoolhouse.rewards.reward_model import RewardModel, UserFunction, reward_models
from schoolhouse.rewards.verifiable import Code, Cosine, Math


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
    "mask_invalid",
    "reward_models",
    "total",
]
