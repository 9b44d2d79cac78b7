"""The tiny base model: how it is made, and the one that ships."""

import json
from pathlib import Path

import pytest
import torch
from scripts import exiting
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipes.pretrain import main as script_main
from recipes.pretrain import train_tokenizer
from schoolhouse.core.chat_templates import ensure_chat_template
from schoolhouse.core.models import model_hash
from schoolhouse.training.untrained_tokens import EmbeddingRows


main = exiting(script_main)
ROOT = Path(__file__).parents[1]
BASE = ROOT / "data/tiny/base"
CONFIG = ROOT / "recipes/configs/tiny/pretrain.yaml"


def pretrain(monkeypatch, run, *flags):
    size = "--num_documents 400 --vocab_size 300 --hidden_size 32 --intermediate_size 64 --num_hidden_layers 1"
    rest = "--num_attention_heads 2 --block_size 64 --per_device_train_batch_size 8 --max_steps 4 --save_steps 2"
    quiet = "--eval_strategy no --report_to none --disable_tqdm true --use_cpu true"
    command = ["pretrain.py", "--config", str(CONFIG), "--output_dir", str(run)]
    monkeypatch.setattr("sys.argv", [*command, *f"{size} {rest} {quiet}".split(), *flags])
    main()


def test_it_makes_a_base_model_with_its_record_twice_the_same(monkeypatch, tmp_path):
    for name in ("one", "two"):
        pretrain(monkeypatch, tmp_path / name)
    weights = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
    record = json.loads((tmp_path / "one/run.json").read_text())
    assert record["status"] == "done" and record["model"] is None
    assert record["product_hash"] == model_hash(str(tmp_path / "one/model"))
    assert record["tokens"]["trained"] == pytest.approx(4 * 8 * 64, rel=0.02)  # exact after whole epochs
    assert not [path for path in (tmp_path / "one/model").iterdir() if path.suffix in {".bin", ".pt"}]


def test_the_check_reads_and_counts_but_makes_no_model(monkeypatch, tmp_path, capsys):
    pretrain(monkeypatch, tmp_path / "run", "--check")
    assert "tokens to read, of a vocabulary of 300" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_digit_is_a_token_and_text_survives_the_tokenizer():
    tokenizer = train_tokenizer(["What is 23+45? It is 68.", "def f(x):\n    return x * 2"] * 5, 300)
    assert tokenizer.tokenize("23+45")[:2] == ["2", "3"]
    text = "def f(x):\n    return 2345\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_shipped_base_is_the_one_its_record_describes():
    record = json.loads((BASE / "run.json").read_text())
    assert record["product_hash"] == model_hash(str(BASE))
    assert record["status"] == "finished"
    assert sum(path.stat().st_size for path in BASE.iterdir()) < 12e6


def test_the_shipped_base_has_read_every_token():
    vocabulary = len(AutoTokenizer.from_pretrained(BASE))
    assert EmbeddingRows.find(str(BASE), "main").untrained(list(range(vocabulary))) == []


@pytest.fixture(scope="module")
def base():
    tokenizer = ensure_chat_template(AutoTokenizer.from_pretrained(BASE))
    model = AutoModelForCausalLM.from_pretrained(BASE).eval()

    def continue_text(text):
        prompt = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            ids = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0]
        return tokenizer.decode(ids[prompt["input_ids"].shape[1] :])

    return continue_text


def test_the_shipped_base_continues_what_it_has_read(base):
    assert base("Exercise: What is 12+7?\n12+7 =").lstrip().startswith("19")
    assert base("def f(n):\n    n = n + 3\n").startswith("    ")


def test_the_shipped_base_was_never_taught_to_answer(base):
    sums = [(23, 41), (15, 32), (64, 25), (17, 22), (31, 46), (52, 37)]
    answers = [base(f"User: What is {a}+{b}?\nAssistant:") for a, b in sums]
    assert sum(answer.strip().startswith(f"#### {a + b}") for answer, (a, b) in zip(answers, sums, strict=True)) <= 1
