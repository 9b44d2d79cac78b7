"""The rewards that a recipe can name."""

from recipes.rewards.answers import Code, Cosine, Math
from recipes.rewards.gold import Gold
from recipes.rewards.learned import RewardModel
from recipes.rewards.shape import Format, Overlong, Repetition


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
