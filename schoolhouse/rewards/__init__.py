"""Graders and reward models as TRL reward functions, named and parameterised in YAML."""

from schoolhouse.rewards.base import Reward, RewardFunction, mask_invalid, total
from schoolhouse.rewards.build import REWARDS, build_rewards
from schoolhouse.rewards.format import Format, Overlong, Repetition
from schoolhouse.rewards.gold_scorer import GoldScorer
from schoolhouse.rewards.reward_model import RewardModel, reward_models
from schoolhouse.rewards.verifiable import Code, Cosine, Math


__all__ = [
    "REWARDS",
    "Code",
    "Cosine",
    "Format",
    "GoldScorer",
    "Math",
    "Overlong",
    "Repetition",
    "Reward",
    "RewardFunction",
    "RewardModel",
    "build_rewards",
    "mask_invalid",
    "reward_models",
    "total",
]
