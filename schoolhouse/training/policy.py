"""Policies: a new LoRA adapter, a previous stage's adapter trained further, or a whole model; loading and saving."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schoolhouse.core.chat_templates import template_tokens
from schoolhouse.core.models import adapter_folder, load_tokenizer, weights_dtype


if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

    from schoolhouse.config.arguments import ModelArguments


def load_training_tokenizer(model_args: ModelArguments, training_args: TrainingArguments) -> PreTrainedTokenizerBase:
    """
    Load the tokenizer of a run: the continued adapter's if it has one, else the base model's, with a chat template.

    TRL's `chat_template_path` (a .jinja file) and `eos_token` are applied here, so that what is saved with the adapter
    is what was trained.

    Args:
        model_args (`ModelArguments`):
            Names of the model and of the adapter to continue.
        training_args ([`~transformers.TrainingArguments`]):
            `chat_template_path` and `eos_token`, where the stage has them.

    Returns:
        [`~transformers.PreTrainedTokenizerBase`]: a tokenizer with a chat template, an EOS and a pad token.

    Raises:
        `ValueError`: `eos_token` is not in the vocabulary, `chat_template_path` is not a .jinja file, or the model
        has neither a chat template nor the means for the fallback.
    """
    tokenizer = load_tokenizer(
        model_args.model_name_or_path, model_args.adapter_name_or_path, model_args.model_revision
    )
    if eos_token := getattr(training_args, "eos_token", None):
        if eos_token not in tokenizer.get_vocab():
            raise ValueError(f"eos_token: {eos_token!r} is not in the vocabulary of {model_args.model_name_or_path}")
        tokenizer.eos_token = eos_token
    if template := getattr(training_args, "chat_template_path", None):
        if not template.endswith((".jinja", ".j2")):
            # TRL would copy another tokenizer's template and add its tokens: that resizes the embeddings.
            raise ValueError(f"chat_template_path: {template} is not a .jinja file")
        tokenizer.chat_template = Path(template).read_text(encoding="utf-8")
        training_args.chat_template_path = None
    return tokenizer


def load_policy(
    model_args: ModelArguments,
    training_args: TrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
    answer_tokens: Sequence[int] = (),
) -> PreTrainedModel:
    """
    Load the base model and attach the adapter to train.

    Args:
        model_args (`ModelArguments`):
            `adapter_name_or_path` continues that adapter; else `use_peft` starts a new one with the `lora_*` options;
            else every weight is trained.
        training_args ([`~transformers.TrainingArguments`]):
            Its `seed` makes the new adapter's weights reproducible.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Tokenizer, whose template tokens and EOS `trainable_new_tokens` trains if the base never read them.
        answer_tokens (`Sequence[int]`, *optional*):
            Further such tokens.

    Returns:
        [`~peft.PeftModel`] or [`~transformers.PreTrainedModel`]: ready for any TRL trainer, without a `peft_config`.
    """
    from peft import PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, set_seed
    from trl import get_quantization_config

    model_args.dtype = weights_dtype(model_args, training_args)
    quantization = get_quantization_config(model_args)
    model = AutoModelForCausalLM.from_pretrained(
        model_args.model_name_or_path,
        revision=model_args.model_revision,
        dtype=model_args.dtype,
        attn_implementation=model_args.attn_implementation,
        quantization_config=quantization,
        device_map={"": training_args.device} if quantization is not None else None,
        use_safetensors=True,
    )
    set_seed(training_args.seed)
    if model_args.adapter_name_or_path is not None:
        from schoolhouse.core.adapter_checks import check_adapter

        folder = adapter_folder(model_args.adapter_name_or_path)
        check_adapter(folder, model)
        model = PeftModel.from_pretrained(model, folder, is_trainable=True)
    elif model_args.use_peft:
        model = get_peft_model(model, lora_config(model_args, tokenizer, answer_tokens))
    head = model.get_output_embeddings()
    if not hasattr(head, "bias"):
        # TRL's fused loss reads `lm_head.bias`, which peft's wrapper of trained rows does not pass on.
        head.bias = None
    return model


def lora_config(
    model_args: ModelArguments, tokenizer: PreTrainedTokenizerBase, answer_tokens: Sequence[int] = ()
) -> LoraConfig:
    """
    Return the peft configuration of a new adapter. With `trainable_new_tokens`, its `trainable_token_indices` are
    those tokens of the template and of `answer_tokens` that the base never read.
    """
    from trl import get_peft_config

    config = get_peft_config(model_args)
    if isinstance(config.target_modules, str) and config.target_modules.isidentifier():
        # TRL makes text of a list of one name, and peft takes text for a pattern of the whole path.
        config.target_modules = {config.target_modules}
    config.revision = model_args.model_revision if model_args.model_revision != "main" else None
    if model_args.trainable_new_tokens:
        from schoolhouse.training.untrained_tokens import EmbeddingRows

        weights = EmbeddingRows.find(model_args.model_name_or_path, model_args.model_revision)
        needed = sorted({*template_tokens(tokenizer), *answer_tokens})
        unread = weights.untrained(needed) if weights is not None else []
        if unread:
            config.trainable_token_indices = dict.fromkeys(weights.modules, unread)
    return config


def save_policy(
    trainer: Trainer,
    run: Path,
    tokenizer: PreTrainedTokenizerBase,
    name: str | None = None,
    files: dict[str, Any] | None = None,
) -> Path:
    """
    Save a run's product. Call it on every process, as sharded weights are gathered from all.

    Args:
        trainer ([`~transformers.Trainer`]):
            Trainer after training.
        run (`Path`):
            Run folder.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Tokenizer, saved with its chat template.
        name (`str`, *optional*):
            Name of the folder in `run`; by default `adapter`, or `model` where every weight was trained.
        files (`dict[str, Any]`, *optional*):
            JSON files that belong to the product, by name.

    Returns:
        `Path`: the folder.
    """
    from accelerate.utils import is_peft_model

    state = None
    if trainer.is_fsdp_enabled:
        state = trainer.accelerator.get_state_dict(trainer.model)
    elif trainer.is_deepspeed_enabled:
        state = trainer.accelerator.get_state_dict(trainer.deepspeed)
    model = trainer.accelerator.unwrap_model(trainer.model)
    folder = run / (name or ("adapter" if is_peft_model(model) else "model"))
    if trainer.is_world_process_zero():
        save_adapter(model, folder, tokenizer, state_dict=state, files=files)
    trainer.accelerator.wait_for_everyone()
    return folder


def save_adapter(
    model: PreTrainedModel,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    state_dict: dict[str, Tensor] | None = None,
    files: dict[str, Any] | None = None,
) -> None:
    """
    Save one adapter (of a whole model: the model), the tokenizer, and JSON `files` by name. The folder is replaced if
    it exists; it appears complete or not at all.

    Only the adapter "default" is saved, not a trainer's reference copy. `state_dict` holds gathered weights, where the
    model's own are sharded.
    """
    from accelerate.utils import is_peft_model

    with _complete_or_absent(folder) as part:
        if is_peft_model(model):
            # Embeddings are never resized, so none need saving; "auto" would ask the Hub whether they were.
            model.save_pretrained(
                part, selected_adapters=["default"], save_embedding_layers=False, state_dict=state_dict
            )
            (part / "README.md").unlink(missing_ok=True)  # peft's empty form
            config_file = part / "adapter_config.json"
            config = json.loads(config_file.read_text())
            if isinstance(config["target_modules"], list):
                config["target_modules"].sort()  # peft keeps a set, whose order changes from run to run
            config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        else:
            model.save_pretrained(part, state_dict=state_dict)
        tokenizer.save_pretrained(part)
        for name, value in (files or {}).items():
            (part / name).write_text(json.dumps(value, indent=2) + "\n")


@contextmanager
def _complete_or_absent(folder: Path) -> Iterator[Path]:
    part, old = folder.with_name(folder.name + ".part"), folder.with_name(folder.name + ".old")
    for leftover in (part, old):
        shutil.rmtree(leftover, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
