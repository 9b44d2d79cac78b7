"""Estimate of a run's memory, from the model's config alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schoolhouse.core.models import adapter_folder, weights_dtype
from schoolhouse.training.policy import lora_config


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

    from schoolhouse.config.arguments import ModelArguments

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass
class MemoryEstimate:
    """Parameter counts and peak bytes of one process."""

    parameters: int  # of the base model
    trained: int  # parameters that get gradients
    weights: int  # bytes of all weights
    optimizer: int  # bytes of gradients and optimizer state
    activations: int  # bytes that the longest micro-batch keeps for the backward pass

    @property
    def total(self) -> int:
        """Bytes of everything that grows with the model; Python, libraries and a CUDA context come on top."""
        return self.weights + self.optimizer + self.activations


def estimate_memory(
    model_args: ModelArguments,
    training_args: TrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
    tokens: int,
    answer_tokens: Sequence[int] = (),
) -> MemoryEstimate:
    """
    Estimate the peak memory of a training process. No weights are read: the model is built without storage.

    Activations of a Llama-like layer are counted from what autograd keeps per token: the inputs of norms, projections
    and the gated MLP (after Korthikanti et al., 2022, arXiv:2205.05198, without the attention matrix, which fused
    attention does not keep). With gradient checkpointing one vector per layer and token stays, and one layer at a time
    is recomputed.

    `tokens` are those of the largest micro-batch of one device, padding included; `answer_tokens` as for
    [`load_policy`].
    """
    model = _without_storage(model_args, tokenizer, answer_tokens)
    config = model.config.get_text_config()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    base_bytes = _BYTES[weights_dtype(model_args, training_args)]
    frozen_bytes = 0.56 if model_args.load_in_4bit else 1 if model_args.load_in_8bit else base_bytes
    is_full = trained == total
    trained_bytes = base_bytes if is_full else 4
    eight_bit = "8bit" in str(training_args.optim)
    state_bytes = trained_bytes + (2 if eight_bit else 2 * trained_bytes)  # gradient, two moments

    width = 2 if training_args.bf16 or training_args.fp16 else base_bytes
    hidden, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    per_layer = 8 * hidden + 4 * inner
    if model_args.use_peft and model_args.lora_dropout > 0:
        per_layer += 6 * hidden + inner  # each LoRA module keeps its own dropped-out input
    kept = per_layer * layers
    if training_args.gradient_checkpointing:
        kept = hidden * layers + per_layer
    # TRL computes the logits in tiles of at most 4,096 tokens by 32,768 words; about ten fp32 copies of a tile live at
    # once where there is no fused kernel.
    tile = min(tokens, 4096) * min(config.vocab_size, 32768)
    head = tile * (width if training_args.device.type == "cuda" else 40)
    return MemoryEstimate(
        parameters=total - (0 if is_full else trained),
        trained=trained,
        weights=int((total - trained) * frozen_bytes + trained * trained_bytes),
        optimizer=trained * state_bytes,
        activations=tokens * kept * width + head,
    )


def _without_storage(
    model_args: ModelArguments, tokenizer: PreTrainedTokenizerBase, answer_tokens: Sequence[int]
) -> PreTrainedModel:
    import torch
    from peft import PeftConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model_args.model_name_or_path, revision=model_args.model_revision)
    adapter = None
    if model_args.adapter_name_or_path is not None:
        adapter = PeftConfig.from_pretrained(adapter_folder(model_args.adapter_name_or_path))
        adapter.inference_mode = False
    elif model_args.use_peft:
        adapter = lora_config(model_args, tokenizer, answer_tokens)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        return model if adapter is None else get_peft_model(model, adapter)
