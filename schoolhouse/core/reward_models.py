"""Loading and scores of reward models: the same code serves their training, rewards and evaluations."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schoolhouse.core.adapter_checks import check_adapter, check_chat_template
from schoolhouse.core.chat_templates import Message
from schoolhouse.core.files import load_object
from schoolhouse.core.models import adapter_folder, adapter_hash, model_hash, native_dtype


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STATISTICS = "reward_statistics.json"


def member_folders(model: str) -> list[str]:
    """
    Return the sub-folders `0`, `1`, ... of an ensemble's folder `members` in this order, otherwise `model` alone.
    """
    folder = Path(model)
    if folder.is_dir() and not any((folder / name).is_file() for name in ("adapter_config.json", "config.json")):
        members = [path for path in folder.iterdir() if path.name.isdigit()]
        return [str(path) for path in sorted(members, key=lambda path: int(path.name))] or [model]
    return [model]


def load_scorer(
    model: str,
    base: str | PreTrainedModel | None = None,
    dtype: str | None = None,
    device: str | None = None,
    revision: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    Load a reward model, or all members of an ensemble on one base.

    Args:
        model (`str`):
            Folder of a reward adapter or of an ensemble's `members`; or Hub id or folder of a classifier with one
            label.
        base (`str` or [`~transformers.PreTrainedModel`], *optional*):
            Base of an adapter, if it is elsewhere than the adapter says; or a classifier with one label in memory,
            whose tensors may be shared with other models. The adapters are added to it, in place.
        dtype (`str`, *optional*):
            Precision of the base; by default that of [`~schoolhouse.core.models.native_dtype`].
        device (`str`, *optional*):
            Torch device; by default accelerate's. A classifier in memory stays on its device.
        revision (`str`, *optional*):
            Branch, tag or commit of a base on the Hub.

    Returns:
        `tuple[PreTrainedModel, PreTrainedTokenizerBase]`: the frozen classifier in evaluation mode, with a peft
        adapter for each member, and the tokenizer.

    Raises:
        ValueError: If the folder is no reward model, or has no weights of the head.
    """
    import torch
    from accelerate import PartialState
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl.trainer.reward_trainer import suppress_seqcls_warning

    folders = member_folders(model)
    tokenizer = AutoTokenizer.from_pretrained(folders[0], padding_side="right", trust_remote_code=False)
    check_chat_template(tokenizer)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    adapters = [validate_task_type(folder, "SEQ_CLS") for folder in folders] if is_adapter(folders[0]) else []
    if base is None:
        base = PeftConfig.from_pretrained(adapters[0]).base_model_name_or_path if adapters else model
    if isinstance(base, str):
        device = str(device or PartialState().device)
        # An adapter brings the head, so transformers' warning of a missing one is wrong; otherwise it is an error.
        with suppress_seqcls_warning() if adapters else contextlib.nullcontext():
            loaded, loading = AutoModelForSequenceClassification.from_pretrained(
                base,
                revision=revision,
                dtype=getattr(torch, dtype) if dtype else native_dtype(device),
                num_labels=1,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        if not adapters and loading["missing_keys"]:
            raise ValueError(
                f"{model} is no reward model: it has no weights for {sorted(loading['missing_keys'])[0]}; pairs are "
                "scored by what recipes/reward.py trained"
            )
        base = loaded.to(device)
    # Each member is one adapter on the same base; `score_ids` switches between them.
    scorer: Any = base
    for number, folder in enumerate(adapters):
        check_adapter(Path(folder), scorer)
        name = str(number) if len(adapters) > 1 else "default"
        if number:
            scorer.load_adapter(folder, adapter_name=name)
        else:
            scorer = PeftModel.from_pretrained(scorer, folder, adapter_name=name)
    return scorer.eval().requires_grad_(False), tokenizer


def scorer_hash(model: str) -> str:
    """
    Hash of a reward model, which depends on its content and not on its place; for an ensemble the SHA-256 of the
    hashes of its members.
    """
    folders = member_folders(model)
    hashes = [adapter_hash(folder) if is_adapter(folder) else model_hash(folder) for folder in folders]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def is_adapter(model: str) -> bool:
    """Check if a name stands for an adapter: a folder with `adapter_config.json`, or a Hub repository with one."""
    if Path(model).is_dir():
        return (Path(model) / "adapter_config.json").is_file()
    from transformers.utils import cached_file

    return cached_file(model, "adapter_config.json", _raise_exceptions_for_missing_entries=False) is not None


def validate_task_type(adapter: str, task: str) -> str:
    """
    Return the local folder of an adapter for a task. A reward adapter must have its head, or it would score at random.

    Args:
        task (`str`):
            peft's name of the task: `"SEQ_CLS"` for reward models, `"CAUSAL_LM"` for language models.

    Raises:
        ValueError: If it is an adapter for another task, or the weights of the head are missing.
    """
    from safetensors import safe_open

    folder = adapter_folder(adapter)
    actual = load_object(folder / "adapter_config.json").get("task_type")
    if actual != task and "SEQ_CLS" in (actual, task):
        wanted = "a reward model, as recipes/reward.py makes one" if task == "SEQ_CLS" else "a language model"
        raise ValueError(f"{adapter} is an adapter for {actual}: name {wanted} ({task})")
    if task != "SEQ_CLS":
        return str(folder)
    with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
        if not any("score" in name.split(".") for name in weights.offset_keys()):
            raise ValueError(f"{adapter} was saved without its head `score`, so it would score at random")
    return str(folder)


def load_statistics(model: str) -> dict[str, float]:
    """
    Return the mean, standard deviation and number (`mean`, `sd`, `n`) of a reward model's raw scores on its reference
    samples.

    Raises:
        ValueError: If there are none, or the scores had no spread.
    """
    from transformers.utils import cached_file

    path = cached_file(model, STATISTICS, _raise_exceptions_for_missing_entries=False)
    if path is None:
        raise ValueError(f"{model} has no {STATISTICS}, so its scores have no known scale: set normalize: false")
    statistics = load_object(Path(path), finite=True)
    if not all(
        isinstance(value, int | float) and math.isfinite(value) for value in map(statistics.get, ("mean", "sd"))
    ):
        raise ValueError(f"{path} needs the numbers mean and sd: train the reward model again")
    if not statistics["sd"] > 0:
        raise ValueError(f"{model}: its scores on the reference samples do not differ, so it prefers nothing")
    return statistics


def conversation_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: str | list[Message], answer: str | list[Message]
) -> list[int]:
    """
    Tokenize a prompt and an answer, texts or messages, exactly as TRL's `RewardTrainer` does.

    The chat template ends the last message, so a reward model cannot see that it was cut; EOS is added to plain text.
    Messages without a chat template are a `ValueError`.
    """
    if isinstance(prompt, str):
        text = f"{prompt}{answer}"
        return tokenizer(text if text.endswith(tokenizer.eos_token) else text + tokenizer.eos_token)["input_ids"]
    if tokenizer.chat_template is None:
        raise ValueError(
            f"reward model {tokenizer.name_or_path} has no chat template for prompts that are messages: "
            "copy the chat_template.jinja of its training into its folder, or use prompts that are text"
        )
    text = str(tokenizer.apply_chat_template([*prompt, *answer], tokenize=False))
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def score_ids(
    scorer: PreTrainedModel, rows: Sequence[Sequence[int]], batch_size: int = 32, pad_token_id: int = 0
) -> torch.Tensor:
    """
    Return the raw scores of token sequences by each member of an ensemble.

    Args:
        rows (`Sequence[Sequence[int]]`):
            Token ids, none empty. Sequences of similar length share a batch.
        batch_size (`int`, *optional*, defaults to `32`):
            Sequences scored at once.
        pad_token_id (`int`, *optional*, defaults to `0`):
            Token on the right; any will do, since the mask marks padding.

    Returns:
        `torch.Tensor` of shape `(members, B)`: in fp32 on the CPU.
    """
    import torch

    members = list(getattr(scorer, "peft_config", {"": None}))
    ensemble: Any = scorer
    scores = torch.empty(len(members), len(rows))
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        width = len(rows[chosen[-1]])
        ids = torch.full((len(chosen), width), pad_token_id)
        mask = torch.zeros_like(ids)
        for line, index in enumerate(chosen):
            ids[line, : len(rows[index])] = torch.tensor(rows[index])
            mask[line, : len(rows[index])] = 1
        for number, member in enumerate(members):
            if len(members) > 1:
                ensemble.set_adapter(member, inference_mode=True)
            with torch.inference_mode():
                values = last_logits(scorer, ids.to(scorer.device), mask.to(scorer.device))
            scores[number, chosen] = values.float().cpu()
    return scores


def last_logits(
    scorer: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any
) -> torch.Tensor:
    """
    Return the scores at the last attended token, `(B,)`, in the precision of the head.

    The classifier's own forward looks for the last token that is no padding *by its id*. If padding is EOS, it would
    skip the EOS that ends an answer.

    Args:
        scorer ([`~transformers.PreTrainedModel`]):
            Sequence classifier with one label and a head named `score`, with or without adapters.
        input_ids (`torch.Tensor`), attention_mask (`torch.Tensor`):
            Tokens padded on the right, and 0 on padding; both `(B, T)`.
        **kwargs (`Any`):
            Passed to the model without its head.
    """
    import torch

    model: Any = scorer.get_base_model() if hasattr(scorer, "get_base_model") else scorer  # type: ignore[operator]
    hidden = model.base_model(input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state
    last = attention_mask.sum(dim=1) - 1
    hidden = hidden[torch.arange(len(last), device=hidden.device), last]
    return model.score(hidden.to(model.score.weight.dtype))[:, 0]
