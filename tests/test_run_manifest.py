"""The run manifest: complete at every moment, without secrets, and right about where a run is resumed."""

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
from schoolhouse.core.manifest import (
    DataSource,
    Evaluation,
    ModelSource,
    RunManifest,
    read_manifest,
    read_pipeline_index,
)
from schoolhouse.core.redaction import REDACTED, redact
from schoolhouse.core.run import Run, final_metrics, last_checkpoint, open_evaluation, tokens_trained
from schoolhouse.evaluation.results import Hashes, SamplingSettings, build_results


ROOT = Path(__file__).parents[1]


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


def manifest(**values):
    return RunManifest(**{"status": "running", "recipe": "sft", "started": "then"} | values)


def decide(folder, resume="auto", data=(), defaults=None, **config):
    run = Run(folder, manifest(config=config, data=list(data), chat_template="t"))
    run.resume(resume, defaults)
    return run


def source(sha256):
    return DataSource(
        role="train", name="d", location="d.jsonl", split="train", kind="text", rows=1, used_rows=1, sha256=sha256
    )


def test_a_stopped_run_is_resumed_and_a_finished_one_is_repeated(tmp_path):
    run = decide(tmp_path, lr=1)
    assert run.checkpoint is None
    run.save()
    last = checkpoint(tmp_path / "checkpoints", 4)
    resumed = decide(tmp_path, lr=1)
    assert resumed.checkpoint == str(last) and resumed.manifest.resumed[0].checkpoint == "checkpoint-4"
    assert decide(tmp_path, resume=None, lr=1).checkpoint is None
    assert decide(tmp_path, resume="elsewhere", lr=1).checkpoint == "elsewhere"
    for status in ("interrupted", "failed"):
        run.save(status=status)
        assert decide(tmp_path, lr=1).checkpoint == str(last)
    run.save(status="done")
    assert decide(tmp_path, lr=1).checkpoint is None


def test_a_folder_with_another_run_is_refused_with_two_ways_out(tmp_path):
    run = tmp_path / "run"
    decide(run, lr=1, output_dir="a").save(status="done")
    decide(run, lr=1, output_dir="./a", report_to="none")
    (tmp_path / "run-2").mkdir()
    ways_out = f"`--resume_from_checkpoint null` overwrites it, `--output_dir {tmp_path / 'run-3'}` keeps both"
    with pytest.raises(ValueError) as refused:
        decide(run, lr=2, epochs=3)
    told = "another epochs (None there, 3 here), lr (1 there, 2 here)"
    assert str(refused.value) == f"{run} holds a run with {told}: {ways_out}"
    with pytest.raises(ValueError, match=r"another a \(.*, b \(.*, c \(.*\) and 2 more: "):
        decide(run, a=1, b=2, c=3, d=4)
    checkpoint(run / "checkpoints", 4)
    anew = decide(run, resume=None, lr=2, epochs=3)
    assert anew.checkpoint is None and not anew.is_resumable


def test_a_new_start_needs_no_readable_manifest(tmp_path):
    (tmp_path / "run.json").write_text("damaged")
    with pytest.raises(ValueError, match="is damaged"):
        decide(tmp_path, lr=1)
    assert decide(tmp_path, resume=None, lr=1).checkpoint is None


def test_checkpoints_of_an_unknown_run_are_not_deleted_unasked(tmp_path):
    checkpoint(tmp_path / "checkpoints", 4)
    with pytest.raises(ValueError, match=r"holds checkpoints and no run.json: `--resume_from_checkpoint null`"):
        decide(tmp_path, lr=1)
    assert decide(tmp_path, resume=None, lr=1).checkpoint is None


LOOKS = {"logging_steps": 9, "save_steps": 9, "save_total_limit": 1, "report_to": "trackio", "push_to_hub": True}
LOOKS |= {"log_completions": True, "dataloader_num_workers": 2, "vllm_server_port": 8001, "hub_model_id": "me/it"}


def test_settings_that_change_no_weight_do_not_hinder_a_resumption(tmp_path):
    decide(tmp_path, lr=1, logging_steps=1, save_steps=2).save()
    last = checkpoint(tmp_path / "checkpoints", 4)
    for key, value in LOOKS.items():
        assert decide(tmp_path, lr=1, **{"logging_steps": 1, "save_steps": 2, key: value}).checkpoint == str(last), key


@pytest.mark.parametrize(
    ("key", "others"),
    [
        ("save_steps", {"load_best_model_at_end": True}),  # the best of those saved is the product
        ("logging_steps", {"eval_strategy": "steps"}),  # evaluations follow, and draw random numbers
        ("logging_steps", {"gold_reward": "judge"}),  # the best of those logged is the product
        ("logging_steps", {"kl_budget": 5.0}),  # the run stops at a logged point
    ],
)
def test_the_same_settings_are_another_run_where_they_decide_the_weights(tmp_path, key, others):
    decide(tmp_path, **{key: 2}, **others).save()
    with pytest.raises(ValueError, match=rf"another {key} \(2 there, 4 here\)"):
        decide(tmp_path, **{key: 4}, **others)


def test_a_start_that_failed_before_anything_was_kept_does_not_lock_its_folder(tmp_path):
    for status in ("failed", "interrupted"):
        decide(tmp_path, resume=None, lr=1, data=[source("1")]).save(status=status)
        anew = decide(tmp_path, lr=2, data=[source("2")])
        assert anew.checkpoint is None and anew.manifest.resumed == []
    for status in ("running", "done"):  # it may be at its first steps; it has a product
        decide(tmp_path, resume=None, lr=1).save(status=status)
        with pytest.raises(ValueError, match="another lr"):
            decide(tmp_path, lr=2)
    decide(tmp_path, resume=None, lr=1).save(status="failed")
    checkpoint(tmp_path / "checkpoints", 4)
    with pytest.raises(ValueError, match="another lr"):
        decide(tmp_path, lr=2)


@pytest.mark.parametrize("status", ["done", "interrupted"])
def test_a_run_can_be_trained_further(tmp_path, capsys, status):
    defaults = {"max_steps": -1, "num_train_epochs": 3.0}
    decide(tmp_path, lr=1, max_steps=4).save(status=status, steps=4)
    last = checkpoint(tmp_path / "checkpoints", 4, state='{"global_step": 4, "epoch": 2.0}')
    longer = decide(tmp_path, lr=1, max_steps=8, defaults=defaults)
    assert longer.checkpoint == str(last) and longer.is_resumable
    assert [(entry.checkpoint, entry.length) for entry in longer.manifest.resumed] == [
        ("checkpoint-4", {"max_steps": 4})
    ]
    assert "goes on from checkpoint-4 (max_steps was 4)" in capsys.readouterr().out
    assert decide(tmp_path, lr=1, defaults=defaults).checkpoint == str(last)  # three epochs
    with pytest.raises(ValueError, match=r"max_steps \(4 there, 3 here\), and checkpoint-4 is as far already: `--res"):
        decide(tmp_path, lr=1, max_steps=3, defaults=defaults)
    with pytest.raises(ValueError, match="checkpoint-4 is as far already"):
        decide(tmp_path, lr=1, num_train_epochs=2, defaults=defaults)
    with pytest.raises(ValueError, match=r"another lr .*, max_steps"):
        decide(tmp_path, lr=2, max_steps=8, defaults=defaults)


def test_a_finished_run_is_trained_further_only_from_a_checkpoint(tmp_path):
    decide(tmp_path, max_steps=4).save(status="done", steps=4)
    with pytest.raises(
        ValueError, match=r"\(4 there, 8 here\), and no checkpoint to train it further from: `--resume"
    ):
        decide(tmp_path, max_steps=8)
    checkpoint(tmp_path / "checkpoints/member-0", 4)
    with pytest.raises(ValueError, match="an ensemble cannot be trained further"):
        decide(tmp_path, max_steps=8)


def test_a_setting_left_at_its_default_is_that_default(tmp_path):
    decide(tmp_path, lr=1).save(status="done")
    decide(tmp_path, lr=1, use_peft=True, defaults={"use_peft": True})
    with pytest.raises(ValueError, match=r"another use_peft \(True there, False here\)"):
        decide(tmp_path, lr=1, use_peft=False, defaults={"use_peft": True})


def test_a_copied_pipeline_is_read_from_its_own_folder_and_one_of_the_first_version_is_named(tmp_path):
    stage = {"name": "sft", "recipe": "sft", "config": None, "parent": None, "folder": "sft", "eval": "sft/eval"}
    index = {"schema": 2, "name": "p", "base": {"name": "b", "hash": "h"}, "stages": [stage | {"status": "done"}]}
    for name in ("original", "copy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pipeline.json").write_text(json.dumps(index))
        (read,) = read_pipeline_index(tmp_path / name).stages
        assert (read.folder, read.eval) == (str(tmp_path / name / "sft"), str(tmp_path / name / "sft/eval"))
    (tmp_path / "old").mkdir()
    (tmp_path / "old/course.json").write_text("{}")
    with pytest.raises(ValueError, match=r"old holds a pipeline of the first version \(course.json\)"):
        read_pipeline_index(tmp_path / "old")


def test_a_run_whose_data_changed_is_not_resumed(tmp_path):
    decide(tmp_path, data=[source("1")]).save()
    checkpoint(tmp_path / "checkpoints", 4)
    assert decide(tmp_path, data=[source("1")]).checkpoint is not None
    with pytest.raises(ValueError, match="its data changed since it began"):
        decide(tmp_path, data=[source("2")])


def test_time_adds_up_over_resumptions(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    run = decide(tmp_path)
    now[0] += 100
    run.save()
    checkpoint(tmp_path / "checkpoints", 4)
    resumed = decide(tmp_path)
    now[0] += 50
    resumed.save()
    assert read_manifest(tmp_path).seconds == 150


def test_one_of_several_processes_writes(tmp_path):
    Run(tmp_path, manifest(), is_writer=False).save()
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("no\nhead"), "failed", "ValueError: no head"),
        (SystemExit(2), "failed", "exit status 2"),
        (KeyboardInterrupt(), "interrupted", "Ctrl-C"),
    ],
)
def test_an_exception_is_the_reason_in_the_manifest_and_still_an_exception(tmp_path, error, status, reason):
    with pytest.raises(type(error)), Run(tmp_path, manifest()):
        raise error
    read = read_manifest(tmp_path)
    assert (read.status, read.reason) == (status, reason) and read.ended


def test_a_manifest_is_read_as_it_was_written_without_nan(tmp_path):
    run = Run(tmp_path, manifest(config={"a": [1, None]}, data=[source("1")]))
    run.save(metrics={"loss": math.nan, "reward": 1.0})
    assert read_manifest(tmp_path).metrics == {"loss": None, "reward": 1.0}
    assert read_manifest(tmp_path).data == [source("1")]
    with pytest.raises(ValueError, match="no_such_field"):
        run.save(no_such_field=1)


@pytest.mark.parametrize("read", [read_manifest, read_pipeline_index])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "does not exist"),
        ("", "is damaged"),
        ('{"schema": 2, "sta', "is damaged"),
        ("[1]", "is damaged"),
        ("{}", "has schema none, this version reads 2"),
        ('{"schema": 3}', "has schema 3"),
        (
            '{"schema": 2, "status": "finished", "name": 7}',
            r"(status|name): Input should be",
        ),
    ],
)
def test_a_file_that_is_no_manifest_is_one_line_that_names_it(tmp_path, read, text, words):
    path = tmp_path / ("run.json" if read is read_manifest else "pipeline.json")
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=words) as raised:
        read(tmp_path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_manifest_of_the_first_version_is_read(tmp_path):
    base = read_manifest(ROOT / "data/tiny/base")
    assert base.status == "done" and base.recipe == "pretrain" and base.data[0].license == "Apache-2.0"
    old = {
        "schema": 1,
        "status": "interrupted",
        "command": ["grpo.py"],
        "resumed": [{"at": "t", "from": "checkpoint-4"}],
    }
    (tmp_path / "run.json").write_text(json.dumps(old))
    read = read_manifest(tmp_path)
    assert (read.status, read.recipe, read.resumed[0].checkpoint) == ("interrupted", "grpo", "checkpoint-4")


def evaluating(folder, tasks=("t",)):
    model = ModelSource(name="b", hash="0")
    return open_evaluation(ROOT / "eval/run.py", folder, {"tasks": list(tasks)}, model, None)


def test_an_evaluation_of_a_base_is_recorded_beside_its_folder(tmp_path):
    with evaluating(tmp_path / "base/eval"):
        entry = read_manifest(tmp_path / "base").evaluations[0]
        assert entry.status == "running" and entry.results_hash is None
        for file in ("results.json", "samples/t.jsonl"):
            write_json(tmp_path / "base/eval" / file, {})
    (entry,) = read_manifest(tmp_path / "base").evaluations
    assert (entry.folder, entry.tasks, entry.status) == ("eval", ["t"], "done") and entry.results_hash
    with evaluating(tmp_path / "before"):
        pass
    assert not (tmp_path / "run.json").exists()


def test_an_evaluation_that_fails_says_so_and_leaves_the_others(tmp_path):
    other = Evaluation(folder="../after", tasks=["t"], fingerprint="f", status="done")
    write_json(tmp_path / "run.json", manifest(evaluations=[other]).model_dump(mode="json", by_alias=True))
    with pytest.raises(OSError), evaluating(tmp_path / "eval"):
        raise OSError("no space")
    first, second = read_manifest(tmp_path).evaluations
    assert first == other and (second.status, second.reason) == ("failed", "OSError: no space")


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


def test_results_name_the_layers_that_programs_ran_behind():
    layers = {"seccomp": True, "landlock": False}
    written = build_results("x", None, Hashes(model=""), "run.py", SamplingSettings(), {}, layers).to_json()
    assert json.loads(json.dumps(written))["sandbox"] == layers
    manifest = RunManifest(status="done", recipe="grpo", sandbox=layers)
    assert RunManifest.model_validate_json(manifest.model_dump_json(by_alias=True)).sandbox == layers


def test_redacted_is_recognisable():
    assert redact({"password": "x"}) == {"password": REDACTED}


def test_results_hide_what_the_run_record_hides(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "planted-in-the-environment")
    command = "run.py --x planted-in-the-environment --y ghp_abcdefghij0123456789"
    written = json.dumps(
        build_results(
            "https://me:password1@host/model", None, Hashes(model=""), command, SamplingSettings(), {}
        ).to_json()
    )
    assert not any(text in written for text in ("planted-in", "ghp_abc", "password1"))
