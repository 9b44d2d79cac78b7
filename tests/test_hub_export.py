"""Adapters in the form of other programs: a merged checkpoint, GGUF files that llama.cpp reads, Ollama's template."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from jinja2 import Environment
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm_rules import refusals

from schoolhouse.core.chat_templates import ensure_chat_template
from schoolhouse.core.models import load_model, load_tokenizer
from schoolhouse.data.specs import load_rows
from schoolhouse.hub.artifacts import unmerged_refusal
from schoolhouse.hub.export import find_splitter, ollama_template
from tests.hub_runs import call
from tests.tiny_models import make_tiny_tokenizer


BASE = Path(__file__).parents[1] / "data/tiny/base"
LLAMA_CPP = os.environ.get("LLAMA_CPP")
CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_adapter(folder: Path, **options) -> Path:
    """A run folder with an adapter on the tiny base that changes what it says."""
    torch.manual_seed(0)
    config = {"r": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE), LoraConfig(**config))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.02)
    model.save_pretrained(folder / "adapter")
    ensure_chat_template(AutoTokenizer.from_pretrained(BASE)).save_pretrained(folder / "adapter")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_adapter(tmp_path_factory.mktemp("run"))


def test_merged_checkpoint_of_a_run_folder_computes_what_the_adapter_does(run, tmp_path, capsys):
    argv = ["export", run, "--format", "merged", "--output-dir", tmp_path / "merged"]
    assert call(*argv) == 0 and "logits differ from base + adapter by" in capsys.readouterr().out
    ids = torch.arange(40).view(1, -1)
    with torch.no_grad():
        wanted = load_model(str(BASE), str(run / "adapter"), "float32", "cpu")(input_ids=ids).logits
        plain = load_model(str(BASE), None, "float32", "cpu")(input_ids=ids).logits
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(input_ids=ids).logits
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert (plain - wanted).abs().max() > 0.1
    assert call(*argv) == 2 and "exists: name another --output_dir" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["gguf", "ollama"])
def test_without_the_converter_one_line_says_where_it_is_to_be_had(run, tmp_path, monkeypatch, capsys, form):
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    argv = ["export", run, "--format", form, "--output_dir", tmp_path / "out"]
    for more, told in (([], "written by llama.cpp's converter"), (["--llama_cpp", tmp_path], f"{tmp_path} has no ")):
        assert call(*argv, *more) == 2
        error = capsys.readouterr().err
        assert told in error and "git clone" in error and "--llama_cpp" in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(LLAMA_CPP is None, reason="LLAMA_CPP names no checkout of llama.cpp")
def test_llama_cpp_answers_from_the_exported_files_as_transformers_does(run, tmp_path):
    llama = pytest.importorskip("cyllama.llama.llama_cpp", reason="cyllama (llama.cpp for Python) is not installed")
    out = tmp_path / "gguf"
    assert call("export", run, "--format", "gguf", "--outtype", "f32", "--output_dir", out) == 0
    tokenizer = load_tokenizer(str(BASE), str(run / "adapter"))
    model = load_model(str(BASE), str(run / "adapter"), "float32", "cpu")
    llama.disable_logging()
    theirs, options = llama.LlamaModel(str(out / "model.gguf")), llama.LlamaContextParams()
    options.n_ctx = options.n_batch = 512
    options.n_threads = 1
    rows = load_rows("tiny/arithmetic", "test", max_rows=50)
    assert len(rows) == 50
    for row in rows:
        text = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        assert theirs.get_vocab().tokenize(text, False, True) == ids[0].tolist()
        wanted = model.generate(ids, max_new_tokens=32, do_sample=False)[0, ids.shape[1] :].tolist()
        context, sampler = llama.LlamaContext(theirs, options), llama.LlamaSampler(llama.LlamaSamplerChainParams())
        sampler.add_greedy()
        context.decode(llama.llama_batch_get_one(ids[0].tolist()))
        found = []
        while len(found) < len(wanted):
            found.append(sampler.sample(context, -1))
            context.decode(llama.llama_batch_get_one(found[-1:], ids.shape[1] + len(found) - 1))
        assert found == wanted
    assert theirs.lora_adapter_init(str(out / "adapter.gguf")) is not None
    assert theirs.get_default_chat_template() == tokenizer.chat_template


@pytest.mark.skipif(LLAMA_CPP is None, reason="LLAMA_CPP names no checkout of llama.cpp")
def test_an_adapter_with_trained_tokens_is_exported_merged_only(tmp_path, capsys):
    run = make_adapter(tmp_path / "run", trainable_token_indices={"embed_tokens": [1, 2]})
    assert call("export", run, "--format", "gguf", "--output_dir", tmp_path / "out") == 0
    assert "no adapter.gguf: the adapter has trained tokens" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.gguf"]


@pytest.mark.parametrize(
    "options",
    [{}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"trainable_token_indices": {"embed_tokens": [1, 2]}}],
    ids=lambda options: next(iter(options), "plain"),
)
def test_adapters_that_vllm_refuses_are_told_to_merge(tmp_path, options):
    adapter = make_adapter(tmp_path, **options) / "adapter"
    refused = unmerged_refusal(json.loads((adapter / "adapter_config.json").read_text()))
    assert bool(refused) == bool(refusals(adapter)) and (not refused or "merged only" in refused)


def test_the_splitter_of_a_tokenizer_is_only_named_where_it_is_known(tmp_path):
    assert find_splitter(BASE / "tokenizer.json") == "smollm"
    make_tiny_tokenizer().save_pretrained(tmp_path)
    assert find_splitter(tmp_path / "tokenizer.json") == "gpt-2"
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    for change in (
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": None},
    ):
        (tmp_path / "tokenizer.json").write_text(json.dumps(values | change))
        assert find_splitter(tmp_path / "tokenizer.json") == ""


def as_jinja(template: str) -> str:
    """A template in Go's language, as far as it is used here, in Jinja's."""
    ends: list[str] = []

    def translate(match: re.Match) -> str:
        text = match[1].strip()
        if text == "end":
            return f"{{% end{ends.pop()} %}}"
        if text == ".Content":
            return "{{ m.content }}"
        if text.startswith("else if eq .Role "):
            return f"{{% elif m.role == {text.split()[-1]} %}}"
        ends.append("for" if text == "range .Messages" else "if")
        known = {"range .Messages": "for m in messages", "if not .System": "if not system"}
        return f"{{% {known.get(text, f'if m.role == {text.split()[-1]}')} %}}"

    return re.sub(r"\{\{(.*?)\}\}", translate, template)


@pytest.mark.parametrize("template", [None, CHATML], ids=["fallback", "chatml"])
def test_ollama_renders_chats_as_the_tokenizer_does(template):
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.chat_template = template
    ensure_chat_template(tokenizer)
    translated = as_jinja(ollama_template(tokenizer))
    turns = [
        ("user", "Hi"),
        ("assistant", "Hello {you}"),
        ("user", "2 + 2?\nSay it."),
        ("assistant", "4"),
        ("user", "?"),
    ]
    for system in ([], [("system", "Be brief.")]):
        for length in (1, 3, 5):
            chat = [{"role": role, "content": content} for role, content in [*system, *turns[:length]]]
            environment = Environment(keep_trailing_newline=True, autoescape=False)
            found = environment.from_string(translated).render(messages=chat, system=bool(system))
            assert found == tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ loop.index }}: {{ m.content }}\n{% endfor %}",  # turns by their place
        "{% for m in messages %}{{ m.role }}: {{ m.content | length }}\n{% endfor %}",  # no content
        "{% for m in messages[-1:] %}{{ m.role }}: {{ m.content }}\n{% endfor %}",  # the last turn alone
        "{% for m in messages %}{{ '{{' + m.content }}\n{% endfor %}",  # Go's own marks
    ],
)
def test_a_template_that_is_no_sequence_of_turns_is_not_translated(template):
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.chat_template = template
    assert ollama_template(tokenizer) is None


def test_the_code_of_the_serving_page_works_with_a_run_folder(run, tmp_path, capsys, monkeypatch):
    page = (Path(__file__).parents[1] / "docs/serving.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs/run").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/serving.md", "exec"), {})
    tokenizer = load_tokenizer(str(BASE), str(run / "adapter"))
    model = load_model(str(BASE), str(run / "adapter"), "float32", "cpu")
    chat = [{"role": "user", "content": "What is 17 + 25?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    answer = model.generate(**ids, max_new_tokens=64, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert capsys.readouterr().out == tokenizer.decode(answer, skip_special_tokens=True) + "\n"
