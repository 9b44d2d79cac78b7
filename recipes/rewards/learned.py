"""Rewards that the house does not know: a trained reward model, and a function of the user's own."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.rewards.rows import Row, text_of


if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class RewardModel:
    """
    The score of a one-label sequence classifier on prompt and completion.

    With messages every completion ends as the chat template ends a turn, so a reward model cannot see truncation; to
    plain text EOS is appended, as its trainer did.

    Args:
        model (`str`):
            Reward model, or reward adapter (its base is the one that its configuration names).
        base (`str`, *optional*):
            Base of a reward adapter, where it lies elsewhere than the adapter says.
        batch_size (`int`, *optional*, defaults to `32`):
            Texts scored at once.
    """

    model: str
    base: str | None = None
    batch_size: int = 32
    reads = "any row"
    _loaded: tuple[Any, Any] | None = field(default=None, init=False, repr=False, compare=False)

    def applies(self, row: Row) -> bool:
        return True

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def _load(self) -> tuple[Any, Any]:
        from accelerate import PartialState
        from peft import PeftConfig, PeftModel
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.model)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        adapted = (Path(self.model) / "adapter_config.json").is_file()
        base = self.base or (PeftConfig.from_pretrained(self.model).base_model_name_or_path if adapted else self.model)
        scorer = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, use_safetensors=True)
        scorer.config.pad_token_id = tokenizer.pad_token_id
        if adapted:
            scorer = PeftModel.from_pretrained(scorer, self.model)
        return scorer.eval().to(PartialState().device), tokenizer

    def __call__(self, prompts: list, completions: list, completion_ids: list, **columns: Any) -> list[float | None]:
        import torch

        if self._loaded is None:
            self._loaded = self._load()
        scorer, tokenizer = self._loaded
        texts = [
            prompt + text_of(completion) + tokenizer.eos_token
            if isinstance(prompt, str)
            else tokenizer.apply_chat_template([*prompt, *completion], tokenize=False)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        scores: list[float] = []
        for start in range(0, len(texts), self.batch_size):
            batch = tokenizer(
                texts[start : start + self.batch_size],
                return_tensors="pt",
                padding=True,
                padding_side="right",
                add_special_tokens=isinstance(prompts[0], str),
            )
            batch.pop("token_type_ids", None)
            with torch.inference_mode():
                # The head reads the last token that is no padding; where padding is EOS it would count from the front
                # of the padding, which only a mask tells from the answer's own EOS.
                scores += _last_logits(scorer, batch.to(scorer.device)).tolist()
        return scores


def _last_logits(scorer: Any, batch: Any) -> Any:
    """Scores (B,) at the last attended token, also where the padding token is an ordinary one."""
    import torch

    model = scorer.get_base_model() if hasattr(scorer, "get_base_model") else scorer
    hidden = model.base_model(**batch).last_hidden_state
    last = batch["attention_mask"].sum(dim=1) - 1
    return model.score(hidden[torch.arange(len(last), device=hidden.device), last])[:, 0].float()


@dataclass
class UserFunction:
    """
    A function of the user's own, `my_folder/my_reward.py:my_function`, with TRL's signature.

    It returns a number for each completion, `None` where it does not apply and NaN where it failed.

    Args:
        path (`str`):
            Python file.
        function (`str`):
            Name in it.
        parameters (`dict[str, Any]`, *optional*):
            Further keyword arguments of every call.
    """

    path: str
    function: str
    parameters: dict[str, Any] = field(default_factory=dict)
    reads = "any row"
    _loaded: Callable | None = field(default=None, init=False, repr=False, compare=False)

    def applies(self, row: Row) -> bool:
        return True

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def load(self) -> Callable:
        """
        The function itself.

        Raises:
            ValueError: if the file or the function in it does not exist.
        """
        if self._loaded is None:
            if not Path(self.path).is_file():
                raise ValueError(f"{self.path} does not exist, seen from {Path.cwd()}")
            spec = importlib.util.spec_from_file_location(Path(self.path).stem, self.path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            self._loaded = getattr(module, self.function, None)
            if not callable(self._loaded):
                raise ValueError(f"{self.path} has no function {self.function!r}")
        return self._loaded

    def __call__(self, prompts: list, completions: list, completion_ids: list, **columns: Any) -> list[float | None]:
        given = {"prompts": prompts, "completions": completions, "completion_ids": completion_ids}
        return self.load()(**given, **columns, **self.parameters)
