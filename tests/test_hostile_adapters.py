"""Chat templates and patterns of an adapter that would work or write without end: one line, in seconds."""

import importlib.util
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from schoolhouse.core.adapter_checks import check_adapter, check_chat_template
from schoolhouse.core.untrusted_worker import try_template


TRL = Path(importlib.util.find_spec("trl").submodule_search_locations[0]) / "chat_templates"
LOOP = "{% for a in messages %}"
HOSTILE_TEMPLATES = {
    "a loop of 10^12": ("{% for i in range(10**12) %}{% endfor %}", "multiplies"),
    "a loop of 10^12, written out": ("{% for i in range(1000000000000) %}{% endfor %}", "holds the number 10000000"),
    "loops in loops": ("{% for i in range(999) %}" * 4 + "{% endfor %}" * 4, "takes over 2 seconds"),
    "loops over letters": ("{% for a in messages[0].content %}" * 4 + "x" + "{% endfor %}" * 4, "writes over"),
    "ten loops": (LOOP * 10 + "{% endfor %}" * 10, "nests more than 5 loops"),
    "a text times 10^10": ("{{ 'x' * 10000000000 }}", "multiplies"),
    "a number with 10^9 digits": ("{{ 9 ** 9 ** 9 }}", "multiplies"),
    "a wide field": ("{{ '%9999999999d' % 1 }}", "formats with %"),
    "another wide field": ("{{ '{:9999999999}'.format(1) }}", "cannot be rendered|takes over|writes over"),
    "padding": ("{{ 'x'.ljust(9999999999) }}", "holds the number"),
    "doubling": (
        "{% set n = namespace(x='xy') %}{% for m in messages %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
        "cannot be rendered|takes over|writes over",
    ),
    "a macro in itself": (
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "cannot be rendered|takes over 2 seconds",
    ),
    "much text": (
        "{% for m in messages %}" + "{{ messages }}" * 50 + "{% endfor %}" + "{{ tools }}" * 99,
        "writes over",
    ),
    "half a template": ("{% for m in messages %}", "cannot be compiled"),
    "nested brackets": ("{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}", "cannot be"),
}


def tokenizer_with(template):
    return SimpleNamespace(chat_template=template, name_or_path="pulled", special_tokens_map={"eos_token": "<eos>"})


@pytest.mark.parametrize("kind", HOSTILE_TEMPLATES)
def test_a_hostile_chat_template_is_one_line_in_seconds(kind):
    template, told = HOSTILE_TEMPLATES[kind]
    before = time.monotonic()
    with pytest.raises(ValueError, match=f"pulled: its chat template ({told})") as error:
        check_chat_template(tokenizer_with(template))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert time.monotonic() - before < 30  # the limit is processor time


def test_the_templates_of_well_known_models_pass():
    templates = {path.name: path.read_text() for path in sorted(TRL.glob("*.jinja"))}
    assert len(templates) > 40
    # Here, and not in a process for each, which takes longer than the work.
    told = {name: try_template(template, {"eos_token": "<eos>"}) for name, template in templates.items()}
    assert {name: words for name, words in told.items() if words} == {}
    check_chat_template(tokenizer_with({"default": templates["qwen3.jinja"], "tool_use": templates["llama3_1.jinja"]}))


def test_a_damaged_file_of_weights_is_one_line(attach, tmp_path):
    for content in (b"\x80\x04K\x01.", b"PK\x03\x04", b"", b"\xff" * 99):
        (tmp_path / "adapter_model.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"adapter_model\.safetensors is no safetensors file"):
            attach()


@pytest.fixture
def attach(tmp_path):
    """Check an adapter with these settings against a model whose modules have long names."""
    names = [f"model.layers.{layer}.self_attn.{'a' * 40}_proj" for layer in range(30)]
    model = SimpleNamespace(named_modules=lambda: [(name, None) for name in names])
    save_file({"a": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")

    def check(**settings):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8} | settings))
        check_adapter(tmp_path, model)

    return check


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": r"(.+)+\.x"},
        {"modules_to_save": [r"(a|a?)+_nothing", "lm_head"]},
        {"rank_pattern": {r"(.*a)*b": 8}},
        {"alpha_pattern": {r"model.*(a|aa)+z": 8}},
    ],
)
def test_a_pattern_without_end_is_one_line_in_seconds(attach, settings):
    (key,) = settings
    with pytest.raises(ValueError, match=f"adapter_config.json: {key}: a pattern takes over 2 seconds"):
        attach(**settings)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"target_modules": "(q_proj"}, "target_modules: a pattern is no regular expression"),
        ({"target_modules": [["q_proj"]]}, "target_modules.*: Input should be a valid string"),
        ({"r": 10**9}, "r: Input should be less than or equal to 4096"),
        ({"r": 8.5}, "r: Input should be a valid integer"),
        ({"rank_pattern": {"q_proj": 10**9}}, "rank_pattern.q_proj: Input should be less than"),
        ({"lora_alpha": "x"}, "lora_alpha.*: Input should be a valid"),
        ({"megatron_config": {"a": 1}, "megatron_core": "this"}, "megatron_config: Input should be None"),
        ({"layer_replication": [[0, 10**9]]}, "layer_replication: Input should be None"),
    ],
)
def test_a_setting_that_peft_would_run_or_fail_on_is_one_line(attach, settings, told):
    with pytest.raises(ValueError, match=f"adapter_config.json: {told}") as error:
        attach(**settings)
    assert "\n" not in str(error.value)


def test_ordinary_adapters_pass(attach):
    attach(target_modules=["q_proj", "v_proj"], modules_to_save=["score"], lora_dropout=0, layer_replication=None)
    attach(target_modules=r".*\.layers\.\d+\.self_attn\.(q|v|a+)_proj", rank_pattern={r"layers\.1\..*": 4})
