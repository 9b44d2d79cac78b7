"""Shared adapters, pulled, measured again and merged."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipes import share
from schoolhouse.core.fingerprint import file_hash
from schoolhouse.core.models import adapter_hash
from schoolhouse.evaluation.results import TaskResult
from schoolhouse.evaluation.statistics.intervals import wilson
from schoolhouse.hub.lineage import BaseOnHub, Lineage, LineageStage, check_lineage
from schoolhouse.hub.merge import merge
from schoolhouse.hub.verify import check_claim, overall, read_claims
from tests.hub_runs import call, command, elsewhere, loopback, make_run, write_results
from tests.tiny_models import make_tiny_model


pytest_plugins = ["tests.hub_fixtures"]


def claim(right: int, n: int, **more) -> dict:
    value = {"version": 1, "higher_is_better": True, "n": n, "value": right / n, "interval": list(wilson(right, n))}
    return value | more


def verdict_on(claimed: dict, found: dict) -> str:
    return check_claim(TaskResult.model_validate(claimed), TaskResult.model_validate(found))[0]


@pytest.mark.parametrize(
    ("claimed", "found", "verdict"),
    [
        (claim(150, 300), claim(150, 300), "reproduced"),
        (claim(150, 300), claim(153, 300), "reproduced"),
        (claim(165, 300), claim(150, 300), "differs"),
        (claim(150, 300), claim(52, 100), "reproduced"),
        (claim(225, 300), claim(50, 100), "differs"),
        (claim(150, 300), claim(5, 10), "cannot tell"),
        (claim(300, 300), claim(3, 10), "differs"),
        (claim(150, 300, value=0.9), claim(150, 300), "differs"),
        (claim(150, 300), claim(150, 300, version=2), "cannot tell"),
        (claim(150, 300), claim(0, 300, value=None, interval=None), "cannot tell"),
    ],
)
def test_claim_is_checked_by_the_interval_of_the_difference(claimed, found, verdict):
    assert verdict_on(claimed, found) == verdict


def test_honest_claim_seldom_differs_and_an_inflated_one_mostly_does():
    generator = torch.Generator().manual_seed(0)

    def asked(share, n):
        return claim(int((torch.rand(n, generator=generator) < share).sum()), n)

    honest = [verdict_on(asked(0.5, 400), asked(0.5, 200)) for _ in range(400)]
    inflated = [verdict_on(asked(0.7, 400), asked(0.5, 200)) for _ in range(400)]
    assert honest.count("differs") / 400 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert inflated.count("differs") / 400 > 0.95


def test_one_difference_decides():
    assert overall(["reproduced", "differs"]) == "differs"
    assert overall(["reproduced", "cannot tell"]) == "cannot tell"
    assert overall([]) == "cannot tell"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A base, and an adapter on it that does something."""
    base = make_tiny_model(tmp_path_factory.mktemp("base"))
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.mul_(0.1)  # as drawn, it would drown the base
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return base, folder


@pytest.mark.parametrize(("dtype", "largest"), [("float32", 1e-5), ("bfloat16", 5e-2)])
def test_merged_model_computes_what_base_and_adapter_do(pair, tmp_path, dtype, largest):
    from peft import PeftModel

    base, adapter = map(str, pair)
    assert merge(base, adapter, tmp_path / "merged", dtype) < largest
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="float32")
    ids = torch.arange(40).view(1, -1)
    plain = AutoModelForCausalLM.from_pretrained(base)
    before = plain(input_ids=ids).logits
    wanted = PeftModel.from_pretrained(plain, adapter)(input_ids=ids).logits
    assert (wanted - before).abs().max() > 5 * largest * wanted.abs().max()
    assert (merged(input_ids=ids).logits - wanted).abs().max() < 2 * largest * wanted.abs().max()


def test_merge_that_computes_something_else_writes_nothing(pair, tmp_path, monkeypatch):
    from peft import LoraModel

    honest = LoraModel.merge_and_unload

    def wrong(self, *args, **kwargs):
        for module in self.model.modules():
            if isinstance(getattr(module, "scaling", None), dict):
                module.scaling = {name: 1.01 * value for name, value in module.scaling.items()}
        return honest(self, *args, **kwargs)

    monkeypatch.setattr(LoraModel, "merge_and_unload", wrong)
    with pytest.raises(ValueError, match="computes something else"):
        merge(str(pair[0]), str(pair[1]), tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def make_lineage(folder: Path, adapter: Path) -> Path:
    for path in adapter.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    stage = LineageStage(name="sft", folder="", adapter=adapter_hash(str(adapter)), parent=None, reward_models=[])
    base = BaseOnHub(name="owner/base", revision="b" * 40, hash="c" * 64)
    files = {path.name: file_hash(path) for path in folder.iterdir()}
    (folder / "lineage.json").write_text(Lineage(base=base, stages=[stage], files=files).to_json())
    return folder


def test_lineage_names_the_file_that_was_changed(pair, tmp_path):
    folder = make_lineage(tmp_path, pair[1])
    check_lineage(folder)
    weights = folder / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors is not the file"):
        check_lineage(folder)
    weights.unlink()
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors is named .* missing"):
        check_lineage(folder)


def test_lineage_cannot_point_outside_its_folder(pair, tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside.txt").write_text("x")
    folder = make_lineage(tmp_path / "inside", pair[1])
    lineage = json.loads((folder / "lineage.json").read_text())
    lineage["files"]["../outside.txt"] = file_hash(tmp_path / "outside.txt")
    (folder / "lineage.json").write_text(json.dumps(lineage))
    with pytest.raises(ValueError, match="outside the repository"):
        check_lineage(folder)


def make_claims(folder: Path, published=0.5, **claims) -> Path:
    (folder / ".eval_results").mkdir()
    results = {"schema": 2, "hashes": {"model": "a" * 64}, "sampling": {}, "tasks": claims}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / ".eval_results/svamp.yaml").write_text(yaml.safe_dump([{"value": published}]))
    (folder / ".eval_results/a-b-svamp.yaml").write_text(yaml.safe_dump([{"value": "of another stage"}]))
    return folder


def test_claims_are_read_where_both_files_say_the_same(tmp_path):
    honest = claim(150, 300)
    assert read_claims(make_claims(tmp_path, svamp=honest)) == {"svamp": TaskResult.model_validate(honest)}
    (tmp_path / "results.json").unlink()
    (tmp_path / ".eval_results/svamp.yaml").unlink()
    assert read_claims(tmp_path) == {}


@pytest.mark.parametrize(
    ("published", "claims", "told"),
    [
        (0.9, {"svamp": claim(150, 300)}, "says 0.9 of svamp, results.json something else"),
        (0.5, {"gsm8k": claim(150, 300)}, "is not of the form"),
        (0.5, {"svamp": claim(150, 300, value="\x1b[31m")}, "is not of the form"),
        (0.5, {"svamp": claim(150, 300, interval=[0])}, "is not of the form"),
        (0.5, {"svamp": 1}, "is not of the form"),
    ],
)
def test_hostile_claims_are_refused_in_one_line(tmp_path, published, claims, told):
    with pytest.raises(ValueError, match=told) as error:
        read_claims(make_claims(tmp_path, published, **claims))
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)


@pytest.fixture
def pull(hub, surroundings, tmp_path):
    """The command line's `pull` in a process of its own: exit status, what it says, and what is then there."""

    def pulled(repo_id, *flags, **variables):
        line = command("pull", repo_id, "--output_dir", tmp_path / "theirs", *flags)
        environment = elsewhere(hub, tmp_path / "home", **variables)
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        there = {path.relative_to(tmp_path / "theirs").as_posix() for path in (tmp_path / "theirs").rglob("*.*")}
        return done.returncode, done.stdout + done.stderr, there

    return pulled


def test_pull_brings_what_was_pushed(api, base, run, repo_id, pull, tmp_path):
    assert call("push", run, repo_id, "--base_model", base[1]) == 0
    for name in ("training_args.bin", "vocab.txt", "other/adapter_config.json"):
        api.upload_file(path_or_fileobj=b"added after the push", path_in_repo=name, repo_id=repo_id)
    status, told, there = pull(repo_id)
    assert status == 0 and "are those of the lineage" in told and base[1] in told
    assert {"adapter_model.safetensors", "run.json", "results.json", "README.md", "lineage.json"} <= there
    assert adapter_hash(str(tmp_path / "theirs")) == adapter_hash(str(run / "adapter"))
    assert not there & {"training_args.bin", "vocab.txt", "other/adapter_config.json"}
    status, told, _ = pull(repo_id)
    assert status == 2 and "is not empty" in told


@loopback
@pytest.mark.parametrize(
    ("path", "change", "told"),
    [
        ("adapter_model.safetensors", lambda old: old[:-1] + bytes([old[-1] ^ 1]), "it was changed after the push"),
        ("results.json", lambda old: old.replace(b"0.6", b"0.9"), "results.json is not the file that lineage.json"),
        ("lineage.json", lambda old: b"{}", "not of the form"),
        ("lineage.json", lambda old: old.replace(b'"files": {', b'"files": {"chat_template.jinja": "1",'), "missing"),
    ],
)
def test_pull_refuses_what_differs_from_the_lineage(hub, api, base, run, repo_id, pull, path, change, told):
    assert call("push", run, repo_id, "--base_model", base[1]) == 0
    api.upload_file(path_or_fileobj=change(hub.files(repo_id)[path]), path_in_repo=path, repo_id=repo_id)
    status, error, there = pull(repo_id)
    last = error.splitlines()[-1]  # after the client's progress bars
    assert status == 2 and last.startswith("recipes/share.py: error: ") and told in last and not there


@loopback
def test_a_claim_on_a_task_of_ones_own_is_measured_with_its_file(
    surroundings, base, repo_id, tmp_path, capsys, monkeypatch
):
    mine = write_results(make_run(tmp_path / "mine", base[0]), task="mine")
    assert call("push", mine, repo_id, "--base_model", base[1]) == 0
    assert call("verify", repo_id) == 2
    assert "mine is no built-in task: name its YAML file" in capsys.readouterr().err
    asked = []

    def measure_again(base, adapter, tasks, arguments, folder):
        asked.extend(tasks)
        shutil.copytree(mine / "eval", folder)

    monkeypatch.setattr(share, "measure_again", measure_again)
    assert call("verify", repo_id, "--tasks", "tasks/mine.yaml") == 0 and asked == ["tasks/mine.yaml"]


@loopback
def test_pull_without_repository_or_network_says_so_in_one_line(hub, repo_id, pull, monkeypatch, tmp_path, capsys):
    status, told, there = pull(repo_id)
    assert status == 2 and repo_id in told and "not found" in told.lower() and told.count("\n") == 1 and not there
    status, told, there = pull(repo_id, HF_HUB_OFFLINE="1")
    assert status == 2 and "cannot be reached" in told and told.count("\n") == 1 and not there
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert call("pull", repo_id, "--output_dir", tmp_path / "theirs") == 2
    assert "cannot be reached" in capsys.readouterr().err and not (tmp_path / "theirs").exists()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["push", "outputs/nowhere", "owner/x"], "outputs/nowhere is no folder"),
        (["pull", "owner/x"], "required: --output_dir"),
        (["merge", "ADAPTER", "--output_dir", "OUT", "--dtype", "float16"], "choose one of float32, bfloat16"),
        (["verify", "owner/x", "--limt", "3"], "--limt"),
        (["sell"], "push"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(pair, tmp_path, argv, told):
    argv = [{"ADAPTER": str(pair[1]), "OUT": str(tmp_path / "out")}.get(word, word) for word in argv]
    done = subprocess.run(command(*argv), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


def test_merge_on_the_command_line_names_its_parity(pair, tmp_path, capsys):
    assert call("merge", pair[1], "--output_dir", tmp_path / "merged") == 0
    assert "logits differ from base + adapter by" in capsys.readouterr().out
    assert (tmp_path / "merged/model.safetensors").is_file()
