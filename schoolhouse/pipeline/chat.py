"""One base model, several adapters on it, and answers that are safe to print."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schoolhouse.config.paths import find_file, run_product
from schoolhouse.core.chat_templates import opened_thought
from schoolhouse.core.escape import printable
from schoolhouse.core.manifest import PIPELINE_FILE, read_pipeline_index
from schoolhouse.core.models import adapter_folder, load_model, load_tokenizer
from schoolhouse.core.reward_models import validate_task_type


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def find_stages(
    folders: Sequence[str] = (),
    model: str | None = None,
    adapters: Sequence[str] = (),
    names: str | None = None,
) -> tuple[str, dict[str, str | None]]:
    """
    Return the base model, and for each stage that is asked its adapter (`None` for the base itself).

    Args:
        folders (`Sequence[str]`, *optional*):
            Folders of pipelines, of runs, of adapters, or of a model; a Hub id is taken for a model.
        model (`str`, *optional*):
            The base model, by default that of the folders.
        adapters (`Sequence[str]`, *optional*):
            Folders or Hub ids of adapters on `model`.
        names (`str`, *optional*):
            Stages, separated by commas: `base`, a stage of the folders, or `name=adapter`. By default all runs and
            adapters that are named, else a pipeline's last finished stage that is no reward model, else the base.

    Raises:
        ValueError: For an unknown stage, a folder that holds nothing to talk to, no base model, or several.
    """
    known: dict[str, str | None] = {"base": None}
    bases = [model] if model is not None else []
    named: list[str] = []
    last = None
    for text in folders:
        path = find_file(text)
        if (path / PIPELINE_FILE).is_file() or path.name == PIPELINE_FILE:
            index = read_pipeline_index(path)
            bases.append(index.base.name)
            for stage in index.stages:
                if stage.recipe not in (None, "reward") and stage.status == "done":
                    known[stage.name] = str(Path(stage.folder) / "adapter")
                    last = stage.name
        elif ((folder := run_product(path, "adapter_name_or_path")) / "adapter_config.json").is_file():
            name = folder.resolve().parent.name if folder.name == "adapter" else folder.resolve().name
            known[name] = str(folder)
            named.append(name)
            config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            bases += [config["base_model_name_or_path"]] if config.get("base_model_name_or_path") else []
        else:
            folder = run_product(path, "model_name_or_path")
            if folder.is_dir() and not (folder / "config.json").is_file():
                raise ValueError(f"{text} is neither a pipeline, a finished run, an adapter nor a model")
            bases.append(str(folder) if folder.is_dir() else text)
    for adapter in adapters:
        known["adapter"] = str(run_product(find_file(adapter), "adapter_name_or_path"))
        named.append("adapter")
    if not bases:
        raise ValueError("no base model: name a run, an adapter, a pipeline or a model, or give --model_name_or_path")
    if model is None and len({str(find_file(base).resolve()) for base in bases}) > 1:
        raise ValueError(f"one base model at a time, these have several: {', '.join(dict.fromkeys(bases))}")
    chosen = {}
    for entry in names.split(",") if names else named or [last or "base"]:
        name, equals, adapter = entry.strip().partition("=")
        if not equals and name not in known:
            raise ValueError(f"unknown stage {name!r}; known: {', '.join(known)}; or give it as {name}=ADAPTER")
        chosen[name.replace(".", "_")] = adapter if equals else known[name]  # peft allows no dots in names
    return str(find_file(bases[0])), chosen


class AdapterChat:
    """Stages (name -> adapter, `None` for the base itself) that answer, on one copy of the base model's weights."""

    def __init__(self, model_name_or_path: str, stages: dict[str, str | None], device: str | None = None):
        self.tokenizers: dict[str, PreTrainedTokenizerBase] = {}
        adapters = {name: adapter_folder(adapter) for name, adapter in stages.items() if adapter is not None}
        for folder in adapters.values():
            validate_task_type(folder, "CAUSAL_LM")
        self.model: PreTrainedModel | Any = load_model(model_name_or_path, device=device)
        self.adapters = set(adapters)
        for name, folder in adapters.items():
            if hasattr(self.model, "peft_config"):
                self.model.load_adapter(str(folder), adapter_name=name)
            else:
                from peft import PeftModel

                self.model = PeftModel.from_pretrained(self.model, str(folder), adapter_name=name).eval()
        for name, adapter in stages.items():
            self.tokenizers[name] = load_tokenizer(model_name_or_path, adapter)

    def answer(
        self,
        stage: str,
        messages: list[dict[str, str]],
        show: Callable[[str], None] = lambda text: None,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
    ) -> str:
        """
        Return the next answer of a stage as the model wrote it, thoughts included; [`printable`] makes it safe.

        Args:
            messages (`list[dict]`):
                The conversation so far, in chat format.
            show (`Callable`, *optional*):
                Called with each piece of the answer, safe to print, as it is generated.
            temperature (`float`, *optional*, defaults to `0.0`):
                Temperature of the sampling; 0 is greedy.
        """
        import torch
        from transformers import TextStreamer

        class Shown(TextStreamer):
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                show(printable(text))

        tokenizer = self.tokenizers[stage]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self.model.device)
        context = contextlib.nullcontext()
        if stage in self.adapters:
            self.model.set_adapter(stage)
        elif self.adapters:
            context = self.model.disable_adapter()
        thought = opened_thought(tokenizer, inputs["input_ids"][0].tolist())
        show(thought)
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        with context, torch.inference_mode():
            output = self.model.generate(
                **inputs,
                **sampling,
                max_new_tokens=max_new_tokens,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                streamer=Shown(tokenizer, skip_prompt=True, skip_special_tokens=True),
            )
        return thought + tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
