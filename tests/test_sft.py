"""`recipes/sft.py` from its command line: bit-identical repeats, kills and stops."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from scripts import exiting
from tiny_models import make_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTTrainer

from recipes.sft import main as script_main


main = exiting(script_main)
pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """A folder with a tiny model, data and a recipe."""
    folder = tmp_path_factory.mktemp("setup")
    make_tiny_model(folder / "base")
    (folder / "data").mkdir()
    sums = [(a, b) for a in range(6) for b in range(4)]
    for split, part in (("train", sums[:20]), ("test", sums[20:])):
        rows = [
            {
                "prompt": [{"role": "user", "content": f"What is {a} + {b}?"}],
                "completion": [{"role": "assistant", "content": f"{a} + {b} = {a + b}"}],
            }
            for a, b in part
        ]
        (folder / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "sft.yaml").write_text(
        f"""
        model_name_or_path: {folder / "base"}
        dataset_name: {folder / "data"}
        output_dir: {folder / "run"}
        assistant_only_loss: true
        lora_dropout: 0.1
        per_device_train_batch_size: 2
        gradient_accumulation_steps: 2
        num_train_epochs: 2
        learning_rate: 1.0e-2
        gradient_checkpointing: false
        logging_steps: 1
        save_steps: 2
        report_to: none
        use_cpu: true
        """.replace("\n        ", "\n")
    )
    return folder


def sft(monkeypatch, setup, run, *flags):
    monkeypatch.setattr("sys.argv", ["sft.py", "--config", str(setup / "sft.yaml"), "--output_dir", str(run), *flags])
    main()
    return json.loads((run / "run.json").read_text())


def weights(run):
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole_run(setup):
    """An uninterrupted run."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        sft(monkeypatch, setup, setup / "whole")
    return setup / "whole"


def test_a_run_leaves_one_adapter_its_record_and_its_checkpoints(setup, whole_run):
    assert sorted(path.name for path in whole_run.iterdir()) == ["adapter", "checkpoints", "log.json", "run.json"]
    record = json.loads((whole_run / "run.json").read_text())
    assert record["status"] == "done" and record["product"] == "adapter" and record["steps"] == 10
    assert record["config"]["lora_dropout"] == 0.1 and record["config"]["output_dir"] == str(whole_run)
    assert record["seeds"]["seed"] == 42 and record["parent_adapter"] is None
    assert [source["rows"] for source in record["data"]] == [20, 4]
    assert all(len(source["sha256"]) == 64 for source in record["data"])
    assert {"loss", "mean_token_accuracy"} <= set(record["metrics"])
    assert record["seconds"] > 0 and record["versions"]["torch"] == torch.__version__

    tokenizer = AutoTokenizer.from_pretrained(whole_run / "adapter")
    rows = [json.loads(line) for line in (setup / "data" / "train.jsonl").read_text().splitlines()]
    answers = sum(len(tokenizer(" " + row["completion"][0]["content"])["input_ids"]) + 1 for row in rows)  # and EOS
    assert record["tokens"]["trained"] == 2 * answers
    base = AutoModelForCausalLM.from_pretrained(setup / "base")
    assert PeftModel.from_pretrained(base, whole_run / "adapter").peft_config["default"].r == 16


def test_a_run_loads_only_what_it_needs(setup, tmp_path):
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(*(name for name in sys.modules if name.split('.')[0] == 'schoolhouse'))"
    )
    flags = ["--config", str(setup / "sft.yaml"), "--output_dir", str(tmp_path / "run"), "--max_steps", "1"]
    command = [sys.executable, "-c", code, str(ROOT / "recipes/sft.py"), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = done.stdout.strip().splitlines()[-1].split()
    assert {name.split(".")[1] for name in loaded if "." in name} == {"config", "core", "data", "training"}
    assert len(loaded) <= 36, loaded


def test_a_run_says_what_it_trains_each_log_and_what_came_out(monkeypatch, capsys, setup, tmp_path):
    sft(monkeypatch, setup, tmp_path / "run", "--max_steps", "2")
    told = capsys.readouterr()
    first, *steps, done, _, _, _ = told.out.splitlines()
    assert "sft: " in first and "20 rows of" in first and "2 steps" in first and str(tmp_path / "run") in first
    assert [line.split()[1] for line in steps] == ["1/2", "2/2"] and all("loss" in line for line in steps)
    assert "2 steps" in done and str(tmp_path / "run" / "adapter") in done
    assert "Warning" not in told.err


def test_on_a_terminal_one_live_line_shows_the_step_and_the_loss(setup, tmp_path):
    command = [sys.executable, str(ROOT / "recipes/sft.py"), "--config", str(setup / "sft.yaml"), "--max_steps", "2"]
    shown = []
    there, here = pty.openpty()
    run = [*command, "--output_dir", str(tmp_path / "run")]
    with subprocess.Popen(run, stdout=here, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "140"}):
        os.close(here)
        try:
            while text := os.read(there, 4096):
                shown.append(text)
        except OSError:  # the program has closed its end
            pass
    text = b"".join(shown).decode()
    assert "2/2" in text and "loss" in text
    assert text.rstrip().splitlines()[-4].endswith("MB)") and "done: 2 steps" in text


def test_the_same_seed_gives_the_same_adapter_and_another_another(monkeypatch, setup, whole_run, tmp_path):
    sft(monkeypatch, setup, tmp_path / "again")
    assert weights(tmp_path / "again") == weights(whole_run)
    for name in ("adapter_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "again/adapter" / name).read_bytes() == (whole_run / "adapter" / name).read_bytes()
    sft(monkeypatch, setup, tmp_path / "other", "--seed", "1")
    assert weights(tmp_path / "other") != weights(whole_run)


def test_a_killed_run_goes_on_to_the_same_adapter(monkeypatch, setup, whole_run, tmp_path):
    run = tmp_path / "killed"
    command = [sys.executable, ROOT / "recipes/sft.py", "--config", setup / "sft.yaml", "--output_dir", run]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=-1
    )
    # In the middle of the third checkpoint: its weights are there, its state is not.
    end = time.monotonic() + 120
    while process.poll() is None and not list(run.glob("checkpoints/checkpoint-6/adapter_model*")):
        assert time.monotonic() < end
        time.sleep(0.001)
    process.kill()
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()[-2000:]
    assert not (run / "adapter").exists()
    assert json.loads((run / "run.json").read_text())["status"] == "running"

    record = sft(monkeypatch, setup, run)
    assert record["resumed"][0]["checkpoint"] in ("checkpoint-4", "checkpoint-6")
    assert weights(run) == weights(whole_run)
    reference = json.loads((whole_run / "run.json").read_text())
    assert record["metrics"] == reference["metrics"] and record["tokens"] == reference["tokens"]


def stop_in_step(monkeypatch, setup, run, steps, number, *flags):
    """Runs the recipe and sends it a signal once, when it has taken so many steps; returns the record."""
    step, raised = SFTTrainer.training_step, []

    def signalled(self, *args, **kwargs):
        if self.state.global_step == steps and not raised:
            raised.append(number)
            signal.raise_signal(number)
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(SFTTrainer, "training_step", signalled)
        sft(patch, setup, run, *flags)
    assert stopped.value.code == 128 + number
    return json.loads((run / "run.json").read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_its_step_and_goes_on(monkeypatch, capsys, setup, whole_run, tmp_path, number):
    names, train = [], SFTTrainer.train
    monkeypatch.setattr(
        SFTTrainer, "train", lambda self, **flags: names.append(self.args.run_name) or train(self, **flags)
    )
    run, before = tmp_path / "stopped", signal.getsignal(number)
    record = stop_in_step(monkeypatch, setup, run, 4, number)
    assert signal.getsignal(number) is before
    assert record["status"] == "interrupted" and record["steps"] == 5
    assert "the same command goes on" in capsys.readouterr().out
    assert not (run / "adapter").exists()
    assert sft(monkeypatch, setup, run)["resumed"][0]["checkpoint"] == "checkpoint-5"
    assert weights(run) == weights(whole_run)
    assert names[0].startswith("stopped-20") and names == names[:1] * 2  # a tracker goes on with its curve


def test_batches_by_length_are_found_again_in_a_later_epoch(monkeypatch, setup, whole_run, tmp_path):
    flags = ("--train_sampling_strategy", "group_by_length")
    sft(monkeypatch, setup, tmp_path / "whole", *flags)
    assert weights(tmp_path / "whole") != weights(whole_run)
    record = stop_in_step(monkeypatch, setup, tmp_path / "stopped", 7, signal.SIGINT, *flags)
    assert record["steps"] == 8  # five are an epoch
    sft(monkeypatch, setup, tmp_path / "stopped", *flags)
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def test_another_recipe_in_the_same_folder_is_refused(monkeypatch, capsys, setup, whole_run):
    before = weights(whole_run)
    with pytest.raises(SystemExit) as stopped:
        sft(monkeypatch, setup, whole_run, "--learning_rate", "0.5")
    assert stopped.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("--output_dir: ") and "another learning_rate (0.01 there, 0.5 here): `--resume" in line
    assert weights(whole_run) == before


def test_a_finished_run_trained_further_is_the_longer_run(monkeypatch, capsys, setup, tmp_path):
    constant, run = ("--lr_scheduler_type", "constant"), tmp_path / "run"
    sft(monkeypatch, setup, tmp_path / "whole", *constant)
    assert sft(monkeypatch, setup, run, *constant, "--num_train_epochs", "1")["steps"] == 5
    # Other logs and checkpoints change no weight.
    record = sft(monkeypatch, setup, run, *constant, "--logging_steps", "3", "--save_steps", "4")
    assert (record["status"], record["steps"]) == ("done", 10)
    assert [(entry["checkpoint"], entry["length"]) for entry in record["resumed"]] == [
        ("checkpoint-5", {"num_train_epochs": 1})
    ]
    assert weights(run) == weights(tmp_path / "whole")
    assert (run / "checkpoints/checkpoint-8").is_dir()
    with pytest.raises(SystemExit):
        sft(monkeypatch, setup, run, *constant, "--resume_from_checkpoint", str(tmp_path / "nowhere"))
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("--resume_from_checkpoint: ") and "nowhere is no checkpoint" in line
    record = sft(monkeypatch, setup, run, "--learning_rate", "0.5", "--resume_from_checkpoint", "null")
    assert record["resumed"] == [] and record["config"]["learning_rate"] == 0.5
    assert weights(run) != weights(tmp_path / "whole")


def test_a_later_stage_continues_the_adapter_and_names_its_parent(monkeypatch, setup, whole_run, tmp_path):
    record = sft(monkeypatch, setup, tmp_path / "two", "--adapter_name_or_path", str(whole_run / "adapter"))
    parent = json.loads((whole_run / "run.json").read_text())
    assert record["parent_adapter"]["hash"] == parent["product_hash"] != record["product_hash"]
    assert record["model"] == parent["model"]
    assert record["metrics"]["loss"] < parent["metrics"]["loss"]


def test_the_best_checkpoint_by_eval_loss_is_the_product(monkeypatch, setup, tmp_path):
    flags = ["--eval_strategy", "steps", "--eval_steps", "2", "--load_best_model_at_end", "--learning_rate", "0.3"]
    record = sft(monkeypatch, setup, tmp_path / "best", *flags, "--metric_for_best_model", "eval_loss")
    state = json.loads((tmp_path / "best/checkpoints/checkpoint-10/trainer_state.json").read_text())
    losses = {entry["step"]: entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry}
    best = min(losses, key=losses.get)
    assert len(losses) == 5 and record["best"] == {"metric": losses[best], "step": best}
    saved = load_file(tmp_path / f"best/checkpoints/checkpoint-{best}/adapter_model.safetensors")
    product = load_file(tmp_path / "best/adapter/adapter_model.safetensors")
    assert saved.keys() == product.keys() and all(torch.equal(saved[name], product[name]) for name in saved)


def test_every_weight_can_be_trained(monkeypatch, setup, tmp_path):
    recipe = (setup / "sft.yaml").read_text().replace("lora_dropout: 0.1", "use_peft: false")
    (tmp_path / "sft.yaml").write_text(recipe)
    record = sft(monkeypatch, tmp_path, tmp_path / "full")
    assert record["product"] == "model" and AutoModelForCausalLM.from_pretrained(tmp_path / "full/model")


@pytest.mark.evidence
def test_answers_end_only_where_the_rows_of_unread_tokens_are_trained(monkeypatch, setup, shared, tmp_path):
    """stories260k never read its EOS: LoRA alone cannot make it end an answer, however long it trains."""
    base, ended, losses = str(shared / "models/stories260k"), {}, {}
    rows = [json.loads(line) for line in (setup / "data" / "train.jsonl").read_text().splitlines()]
    for choice in ("false", "true"):
        flags = ["--model_name_or_path", base, "--num_train_epochs", "60", "--lora_dropout", "0", "--lora_r", "32"]
        run = tmp_path / choice
        record = sft(monkeypatch, setup, run, *flags, "--save_strategy", "no", "--trainable_new_tokens", choice)
        losses[choice] = record["metrics"]["loss"]
        tokenizer = AutoTokenizer.from_pretrained(run / "adapter")
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), run / "adapter").eval()
        ended[choice] = 0
        for row in rows:
            prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_tensors="pt")
            ended[choice] += tokenizer.eos_token_id in model.generate(**prompt, max_new_tokens=30, do_sample=False)[0]
    assert ended["false"] == 0 and ended["true"] == len(rows)
    assert losses["true"] < 0.5 * losses["false"]
