"""GRPO: practice problems with an answer key in, the same LoRA adapter out, further on.

    accelerate launch --config_file accelerate_config.yaml recipes/grpo.py --config recipes/configs/tiny/grpo_math.yaml

Every key of the YAML can be overridden (`--learning_rate 1e-4`). `--check` shows prompts, batches and rewards without
loading the model; `--preflight` samples the untrained policy, says what its rewards can teach it and what would fool
them, and stops. A run prints the same before its first step. With `beta` above 0 the reference is the adapter that
came in. The run folder is that of `recipes/sft.py`, and the same command again continues a run that was stopped: to
the very same weights where it stopped between two batches of samples.
"""

import contextlib
from dataclasses import dataclass, field

from trl import GRPOConfig

from schoolhouse.config.arguments import DataArguments, ModelArguments, RecipeParser, RewardArguments


@dataclass
class PreflightArguments(RewardArguments):
    """
    How answers are paid, and how that is looked at before training.

    Args:
        preflight (`bool`, *optional*, defaults to `False`):
            Sample the untrained policy, report, and stop.
        preflight_prompts (`int`, *optional*, defaults to `16`):
            Prompts that the report is drawn from; 0 for none.
    """

    preflight: bool = field(default=False, metadata={"help": "Sample the untrained policy, report, and stop."})
    preflight_prompts: int = field(default=16, metadata={"help": "Prompts that the preflight samples; 0 for none."})


def recipe_parser() -> RecipeParser:
    """The recipe's keys, which a pipeline checks before its first stage."""
    return RecipeParser(
        (DataArguments, PreflightArguments, GRPOConfig, ModelArguments),
        description=__doc__,
        required=("model_name_or_path", "output_dir", "rewards"),
        defaults={"resume_from_checkpoint": "auto"},
    )


def main(argv: list[str] | None = None) -> int:
    parser = recipe_parser()
    data_args, practice_args, training_args, model_args = parser.parse_args(argv)

    from transformers import set_seed

    from schoolhouse.core.run import Run
    from schoolhouse.data import load_training_data
    from schoolhouse.rewards import reward_models
    from schoolhouse.training.callbacks import RunCallback
    from schoolhouse.training.checks import config_errors, load_rewards, validate_grpo
    from schoolhouse.training.dry_run import dry_run_grpo
    from schoolhouse.training.grpo import GRPOTrainer
    from schoolhouse.training.policy import load_policy, load_training_tokenizer, save_policy
    from schoolhouse.training.preflight import preflight

    training = not practice_args.preflight
    if practice_args.preflight_prompts < (not training):
        parser.error("preflight_prompts", "must be at least 1 with --preflight")
    set_seed(training_args.seed)
    rewards = load_rewards(parser, practice_args.rewards, training_args)
    with config_errors(parser, "dataset_name", "datasets", "dataset_path"):
        data = load_training_data(data_args, training_args.seed, kinds=("prompt-only",))
    validate_grpo(parser, training_args, data.train, rewards)
    with config_errors(parser, "model_name_or_path"):
        tokenizer = load_training_tokenizer(model_args, training_args)
    if parser.check:
        dry_run_grpo(training_args, model_args, data, tokenizer, rewards)
        return 0

    target = None
    if training_args.push_to_hub:
        from schoolhouse.hub.push_after_training import prepare_push, push_after_training

        with config_errors(parser, "push_to_hub"):
            target = prepare_push(training_args, model_args.model_name_or_path)
    models = [reward.model for reward in reward_models(rewards)]
    with config_errors(parser, "model_name_or_path"):
        given = (__file__, parser, training_args, model_args, data.sources, tokenizer, models)
        run = Run.open(*given) if training else None
    with run or contextlib.nullcontext():
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
        if not training:
            preflight(parser, trainer, data.train, practice_args.preflight_prompts)
            return 0
        if practice_args.preflight_prompts and run.checkpoint is None:
            run.save(preflight=preflight(parser, trainer, data.train, practice_args.preflight_prompts))
        trainer.train(resume_from_checkpoint=run.checkpoint)
        if stop.stopped_by:
            run.interrupt(trainer)
            return 128 + stop.stopped_by
        product = save_policy(trainer, run.folder, tokenizer)
        run.finish(trainer, product, tokens={"input": trainer.state.num_input_tokens_seen})
    if target is not None and run.is_writer:
        push_after_training(run.folder, target)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
