"""The rewards that a recipe can name."""

from schoolhouse.rewards.format import Format, Overlong, Repetition
from schoolhouse.rewards.gold_scorer import Gold
from schoolhouse.rewards.reward_model import RewardModel
from schoolhouse.rewards.verifiable import Code, Cosine, Math


REWARDS: dict[str, type] = {
    "math": Math,
    "code": Code,
    "cosine": Cosine,
    "format": Format,
    "gold": Gold,
    "overlong": Overlong,
    "repetition": Repetition,
    "reward_model": RewardModel,
}
