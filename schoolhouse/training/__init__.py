"""Trainers that TRL does not have: `from schoolhouse.training import PPOConfig, PPOTrainer`."""

from typing import TYPE_CHECKING, Any

from schoolhouse.training.ppo_config import PPOConfig


if TYPE_CHECKING:
    from schoolhouse.training.ppo import PPOTrainer

__all__ = ["PPOConfig", "PPOTrainer"]


def __getattr__(name: str) -> Any:
    if name == "PPOTrainer":  # on demand: it loads all of TRL, and a recipe's `--help` needs none of it
        from schoolhouse.training.ppo import PPOTrainer

        return PPOTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
