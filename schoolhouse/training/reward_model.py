"""A reward model: the SFT adapter's tensors in a new adapter with a head, and the scale of its scores."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schoolhouse.core.models import adapter_folder
from schoolhouse.core.reward_models import last_logits
from schoolhouse.core.run import RunManifest, last_checkpoint
from schoolhouse.training.policy import lora_config, weights_dtype


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

HEAD = "score"
REFERENCE_PAIRS = 256


def load_reward_model(
    model_args: Any, training_args: TrainingArguments, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """
    The base as a one-label classifier with a new adapter to train, whose head goes where the adapter goes.

    peft loads a CAUSAL_LM adapter onto a classifier too, but leaves the head frozen and unsaved. Here the adapter is
    new, of the same shape, and the SFT adapter's tensors are copied into it.

    Args:
        model_args (`ModelArguments`):
            `adapter_name_or_path` is the adapter to begin with; else `use_peft` starts an empty one; else every weight
            is trained.
        training_args ([`~transformers.TrainingArguments`]):
            Its `seed` decides the head and the new adapter's weights.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Its chat template and EOS are tokens that `trainable_new_tokens` trains if the base never read them.

    Returns:
        [`~peft.PeftModel`] or [`~transformers.PreTrainedModel`]: reads the score at the last attended token.

    Raises:
        `ValueError`: the base has no head named `score`, or the adapter's tensors do not fit.
    """
    from peft import get_peft_model
    from transformers import AutoModelForSequenceClassification, set_seed
    from trl import get_quantization_config
    from trl.trainer.reward_trainer import suppress_seqcls_warning

    model_args.dtype = weights_dtype(model_args, training_args)
    quantization = get_quantization_config(model_args)
    set_seed(training_args.seed)  # the head is drawn while the base is read
    with suppress_seqcls_warning():
        model = AutoModelForSequenceClassification.from_pretrained(
            model_args.model_name_or_path,
            revision=model_args.model_revision,
            num_labels=1,
            dtype=model_args.dtype,
            attn_implementation=model_args.attn_implementation,
            quantization_config=quantization,
            device_map={"": training_args.device} if quantization is not None else None,
            use_safetensors=True,
        )
    if not hasattr(model, HEAD):
        raise ValueError(f"{model_args.model_name_or_path}: {type(model).__name__} has no head named {HEAD!r}")
    if model_args.adapter_name_or_path is not None:
        model = _begin_with(model, model_args.adapter_name_or_path)
    elif model_args.use_peft:
        config = lora_config(model_args, tokenizer)
        config.task_type = "SEQ_CLS"
        model = get_peft_model(model, _with_head(config))
    if model_args.use_peft:
        model.peft_config["default"].modules_to_save = [HEAD]  # peft adds every name that a head may have
    classifier = model.get_base_model() if hasattr(model, "get_base_model") else model
    classifier.forward = functools.partial(_forward, classifier)
    return model


def _forward(classifier: PreTrainedModel, input_ids: Any, attention_mask: Any, **kwargs: Any) -> Any:
    """Training reads the same token as scoring; the stock forward passes over EOS where padding is EOS."""
    from transformers.modeling_outputs import SequenceClassifierOutput

    return SequenceClassifierOutput(logits=last_logits(classifier, input_ids, attention_mask, **kwargs)[:, None])


def _with_head(config: Any) -> Any:
    config.modules_to_save = [HEAD]
    if config.trainable_token_indices:
        # A classifier has no output embeddings.
        inputs = {name: rows for name, rows in config.trainable_token_indices.items() if name != "lm_head"}
        config.trainable_token_indices = inputs or None
    return config


def _begin_with(model: PreTrainedModel, adapter: str) -> PreTrainedModel:
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    folder = adapter_folder(adapter)
    config, tensors = PeftConfig.from_pretrained(folder), load_file(folder / "adapter_model.safetensors")
    if other := sorted({*(config.modules_to_save or ())} - {HEAD, "classifier"}):
        raise ValueError(f"{adapter} brings whole modules ({', '.join(other)}), which no reward model takes over")
    config.task_type, config.inference_mode, config.base_model_name_or_path = "SEQ_CLS", False, None
    model = get_peft_model(model, _with_head(config))
    wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: tensor for name, tensor in tensors.items() if "lm_head" not in name.split(".")}
    head = {name for name in wanted if HEAD in name.split(".")}
    if odd := sorted((wanted.keys() ^ tensors.keys()) - head):
        raise ValueError(f"{adapter} does not fit the classifier: {odd[0]} is in one of the two only")
    set_peft_model_state_dict(model, wanted | tensors)
    return model


@dataclass(frozen=True)
class Member:
    """
    One reward model of a run.

    Args:
        name (`str` or `None`):
            Its folder in the run folder; `None` for the usual one.
        training_args ([`~transformers.TrainingArguments`]):
            With its own seed and its own folder of checkpoints.
        checkpoint (`str` or `None`):
            Where to go on.
    """

    name: str | None
    training_args: TrainingArguments
    checkpoint: str | None


def begin_members(record: RunManifest, training_args: TrainingArguments, num_members: int) -> Iterator[Member]:
    """
    The reward models that are still to be trained, in turn: a run that goes on keeps the members it has finished.

    Args:
        record ([`RunManifest`]):
            Of the run.
        training_args ([`~transformers.TrainingArguments`]):
            Of the first member; the k-th has `seed + k`.
        num_members (`int`):
            1 for a single reward model.

    Yields:
        [`Member`]
    """
    if num_members == 1:
        yield Member(None, training_args, record.checkpoint)
        return
    for number in range(num_members):
        name, last = f"members/{number}", number == num_members - 1
        if record.is_resumable and (record.folder / name).is_dir() and not last:
            continue
        args = copy.copy(training_args)
        args.seed += number
        args.data_seed = None if args.data_seed is None else args.data_seed + number
        args.output_dir = str(Path(training_args.output_dir) / f"member-{number}")
        found = last_checkpoint(Path(args.output_dir)) if record.is_resumable else None
        yield Member(name, args, None if found is None else str(found))


def reference_statistics(trainer: Trainer, pairs: Dataset) -> dict[str, float]:
    """
    The scale of a reward model's scores, by which rewards of different models become comparable.

    To be called on every process: each scores the same texts, which sharded weights need.

    Args:
        trainer ([`~transformers.Trainer`]):
            Trainer that has trained.
        pairs (`datasets.Dataset`):
            With `chosen_ids` and `rejected_ids`; both sides of up to 256 pairs from the top are scored.

    Returns:
        `dict`: `mean`, `sd` (of the sample) and `n`.
    """
    import torch

    pairs = pairs.select(range(min(REFERENCE_PAIRS, len(pairs))))
    trainer.model_wrapped.eval()
    scores = []
    for start in range(0, len(pairs), trainer.args.eval_batch_size):
        rows = pairs.select_columns(["chosen_ids", "rejected_ids"]).skip(start).take(trainer.args.eval_batch_size)
        batch = {name: tensor.to(trainer.args.device) for name, tensor in trainer.data_collator(list(rows)).items()}
        with torch.no_grad(), trainer.compute_loss_context_manager():
            scores.append(trainer.model_wrapped(**batch, use_cache=False).logits[:, 0].double().cpu())
    scores = torch.cat(scores)
    return {"mean": scores.mean().item(), "sd": scores.std().item(), "n": len(scores)}
