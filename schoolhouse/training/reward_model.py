"""Reward models before training: the SFT adapter's tensors in a new adapter, with a head at seeded random weights."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from schoolhouse.core.models import adapter_folder, weights_dtype
from schoolhouse.core.reward_models import last_logits
from schoolhouse.training.policy import lora_config


if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

    from schoolhouse.config.arguments import ModelArguments

HEAD = "score"


def load_reward_model(
    model_args: ModelArguments, training_args: TrainingArguments, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """
    Load the base as a one-label classifier with a new adapter to train; the head is saved with the adapter. The score
    of a text is read at its last attended token.

    peft loads a CAUSAL_LM adapter onto a classifier too, but leaves the head frozen and unsaved. So the adapter is
    new, of type SEQ_CLS and the same shape, and the SFT adapter's tensors are copied into it: the reward model starts
    from what SFT has learned. Only its head, one vector, starts at random.

    Without `adapter_name_or_path`, `use_peft` starts a new adapter; else every weight is trained. The `seed` of
    `training_args` decides the weights of the head and of a new adapter.

    Raises:
        `ValueError`: the base has no head named `score`, or the adapter's tensors do not fit.
    """
    from peft import get_peft_model
    from transformers import AutoModelForSequenceClassification, set_seed
    from trl import get_quantization_config
    from trl.trainer.reward_trainer import suppress_seqcls_warning

    model_args.dtype = weights_dtype(model_args, training_args)
    quantization = get_quantization_config(model_args)
    # No checkpoint of a base has a head, so its weights are drawn while the base loads. Without this seed two runs of
    # one recipe would differ; with other seeds the members of an ensemble do.
    set_seed(training_args.seed)
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
        model = _start_from(model, model_args.adapter_name_or_path)
    elif model_args.use_peft:
        model = get_peft_model(model, with_head(lora_config(model_args, tokenizer)))
    if model_args.use_peft:
        # peft adds every name that a head may have; the saved configuration names ours alone.
        model.peft_config["default"].modules_to_save = [HEAD]
    classifier = model.get_base_model() if hasattr(model, "get_base_model") else model
    classifier.forward = functools.partial(_forward, classifier)
    return model


def _forward(classifier: PreTrainedModel, input_ids: Any, attention_mask: Any, **kwargs: Any) -> Any:
    """Score at the last attended token, as in scoring. Where padding is EOS, the stock forward skips the EOS too."""
    from transformers.modeling_outputs import SequenceClassifierOutput

    return SequenceClassifierOutput(logits=last_logits(classifier, input_ids, attention_mask, **kwargs)[:, None])


def with_head(config: LoraConfig) -> LoraConfig:
    """Change a LoRA configuration, in place, to that of a classifier whose head is trained and saved."""
    config.task_type, config.inference_mode, config.modules_to_save = "SEQ_CLS", False, [HEAD]
    if config.trainable_token_indices:
        # A classifier has no output embeddings.
        inputs = {name: rows for name, rows in config.trainable_token_indices.items() if name != "lm_head"}
        config.trainable_token_indices = inputs or None
    return config


def _start_from(model: PreTrainedModel, adapter: str) -> PreTrainedModel:
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    folder = adapter_folder(adapter)
    config, tensors = PeftConfig.from_pretrained(folder), load_file(folder / "adapter_model.safetensors")
    if other := sorted({*(config.modules_to_save or ())} - {HEAD, "classifier"}):
        raise ValueError(f"{adapter} brings whole modules ({', '.join(other)}), which no reward model takes over")
    config.base_model_name_or_path = None
    model = get_peft_model(model, with_head(config))
    wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: tensor for name, tensor in tensors.items() if "lm_head" not in name.split(".")}
    head = {name for name in wanted if HEAD in name.split(".")}
    if odd := sorted((wanted.keys() ^ tensors.keys()) - head):
        raise ValueError(f"{adapter} does not fit the classifier: {odd[0]} is in one of the two only")
    set_peft_model_state_dict(model, wanted | tensors)
    return model
