"""Reward model: pairs of a preferred and a rejected answer in, a LoRA adapter with a scoring head out.

    accelerate launch --config_file accelerate_config.yaml recipes/reward.py --config recipes/configs/tiny/reward.yaml

Every key of the YAML can be overridden (`--learning_rate 1e-4`), and `--check` shows the pairs and what is left out of
them without loading the model. `adapter_name_or_path` is the SFT adapter to begin with: its tensors are copied into a
new adapter of the same shape. The product loads with plain peft onto the base as a one-label classifier and brings the
scale of its scores in `reward_statistics.json`. With `num_members` above 1 an ensemble is trained, its members one
after the other, in `members/0`, `members/1`, ... The run folder and what happens to a stopped run are as in
`recipes/sft.py`.
"""

from dataclasses import dataclass, field

from trl import RewardConfig

from schoolhouse.config.arguments import DataArguments, ModelArguments, RecipeParser


@dataclass
class PreferenceArguments:
    """
    Reward models to train on the pairs.

    Args:
        num_members (`int`, *optional*, defaults to `1`):
            Number of reward models, with `seed`, `seed + 1`, ...: they differ in head and in the order of the data.
        head_learning_rate (`float`, *optional*):
            Learning rate of the head, which starts at random weights; `learning_rate` by default.
        use_margin (`bool`, *optional*, defaults to `False`):
            Train for a difference of scores of at least the data's `margin`.
    """

    num_members: int = field(default=1, metadata={"help": "Reward models to train, on seed, seed + 1, ..."})
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the head, which starts at random weights."}
    )
    use_margin: bool = field(default=False, metadata={"help": "Train for a difference of at least the data's margin."})


def recipe_parser() -> RecipeParser:
    """Parser of the recipe's keys; a pipeline reads it to check them before its first stage."""
    return RecipeParser(
        (DataArguments, PreferenceArguments, RewardConfig, ModelArguments),
        description=__doc__,
        required=("model_name_or_path", "output_dir"),
        defaults={"resume_from_checkpoint": "auto"},
    )


def main(argv: list[str] | None = None) -> int:
    parser = recipe_parser()
    data_args, preference_args, training_args, model_args = parser.parse_args(argv)
    training_args.remove_unused_columns = False  # the rows have none, and sampling by length reads `length`

    from transformers import set_seed

    from schoolhouse.core.run import Run
    from schoolhouse.data import load_training_data
    from schoolhouse.training.callbacks import RunCallback, show_progress
    from schoolhouse.training.checks import config_errors, in_chat_template, validate_evaluation, validate_pairs
    from schoolhouse.training.pairs import encode_pairs
    from schoolhouse.training.policy import load_training_tokenizer, save_policy
    from schoolhouse.training.reward import RewardTrainer, open_members, reference_statistics
    from schoolhouse.training.reward_model import load_reward_model

    # 1. Pairs, tokenized; those without a preference are counted and left out. Mistakes end here, before weights load.
    set_seed(training_args.seed)
    with config_errors(parser, "dataset_name", "datasets", "dataset_path"):
        data = load_training_data(data_args, training_args.seed, kinds=("preference",))
    with config_errors(parser, "model_name_or_path"):
        tokenizer = load_training_tokenizer(model_args, training_args)
    data = in_chat_template(parser, data, tokenizer, data_args.conversational)
    validate_evaluation(parser, training_args, data)
    pairs = encode_pairs(data.train, tokenizer, training_args, preference_args.use_margin)
    validate_pairs(parser, training_args, pairs, preference_args.num_members)
    if parser.check:
        from schoolhouse.training.dry_run import dry_run_reward

        dry_run_reward(training_args, model_args, data, tokenizer, pairs, preference_args.num_members)
        return 0
    print(pairs)
    test = encode_pairs(data.test, tokenizer, training_args, preference_args.use_margin) if data.test else None

    # 2. The run folder: a new run, or one to be resumed.
    target = None
    if training_args.push_to_hub:
        from schoolhouse.hub.push import prepare_push, push_after_training

        with config_errors(parser, "push_to_hub"):
            target = prepare_push(training_args, model_args.model_name_or_path)
    with config_errors(parser, "model_name_or_path"):
        run = Run.open(__file__, parser, training_args, model_args, data.sources, tokenizer)
    with run:
        run.save(pairs=pairs.account, test_pairs=test and test.account)
        for member in open_members(run, training_args, preference_args.num_members):
            # 3. The base as a classifier with one label: the SFT adapter's tensors in a new adapter, and a head, a
            #    vector at random weights. The score of a text is head · hidden state of its last token. The head's
            #    seed is the member's, so a run can be repeated and the members of an ensemble differ.
            stop = RunCallback(run)
            with config_errors(parser, "adapter_name_or_path", "model_name_or_path"):
                model = load_reward_model(model_args, member.training_args, tokenizer)
            trainer = RewardTrainer(
                model,
                args=member.training_args,
                train_dataset=pairs.rows,
                eval_dataset=test.rows if training_args.eval_strategy != "no" else None,
                processing_class=tokenizer,
                callbacks=[stop],
                head_learning_rate=preference_args.head_learning_rate,
            )
            show_progress(trainer, run)

            # 4. Train: -log σ(score(chosen) - score(rejected)), the negative log-likelihood of the preference under
            #    the model of Bradley and Terry. Only differences of scores enter.
            trainer.train(resume_from_checkpoint=member.checkpoint)
            if stop.stopped_by:
                run.interrupt(trainer)
                return 128 + stop.stopped_by

            # 5. So level and scale of the scores are arbitrary. Mean and deviation on reference texts are saved with
            #    the adapter: rewards of different models, and of the members of an ensemble, become comparable.
            statistics = reference_statistics(trainer, (test or pairs).rows)
            product = save_policy(trainer, run.folder, tokenizer, member.name, {"reward_statistics.json": statistics})
        run.finish(trainer, product.parent if product.parent.name == "members" else product)
    if target is not None and run.is_writer:
        push_after_training(run.folder, target)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
