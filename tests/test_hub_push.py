"""Pushing adapters to a Hub on loopback, with the real client: what arrives, what is refused, what a fault leaves."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from transformers import TrainingArguments

from schoolhouse.core.manifest import read_manifest
from schoolhouse.core.run import Run
from schoolhouse.hub.artifacts import read_artifacts
from schoolhouse.hub.bundle import build_files, derive_license
from schoolhouse.hub.push import PushTarget, prepare_push, push, push_after_training
from schoolhouse.hub.verify import read_claims
from tests.hub_runs import (
    TOKEN,
    call,
    change_record,
    command,
    data_source,
    elsewhere,
    in_fresh_process,
    loopback,
    make_run,
    write_results,
)
from tests.tiny_models import make_tiny_model


pytest_plugins = ["tests.hub_fixtures"]
pytestmark = pytest.mark.usefixtures("surroundings")


def test_pushed_adapter_loads_in_one_line_and_computes_the_same_to_the_bit(hub, base, run, repo_id, tmp_path):
    assert call("push", run, repo_id, "--base_model", base[1]) == 0
    code = f"""
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
ids = torch.arange(30).view(1, -1)
load = AutoModelForCausalLM.from_pretrained
local = PeftModel.from_pretrained(load({str(base[0])!r}), {str(run / "adapter")!r})(input_ids=ids).logits
shared = PeftModel.from_pretrained(load({base[1]!r}), {repo_id!r})(input_ids=ids).logits
alone = load({repo_id!r})(input_ids=ids).logits
plain = load({base[1]!r})(input_ids=ids).logits
print(torch.equal(local, shared), torch.equal(local, alone), torch.equal(local, plain))
"""
    assert in_fresh_process(code, hub, tmp_path / "home").split() == ["True", "True", "False"]


def test_card_carries_metadata_n_and_interval_and_no_local_path(api, base, run, repo_id):
    assert call("push", run, repo_id, "--base_model", base[1]) == 0
    card = ModelCard.load(repo_id, token=TOKEN)
    card.validate()
    wanted = {"base_model": base[1], "base_model_relation": "adapter", "library_name": "peft", "license": "mit",
              "datasets": ["ChilleD/SVAMP"], "pipeline_tag": "text-generation"}  # fmt: skip
    assert {key: card.data.to_dict()[key] for key in wanted} == wanted
    assert "| svamp (version 1) | 311 | 0.600 (0.550 to 0.650) |" in card.text
    assert "10% of the answers did not end" in card.text
    assert str(base[0]) not in card.content and "/tmp" not in card.content
    assert not [
        path for path in api.list_repo_files(repo_id) if path.startswith(".eval_results")
    ]  # no benchmark there
    tags = {"trl", "sft", "lora", f"base_model:adapter:{base[1]}"}
    assert tags <= set(card.data.tags) and len(card.data.tags) == len(set(card.data.tags))
    info = api.model_info(repo_id)
    assert info.private
    stage = read_artifacts(str(run))[0]
    tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(repo_id).tags}
    assert tags == {stage.tag: info.sha}


def test_results_of_a_benchmark_are_published_on_its_scale_under_its_task(api, base, repo_id, tmp_path):
    run = write_results(make_run(tmp_path / "run", base[0]), task="gsm8k", n=1319, date="2026-11-25")
    assert call("push", run, repo_id, "--base_model", base[1]) == 0
    path = api.hf_hub_download(repo_id, ".eval_results/gsm8k.yaml")
    (entry,) = parse_eval_result_entries(yaml.safe_load(Path(path).read_text()))
    # The GSM8K leaderboard's own entries: task gsm8k, percent.
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "gsm8k", 60.0)
    assert "n=1319" in entry.notes and "55.0 to 65.0" in entry.notes and entry.date == "2026-11-25"
    tag = read_artifacts(str(run))[0].tag
    assert entry.source_url == f"https://huggingface.co/{repo_id}/blob/{tag}/results.json"
    assert api.file_exists(repo_id, "results.json", revision=tag)
    folder = tmp_path / "pulled"
    assert call("pull", repo_id, "--output_dir", folder) == 0
    assert read_claims(folder)["gsm8k"].value == 0.6  # as `verify` reads it
    (folder / ".eval_results/gsm8k.yaml").write_text(Path(path).read_text().replace("60.0", "61.0"))
    with pytest.raises(ValueError, match=r"says 61.0 of gsm8k"):
        read_claims(folder)


@loopback
@pytest.mark.parametrize("how", ["card", "push --dry_run", "push --dry-run"])
def test_card_and_dry_run_need_neither_token_nor_network(hub, base, run, tmp_path, how, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    (action, *flag), files = how.split(), tmp_path / "files"
    argv = [run, "someone/name", "--base_model", "owner/base"]
    assert call(action, *argv, *(flag and [*flag, files]), *([] if flag else ["--output_dir", files])) == 0
    assert hub.log == [] and "the Hub was not asked" in capsys.readouterr().out
    card = ModelCard.load(files / "README.md")
    assert card.data.base_model == "owner/base" and "| svamp (version 1) | 311 | 0.600 (0.550 to 0.650) |" in card.text
    assert "the license of the base model was not looked up" in card.text.replace("\\", "")


@loopback
def test_card_of_a_folder_without_names_on_the_hub_says_which_are_missing(hub, base, run, tmp_path, capsys):
    shared = Path(shutil.copytree(run, tmp_path / "My run!"))
    assert call("card", shared) == 0
    text = (shared / "README.md").read_text()
    assert "OWNER stands for" in capsys.readouterr().out and "OWNER/My-run" in text
    assert str(base[0]) not in text and f'from_pretrained("OWNER/{base[0].name}")' in text
    assert call("card", shared, "a/b/c") == 2 and "rules for names" in capsys.readouterr().err
    files = build_files(None, "OWNER/My-run", read_artifacts(str(shared)))
    assert "README.md" in files and not [path for path in files if "My run" in path]


@loopback
def test_the_command_that_a_run_prints_at_its_end_shows_what_would_be_shared(hub, run, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    Run(run, read_manifest(run))._print_outcome()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "share:" in line]
    script, *argv = shlex.split(line.partition("python ")[2])
    assert script == "recipes/share.py" and call(*argv) == 0
    assert "private repository OWNER/NAME: sft; " in capsys.readouterr().out and hub.log == []


@pytest.fixture
def prepared(api, base, run, repo_id, monkeypatch):
    """Files that a push uploads, and its tags; attempts follow without waiting."""
    stages = read_artifacts(str(run))
    files = build_files(api, repo_id, stages, base[1])
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return files, [stages[0].tag]


def requests_of_a_push(hub, api, prepared, name) -> int:
    hub.reset()
    push(api, name, *prepared)
    return len(hub.log)


def is_complete(hub, name, prepared) -> bool:
    files = {path: content for path, content in hub.files(name).items() if path != ".gitattributes"}
    return files == prepared[0] and set(hub.repositories[name].tags) == set(prepared[1])


@loopback
@pytest.mark.parametrize("fault", ["500", "429", "cut", "cut-after", "slow"])
def test_fault_at_any_one_request_ends_complete(hub, api, prepared, repo_id, fault):
    number = requests_of_a_push(hub, api, prepared, repo_id)
    assert number >= 8
    for at in range(number):
        hub.reset()
        hub.faults[at] = fault
        hub.blobs.clear()
        push(api, f"{repo_id[:50].rstrip('-')}-{at}", *prepared)
        assert is_complete(hub, f"{repo_id[:50].rstrip('-')}-{at}", prepared), (
            f"{fault} at request {at}: {hub.log[at]}"
        )


@loopback
def test_upload_killed_at_any_request_is_complete_or_absent_and_goes_on(hub, api, prepared, repo_id):
    number = requests_of_a_push(hub, api, prepared, repo_id)
    for at in range(number):
        name = f"{repo_id[:50].rstrip('-')}-{at}"
        hub.reset()
        hub.dead_from = at
        hub.blobs.clear()
        with pytest.raises(ValueError, match="the same command goes on"):
            push(api, name, *prepared)
        there = set(hub.files(name)) - {".gitattributes"} if name in hub.repositories else set()
        assert there in (set(), set(prepared[0])), f"half is there after request {at}"
        hub.reset()
        push(api, name, *prepared)
        assert is_complete(hub, name, prepared)


@loopback
@pytest.mark.parametrize(
    ("fault", "request_of", "is_there"),
    [
        ("hold", "/repos/create", False),
        ("hold-after", "/repos/create", False),
        ("hold-after", "PUT /lfs/", False),
        ("hold", "/commit/main", False),
        ("hold-after", "/commit/main", True),
        ("hold", "/tag/", True),
    ],
)
def test_push_whose_process_is_killed_goes_on_with_the_same_command(
    hub, base, run, prepared, repo_id, tmp_path, fault, request_of, is_there
):
    hub.blobs.clear()
    hub.faults[request_of] = fault
    argv = ("push", run, repo_id, "--base_model", base[1])
    process = subprocess.Popen(command(*argv), env=elsewhere(hub, tmp_path / "home"))
    assert hub.held.wait(60)
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    hub.let_go.set()
    there = set(hub.files(repo_id)) - {".gitattributes"} if repo_id in hub.repositories else set()
    assert there == (set(prepared[0]) if is_there else set()), "half is there"
    hub.faults.clear()
    assert call(*argv) == 0
    assert is_complete(hub, repo_id, prepared)


@loopback
@pytest.mark.parametrize(
    ("change", "argv", "told"),
    [
        (lambda run: (run / "adapter/adapter_config.json").unlink(), [], "is no adapter"),
        (lambda run: (run / "adapter/training_args.bin").write_bytes(b""), [], "training_args.bin may be pickled"),
        (lambda run: (run / "run.json").unlink(), [], "has no run.json"),
        (lambda run: change_record(run, product_hash="0" * 64), [], "is not the manifest of this adapter"),
        (None, ["--base_model", "owner/other-base"], "does not match"),
        (None, ["--base_model", "owner/nowhere"], "is not on the Hub"),
        (None, ["--base_model", ""], "--base_model owner/name"),
        (lambda run: change_record(run, data=[]), ["--results", "nowhere"], "holds no results.json"),
    ],
)
def test_what_may_not_be_pushed_is_refused_in_one_line(hub, api, base, repo_id, tmp_path, capsys, change, argv, told):
    other = make_tiny_model(tmp_path / "other", seed=3)
    api.create_repo("owner/other-base", exist_ok=True)
    for path in other.iterdir():
        api.upload_file(path_or_fileobj=path.read_bytes(), path_in_repo=path.name, repo_id="owner/other-base")
    run = make_run(tmp_path / "run", base[0])
    if change:
        change(run)
    argv = argv if "--base_model" in argv else [*argv, "--base_model", base[1]]
    argv = [] if argv[-1] == "" else argv
    refused(hub, capsys, repo_id, told, "push", run, repo_id, *argv)


def refused(hub, capsys, repo_id, told, *argv):
    capsys.readouterr()
    before = {name: dict(value.refs) for name, value in hub.repositories.items()}
    assert call(*argv) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert {name: dict(value.refs) for name, value in hub.repositories.items()} == before


@loopback
def test_wrong_account_or_name_is_refused_in_one_line(hub, base, run, repo_id, capsys, monkeypatch):
    push_it = ("--base_model", base[1])
    refused(hub, capsys, repo_id, "is someone else's", "push", run, "stranger/adapter", *push_it)
    for name in ("owner/bad--name", "owner/..", "owner/../x", "owner/ünicode", "owner/a b", "owner/x\n", "a/b/c", ""):
        refused(hub, capsys, repo_id, "rules for names", "push", run, name, *push_it)
    monkeypatch.setenv("HF_TOKEN", "hf_readersTokenForTests")
    refused(hub, capsys, repo_id, "may only read", "push", run, repo_id, *push_it)
    monkeypatch.setenv("HF_TOKEN", "hf_expiredTokenForTests")
    refused(hub, capsys, repo_id, "expired or revoked", "push", run, repo_id, *push_it)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    refused(hub, capsys, repo_id, "no token", "push", run, repo_id, *push_it)


@loopback
def test_different_adapter_is_only_replaced_when_told(hub, api, base, run, repo_id, tmp_path, capsys):
    assert call("push", run, repo_id, "--base_model", base[1]) == 0
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="special_tokens_map.json", repo_id=repo_id)
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="plot.svg", repo_id=repo_id)
    other = make_run(tmp_path / "other", base[0], seed=5)
    refused(
        hub, capsys, repo_id, "is private: say --private", "push", run, repo_id, "--base_model", base[1], "--public"
    )
    refused(hub, capsys, repo_id, "holds a different adapter", "push", other, repo_id, "--base_model", base[1])
    assert call("push", other, repo_id, "--base_model", base[1], "--overwrite") == 0
    assert (
        hub.files(repo_id)["adapter_model.safetensors"] == (other / "adapter/adapter_model.safetensors").read_bytes()
    )
    files = set(build_files(api, repo_id, read_artifacts(str(other)), base[1]))
    assert set(hub.files(repo_id)) == files | {".gitattributes", "plot.svg"}  # no claim or token of the first is left
    assert len(hub.repositories[repo_id].tags) == 2


@loopback
def test_stages_of_a_family_are_in_one_collection(hub, base, run, repo_id, capsys):
    names = [f"{repo_id[:50].rstrip('-')}-{stage}" for stage in ("sft", "grpo")]
    for name in (*names, names[0]):  # the same push again changes nothing
        assert call("push", run, name, "--base_model", base[1], "--collection", "My school") == 0
        assert f"{hub.url}/collections/owner/my-school-" in capsys.readouterr().out
    (collection,) = hub.collections.values()
    assert (collection["title"], collection["private"]) == ("My school", True)
    assert [(item["id"], item["type"]) for item in collection["items"]] == [(name, "model") for name in names]


@loopback
def test_public_push_needs_a_license(hub, base, repo_id, tmp_path, capsys):
    run = make_run(tmp_path / "run", base[0], data=[data_source("mine", license=None)])
    argv = ("push", run, repo_id, "--base_model", base[1], "--public")
    refused(hub, capsys, repo_id, "a public card needs a license", *argv)
    assert call(*argv, "--license", "mit") == 0
    assert not hub.repositories[repo_id].private


@pytest.mark.parametrize(
    ("base", "data", "license", "clashes"),
    [
        ("apache-2.0", {"a": "MIT", "b": "CC-BY-4.0"}, "apache-2.0", 0),
        ("apache-2.0", {"a": "cc-by-nc-4.0"}, None, 1),
        ("apache-2.0", {"a": "cc-by-sa-4.0", "b": None}, None, 2),
        ("llama3.2", {"a": "MIT"}, "llama3.2", 0),
        ("llama3.2", {"a": "gpl-3.0"}, None, 1),
        (None, {"a": "MIT"}, None, 1),
    ],
)
def test_license_is_derived_only_where_it_is_clear(base, data, license, clashes):
    derived, found = derive_license(base, list(data.items()))
    assert (derived, len(found)) == (license, clashes)


@loopback
def test_a_push_that_fails_after_training_is_told_and_no_error(hub, api, base, repo_id, tmp_path, capsys):
    on_hub = {"name": base[1], "revision": "main", "hash": api.model_info(base[1]).sha}
    run = make_run(tmp_path / "run", base[0], model=on_hub)
    config = json.loads((run / "adapter/adapter_config.json").read_text())
    (run / "adapter/adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base[1]}))
    target = PushTarget(api, repo_id, public=False)
    hub.faults["/commit/main"] = "413"
    push_after_training(run, target)
    assert re.fullmatch(r"trained, but not pushed: .*injected.*share\.py push .*\n", capsys.readouterr().out)
    hub.reset()
    push_after_training(run, target)
    assert f"pushed to {hub.url}/{repo_id}" in capsys.readouterr().out


@loopback
def test_push_that_cannot_succeed_is_refused_before_training(base, repo_id, tmp_path):
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"), push_to_hub=True, hub_model_id=repo_id, hub_token=TOKEN, report_to="none"
    )
    with pytest.raises(ValueError, match="only known as the folder"):
        prepare_push(arguments, str(base[0]))
    target = prepare_push(arguments, base[1])
    assert (target.repo_id, target.public, arguments.push_to_hub) == (repo_id, False, False)
    arguments.hub_model_id = "stranger/adapter"
    with pytest.raises(ValueError, match="is someone else's"):
        prepare_push(arguments, base[1])
    arguments.hub_model_id, arguments.hub_token = repo_id, "hf_expiredTokenForTests"
    with pytest.raises(ValueError, match="expired or revoked"):
        prepare_push(arguments, base[1])


@loopback
def test_dry_run_writes_what_would_be_uploaded_and_uploads_nothing(hub, api, base, run, repo_id, tmp_path, capsys):
    assert call("push", run, repo_id, "--base_model", base[1], "--dry_run", tmp_path / "files") == 0
    printed = capsys.readouterr().out
    assert f"private repository {repo_id}: sft; " in printed and "  adapter_model.safetensors (" in printed
    written = {path.relative_to(tmp_path / "files").as_posix() for path in (tmp_path / "files").rglob("*.*")}
    wanted = build_files(api, repo_id, read_artifacts(str(run)), base[1])
    assert written - {".eval_results"} == set(wanted) and repo_id not in hub.repositories
