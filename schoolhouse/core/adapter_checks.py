"""Adapters of unknown origin, checked before peft and transformers read them: nothing in them may run without end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schoolhouse.core import untrusted_worker
from schoolhouse.core.files import load_object


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_Rank = Annotated[int, Field(ge=1, le=4096)]  # a larger one would fill memory before its weights are looked at
_Number = int | float
_PATTERNS = ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern", "rank_pattern", "alpha_pattern")


class _AdapterConfig(BaseModel):
    """Types of what peft takes from adapter_config.json without looking at it."""

    model_config = ConfigDict(strict=True)

    peft_type: str | None = None
    task_type: str | None = None
    base_model_name_or_path: str | None = None
    r: _Rank | None = None
    lora_alpha: _Number | None = None
    lora_dropout: _Number | None = None
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    layers_pattern: list[str] | str | None = None
    rank_pattern: dict[str, _Rank] | None = None
    alpha_pattern: dict[str, _Number] | None = None
    megatron_config: None = None  # with it, peft imports a module that the file names
    layer_replication: None = None  # copies layers, as often as it says


def check_adapter(folder: Path, model: PreTrainedModel) -> None:
    """
    Check an adapter's configuration against the model that peft is about to attach it to.

    Raises:
        `ValueError`: the weights are no safetensors; adapter_config.json is damaged, or has a value that no adapter of
        ours has; or the patterns in it are no regular expressions, or take over 2 seconds on the names of the model's
        modules, as `(a+)+b` can.
    """
    from safetensors import SafetensorError, safe_open

    weights = folder / "adapter_model.safetensors"
    try:
        with safe_open(weights, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{weights} is no safetensors file: {error}") from None
    path = folder / "adapter_config.json"
    values = load_object(path)
    try:
        _AdapterConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part)[:60] for part in first["loc"])
        raise ValueError(f"{path}: {where}: {first['msg']}") from None
    given = {key: values.get(key) or () for key in _PATTERNS}
    patterns = {
        # Names of modules, which nearly all adapters have, match in no time.
        key: [item for item in ([value] if isinstance(value, str) else value) if not re.fullmatch(r"[\w.-]*", item)]
        for key, value in given.items()
    }
    every = [item for items in patterns.values() for item in items]
    if every and (told := _try("patterns", every, [name for name, _ in model.named_modules()])):
        keys = ", ".join(key for key, items in patterns.items() if items)
        raise ValueError(f"{path}: {keys}: a pattern {told}: list names of modules")


def check_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """
    Try the chat template of a tokenizer that came with an adapter.

    transformers' sandbox keeps a template from Python's insides, but not from working or writing without end. One that
    waits for a certain text before it does so is not found.

    Raises:
        `ValueError`: it does not compile; it multiplies, counts or nests loops as no chat template needs to; or
        rendering chats of several shapes takes over 2 seconds, 1 GiB, or a hundred times their text.
    """
    tokens = {key: value for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    found = tokenizer.chat_template
    templates = found.values() if isinstance(found, dict) else [found]
    for template in templates:
        if template is not None and (told := _try_template(template, json.dumps(tokens))):
            raise ValueError(f"{tokenizer.name_or_path}: its chat template {told}: use another chat_template.jinja")


@lru_cache
def _try_template(template: str, tokens: str) -> str:
    return _try("template", template, json.loads(tokens))


def _try(kind: str, *arguments: Any) -> str:
    """Return what is wrong with patterns or a template, found in a process that is killed when it takes too long."""
    command = [sys.executable, "-I", untrusted_worker.__file__]
    request = json.dumps({"kind": kind, "arguments": arguments})
    # The limit of processor time ends it; the clock is for a machine on which it gets none.
    done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode < 0:
        return f"takes over {untrusted_worker.SECONDS} seconds"
    if done.returncode:
        return f"cannot be tried ({done.stderr.strip().rpartition(chr(10))[2]})"
    return " ".join(done.stdout.split())[:300]
