"""Chat templates: stable token boundaries, and a loss on what the assistant says and on nothing else."""

from itertools import groupby
from pathlib import Path

import pytest
import trl
from datasets import Dataset
from tiny_models import make_tiny_model, make_tiny_tokenizer
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
from trl.chat_template_utils import is_chat_template_stop_token_trained

from schoolhouse.core.chat_templates import (
    ensure_chat_template,
    template_tokens,
    training_chat_template,
    training_tokenizer,
)


# As published with HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0).
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}"
)
QWEN25 = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja").read_text()

CHAT = [
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": "Where does Tom live?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "What is 3 + 4?"},
    {"role": "assistant", "content": "3 + 4 = 7\n#### 7"},
]
HARD_CONTENTS = [
    "7",
    "-7",
    "#### 7",
    ": x",
    "Tom",
    "\n\nTom  ",
    " 12,000.5",
    "né 数 🙂",
    "'s",
    "...",
    "a\n b\n\n c",
    "",
]


def chatml(template):
    tokenizer = make_tiny_tokenizer("<|im_end|>", special_tokens=("<|im_start|>", "<|endoftext|>"))
    tokenizer.chat_template = template
    return tokenizer


def test_fallback_renders_plain_turns_and_adds_no_token():
    tokenizer = make_tiny_tokenizer()
    before = len(tokenizer), tokenizer.get_vocab(), tokenizer.special_tokens_map
    ensure_chat_template(tokenizer)
    assert (len(tokenizer), tokenizer.get_vocab(), tokenizer.special_tokens_map) == before
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == (
        "System: Answer in one word.\n"
        "User: Where does Tom live?\n"
        "Assistant: Paris.<|endoftext|>\n"
        "User: What is 3 + 4?\n"
        "Assistant: 3 + 4 = 7\n#### 7<|endoftext|>\n"
    )
    prompt = tokenizer.apply_chat_template(CHAT[:2], tokenize=False, add_generation_prompt=True)
    assert prompt == "System: Answer in one word.\nUser: Where does Tom live?\nAssistant:"


def test_a_models_own_template_is_kept():
    tokenizer = chatml(SMOLLM2)
    assert ensure_chat_template(tokenizer).chat_template == SMOLLM2


def assert_prompts_are_prefixes(tokenizer):
    for content in HARD_CONTENTS:
        chat = [
            {"role": "user", "content": content},
            {"role": "assistant", "content": content},
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": content},
        ]
        whole = tokenizer.apply_chat_template(chat, return_dict=False)
        for turns in (1, 3):
            prompt = tokenizer.apply_chat_template(chat[:turns], add_generation_prompt=True, return_dict=False)
            assert whole[: len(prompt)] == prompt, content
            answered = tokenizer.apply_chat_template(chat[: turns + 1], return_dict=False)
            assert whole[: len(answered)] == answered, content


def test_a_prompts_tokens_are_a_prefix_of_the_conversation_in_byte_level_bpe():
    assert_prompts_are_prefixes(ensure_chat_template(make_tiny_tokenizer()))


def test_a_prompts_tokens_are_a_prefix_of_the_conversation_in_sentencepiece_bpe(shared):
    assert_prompts_are_prefixes(ensure_chat_template(AutoTokenizer.from_pretrained(shared / "models/stories260k")))


def test_fallback_begins_with_bos_where_the_base_read_one():
    tokenizer = make_tiny_tokenizer(special_tokens=("<s>",))
    tokenizer.bos_token = "<s>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    ensure_chat_template(tokenizer)
    assert tokenizer.apply_chat_template(CHAT[1:2], tokenize=False) == "<s>User: Where does Tom live?\n"


def test_fallback_refuses_a_tokenizer_that_cannot_end_an_answer():
    tokenizer = make_tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no EOS token"):
        ensure_chat_template(tokenizer)


def test_fallback_refuses_a_vocabulary_that_cannot_spell_it():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    digits = Tokenizer(models.BPE({"<unk>": 0, "</s>": 1, "7": 2}, [], unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=digits, eos_token="</s>", unk_token="<unk>")
    with pytest.raises(ValueError, match="cannot spell"):
        ensure_chat_template(tokenizer)


@pytest.mark.parametrize("own", [SMOLLM2, SMOLLM2.replace("'<|im_end|>' + '\n'", "'<|im_end|>\n'"), QWEN25])
def test_a_training_template_renders_what_the_models_own_renders(own):
    tokenizer = chatml(own)
    marked = training_tokenizer(tokenizer)
    assert "generation" in marked.chat_template and tokenizer.chat_template == own
    for turns in range(1, len(CHAT) + 1):
        for first in (0, 1):
            for prompt in (False, True):
                if chat := CHAT[first:turns]:
                    assert marked.apply_chat_template(
                        chat, tokenize=False, add_generation_prompt=prompt
                    ) == tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt)


def test_an_unknown_template_is_refused_with_a_way_out():
    tokenizer = chatml(SMOLLM2.replace("named SmolLM", "named Otto"))
    with pytest.raises(ValueError, match="chat_template_path"):
        training_chat_template(tokenizer)


# Qwen's marked template is TRL's: there the newlines around the answer are trained too.
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, [[" Paris.<|endoftext|>", " 3 + 4 = 7\n#### 7<|endoftext|>"], [" Paris.<|endoftext|>"]]),
        (SMOLLM2, [["Paris.<|im_end|>", "3 + 4 = 7\n#### 7<|im_end|>"], ["Paris.<|im_end|>"]]),
        (QWEN25, [["\nParis.<|im_end|>\n", "\n3 + 4 = 7\n#### 7<|im_end|>\n"], ["\nParis.<|im_end|>\n"]]),
    ],
    ids=["fallback", "smollm2", "qwen2.5"],
)
def test_exactly_the_assistants_turns_are_trained_eos_included(template, expected, tmp_path):
    tokenizer = chatml(template) if template else ensure_chat_template(make_tiny_tokenizer())
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    marked = training_tokenizer(tokenizer)
    assert is_chat_template_stop_token_trained(marked)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(make_tiny_model(tmp_path / "model", tokenizer)),
        SFTConfig(str(tmp_path / "run"), assistant_only_loss=True, bf16=False, use_cpu=True, report_to=[]),
        train_dataset=Dataset.from_list([{"messages": CHAT}, {"messages": CHAT[1:3]}]),
        processing_class=marked,
    )
    batch = trainer.data_collator(list(trainer.train_dataset))
    for ids, labels, attended, texts in zip(
        batch["input_ids"].tolist(),
        batch["labels"].tolist(),
        batch["attention_mask"].tolist(),
        expected,
        strict=True,
    ):
        runs = groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] != -100)
        trained = [[token for token, _ in run] for is_trained, run in runs if is_trained]
        assert [tokenizer.decode(run) for run in trained] == texts
        assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
        # EOS is the padding token too, and is attended to and trained where it ends a turn.
        ends = [i for i, label in enumerate(labels) if label == tokenizer.eos_token_id]
        assert len(ends) == len(texts) and all(attended[i] for i in ends)
        assert all(labels[i] == -100 for i, seen in enumerate(attended) if not seen)
    assert 0 in batch["attention_mask"]


def test_exactly_the_assistants_turns_are_trained_on_a_real_base_model(shared):
    tokenizer = ensure_chat_template(AutoTokenizer.from_pretrained(shared / "models/stories260k"))
    rendered = tokenizer.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    pairs = zip(rendered["input_ids"], rendered["assistant_masks"], strict=True)
    runs = [[token for token, _ in run] for trained, run in groupby(pairs, key=lambda pair: pair[1]) if trained]
    assert [tokenizer.decode(run) for run in runs] == ["Paris.</s>", "3 + 4 = 7\n#### 7</s>"]


def test_template_tokens_are_those_of_every_chat():
    tokenizer = chatml(SMOLLM2)
    special = {tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>")}
    found = set(template_tokens(tokenizer))
    assert special <= found and tokenizer.convert_tokens_to_ids("<|endoftext|>") not in found
    plain = ensure_chat_template(make_tiny_tokenizer())
    assert plain.eos_token_id in template_tokens(plain)
