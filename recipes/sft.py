"""Supervised fine-tuning: worked examples in, one LoRA adapter out.

    accelerate launch --config_file accelerate_config.yaml recipes/sft.py --config recipes/configs/tiny/sft.yaml

Every key of the YAML can be overridden (`--learning_rate 1e-4`), and `--check` shows what would be trained without
loading the model. The run folder `output_dir` gets the product in `adapter/` (`model/` with `use_peft: false`), the
manifest in `run.json`, and trainer state in `checkpoints/`. The same command again continues a run that was stopped
and repeats one that was finished; with more `num_train_epochs` or `max_steps` it trains that one further. Keys that
change no weight, such as `logging_steps`, may differ; with other keys the folder is refused, and
`--resume_from_checkpoint null` overwrites what it holds.
"""

import warnings
from collections.abc import Sequence

from trl import SFTConfig

from schoolhouse.config.arguments import DataArguments, ModelArguments, RecipeParser


def recipe_parser() -> RecipeParser:
    """Parser of the recipe's keys; a pipeline reads it to check them before its first stage."""
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
    from schoolhouse.training.callbacks import RunCallback, show_progress
    from schoolhouse.training.checks import (
        config_errors,
        default_to_assistant_loss,
        in_chat_template,
        validate_evaluation,
        validate_sft,
    )
    from schoolhouse.training.policy import load_policy, load_training_tokenizer, save_policy
    from schoolhouse.training.sft import SFTTrainer

    # 1. Data in TRL's columns, and a tokenizer with a chat template. Mistakes end here, before weights load.
    set_seed(training_args.seed)
    with config_errors(parser, "dataset_name", "datasets", "dataset_path"):
        data = load_training_data(data_args, training_args.seed, kinds=("messages", "prompt-completion", "text"))
    with config_errors(parser, "model_name_or_path"):
        tokenizer = load_training_tokenizer(model_args, training_args)
    data = in_chat_template(parser, data, tokenizer, data_args.conversational)
    default_to_assistant_loss(parser, training_args, data.train, tokenizer)
    validate_sft(parser, training_args, data.train)
    validate_evaluation(parser, training_args, data)
    if parser.check:
        from schoolhouse.training.dry_run import dry_run_sft

        dry_run_sft(parser, training_args, model_args, data, tokenizer)
        return 0

    # 2. Loss mask. All tokens of a row are read, but only some are targets of the loss; the labels of the others are
    #    -100. With prompt and completion these are the completion's tokens. With messages all tokens are, unless
    #    `assistant_only_loss` asks for the answers alone: then the template must mark where an answer begins and ends.
    masking_tokenizer = tokenizer
    if training_args.assistant_only_loss:
        with config_errors(parser, "assistant_only_loss"):
            masking_tokenizer = training_tokenizer(tokenizer)
    # Rows of the embeddings that pretraining never touched are random. Those that the answers need can be trained too.
    needed: Sequence[int] = ()
    if model_args.trainable_new_tokens:
        from schoolhouse.training.loss_mask import answer_tokens

        needed = answer_tokens(data.train, tokenizer, training_args)

    # 3. The run folder: a new run, or one to be resumed.
    target = None
    if training_args.push_to_hub:
        from schoolhouse.hub.push import prepare_push, push_after_training

        with config_errors(parser, "push_to_hub"):
            target = prepare_push(training_args, model_args.model_name_or_path)
    with config_errors(parser, "model_name_or_path"):
        run = Run.open(__file__, parser, training_args, model_args, data.sources, tokenizer)
    with run:
        # 4. The base with an adapter, and TRL's trainer. It tokenizes, masks and truncates the rows. With `packing` it
        #    joins rows to sequences of `max_length`, so that nearly no padding is computed; position ids start anew
        #    with each row.
        stop = RunCallback(run)
        with config_errors(parser):
            trainer = SFTTrainer(
                load_policy(model_args, training_args, tokenizer, needed),
                args=training_args,
                train_dataset=data.train,
                eval_dataset=data.test if training_args.eval_strategy != "no" else None,
                processing_class=masking_tokenizer,
                callbacks=[stop],
            )
        show_progress(trainer, run)
        if dropped := trainer.dropped_rows.get("train", 0):
            warnings.warn(f"{dropped} rows keep no trained token within max_length and are left out", stacklevel=1)

        # 5. Train: cross-entropy of the next token, averaged over the targets of a batch.
        trainer.train(resume_from_checkpoint=run.checkpoint)
        if stop.stopped_by:
            run.interrupt(trainer)
            return 128 + stop.stopped_by

        # 6. Save the adapter alone: it loads with `PeftModel.from_pretrained(base, "…/adapter")`.
        product = save_policy(trainer, run.folder, tokenizer)
        run.finish(trainer, product, tokens=tokens_trained(trainer), dropped_rows=dropped)
    if target is not None and run.is_writer:
        push_after_training(run.folder, target)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
