"""PPO: prompts in, the same LoRA adapter out, trained further to write what a reward model scores highly.

    accelerate launch --config_file accelerate_config.yaml recipes/ppo.py --config recipes/configs/tiny/ppo.yaml

Policy, reference, value model and a reward adapter on the same base share its weights. `rewards` are those of
`recipes/grpo.py`; the value model starts from the first reward adapter with a weight on the same base. Every key of
the YAML can be overridden (`--kl_coef 0.1`), and `--check` shows prompts, batches and rewards without loading the
model. With `gold_reward`, a reward of weight 0 measures what the others are worth: `overoptimization.json` in the run
folder has both against the KL divergence, and the adapter of the step with the highest gold reward is the product. The
run folder is otherwise that of `recipes/sft.py`. The same command again continues a run that was stopped; if it
stopped between two batches of samples, it ends at the very same weights. The algorithm is in
`schoolhouse/training/ppo.py`, its equations are in `docs/ppo.md`.
"""

from schoolhouse.config.arguments import DataArguments, ModelArguments, RecipeParser, RewardArguments
from schoolhouse.training import PPOConfig
from schoolhouse.training.overoptimization import (
    OveroptimizationArguments,
    OveroptimizationCallback,
    validate_overoptimization,
)


def recipe_parser() -> RecipeParser:
    """Parser of the recipe's keys; a pipeline reads it to check them before its first stage."""
    return RecipeParser(
        (DataArguments, RewardArguments, OveroptimizationArguments, PPOConfig, ModelArguments),
        description=__doc__,
        required=("model_name_or_path", "output_dir", "rewards"),
        defaults={"resume_from_checkpoint": "auto"},
    )


def main(argv: list[str] | None = None) -> int:
    parser = recipe_parser()
    data_args, reward_args, gold_args, training_args, model_args = parser.parse_args(argv)

    from transformers import set_seed

    from schoolhouse.core.reward_models import member_folders
    from schoolhouse.core.run import Run
    from schoolhouse.data import load_training_data
    from schoolhouse.graders.code import sandbox_layers
    from schoolhouse.rewards import reward_models
    from schoolhouse.training import PPOTrainer
    from schoolhouse.training.callbacks import RunCallback, show_progress
    from schoolhouse.training.checks import (
        config_errors,
        in_chat_template,
        load_rewards,
        validate_evaluation,
        validate_grpo,
    )
    from schoolhouse.training.policy import load_policy, load_training_tokenizer, save_policy

    # 1. Rewards, prompts and tokenizer. Mistakes end here, before weights load.
    set_seed(training_args.seed)
    rewards = load_rewards(parser, reward_args.rewards, training_args)
    validate_overoptimization(parser, gold_args, rewards)
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
        run = Run.open(__file__, parser, training_args, model_args, data.sources, tokenizer, models)
    with run:
        stop, overoptimization = RunCallback(run), OveroptimizationCallback(run.folder, gold_args)
        # 3. The value model starts from a reward adapter on the policy's base, if there is one: it has learned already
        #    to read off a text how it will be scored.
        optimised = reward_models(reward for reward in rewards if reward.weight)
        on_base = [model.model for model in optimised if model.shares_base(model_args.model_name_or_path)]
        value_adapter = member_folders(on_base[0])[0] if on_base and model_args.use_peft else None

        # 4. The policy: the base with the SFT adapter, which is trained further. Each step of the trainer samples
        #    completions, scores them, gives every token a reward (the KL penalty; at the end the score), estimates
        #    values and from them advantages, and takes clipped steps of policy and value model.
        trainer = PPOTrainer(
            load_policy(model_args, training_args, tokenizer),
            reward_funcs=rewards,
            args=training_args,
            train_dataset=data.train,
            eval_dataset=data.test if training_args.eval_strategy != "no" else None,
            processing_class=tokenizer,
            callbacks=[stop, overoptimization],
            value_adapter=value_adapter,
        )
        show_progress(trainer, run)
        trainer.train(resume_from_checkpoint=run.checkpoint)
        if stop.stopped_by:
            run.interrupt(trainer)
            return 128 + stop.stopped_by

        # 5. Save the adapter: that of the step with the highest gold reward, where there is a gold scorer.
        product = save_policy(trainer, run.folder, tokenizer)
        overoptimization.keep_best(product, run.is_writer)
        tokens = {"input": trainer.state.num_input_tokens_seen}
        run.finish(trainer, product, tokens=tokens, sandbox=sandbox_layers())
    if target is not None and run.is_writer:
        push_after_training(run.folder, target)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
