"""Trainers and what surrounds them: `from schoolhouse.training import PPOConfig, PPOTrainer`."""

from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from schoolhouse.training.ppo import PPOTrainer
    from schoolhouse.training.ppo_config import PPOConfig

__all__ = ["PPOConfig", "PPOTrainer"]


def __getattr__(name: str) -> Any:
    # On demand: the trainer loads all of TRL, which `--help` does not need.
    if name == "PPOTrainer":
        from schoolhouse.training.ppo import PPOTrainer

        return PPOTrainer
    if name == "PPOConfig":
        from schoolhouse.training.ppo_config import PPOConfig

        return PPOConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
