"""GRPO: questions whose answers a program can check in, the same LoRA adapter, trained further, out.

    accelerate launch --config_file accelerate_config.yaml recipes/grpo.py --config recipes/configs/tiny/grpo_math.yaml

Every key of the YAML can be overridden (`--learning_rate 1e-4`). `--check` shows prompts, batches and rewards without
loading the model; `--preflight` samples the untrained policy, says what it can learn from its rewards and what would
fool them, and stops. A run prints the same before its first step. With `beta` above 0 the reference is the adapter as
it came in. The run folder is that of `recipes/sft.py`. The same command again continues a run that was stopped; if it
stopped between two batches of samples, it ends at the very same weights. The algorithm on one page, without a trainer,
is `recipes/minimal_grpo.py`.
"""

import contextlib
from dataclasses import dataclass, field

from trl import GRPOConfig

from schoolhouse.config.arguments import DataArguments, ModelArguments, RecipeParser, RewardArguments


@dataclass
class PreflightArguments(RewardArguments):
    """
    Rewards, and the preflight that examines them before training.

    Args:
        preflight (`bool`, *optional*, defaults to `False`):
            Sample the untrained policy, report, and stop.
        preflight_prompts (`int`, *optional*, defaults to `16`):
            Number of prompts that the preflight samples; 0 for none.
    """

    preflight: bool = field(default=False, metadata={"help": "Sample the untrained policy, report, and stop."})
    preflight_prompts: int = field(default=16, metadata={"help": "Prompts that the preflight samples; 0 for none."})


def recipe_parser() -> RecipeParser:
    """Parser of the recipe's keys; a pipeline reads it to check them before its first stage."""
    return RecipeParser(
        (DataArguments, PreflightArguments, GRPOConfig, ModelArguments),
        description=__doc__,
        required=("model_name_or_path", "output_dir", "rewards"),
        defaults={"resume_from_checkpoint": "auto"},
    )


def main(argv: list[str] | None = None) -> int:
    parser = recipe_parser()
    data_args, reward_args, training_args, model_args = parser.parse_args(argv)

    from transformers import set_seed

    from schoolhouse.core.run import Run
    from schoolhouse.data import load_training_data
    from schoolhouse.graders.code import sandbox_layers
    from schoolhouse.rewards import reward_models
    from schoolhouse.training.callbacks import RunCallback, show_progress
    from schoolhouse.training.checks import (
        config_errors,
        in_chat_template,
        load_rewards,
        validate_evaluation,
        validate_grpo,
    )
    from schoolhouse.training.grpo import GRPOTrainer
    from schoolhouse.training.policy import load_policy, load_training_tokenizer, save_policy
    from schoolhouse.training.preflight import preflight

    # 1. Rewards, prompts and tokenizer. Mistakes end here, before weights load.
    training = not reward_args.preflight
    fewest = 0 if training else 1
    if reward_args.preflight_prompts < fewest:
        parser.error("preflight_prompts", f"must be at least {fewest}, got {reward_args.preflight_prompts}")
    set_seed(training_args.seed)
    rewards = load_rewards(parser, reward_args.rewards, training_args)
    with config_errors(parser, "dataset_name", "datasets", "dataset_path"):
        data = load_training_data(data_args, training_args.seed, kinds=("prompt-only",))
    validate_grpo(parser, training_args, data.train, rewards)
    with config_errors(parser, "model_name_or_path"):
        tokenizer = load_training_tokenizer(model_args, training_args)
    data = in_chat_template(parser, data, tokenizer, data_args.conversational)
    validate_evaluation(parser, training_args, data)
    if parser.check:
        from schoolhouse.training.dry_run import dry_run_grpo

        dry_run_grpo(training_args, model_args, data, tokenizer, rewards)
        return 0

    # 2. The run folder: a new run, or one to be resumed.
    target = None
    if training_args.push_to_hub:
        from schoolhouse.hub.push import prepare_push, push_after_training

        with config_errors(parser, "push_to_hub"):
            target = prepare_push(training_args, model_args.model_name_or_path)
    models = [reward.model for reward in reward_models(rewards)]
    with config_errors(parser, "model_name_or_path"):
        given = (__file__, parser, training_args, model_args, data.sources, tokenizer, models)
        run = Run.open(*given) if training else None
    with run or contextlib.nullcontext():
        # 3. The policy: the base with the SFT adapter, which is trained further. Each step of the trainer
        #    a. samples `num_generations` completions of each prompt: a group;
        #    b. scores each completion by the weighted sum of its rewards;
        #    c. takes as its advantage the score minus the group's mean (over the group's deviation, if
        #       `scale_rewards` says so): the group takes the place of PPO's value model;
        #    d. masks completions that no reward could score, or whose grader failed;
        #    e. takes `num_iterations` passes over the samples with the clipped loss
        #       -min(ratio A, clip(ratio, 1 ± epsilon) A), plus `beta` times the KL divergence from the reference.
        stop = RunCallback(run)
        trainer = GRPOTrainer(
            load_policy(model_args, training_args, tokenizer),
            reward_funcs=rewards,
            args=training_args,
            train_dataset=data.train,
            eval_dataset=data.test if training_args.eval_strategy != "no" else None,
            processing_class=tokenizer,
            callbacks=[stop],
        )
        show_progress(trainer, run)
        # 4. Preflight: a group whose completions all have the same reward has only advantages of 0.
        if not training:
            preflight(parser, trainer, data.train, reward_args.preflight_prompts)
            return 0
        if reward_args.preflight_prompts and run.checkpoint is None:
            run.save(preflight=preflight(parser, trainer, data.train, reward_args.preflight_prompts))

        # 5. Train, and save the adapter.
        trainer.train(resume_from_checkpoint=run.checkpoint)
        if stop.stopped_by:
            run.interrupt(trainer)
            return 128 + stop.stopped_by
        product = save_policy(trainer, run.folder, tokenizer)
        tokens = {"input": trainer.state.num_input_tokens_seen}
        run.finish(trainer, product, tokens=tokens, sandbox=sandbox_layers())
    if target is not None and run.is_writer:
        push_after_training(run.folder, target)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
