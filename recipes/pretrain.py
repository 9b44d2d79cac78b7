"""Pretraining: the tiny base model from nothing, first its tokenizer, then a small Llama on plain text.

    accelerate launch --config_file accelerate_config.yaml recipes/pretrain.py \
        --config recipes/configs/tiny/pretrain.yaml

The product, in `model/` of the run folder, is a *base* model: it continues text and was never trained to answer. The
one that ships lies in `data/tiny/base` with its `run.json`. The same command again continues a run that was stopped.
"""

import random
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from transformers import TrainingArguments

from schoolhouse.config.arguments import ModelArguments, RecipeParser
from schoolhouse.data.tiny.corpus import EOS, SPELLED, UNKNOWN, cut, documents


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast


@dataclass
class PretrainArguments:
    """Size of the model and of its reading."""

    vocab_size: int = field(default=1024, metadata={"help": "Tokens in the vocabulary."})
    hidden_size: int = field(default=160, metadata={"help": "Width of the model."})
    intermediate_size: int = field(default=432, metadata={"help": "Width of the feed-forward layers."})
    num_hidden_layers: int = field(default=6, metadata={"help": "Number of layers."})
    num_attention_heads: int = field(default=5, metadata={"help": "Attention heads per layer."})
    max_position_embeddings: int = field(default=512, metadata={"help": "Longest context, in tokens."})
    num_documents: int = field(default=430_000, metadata={"help": "Documents of the tiny world to read."})
    block_size: int = field(default=192, metadata={"help": "Tokens per training sequence; documents are packed."})


def train_tokenizer(texts: list[str], vocab_size: int) -> "PreTrainedTokenizerFast":
    """A byte-pair tokenizer with one token per digit; what is not printable ASCII becomes the unknown token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    texts = [text.replace(EOS, "").encode("ascii", "ignore").decode() for text in texts]
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[EOS, UNKNOWN], show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, pad_token=EOS, unk_token=UNKNOWN)


def pack(texts: list[str], tokenizer: "PreTrainedTokenizerFast", block_size: int, seed: int) -> "Dataset":
    """Documents, each ended by EOS, as blocks of equal length; every token is a label, EOS too."""
    import numpy as np
    from datasets import Dataset

    rng, stream = random.Random(f"pack {seed}"), []
    for text in texts:
        pieces = cut(rng, text) if rng.random() < SPELLED else [text]
        for ids in tokenizer(pieces)["input_ids"]:
            stream += ids
        stream.append(tokenizer.eos_token_id)
    blocks = np.array(stream[: len(stream) // block_size * block_size]).reshape(-1, block_size)
    return Dataset.from_dict({"input_ids": blocks, "labels": blocks})


def main(argv: list[str] | None = None) -> int:
    parser = RecipeParser(
        (PretrainArguments, TrainingArguments),
        description=__doc__,
        required=("output_dir",),
        defaults={"resume_from_checkpoint": "auto"},
    )
    args, training_args = parser.parse_args(argv)
    if training_args.push_to_hub:
        parser.error("push_to_hub", "only an adapter on a base is pushed, and this recipe makes a base")

    import numpy as np
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, set_seed

    from schoolhouse.core.fingerprint import fingerprint
    from schoolhouse.core.run import Run
    from schoolhouse.data import DataSource
    from schoolhouse.training.callbacks import RunCallback, show_progress
    from schoolhouse.training.policy import save_policy

    set_seed(training_args.seed)
    texts = list(islice(documents("train", training_args.seed), args.num_documents))
    tokenizer = train_tokenizer(texts[:50_000], args.vocab_size)
    train = pack(texts, tokenizer, args.block_size, training_args.seed)
    test = pack(list(islice(documents("test", training_args.seed), 1_000)), tokenizer, args.block_size, seed=0)
    unread = set(range(len(tokenizer))) - set(np.unique(train.with_format("numpy")["input_ids"][:]).tolist())
    print(f"{len(train) * args.block_size:,} tokens to read, of a vocabulary of {len(tokenizer):,}")
    print(f"never read: {tokenizer.convert_ids_to_tokens(sorted(unread)) or 'none'}")
    if parser.check:
        print(f"first document: {texts[0]!r}")
        return 0

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden_size,
        intermediate_size=args.intermediate_size,
        num_hidden_layers=args.num_hidden_layers,
        num_attention_heads=args.num_attention_heads,
        num_key_value_heads=args.num_attention_heads,
        max_position_embeddings=args.max_position_embeddings,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    source = DataSource(
        role="train",
        name="tiny/corpus",
        location="generated",
        split="train",
        kind="text",
        rows=len(texts),
        used_rows=len(texts),
        sha256=fingerprint(train),
        license="Apache-2.0",
    )
    run = Run.open(__file__, parser, training_args, ModelArguments(use_peft=False), [source], tokenizer)
    with run:
        stop = RunCallback(run)
        trainer = Trainer(
            LlamaForCausalLM(config),
            training_args,
            train_dataset=train,
            eval_dataset=test,
            processing_class=tokenizer,
            callbacks=[stop],
        )
        show_progress(trainer, run)
        trainer.train(resume_from_checkpoint=run.checkpoint)
        if stop.stopped_by:
            run.interrupt(trainer)
            return 128 + stop.stopped_by
        product = save_policy(trainer, run.folder, tokenizer)
        tokens = round(len(train) * args.block_size * trainer.state.epoch)
        run.finish(trainer, product, tokens={"input": tokens, "trained": tokens}, final_evaluation=trainer.evaluate())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
