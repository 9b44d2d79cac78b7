"""The run record: complete at every moment, without secrets, and right about where to go on."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset

from schoolhouse.core.environment import git_state
from schoolhouse.core.files import write_json
from schoolhouse.core.redaction import REDACTED, redact
from schoolhouse.core.run import RunManifest, final_metrics, last_checkpoint, tokens_trained
from schoolhouse.evaluation.results import build_results


def test_no_secret_is_written(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "plain-words-as-token")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123")
    monkeypatch.setenv("MY_SHORT_TOKEN", "no")
    planted = {
        "hub_token": "whatever-it-is",
        "Hub_Token": "whatever-it-is",
        "wandb_api_key": "qwertyuiop",
        "nested": [{"password": "pa55word"}, {"note": "use plain-words-as-token here"}],
        "command": ["sft.py", "--hub_token", "given-on-the-line", "--x", "hf_AbCdEfGhIjKlMnOpQrStUvWx"],
        "url": "https://me:s3cr3t@example.org/repo",
        "0123456789abcdef0123": "key",
    }
    text = json.dumps(redact(planted, "given-on-the-line"))
    for secret in ("whatever", "plain-words", "0123456789abcdef", "qwerty", "pa55", "given-on", "hf_AbC", "s3cr3t"):
        assert secret not in text
    assert "example.org/repo" in text and "use [redacted] here" in text


def test_settings_that_only_sound_secret_are_kept():
    kept = {
        "eos_token": "<|im_end|>",
        "pad_token": "</s>",
        "trainable_new_tokens": True,
        "max_length": 512,
        "command": ["--eos_token", "no"],
        "revision": "8e6bc559aa856ebf3c6ef3f24d15ae4c6c4678e2",
        "hub_token": None,
    }
    assert redact(kept) == kept


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "new" / "run.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": 2, "b": object()})
    with pytest.raises(ValueError):
        write_json(path, {"a": math.nan})
    with pytest.raises(UnicodeEncodeError):
        write_json(path, {"a": "\ud800"})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in path.parent.iterdir()] == ["run.json"]
    write_json(path, {"a": 3})
    assert json.loads(path.read_text()) == {"a": 3}


WRITER = """
import sys
from pathlib import Path
from schoolhouse.core.files import write_json
number = 0
while True:
    number += 1
    write_json(Path(sys.argv[1]), {"number": number, "rows": [number] * 20_000})
"""


def test_a_reader_never_sees_half_a_file_also_when_the_writer_is_killed(tmp_path):
    path = tmp_path / "run.json"
    process = subprocess.Popen([sys.executable, "-c", WRITER, path])
    deadline, seen = time.monotonic() + 60, set()
    while len(seen) < 20 and time.monotonic() < deadline:
        if path.exists():
            seen.add(json.loads(path.read_text())["number"])
    process.kill()
    process.wait()
    assert len(seen) == 20
    value = json.loads(path.read_text())
    assert value["rows"] == [value["number"]] * 20_000


def checkpoint(folder, step, state='{"global_step": %d}', incomplete=False):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    if state is not None:
        (path / "trainer_state.json").write_text(state % step if "%d" in state else state)
    if incomplete:
        (path / "checkpoint-is-incomplete.txt").touch()
    return path


def test_the_newest_complete_checkpoint_is_found(tmp_path):
    assert last_checkpoint(tmp_path / "none") is None
    checkpoint(tmp_path, 9)
    good = checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 11, state=None)
    checkpoint(tmp_path, 12, state='{"global_step": 1')
    checkpoint(tmp_path, 13, incomplete=True)
    checkpoint(tmp_path, 14, state='{"global_step": 2}')
    (tmp_path / "checkpoint-best").mkdir()
    assert last_checkpoint(tmp_path) == good


def decide(folder, resume="auto", **config):
    record = RunManifest(folder)
    record.values = {"status": "running", "config": config, "model": "m", "parent_adapter": None, "started": "then"}
    record.values |= {"chat_template": "t", "data": [1]}
    record._decide(resume)
    return record


def test_a_stopped_run_is_resumed_and_a_finished_one_is_repeated(tmp_path):
    record = decide(tmp_path, lr=1)
    assert record.checkpoint is None
    record.save(status="running")
    last = checkpoint(tmp_path / "checkpoints", 4)
    resumed = decide(tmp_path, lr=1)
    assert resumed.checkpoint == str(last) and resumed.values["resumed"][0]["from"] == "checkpoint-4"
    assert decide(tmp_path, resume=None, lr=1).checkpoint is None
    assert decide(tmp_path, resume="elsewhere", lr=1).checkpoint == "elsewhere"
    record.save(status="interrupted")
    assert decide(tmp_path, lr=1).checkpoint == str(last)
    record.save(status="finished")
    assert decide(tmp_path, lr=1).checkpoint is None


def test_a_folder_with_another_run_is_refused(tmp_path):
    decide(tmp_path, lr=1, output_dir="a").save(status="finished")
    decide(tmp_path, lr=1, output_dir="./a", report_to="none")
    with pytest.raises(ValueError, match="another epochs, lr: choose another output_dir"):
        decide(tmp_path, lr=2, epochs=3)


def test_a_run_whose_data_changed_is_not_resumed(tmp_path):
    record = decide(tmp_path)
    record.values["data"] = [2]
    record.save()
    checkpoint(tmp_path / "checkpoints", 4)
    with pytest.raises(ValueError, match="its data changed since it began"):
        decide(tmp_path)


def test_time_adds_up_over_resumptions(tmp_path):
    record = decide(tmp_path)
    record._began -= 100
    record.save()
    checkpoint(tmp_path / "checkpoints", 4)
    resumed = decide(tmp_path)
    resumed._began -= 50
    resumed.save()
    assert 150 <= json.loads((tmp_path / "run.json").read_text())["seconds"] < 160


def test_one_of_several_processes_writes(tmp_path):
    record = RunManifest(tmp_path, is_writer=False)
    record.save(status="running")
    assert not (tmp_path / "run.json").exists()


def test_the_last_value_of_each_metric_is_kept():
    log = [
        {"loss": 2.0, "learning_rate": 1.0, "num_tokens": 10, "epoch": 1.0, "step": 1},
        {"eval_loss": 1.5, "eval_runtime": 0.1, "eval_samples_per_second": 9.0, "epoch": 1.0, "step": 1},
        {"loss": 1.0, "learning_rate": 0.5, "num_tokens": 20, "epoch": 2.0, "step": 2},
        {"train_runtime": 3.0, "train_loss": 1.7, "total_flos": 5.0, "epoch": 2.0, "step": 2},
    ]
    assert final_metrics(log) == {"loss": 1.0, "learning_rate": 0.5, "eval_loss": 1.5}


def test_tokens_are_counted_by_label():
    rows = [{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}, {"input_ids": [4, 5], "labels": [-100, 5]}] * 3
    dataset = Dataset.from_list(rows).filter(lambda row: True).select([0, 1, 3])
    trainer = SimpleNamespace(train_dataset=dataset, state=SimpleNamespace(epoch=2.0))
    assert tokens_trained(trainer) == {"input": 2 * (3 + 2 + 2), "trained": 2 * (2 + 1 + 1)}


def test_the_revision_is_this_checkouts(monkeypatch, tmp_path):
    state = git_state()
    if state is None:
        pytest.skip("not a git checkout")
    head = os.popen(f"git -C {Path(__file__).parent} rev-parse HEAD").read().strip()
    assert state.revision == head and isinstance(state.dirty, bool)
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert git_state() is None


def test_redacted_is_recognisable():
    assert redact({"password": "x"}) == {"password": REDACTED}


def test_results_hide_what_the_run_record_hides(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "planted-in-the-environment")
    command = "run.py --x planted-in-the-environment --y ghp_abcdefghij0123456789"
    written = json.dumps(build_results("https://me:password1@host/model", None, {}, command, {}, {}))
    assert not any(text in written for text in ("planted-in", "ghp_abc", "password1"))
