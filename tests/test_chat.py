"""Several adapters on one base answer as each does alone, and nothing that a model writes drives the terminal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import make_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipes.chat import main
from schoolhouse.core.chat_templates import ensure_chat_template
from schoolhouse.core.escape import printable
from schoolhouse.core.models import load_model
from schoolhouse.pipeline.chat import AdapterChat, find_stages


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A base and two adapters that answer differently, as a pipeline leaves them."""
    folder = tmp_path_factory.mktemp("pipeline")
    base = make_tiny_model(folder / "base")
    common = {"config": None, "parent": None, "eval": None, "status": "done"}
    stages = [{"name": "base", "recipe": None, "folder": str(folder / "base")} | common]
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder / name / "adapter")
        ensure_chat_template(AutoTokenizer.from_pretrained(base)).save_pretrained(folder / name / "adapter")
        stages.append({"name": name, "recipe": "sft", "folder": str(folder / name)} | common)
    stages.append({"name": "rewards", "recipe": "reward", "folder": str(folder / "rewards")} | common)
    record = {"schema": 2, "name": "c", "base": {"name": str(base), "hash": ""}, "stages": stages}
    (folder / "pipeline.json").write_text(json.dumps(record))
    return folder


def test_each_stage_answers_as_it_does_alone_in_any_order(pipeline):
    base, stages = find_stages([str(pipeline)], names="base,one,two")
    chat = AdapterChat(base, stages, device="cpu")
    question = [{"role": "user", "content": "How many apples?"}]

    def alone(adapter):
        model, tokenizer = load_model(base, adapter, device="cpu"), chat.tokenizers["one"]
        inputs = tokenizer.apply_chat_template(
            question, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    expected = {name: alone(adapter) for name, adapter in stages.items()}
    assert len(set(expected.values())) == 3
    for name in ("two", "base", "one", "base", "two"):
        pieces = []
        said = chat.answer(name, question, pieces.append, max_new_tokens=12)
        assert said == expected[name]
        assert "".join(pieces) == printable(said)


def test_stages_come_from_pipelines_runs_adapters_and_models(pipeline):
    base, one, two = (str(pipeline / name) for name in ("base", "one", "two"))
    _, last = find_stages([str(pipeline / "pipeline.json")])
    assert list(last) == ["two"]  # the reward model after it does not talk
    assert find_stages([one]) == find_stages([f"{one}/adapter"]) == (base, {"one": f"{one}/adapter"})
    assert list(find_stages([one, two])[1]) == ["one", "two"]
    assert find_stages([base]) == (base, {"base": None})
    assert find_stages((), base, [one]) == (base, {"adapter": f"{one}/adapter"})
    assert find_stages((), "b", names="mine=folder") == ("b", {"mine": "folder"})


def test_what_cannot_talk_is_one_line(pipeline, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for arguments, message in (
        (([str(pipeline)], None, (), "three"), "unknown stage 'three'; known: base, one, two"),
        (((), None, (), "base"), "no base model"),
        (([str(pipeline / "one"), str(tmp_path)],), "one base model at a time"),
        (([str(tmp_path.parent)],), "neither a pipeline, a finished run, an adapter nor a model"),
    ):
        with pytest.raises(ValueError, match=message):
            find_stages(*arguments)


@pytest.mark.parametrize(
    "text", ["{ half", "[]", '{"schema": 1, "base": {"name": "b"}}', '{"schema": 2, "base": {"name": "b"}}']
)
def test_a_damaged_pipeline_is_one_line(tmp_path, text):
    (tmp_path / "pipeline.json").write_text(text)
    with pytest.raises(ValueError, match=r"pipeline\.json.*: delete that file and run the same command again"):
        find_stages([str(tmp_path)])


def test_nothing_that_a_terminal_obeys_is_printed():
    hostile = "a\x1b]0;title\x07\x1b[2Jb\r\x9b31m\u202eevil\u2066\nc\tü"
    shown = printable(hostile)
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    assert "\\x1b]0;title\\x07" in shown and "\\u202e" in shown and shown.endswith("\nc\tü")


def test_one_question_goes_to_several_stages_from_the_command_line(pipeline):
    command = [sys.executable, ROOT / "recipes/chat.py", "--pipeline", pipeline, "--stages", "base,one"]
    command += ["--prompt", "Hello [bold]", "--max_new_tokens", "8"]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert result.returncode == 0, result.stderr
    assert "base" in result.stdout and "one" in result.stdout


def test_a_talk_obeys_commands_and_goes_on_after_a_mistake(pipeline, monkeypatch, capsys):
    lines = iter(
        ["/help", "Hello", "/stages base", "Hello", "/stages three", "/system Be kind.", "/no", "Hello", "/quit"]
    )
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert main([str(pipeline / "one"), str(pipeline / "two"), "--stages", "base,one", "--max_new_tokens", "4"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"base, one on {pipeline / 'base'}; /help")
    assert shown.count("\nbase: ") + shown.count("base: ") >= 3 and shown.count("one: ") == 1
    assert (
        "(a new talk)" in shown
        and "unknown stage three; loaded: base, one" in shown
        and "unknown command /no" in shown
    )
    assert next(lines, None) is None
