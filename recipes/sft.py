"""Supervised fine-tuning: worked examples in, one LoRA adapter out.

    accelerate launch --config_file accelerate_config.yaml recipes/sft.py --config recipes/configs/tiny/sft.yaml

Every key of the YAML can be overridden (`--learning_rate 1e-4`), and `--check` shows what would be trained without
loading the model. The run folder `output_dir` gets the product in `adapter/` (`model/` with `use_peft: false`), the
record in `run.json`, and trainer state in `checkpoints/`. The same command again continues a run that was stopped and
repeats one that was finished; `--resume_from_checkpoint null` starts anew.
"""

import warnings

from trl import SFTConfig

from schoolhouse.config.arguments import DataArguments, ModelArguments, RecipeParser


def recipe_parser() -> RecipeParser:
    """The recipe's keys, which a pipeline checks before its first stage."""
    return RecipeParser(
        (DataArguments, SFTConfig, ModelArguments),
        description=__doc__,
        required=("model_name_or_path", "output_dir"),
        defaults={"resume_from_checkpoint": "auto"},
    )


def main(argv: list[str] | None = None) -> int:
    parser = recipe_parser()
    data_args, training_args, model_args = parser.parse_args(argv)

    from transformers import set_seed

    from schoolhouse.core.chat_templates import training_tokenizer
    from schoolhouse.core.run import Run, tokens_trained
    from schoolhouse.data import load_training_data
    from schoolhouse.training.callbacks import RunCallback
    from schoolhouse.training.checks import config_errors, validate_sft
    from schoolhouse.training.dry_run import dry_run_sft
    from schoolhouse.training.loss_mask import answer_tokens
    from schoolhouse.training.policy import load_policy, load_training_tokenizer, save_policy
    from schoolhouse.training.sft import SFTTrainer

    set_seed(training_args.seed)
    with config_errors(parser, "dataset_name", "datasets", "dataset_path"):
        data = load_training_data(data_args, training_args.seed, kinds=("messages", "prompt-completion", "text"))
    with config_errors(parser, "model_name_or_path"):
        tokenizer = load_training_tokenizer(model_args, training_args)
    validate_sft(parser, training_args, data.train)
    if parser.check:
        dry_run_sft(parser, training_args, model_args, data, tokenizer)
        return 0
    marked = tokenizer
    if training_args.assistant_only_loss:
        with config_errors(parser, "assistant_only_loss"):
            marked = training_tokenizer(tokenizer)

    target = None
    if training_args.push_to_hub:
        from schoolhouse.hub.push_after_training import prepare_push, push_after_training

        with config_errors(parser, "push_to_hub"):
            target = prepare_push(training_args, model_args.model_name_or_path)
    with config_errors(parser, "model_name_or_path"):
        run = Run.open(__file__, parser, training_args, model_args, data.sources, tokenizer)
    with run:
        stop = RunCallback(run)
        needed = answer_tokens(data.train, tokenizer, training_args) if model_args.trainable_new_tokens else ()
        trainer = SFTTrainer(
            load_policy(model_args, training_args, tokenizer, needed),
            args=training_args,
            train_dataset=data.train,
            eval_dataset=data.test if training_args.eval_strategy != "no" else None,
            processing_class=marked,
            callbacks=[stop],
        )
        dropped = 0 if training_args.packing else len(data.train) - len(trainer.train_dataset)
        if dropped:
            warnings.warn(f"{dropped} rows keep no trained token within max_length and are left out", stacklevel=1)
        trainer.train(resume_from_checkpoint=run.checkpoint)
        if stop.stopped_by:
            run.interrupt(trainer)
            return 128 + stop.stopped_by
        product = save_policy(trainer, run.folder, tokenizer)
        run.finish(trainer, product, tokens=tokens_trained(trainer), dropped_rows=dropped)
    if target is not None and run.is_writer:
        push_after_training(run.folder, target)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
