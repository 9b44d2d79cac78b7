"""What a recipe with rewards asks of its data and batches, found before weights load; and its `--check`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from schoolhouse.config.errors import ConfigError
from schoolhouse.rewards import Code, Reward, build_rewards
from schoolhouse.training.check import never_read


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase
    from trl import GRPOConfig

    from schoolhouse.config.arguments import RecipeParser
    from schoolhouse.data.loading import LoadedData


def load_rewards(parser: RecipeParser, entries: list[dict[str, Any]], training_args: GRPOConfig) -> list[Reward]:
    """
    The rewards of a recipe, with their weights in `training_args.reward_weights`.

    Args:
        parser (`RecipeParser`):
            The parsed recipe, which reports errors.
        entries (`list[dict[str, Any]]`):
            The recipe's `rewards`.
        training_args ([`~trl.GRPOConfig`]):
            Gives the limit of completions, takes the weights.

    Returns:
        `list[Reward]`: in the recipe's order.
    """
    if training_args.reward_weights is not None:
        parser.error("reward_weights", "the weight of a reward stands in its entry of `rewards`: {name, weight}")
    if training_args.remove_unused_columns:
        parser.error("remove_unused_columns", "rewards read the data's columns: leave it out")
    try:
        rewards = build_rewards(entries, training_args.max_completion_length)
    except ConfigError as problem:
        parser.error(problem.path, str(problem))
    training_args.reward_weights = [reward.weight for reward in rewards]
    return rewards


def prompts_per_batch(training_args: GRPOConfig) -> int:
    """Distinct prompts that are answered between two changes of the policy's samples."""
    return training_args.generation_batch_size // training_args.num_generations


def steps_per_rollout(training_args: GRPOConfig) -> float:
    """Optimizer steps that are taken on the same samples."""
    passes = training_args.steps_per_generation * training_args.num_iterations
    return passes / training_args.gradient_accumulation_steps


def validate_grpo(parser: RecipeParser, training_args: GRPOConfig, rows: Dataset, rewards: Sequence[Reward]) -> None:
    """
    Refuse what would train nothing: fewer rows than one batch of prompts, and rewards that no row can earn.

    Args:
        parser (`RecipeParser`):
            The parsed recipe, which reports the error.
        training_args ([`~trl.GRPOConfig`]):
            Sizes of batches and groups.
        rows (`datasets.Dataset`):
            Training rows.
        rewards (`Sequence[Reward]`):
            Of the recipe.
    """
    prompts = prompts_per_batch(training_args)
    if len(rows) < prompts:
        parser.error(
            "num_generations",
            f"{len(rows)} training rows do not fill one batch of {prompts} prompts (generation_batch_size "
            f"{training_args.generation_batch_size} / num_generations {training_args.num_generations}), so not one "
            "step would be taken: use more rows or a smaller batch",
        )
    for index, reward in enumerate(rewards):
        if reward.weight and not any(reward.function.applies(row) for row in rows):
            parser.error(
                ("rewards", index),
                f"{reward.__name__} applies to no row of the training data, whose columns are "
                f"{', '.join(sorted(rows.column_names))}: it needs {reward.function.reads}",
            )
        if isinstance(reward.function, Code):
            _require_sandbox(parser, index)
    period = steps_per_rollout(training_args)
    saves_by_step = training_args.save_strategy == "steps" and training_args.save_steps >= 1
    if saves_by_step and training_args.save_steps % period:
        warnings.warn(
            f"save_steps {training_args.save_steps} is no multiple of the {period:g} steps taken on the same samples: "
            "a run resumed between would draw new ones",
            stacklevel=1,
        )


def _require_sandbox(parser: RecipeParser, index: int) -> None:
    from schoolhouse.graders.code import shared_sandbox
    from schoolhouse.sandbox import SandboxError

    try:
        shared_sandbox()
    except SandboxError as error:
        parser.error(("rewards", index), str(error))


def check_grpo(
    parser: RecipeParser,
    training_args: GRPOConfig,
    model_args: Any,
    data: LoadedData,
    tokenizer: PreTrainedTokenizerBase,
    rewards: Sequence[Reward],
) -> None:
    """
    Print one rendered prompt, prompt lengths, batch arithmetic, the rows that each reward applies to, and tokens that
    the base never read.

    Args:
        parser (`RecipeParser`):
            The parsed recipe, which reports errors.
        training_args ([`~trl.GRPOConfig`]):
            Sizes of batches and groups.
        model_args (`ModelArguments`):
            Names the model.
        data (`LoadedData`):
            What is asked.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            With its chat template.
        rewards (`Sequence[Reward]`):
            Of the recipe.
    """
    from schoolhouse.core.generation import render

    rows = data.train
    lengths = sorted(len(render(tokenizer, prompt)) for prompt in rows["prompt"][:256])
    prompts, group = prompts_per_batch(training_args), training_args.num_generations
    period = steps_per_rollout(training_args)
    epoch = round(len(rows) // prompts * period)
    run = training_args.max_steps if training_args.max_steps > 0 else round(epoch * training_args.num_train_epochs)
    table = [
        ("data", f"{len(rows):,} prompts; columns {', '.join(rows.column_names)}"),
        ("prompt", repr(tokenizer.decode(render(tokenizer, rows[0]["prompt"])))),
        ("lengths", f"prompts of {lengths[0]} to {lengths[-1]} tokens, completions of at most "
                    f"{training_args.max_completion_length}"),
        ("batch", f"{prompts} prompts x {group} completions, {period:g} steps on them"),
        ("", f"{epoch} steps an epoch, {run} in all"),
    ]  # fmt: skip
    every = rows.to_list()
    for reward in rewards:
        applies = sum(reward.function.applies(row) for row in every)
        table.append(("reward", f"{reward.__name__}, weight {reward.weight:g}, applies to {applies:,} rows"))
    table.append(("never read", never_read(model_args, tokenizer)))
    for label, text in table:
        print(f"{label:<11}{text}".rstrip())
