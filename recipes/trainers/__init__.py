"""Trainers that TRL does not have: `from recipes.trainers import PPOConfig, PPOTrainer`."""

from typing import TYPE_CHECKING, Any

from recipes.trainers.ppo_config import PPOConfig


if TYPE_CHECKING:
    from recipes.trainers.ppo_trainer import PPOTrainer

__all__ = ["PPOConfig", "PPOTrainer"]


def __getattr__(name: str) -> Any:
    if name == "PPOTrainer":  # on demand: it loads all of TRL, and a recipe's `--help` needs none of it
        from recipes.trainers.ppo_trainer import PPOTrainer

        return PPOTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
