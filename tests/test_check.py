"""`--check` shows what SFTTrainer trains, counts as the trainer counts, and loads no model."""

import json

import pytest
import transformers
from datasets import Dataset
from scripts import exiting
from tiny_models import make_tiny_model
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from recipes.sft import main as script_main
from schoolhouse.config.arguments import ModelArguments
from schoolhouse.core.chat_templates import training_tokenizer
from schoolhouse.training.dry_run import training_steps
from schoolhouse.training.loss_mask import encode, mark
from schoolhouse.training.memory import estimate_memory
from schoolhouse.training.policy import load_policy, load_training_tokenizer


main = exiting(script_main)


def turns(question, *answers):
    chat = []
    for answer in answers:
        chat += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return chat


MESSAGES = [
    {"messages": turns(f"What is {a} + {b}?", f"{a + b}", f"Still {a + b}, né 🙂")} for a in range(4) for b in range(5)
]
PAIRS = [{"prompt": row["messages"][:1], "completion": row["messages"][1:2]} for row in MESSAGES]
TEXT = [{"text": f"{n} apples are left."} for n in range(20)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(make_tiny_model(tmp_path_factory.mktemp("base")))


def config(folder="out", **values):
    return SFTConfig(str(folder), **{"bf16": False, "use_cpu": True, "report_to": [], "max_length": None} | values)


def check(monkeypatch, capsys, folder, rows, *flags):
    """Run `sft.py --check` on rows; what it printed."""
    (folder / "data").mkdir(exist_ok=True)
    for split in ("train", "test"):
        (folder / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["sft.py", "--check", "--dataset_name", str(folder / "data"), "--output_dir", str(folder / "run")]
    monkeypatch.setattr("sys.argv", [*command, "--use_cpu", "true", *flags])
    main()
    assert not (folder / "run").exists()
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        (MESSAGES, {"assistant_only_loss": True}),
        (MESSAGES, {}),
        (PAIRS, {}),
        (PAIRS, {"assistant_only_loss": True}),
        (PAIRS, {"completion_only_loss": False}),
        (TEXT, {}),
    ],
)
def test_the_marked_tokens_are_those_the_trainer_trains(base, tmp_path, rows, options):
    args, rows = config(tmp_path, **options), Dataset.from_list(rows)
    tokenizer = load_training_tokenizer(ModelArguments(model_name_or_path=base), args)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(base),
        args,
        train_dataset=rows,
        processing_class=training_tokenizer(tokenizer) if args.assistant_only_loss else tokenizer,
    )
    shown = encode(rows, tokenizer, args)
    for ours, theirs in zip(shown, trainer.train_dataset, strict=True):
        labels = trainer.data_collator([theirs])["labels"][0].tolist()
        assert (ours["input_ids"], ours["labels"]) == (theirs["input_ids"], labels)


def test_the_sample_is_the_whole_text_with_marks_around_what_is_trained(base):
    args = config(assistant_only_loss=True)
    tokenizer = load_training_tokenizer(ModelArguments(model_name_or_path=base), args)
    row = encode(Dataset.from_list(MESSAGES[:1]), tokenizer, args)[0]
    assert mark(row["input_ids"], row["labels"], tokenizer, ("[", "]")) == (
        "User: What is 0 + 0?\nAssistant:[ 0<|endoftext|>]\n"
        "User: What is 0 + 0?\nAssistant:[ Still 0, né 🙂<|endoftext|>]\n"
    )
    escape = tokenizer("\x1b[31mred\x07")["input_ids"]
    assert mark(escape, escape, tokenizer, ("[", "]")) == "[\\x1b[31mred\\x07]"


def test_a_sentencepiece_sample_keeps_its_spaces(shared):
    args = config(assistant_only_loss=True)
    model_args = ModelArguments(model_name_or_path=str(shared / "models/stories260k"))
    tokenizer = load_training_tokenizer(model_args, args)
    row = encode(Dataset.from_list(PAIRS[:1]), tokenizer, args)[0]
    text = mark(row["input_ids"], row["labels"], tokenizer, ("[", "]"))
    assert text.startswith("User: What is 0 + 0?\nAssistant:[ 0</s>]")


def test_check_prints_every_part_and_loads_no_weights(base, tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", refuse)
    flags = ["--assistant_only_loss", "--max_length", "50", "--gradient_accumulation_steps", "3"]
    out = check(monkeypatch, capsys, tmp_path, MESSAGES, "--model_name_or_path", base, *flags)
    assert "20 rows to train on, 20 to evaluate on" in out
    assert "| Assistant:⟦ 0<|endoftext|>⟧" in out
    assert "1 devices x 8 a device x 3 accumulated = 24 rows a step" in out
    assert "fewer rows than one batch" in out
    assert "EOS again: no clash" in out
    labels = [line.split()[0] for line in out.splitlines() if line[0] != " "]
    expected = ["data", "sample", "lengths", "trained", "truncated", "EOS", "padding", "batch", "memory", "never"]
    assert labels == expected


def test_the_shares_are_those_of_a_plain_count(base, tmp_path, monkeypatch, capsys):
    rows = [*PAIRS, *({**row, "prompt": turns("a very long question " * 20, "x")[:1]} for row in PAIRS[:5])]
    out = check(monkeypatch, capsys, tmp_path, rows, "--model_name_or_path", base, "--max_length", "1000")
    args = config()
    tokenizer = load_training_tokenizer(ModelArguments(model_name_or_path=base), args)
    total = trained = longer = 0
    for row in rows:
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=False)
        total, trained, longer = total + len(whole), trained + len(whole) - len(prompt), longer + (len(whole) > 1000)
    assert f"trained    {100 * trained / total:.1f} % of all tokens" in out
    assert longer == 0 and "truncated  0.0 % of rows" in out
    out = check(monkeypatch, capsys, tmp_path, rows, "--model_name_or_path", base, "--max_length", str(len(whole) - 1))
    assert "truncated  20.0 % of rows are longer" in out


@pytest.mark.parametrize(
    ("rows", "flags", "words"),
    [
        (
            [*PAIRS[:6], {"prompt": turns("why? " * 80, "")[:1], "completion": turns("", "7")[1:]}],
            ["--max_length", "64"],
            ["--max_length", "row 6", "no trained token within 64"],
        ),
        (TEXT, ["--assistant_only_loss"], ["--assistant_only_loss", "text without turns"]),
        (MESSAGES, ["--completion_only_loss"], ["--completion_only_loss", "no column 'completion'"]),
        (
            PAIRS,
            ["--dataloader_drop_last", "--per_device_train_batch_size", "21"],
            ["20 training rows", "batch of 21"],
        ),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_status_2(base, tmp_path, monkeypatch, capsys, rows, flags, words):
    with pytest.raises(SystemExit) as stopped:
        check(monkeypatch, capsys, tmp_path, rows, "--model_name_or_path", base, *flags)
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert all(word in lines[-1] for word in words), lines


def test_steps_are_counted_as_the_trainer_counts_them(base, tmp_path):
    model, rows = AutoModelForCausalLM.from_pretrained(base), Dataset.from_list(TEXT)
    for options in (
        {"per_device_train_batch_size": 8, "num_train_epochs": 3},
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 4, "num_train_epochs": 1.5},
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 4, "dataloader_drop_last": True},
        {"per_device_train_batch_size": 32, "gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": 4, "max_steps": 7},
    ):
        args = config(tmp_path, **options)
        tokenizer = load_training_tokenizer(ModelArguments(model_name_or_path=base), args)
        trainer = SFTTrainer(model, args, train_dataset=rows, processing_class=tokenizer)
        _, epoch, _, _, _, _, run = trainer.set_initial_training_values(args, trainer.get_train_dataloader())
        assert training_steps(len(rows), args) == (epoch, run), options


@pytest.mark.parametrize("options", [{}, {"use_dora": True, "lora_r": 3}, {"use_peft": False}])
def test_the_memory_estimate_counts_the_models_parameters(base, tmp_path, options):
    model_args, args = ModelArguments(model_name_or_path=base, **options), config(tmp_path)
    tokenizer = load_training_tokenizer(model_args, args)
    estimate = estimate_memory(model_args, args, tokenizer, tokens=100)
    policy = load_policy(model_args, args, tokenizer)
    assert estimate.parameters == AutoModelForCausalLM.from_pretrained(base).num_parameters()
    assert estimate.trained == sum(p.numel() for p in policy.parameters() if p.requires_grad)
    assert estimate.weights == 4 * sum(p.numel() for p in policy.parameters())
    assert estimate.optimizer == 12 * estimate.trained
    more = estimate_memory(model_args, args, tokenizer, tokens=200)
    assert more.activations == 2 * estimate.activations


def test_tokens_the_base_never_read_are_named(shared, tmp_path, monkeypatch, capsys):
    flags = ["--model_name_or_path", str(shared / "models/stories260k")]
    out = check(monkeypatch, capsys, tmp_path, PAIRS, *flags)
    assert "never read '</s>': LoRA leaves these rows as they are" in out
    marked = [{**row, "completion": turns("", f"#### {n}")[1:]} for n, row in enumerate(PAIRS)]
    out = check(monkeypatch, capsys, tmp_path, marked, *flags, "--trainable_new_tokens")
    assert "never read '</s>', '<0x23>': their rows are trained too" in out
