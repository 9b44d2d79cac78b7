"""Chat templates: the model's own, one of plain text for base models, and marked ones for assistant-only loss."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]  # `role`, `content`, and any other key that a template reads, such as `tool_calls`

TEMPLATES = Path(__file__).parent / "templates"

# Two templates that render these alike render all chats of SFT and RL alike.
_PROBES: tuple[list[Message], ...] = (
    [{"role": "user", "content": "One?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " One? \n"}],
    [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "\n 1. "},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "2"},
    ],
)
_TOOL: dict[Any, Any] = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}},
}


def ensure_chat_template(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """
    Give a base model's tokenizer a chat template, in place, if it has none; return the tokenizer.

    The fallback (`User: ...`, `Assistant: ...` and the model's own EOS) adds no token, so the embeddings keep their
    size. The tokens of a prompt are an exact prefix of the tokens of the whole conversation.

    Raises:
        ValueError: If the tokenizer has no EOS token, or cannot spell the fallback.
    """
    if tokenizer.chat_template is not None:
        return tokenizer
    if tokenizer.eos_token is None:
        raise ValueError(
            f"{tokenizer.name_or_path}: the tokenizer has no EOS token, so no answer could end. Set `eos_token` to a "
            "token of its vocabulary."
        )
    template = (TEMPLATES / "fallback.jinja").read_text(encoding="utf-8")
    ids = tokenizer("System: User: Assistant:\n")["input_ids"]
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        raise ValueError(
            f"{tokenizer.name_or_path}: the vocabulary cannot spell the fallback chat template ('User:', "
            "'Assistant:', newline). Give the tokenizer a `chat_template` made of its own tokens."
        )
    if tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id:
        # Chats are tokenized without special tokens; the base has read every document after a BOS.
        template = "{{- bos_token }}" + template
    tokenizer.chat_template = template
    return tokenizer


def has_own_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Check if a tokenizer's template is the model's, and not the fallback of [`ensure_chat_template`]."""
    fallback = (TEMPLATES / "fallback.jinja").read_text(encoding="utf-8")
    return str(tokenizer.chat_template).removeprefix("{{- bos_token }}") != fallback


def training_chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """
    Return the tokenizer's template with `{% generation %}` markers around the answers of the assistant and their EOS.

    A template is recognised by the texts that it renders, so a copy with another layout is found too.

    Raises:
        ValueError: If neither Schoolhouse nor TRL has a marked version of this template.
    """
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    if has_generation_markers(tokenizer.chat_template):
        return tokenizer.chat_template
    own = _renderings(tokenizer, tokenizer.chat_template)
    for path in sorted(TEMPLATES.glob("*_training.jinja")):
        template = path.read_text(encoding="utf-8")
        if _renderings(tokenizer, template) == own:
            return template
    try:
        return str(get_training_chat_template(tokenizer))
    except ValueError as error:
        raise ValueError(
            f"{tokenizer.name_or_path}: assistant_only_loss needs {{% generation %}} markers in the chat template and "
            "no marked version of this one is known. Set `chat_template_path` to a .jinja file that has them, or use "
            "data with `prompt` and `completion` columns."
        ) from error


def training_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return a copy of the tokenizer that renders with [`training_chat_template`]. Save and share the original."""
    marked = copy.deepcopy(tokenizer)
    marked.chat_template = training_chat_template(tokenizer)
    return marked


def opened_thought(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]) -> str:
    """Return the `<think>` at the end of a rendered prompt: without it a thought would look like a response."""
    return "<think>\n" if str(tokenizer.decode(list(prompt[-16:]))).rstrip().endswith("<think>") else ""


def template_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of the tokens that every chat contains, ascending: those of the template itself, and EOS."""
    chat = [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]
    ids = set(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))
    return sorted(ids | ({tokenizer.eos_token_id} - {None}))


def _renderings(tokenizer: PreTrainedTokenizerBase, template: str | None) -> list[str]:
    from jinja2.exceptions import TemplateError

    texts = []
    choices: tuple[list[dict[Any, Any] | Callable[..., Any]] | None, ...] = (None, [_TOOL])
    for tools in choices:
        for chat in _PROBES:
            for prompt in (False, True):
                try:
                    text = tokenizer.apply_chat_template(
                        chat, tools=tools, chat_template=template, add_generation_prompt=prompt, tokenize=False
                    )
                except TemplateError as error:  # a template may refuse a role or the order of turns
                    text = type(error).__name__
                texts.append(str(text))
    return texts
