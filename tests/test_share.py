"""Pushing adapters to a Hub on loopback, with the real client: what arrives, what never leaves, what is refused."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import HfApi, ModelCard, constants, parse_eval_result_entries
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from eval.harness.models import adapter_hash, model_hash
from recipes import share
from recipes.sharing.card import derive_licence
from recipes.sharing.secrets import find_secrets, markdown, published, shown
from recipes.sharing.stages import read_stages
from recipes.sharing.upload import build_files, push
from tests.hub_server import HubServer
from tests.tiny_models import make_tiny_model


# With a token the very same tests ask the real Hub; SCHOOLHOUSE_TEST_HUB is set by `make test-hub`.
REAL = bool(os.environ.get("SCHOOLHOUSE_TEST_HUB"))
TOKEN = os.environ.get("HF_TOKEN", "") if REAL else "hf_ownersTokenForTests"
loopback = pytest.mark.skipif(REAL, reason="faults and other accounts can only be had on loopback")


@pytest.fixture(scope="module")
def hub():
    accounts = {
        TOKEN: {"name": "owner", "orgs": ["school"]},
        "hf_readersTokenForTests": {"name": "owner", "role": "read"},
    }
    with pytest.MonkeyPatch.context() as patch, HubServer(accounts) as server:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # files go by LFS, which loopback speaks
        yield server


@pytest.fixture(scope="module")
def api(hub):
    return HfApi(endpoint=None if REAL else hub.url, token=TOKEN)


@pytest.fixture(autouse=True)
def surroundings(hub, monkeypatch, tmp_path):
    """The command line asks the same Hub, with a clean cache."""
    hub.reset()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    if not REAL:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )


@pytest.fixture(scope="module")
def owner(api):
    return api.whoami()["name"]


@pytest.fixture(scope="module")
def base(tmp_path_factory, api, owner):
    """A tiny base in a folder, and the same on the Hub."""
    folder = make_tiny_model(tmp_path_factory.mktemp("base"))
    repo_id = f"{owner}/schoolhouse-test-base"
    api.create_repo(repo_id, private=True, exist_ok=True)
    for path in folder.iterdir():
        api.upload_file(path_or_fileobj=path.read_bytes(), path_in_repo=path.name, repo_id=repo_id)
    api.upload_file(path_or_fileobj=b"---\nlicense: mit\n---\n# Base\n", path_in_repo="README.md", repo_id=repo_id)
    yield folder, repo_id
    api.delete_repo(repo_id) if REAL else None


def make_run(folder: Path, base: Path, kind="sft", task_type="CAUSAL_LM", seed=0, **record) -> Path:
    """A run folder as a recipe leaves it, with an adapter that does something."""
    loader = AutoModelForCausalLM if task_type == "CAUSAL_LM" else AutoModelForSequenceClassification
    torch.manual_seed(seed)
    model = loader.from_pretrained(base, **({} if task_type == "CAUSAL_LM" else {"num_labels": 1}))
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type=task_type, init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder / "adapter")
    (folder / "adapter/README.md").unlink()
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "adapter")
    values = {
        "schema": 1,
        "status": "finished",
        "command": [f"{kind}.py", "--config", "recipes/configs/tiny/sft.yaml"],
        "config": {"model_name_or_path": str(base), "learning_rate": 0.001, "output_dir": str(folder)},
        "seeds": {"seed": 0},
        "model": {"name": str(base), "revision": "main", "hash": model_hash(str(base))},
        "parent_adapter": None,
        "data": [{"role": "train", "name": "svamp", "revision": None, "used_rows": 689, "sha256": "a" * 64,
                  "licence": "MIT"}],
        "git": {"revision": "b" * 40, "dirty": False},
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "hardware": {"cores": 2, "accelerators": []},
        "seconds": 12.0,
        "steps": 20,
        "product": "adapter",
        "product_hash": adapter_hash(str(folder / "adapter")),
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(values | record))
    return folder


def write_results(run: Path, value=0.6, interval=(0.55, 0.65), n=311, task="svamp", **more) -> Path:
    record = json.loads((run / "run.json").read_text())
    results = {
        "schema": 1,
        "model": record["model"]["name"],
        "adapter": str(run / "adapter"),
        "hashes": {"model": record["model"]["hash"], "adapter": record["product_hash"], "chat_template": None},
        "git": {"revision": "b" * 40, "dirty": False},
        "versions": {},
        "command": f"python eval/run.py --model_name_or_path {record['model']['name']} --tasks {task}",
        "sampling": {"num_samples": 1, "temperature": 0.0, "dtype": "float32"},
        "tasks": {task: {"version": 1, "higher_is_better": True, "n": n, "value": value, "interval": list(interval),
                         "metrics": {"truncated": 0.1}, "max_new_tokens": 128} | more},
    }  # fmt: skip
    (run / "eval").mkdir(exist_ok=True)
    (run / "eval/results.json").write_text(json.dumps(results))
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory, base):
    return write_results(make_run(tmp_path_factory.mktemp("sft"), base[0]))


@pytest.fixture
def repo_id(request, owner, api):
    name = f"{owner}/schoolhouse-test-{re.sub(r'[^a-z0-9]+', '-', request.node.name.lower())[:60].strip('-')}"
    yield name
    if REAL:
        api.delete_repo(name, missing_ok=True)


def call(*argv) -> int:
    return share.main([str(part) for part in argv])


def in_fresh_process(code: str, hub, cache: Path) -> str:
    """What code prints in a process whose cache is empty and whose Hub is the loopback server."""
    environment = os.environ | {"HF_HOME": str(cache), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    environment |= {} if REAL else {"HF_ENDPOINT": hub.url}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


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


def test_pushed_reward_adapter_keeps_its_head(hub, base, repo_id, tmp_path):
    run = make_run(tmp_path / "reward", base[0], "reward", "SEQ_CLS")
    assert call("push", run, repo_id, "--base_model", base[1]) == 0
    code = f"""
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification
ids = torch.arange(30).view(1, -1)
def score(base, adapter):
    base = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    base.config.pad_token_id = 0
    return PeftModel.from_pretrained(base, adapter)(input_ids=ids).logits
print(torch.equal(score({str(base[0])!r}, {str(run / "adapter")!r}), score({base[1]!r}, {repo_id!r})))
"""
    assert in_fresh_process(code, hub, tmp_path / "home").split() == ["True"]


def test_card_carries_metadata_n_and_interval_and_no_local_path(api, base, run, repo_id):
    assert call("push", run, repo_id, "--base_model", base[1]) == 0
    card = ModelCard.load(repo_id, token=TOKEN)
    card.validate()
    wanted = {"base_model": base[1], "base_model_relation": "adapter", "library_name": "peft", "license": "mit",
              "datasets": ["ChilleD/SVAMP"], "pipeline_tag": "text-generation"}  # fmt: skip
    assert {key: card.data.to_dict()[key] for key in wanted} == wanted
    assert "| 311 | 0.600 | 0.550 to 0.650 |" in card.text
    assert "10% of the answers did not end" in card.text
    assert str(base[0]) not in card.content and "/tmp" not in card.content
    entries = parse_eval_result_entries(
        yaml.safe_load(Path(api.hf_hub_download(repo_id, ".eval_results/svamp.yaml")).read_text())
    )
    assert (entries[0].dataset_id, entries[0].value) == ("ChilleD/SVAMP", 0.6)
    assert "n=311" in entries[0].notes and "0.550 to 0.650" in entries[0].notes
    info = api.model_info(repo_id)
    assert info.private
    stage = read_stages(str(run))[0]
    tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(repo_id).tags}
    assert tags == {stage.tag: info.sha}


def test_course_is_one_repository_with_a_folder_per_stage(hub, base, repo_id, tmp_path, api):
    first = make_run(tmp_path / "1-sft", base[0])
    parent = {"name": str(first / "adapter"), "hash": adapter_hash(str(first / "adapter"))}
    make_run(tmp_path / "2-grpo", base[0], "grpo", seed=1, parent_adapter=parent)
    stages = [
        {"name": name, "recipe": f"{name}.py", "config": "", "after": None, "folder": folder, "key": "",
         "status": status, "seconds": 1, "eval": None}
        for name, folder, status in [
            ("sft", "1-sft", "finished"), ("grpo", "2-grpo", "finished"), ("ppo", "3", "failed")
        ]
    ]  # fmt: skip
    (tmp_path / "course.json").write_text(
        json.dumps({"schema": 1, "name": "c", "base": str(base[0]), "stages": stages})
    )
    assert call("push", tmp_path, repo_id, "--base_model", base[1]) == 0
    paths = set(api.list_repo_files(repo_id))
    assert {"sft/adapter_model.safetensors", "grpo/adapter_model.safetensors", "sft/run.json", "README.md"} <= paths
    assert "adapter_config.json" not in paths
    lineage = json.loads(Path(api.hf_hub_download(repo_id, "lineage.json")).read_text())
    assert lineage["stages"][1]["parent"] == lineage["stages"][0]["adapter"] == parent["hash"]
    assert len(api.list_repo_refs(repo_id).tags) == 2
    assert "| [`grpo`](#stage-grpo) | `sft` |" in ModelCard.load(repo_id, token=TOKEN).text


@pytest.fixture
def prepared(api, base, run, repo_id, monkeypatch):
    """What a push uploads, its tags; and no waiting between attempts."""
    stages = read_stages(str(run))
    files = build_files(api, repo_id, stages, base[1], None, public=False)
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


SECRET = "hf_" + "PlantedSecret0123456789"
AWS = "AKIA" + "ABCDEFGHIJKLMNOP"


def _plant_in_record(run, **values):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | values))


def _plant_in_results(run, text):
    path = run / "eval/results.json"
    results = json.loads(path.read_text())
    results["command"] += text
    path.write_text(json.dumps(results))


def _plant_in_tokenizer(run, text):
    path = run / "adapter/tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"note": text}))


def _plant_in_weights(run, text):
    from safetensors.torch import load_file, save_file

    path = run / "adapter/adapter_model.safetensors"
    save_file(load_file(path), path, metadata={"format": "pt", "note": text})
    _plant_in_record(run, product_hash=adapter_hash(str(run / "adapter")))
    results = json.loads((run / "eval/results.json").read_text())
    results["hashes"]["adapter"] = adapter_hash(str(run / "adapter"))
    (run / "eval/results.json").write_text(json.dumps(results))


PLANTS = {
    "yaml": lambda run, base: _plant_in_record(run, config={"model_name_or_path": str(base), "note": SECRET}),
    "environment": lambda run, base: _plant_in_record(run, env={"X": SECRET}, note=os.environ["MY_SERVICE_PASSWORD"]),
    "record": lambda run, base: _plant_in_record(run, wandb_api_key=SECRET, aws=f"key {AWS}"),
    "dataset cell": lambda run, base: _plant_in_record(
        run, data=[{"role": "train", "name": "svamp", "revision": None, "used_rows": 1, "sha256": "a" * 64,
                    "licence": "MIT", "malformed_rows": [f"row 7: {SECRET}"]}],
    ),
    "git remote": lambda run, base: _plant_in_record(run, git={"revision": "b" * 40, "dirty": False,
        "remote": f"https://alice:{SECRET}@example.org/x.git"}),
    "traceback": lambda run, base: _plant_in_record(run, error=f'File "/home/alice/x.py", line 1\n{SECRET}'),
    "command": lambda run, base: _plant_in_record(run, command=["sft.py", "--hub_token", SECRET]),
    "results": lambda run, base: _plant_in_results(run, f" --token {SECRET} --x /home/alice/private.json"),
    "chat template": lambda run, base: (run / "adapter/chat_template.jinja").write_text(f"{{# {SECRET} #}}"),
    "tokenizer": lambda run, base: _plant_in_tokenizer(run, f"-----BEGIN RSA PRIVATE KEY----- {SECRET}"),
    "weights' metadata": lambda run, base: _plant_in_weights(run, SECRET),
    "stray file": lambda run, base: (run / "adapter/notes.txt").write_text(SECRET),
}  # fmt: skip


@loopback
@pytest.mark.parametrize("place", PLANTS)
def test_planted_secret_never_leaves(hub, base, repo_id, tmp_path, monkeypatch, capsys, place):
    monkeypatch.setenv("MY_SERVICE_PASSWORD", "correct horse battery")
    run = write_results(make_run(tmp_path / "run", base[0]))
    PLANTS[place](run, base[0])
    status = call("push", run, repo_id, "--base_model", base[1])
    told = capsys.readouterr()
    sent = b"\n".join(hub.received)
    for secret in (SECRET, AWS, "correct horse battery", "/home/alice", "PRIVATE KEY"):
        assert secret.encode() not in sent and secret not in told.out + told.err
    assert repo_id not in hub.repositories if status else repo_id in hub.repositories
    if place in ("chat template", "tokenizer", "weights' metadata"):
        assert status == 2 and re.search(r"nothing was uploaded: [\w./]+, line \d+: ", told.err)


def test_scan_says_where_and_not_what():
    found = find_secrets("a.yaml", f"fine: 1\nkey: {SECRET}\n".encode())
    assert found == ["a.yaml, line 2: a token, or a secret of the environment"]
    assert find_secrets("a.json", b'{"x": "/home/alice/data"}') == ["a.json, line 1: an absolute path"]
    assert find_secrets("a.md", b"see https://huggingface.co/docs/peft/index and n/a, a </b/> 1/2/3\n") == []
    assert find_secrets("tokenizer_config.json", b'{"eos_token": "<|endoftext|>", "token": null}') == []


def test_published_record_has_no_rows_and_no_paths():
    record = {"command": ["--x", "/home/a/b", "~/secret/x", r"C:\Users\me\x"], "malformed_rows": ["x"], "n": 1}
    assert published(record) == {"command": ["--x", "<local>", "<local>", "<local>"], "n": 1}


@loopback
@pytest.mark.parametrize(
    ("change", "argv", "told"),
    [
        (lambda run: (run / "adapter/adapter_config.json").unlink(), [], "is no adapter"),
        (lambda run: (run / "adapter/training_args.bin").write_bytes(b""), [], "training_args.bin may be pickled"),
        (lambda run: (run / "run.json").unlink(), [], "has no run.json"),
        (lambda run: _plant_in_record(run, product_hash="0" * 64), [], "is not the record of this adapter"),
        (None, ["--base_model", "owner/other-base"], "does not match"),
        (None, ["--base_model", "owner/nowhere"], "is not on the Hub"),
        (None, ["--base_model", ""], "--base_model owner/name"),
        (lambda run: _plant_in_record(run, data=[]), ["--results", "nowhere"], "holds no results.json"),
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
    refused(hub, capsys, repo_id, "rules for names", "push", run, "owner/bad--name", *push_it)
    monkeypatch.setenv("HF_TOKEN", "hf_readersTokenForTests")
    refused(hub, capsys, repo_id, "may only read", "push", run, repo_id, *push_it)
    monkeypatch.setenv("HF_TOKEN", "hf_expiredTokenForTests")
    refused(hub, capsys, repo_id, "expired or revoked", "push", run, repo_id, *push_it)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    refused(hub, capsys, repo_id, "no token", "push", run, repo_id, *push_it)


@loopback
def test_different_adapter_is_only_replaced_when_told(hub, base, run, repo_id, tmp_path, capsys):
    assert call("push", run, repo_id, "--base_model", base[1]) == 0
    other = make_run(tmp_path / "other", base[0], seed=5)
    refused(hub, capsys, repo_id, "holds a different adapter", "push", other, repo_id, "--base_model", base[1])
    assert call("push", other, repo_id, "--base_model", base[1], "--overwrite") == 0
    assert (
        hub.files(repo_id)["adapter_model.safetensors"] == (other / "adapter/adapter_model.safetensors").read_bytes()
    )
    assert len(hub.repositories[repo_id].tags) == 2


@loopback
def test_public_push_needs_a_licence(hub, base, repo_id, tmp_path, capsys):
    data = [{"role": "train", "name": "mine", "revision": None, "used_rows": 1, "sha256": "a" * 64, "licence": None}]
    run = make_run(tmp_path / "run", base[0], data=data)
    argv = ("push", run, repo_id, "--base_model", base[1], "--public")
    refused(hub, capsys, repo_id, "a public card needs a licence", *argv)
    assert call(*argv, "--license", "mit") == 0
    assert not hub.repositories[repo_id].private


@pytest.mark.parametrize(
    ("base", "data", "licence", "clashes"),
    [
        ("apache-2.0", {"a": "MIT", "b": "CC-BY-4.0"}, "apache-2.0", 0),
        ("apache-2.0", {"a": "cc-by-nc-4.0"}, None, 1),
        ("apache-2.0", {"a": "cc-by-sa-4.0", "b": None}, None, 2),
        ("llama3.2", {"a": "MIT"}, "llama3.2", 0),
        ("llama3.2", {"a": "gpl-3.0"}, None, 1),
        (None, {"a": "MIT"}, None, 1),
    ],
)
def test_licence_is_derived_only_where_it_is_clear(base, data, licence, clashes):
    derived, found = derive_licence(base, data)
    assert (derived, len(found)) == (licence, clashes)


def test_untrusted_text_is_neither_markup_nor_terminal_control(hub, api, base, repo_id, tmp_path):
    evil = "svamp\x1b[31m|<script>alert(1)</script>\n---\n# [x](http://evil) \u202e`"
    assert "\x1b" not in shown(evil) and "\u202e" not in shown(evil) and "\n" not in shown(evil)
    assert not re.search(r"(?<!\\)[|`\[]|<", markdown(evil))
    data = [{"role": "train", "name": evil, "revision": evil, "used_rows": 1, "sha256": "a" * 64, "licence": "MIT"}]
    config = {"model_name_or_path": str(base[0]), "note": "```\n# out of the fence\n<img src=x>"}
    run = make_run(tmp_path / "run", base[0], data=data, config=config)
    files = build_files(api, repo_id, read_stages(str(run)), base[1], "mit", public=False)
    card = files["README.md"].decode()
    assert "<script>" not in card and "\x1b" not in card and "\u202e" not in card

    from markdown_it import MarkdownIt

    tokens = MarkdownIt().enable("table").parse(card.split("---\n", 2)[2])
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert not any("fence" in heading for heading in headings)
    assert not any(token.type == "html_block" for token in tokens)


@loopback
def test_recipe_with_push_to_hub_shares_adapter_and_no_checkpoint(hub, base, repo_id, tmp_path):
    recipe = {
        "model_name_or_path": base[1], "use_peft": True, "lora_r": 2, "dataset_name": "tiny/sft", "max_train_rows": 32,
        "output_dir": str(tmp_path / "run"), "max_steps": 2, "per_device_train_batch_size": 4, "save_steps": 1,
        "push_to_hub": True, "hub_model_id": repo_id, "report_to": "none", "bf16": False,
    }  # fmt: skip
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(recipe))
    arguments = ["sft.py", "--config", str(tmp_path / "sft.yaml")]
    code = f"import sys; sys.argv = {arguments}; import recipes.sft as sft; sft.main()"
    assert f"pushed to {hub.url}/{repo_id}" in in_fresh_process(code, hub, tmp_path / "home")
    paths = set(hub.files(repo_id))
    assert {"adapter_model.safetensors", "README.md", "run.json", "lineage.json"} <= paths
    assert not [path for path in paths if path.endswith(".bin") or "checkpoint" in path]
