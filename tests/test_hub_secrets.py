"""No secret leaves the machine, and text of unknown origin does nothing in a card."""

import base64
import getpass
import hashlib
import json
import os
import re
import shlex
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from schoolhouse.core.escape import markdown, one_line
from schoolhouse.core.manifest import ModelSource, PipelineIndex, PipelineStage
from schoolhouse.core.models import adapter_hash
from schoolhouse.core.redaction import anonymize, redact
from schoolhouse.hub.artifacts import read_artifacts
from schoolhouse.hub.bundle import build_files
from schoolhouse.hub.model_card import eval_command
from schoolhouse.hub.secret_scan import find_secrets
from tests.hub_runs import call, change_record, data_source, loopback, make_run, write_results
from tests.private_text import PERSONAL, TOKENS


pytest_plugins = ["tests.hub_fixtures"]
pytestmark = pytest.mark.usefixtures("surroundings")


SECRET = "hf_" + "PlantedSecret0123456789"
AWS = "AKIA" + "ABCDEFGHIJKLMNOP"


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
    change_record(run, product_hash=adapter_hash(str(run / "adapter")))
    results = json.loads((run / "eval/results.json").read_text())
    results["hashes"]["adapter"] = adapter_hash(str(run / "adapter"))
    (run / "eval/results.json").write_text(json.dumps(results))


PLANTS = {
    "yaml": lambda run, base: change_record(run, config={"model_name_or_path": str(base), "note": SECRET}),
    "environment": lambda run, base: change_record(
        run, metrics={"env": {"X": SECRET}, "note": os.environ["MY_SERVICE_PASSWORD"]}
    ),
    "record": lambda run, base: change_record(run, metrics={"wandb_api_key": SECRET, "aws": f"key {AWS}"}),
    "unknown key": lambda run, base: change_record(run, wandb_api_key=SECRET, note=f"key {AWS}"),
    "dataset cell": lambda run, base: change_record(
        run, data=[data_source("svamp", malformed_rows=[f"row 7: {SECRET}"])]
    ),
    "git remote": lambda run, base: change_record(
        run, pairs={"remote": f"https://alice:{SECRET}@example.org/x.git"}
    ),
    "traceback": lambda run, base: change_record(run, reason=f'File "/home/alice/x.py", line 1\n{SECRET}'),
    "command": lambda run, base: change_record(run, command=["sft.py", "--hub_token", SECRET]),
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
    assert found == ["a.yaml, line 2: a Hugging Face token"]
    assert find_secrets("a.json", b'{"x": "/home/alice/data"}') == ["a.json, line 1: an absolute path"]
    assert find_secrets("a.md", b"see https://huggingface.co/docs/peft/index and n/a, a </b/> 1/2/3\n") == []
    assert find_secrets("tokenizer_config.json", b'{"eos_token": "<|endoftext|>", "token": null}') == []


def remains(secret, text):
    """Return whether a text still holds a part of a secret that is worth something."""
    pieces = [piece for piece in re.findall(r"[\w+/=.@-]{10,}", secret) if "BEGIN" not in piece and "END" not in piece]
    return any(piece in text for piece in pieces or [secret])


def test_secrets_and_personal_text_of_every_kind_are_found_with_their_line_and_removed_by_the_same_rules():
    assert len(TOKENS) >= 77 and len(PERSONAL) >= 21
    for kind, (text, secret) in (TOKENS | PERSONAL).items():
        found = find_secrets("notes.md", f"nothing here\n\n{text}\n".encode())
        line = 3 + text[: text.index(secret)].count("\n")
        assert [finding for finding in found if finding.startswith(f"notes.md, line {line}: ")], (kind, found)
        assert not any(remains(secret, finding) for finding in found), kind
        assert not remains(secret, anonymize(text)), kind
        assert find_secrets("notes.md", anonymize(text).encode()) == [], kind  # what is cleaned can be pushed
        assert find_secrets("notes.md", f"see `{text}`, and\n".encode()), kind
    for kind, (text, secret) in TOKENS.items():
        assert not remains(secret, redact(text)), kind  # in manifests, without detect-secrets
        assert not remains(secret, json.dumps(redact({"a": [{"b": text}], text: 1}))), kind


def test_in_json_a_secret_is_found_also_behind_escapes():
    for kind, (text, _) in (TOKENS | PERSONAL).items():
        for escaped in (json.dumps({"a": text}), json.dumps({"a": text}).replace("a", "\\u0061").replace("/", "\\/")):
            assert find_secrets("run.json", escaped.encode()), (kind, escaped)


@pytest.mark.parametrize(
    "text",
    [
        "password: null, api_key=None, token = os.environ['HF_TOKEN'], --token $HF_TOKEN --password <password>",
        "api_key=${API_KEY} secret: {{ secret }} password=**** Authorization: Bearer $TOKEN hub_token: [redacted]",
        "https://user:password@example.org https://{user}:{token}@example.org git@github.com:owner/name.git",
        "noreply@github.com someone@example.com me@users.noreply.github.com pass@1 pass@k a@b",
        "https://huggingface.co/docs/peft/index http://localhost:8000/v1 127.0.0.1 0.0.0.0 8.8.8.8 n/a 1/2/3 a </b/>",
        "nvidia-curand-cu12==10.3.5.147, nvidia-curand 10.3.5.147, version 10.0.0.1, driver 550.54.15.1",
        "threading.local() torch.nn.home self.internal.value 12:30:45 2026-11-26T03:45:36+00:00 25-11-26-03-45-36",
        r"\\alpha\\beta \\begin{pmatrix} 1 & 2 \\\\ 3 \\end{pmatrix} x \\ y \\hline",
        "sk-learn sk-toggleable__label-arrow-and-more hf_transfer hf_hub_download_of_a_model global-average-pooling",
        "eos_token: <|endoftext|> pad_token=</s> --eos_token no trainable_new_tokens: true max_tokens: 4096",
        "AdapterConfig-for-a-model-of-two-million-parameters layers.10.self_attn.q_proj.lora_A.default.weight",
        "#!/usr/bin/env python, > /dev/null, /path/to/data, ~5 minutes, ~half",
    ],
)
def test_ordinary_text_is_no_secret(text):
    assert find_secrets("README.md", text.encode()) == []
    assert anonymize(text) == text


def test_files_of_models_and_of_this_repository_hold_no_secret():
    import trl

    root = Path(__file__).parents[1]
    folders = [root / "data", root / "recipes", root / "eval", root / "tests/fixtures"]
    paths = [path for folder in [*folders, Path(trl.__file__).parent / "chat_templates"] for path in folder.rglob("*")]
    paths += [*root.glob("*.md"), root / "LICENSE", *(root / "schoolhouse").rglob("*.jinja")]
    texts = [path for path in paths if path.suffix in (".json", ".jinja", ".yaml", ".md", ".txt", ".safetensors", "")]
    found = [line for path in texts if path.is_file() for line in find_secrets(path.name, path.read_bytes())]
    assert len(texts) > 60
    assert found == []


def test_a_value_of_the_environment_is_a_secret_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("SOME_SERVICE_KEY", "plain words/and more")
    monkeypatch.setenv("SLACK_WEBHOOK", "just-a-name")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true-or-false")
    encoded = base64.b64encode(b"see plain words/and more").decode()
    for text in ("x plain words/and more", "?q=plain%20words%2Fand%20more", encoded, "just-a-name"):
        assert find_secrets("a.md", text.encode()) == ["a.md, line 1: a secret of the environment"]
    assert redact(["?q=plain%20words%2Fand%20more", "true-or-false"]) == ["?q=[redacted]", "true-or-false"]


def test_the_value_after_a_flag_in_a_list_is_redacted():
    command = ["push.py", "--token", "correct-horse", "--hub-token=battery-staple", "--eos_token", "no", "--api_key"]
    assert redact(command) == ["push.py", "--token", "[redacted]", "--hub-token=[redacted]", *command[4:]]
    text = json.dumps(command, indent=2).encode()
    assert find_secrets("run.json", text) == [f"run.json, line {line}: a flag with a secret" for line in (4, 5)]


def test_hashes_and_versions_are_no_secrets():
    names = ("sha256", "hash", "key", "token", "adapter", "product_hash", "revision", "cl_key", "sl_api_key_hash")
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(200)]
    record = {
        f"{name}_{number}": {name: digest, "git": digest[:40], "md5": digest[:32], "upper": digest.upper()}
        for number, digest in enumerate(digests)
        for name in names
    }
    record["sri"] = [f"sha256-{base64.b64encode(bytes.fromhex(digest)).decode()}" for digest in digests]
    record["base64"] = [base64.urlsafe_b64encode(bytes.fromhex(digest)).decode() for digest in digests]
    record["versions"] = {"driver": "550.54.15.1", "torch": "2.13.0+cu128"}
    assert find_secrets("run.json", json.dumps(record, indent=2).encode()) == []
    assert find_secrets("lineage.json", json.dumps(record).encode()) == []


@pytest.mark.parametrize(
    "piece", ["--a_", "x-a-", "sk-", "ssh -", "A_", "_KEY", "a.", "a@a.", "\\\\a", "eyJ", "://a:", "a-1"]
)
def test_a_long_hostile_text_is_scanned_in_time(piece):
    start = time.process_time()
    find_secrets("a.md", (piece * (100_000 // len(piece))).encode())
    assert time.process_time() - start < 5


def test_reading_the_rules_loads_no_scanner():
    code = (
        "import sys, schoolhouse.core.redaction as r; r.redact({'a': 'password: correct-horse', 'b': 'c' * 40}); "
        "print('detect_secrets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def safetensors(header: dict, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(size: int) -> dict:
    return {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}


@pytest.mark.parametrize(
    ("path", "content", "kind"),
    [
        ("run.json", json.dumps({"x": base64.b64encode(SECRET.encode()).decode()}).encode(), "line 1: a Hugging Face"),
        ("vocab.txt", f"one\ntwo\n{SECRET}\n".encode("utf-16"), "line 3: a Hugging Face"),
        (
            "chat_template.jinja",
            f"{{# a #}}\n{{# machine x\nlogin y\npassword {SECRET[3:]} #}}".encode(),
            "line 4: a pass",
        ),
        ("run.json", json.dumps({"x": base64.urlsafe_b64encode(b"\xff~?>" + AWS.encode()).decode()}).encode(), "AWS"),
        ("tokenizer_config.json", f'{{"x": "\\u0068f_{SECRET[3:]}"}}'.encode(), "a Hugging Face"),
        ("tokenizer.json", b'{"model": {"vocab": {}}, "from": "/home/alice/data"}', "line 6: an absolute path"),
        ("tokenizer.json", f'{{"model": {{"vocab": {{"{AWS}": 1}}}}}}'.encode(), "AWS"),
        ("tokenizer.json", b"/home/alice/no/json", "an absolute path"),
        ("chat_template.jinja", b"{# file:///home/alice/x #}", "an absolute path"),
        ("chat_template.jinja", b"{# data:/home/alice/x #}", "an absolute path"),
        ("adapter_config.json", b'{"rank_pattern": {"/home/alice/x": 1}}', "an absolute path"),
        (f"{SECRET}/run.json", b"{}", "[redacted]/run.json: a Hugging Face"),
        ("adapter_model.safetensors", safetensors({SECRET: tensor(1)}, b"x"), "a Hugging Face"),
        ("adapter_model.safetensors", safetensors({"__metadata__": {"x": AWS}, "a": tensor(1)}, b"x"), "AWS"),
    ],
)
def test_hidden_secret_is_found(path, content, kind):
    (found,) = find_secrets(path, content)
    assert kind in found and SECRET[3:] not in found and AWS not in found


def test_a_vocabulary_may_hold_pieces_of_paths():
    vocabulary = {"/usr/local/bin": 1, "password=secret": 2, getpass.getuser(): 3}
    assert find_secrets("vocab.json", json.dumps(vocabulary).encode()) == []
    assert find_secrets("tokenizer.json", json.dumps({"model": {"vocab": vocabulary}}).encode()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        struct.pack("<Q", 2**63) + b"{}",
        safetensors({"a": tensor(1)}, b"x and a letter behind the last tensor"),
        safetensors({"a": {"dtype": "U8"}}, b"x"),
        safetensors({"a": tensor(2**60)}, b"x"),
        struct.pack("<Q", 2) + b"[]",
    ],
)
def test_weights_with_a_hostile_header_are_refused_by_name(content):
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors is no safetensors file"):
        find_secrets("adapter_model.safetensors", content)


def test_a_link_out_of_the_folder_is_not_followed(base, tmp_path):
    run = make_run(tmp_path / "run", base[0])
    (tmp_path / "diary").write_text("private")
    (run / "adapter/vocab.txt").symlink_to(tmp_path / "diary")
    with pytest.raises(ValueError, match=r"vocab\.txt is a link out of the folder"):
        read_artifacts(str(run))


def test_an_adapter_that_changes_between_its_check_and_its_upload_is_refused(api, base, repo_id, tmp_path):
    run = make_run(tmp_path / "run", base[0])
    stages = read_artifacts(str(run))
    weights = run / "adapter/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="changed while it was read"):
        build_files(api, repo_id, stages, base[1])


@pytest.mark.parametrize("name", ["x`](http:--evil)", "../../outside", "a b", "ä"])
def test_a_stage_has_a_name_that_is_a_folder_and_a_tag(base, tmp_path, name):
    pipeline = tmp_path / "a/b/pipeline"
    run = make_run(pipeline / name, base[0])
    stage = PipelineStage(
        name=name, recipe="sft", config="sft.yaml", parent=None, folder="x", eval=None, status="done"
    )
    base_source = ModelSource(name=str(base[0]), hash="a" * 64)
    index = PipelineIndex(name="small", base=base_source, stages=[stage])
    pipeline.mkdir(parents=True, exist_ok=True)
    (pipeline / "pipeline.json").write_text(index.model_dump_json(by_alias=True))
    with pytest.raises(ValueError, match=r"stage .*: use letters"):
        read_artifacts(str(pipeline))
    change_record(run, recipe=f"{name.rpartition('/')[2]}é")
    with pytest.raises(ValueError, match=r"stage .*: use letters"):
        read_artifacts(str(run))


def test_private_data_sets_keep_their_licenses_apart(api, base, repo_id, tmp_path):
    data = [
        data_source(f"/home/alice/{name}.jsonl", sha256=name * 64, license=license)
        for name, license in [("a", "cc-by-nc-4.0"), ("b", "mit")]
    ]  # fmt: skip
    run = make_run(tmp_path / "run", base[0], data=data)
    card = build_files(api, repo_id, read_artifacts(str(run)), base[1])["README.md"].decode()
    assert "cc-by-nc-4.0, which binds more" in card and "| `bbbbbbbbbbbb` |" in card and "alice" not in card
    assert ModelCard(card).data.license is None


def test_published_record_has_no_rows_and_no_paths():
    record = {"command": ["--x", "/home/a/b", "~/secret/x", r"C:\Users\me\x"], "malformed_rows": ["x"], "n": 1}
    assert anonymize(record) == {"command": ["--x", "<local>", "<local>", "<local>"], "n": 1}


def test_untrusted_text_is_neither_markup_nor_terminal_control(hub, api, base, repo_id, tmp_path):
    evil = "svamp\x1b[31m|<script>alert(1)</script>\n---\n# [x](http://evil) \u202e`"
    assert "\x1b" not in one_line(evil) and "\u202e" not in one_line(evil) and "\n" not in one_line(evil)
    assert not re.search(r"(?<!\\)[|`\[]|<", markdown(evil))
    links = markdown("http://evil.example HTTPS://evil.example www.evil.example Www.evil.example me@evil.example")
    assert not re.search(r"(?<!\\)(://|@)|www\.", links, re.IGNORECASE)
    data = [data_source(evil, revision=evil)]
    config = {"model_name_or_path": str(base[0]), "note": "```\n# out of the fence\n<img src=x>"}
    run = make_run(tmp_path / "run", base[0], data=data, config=config)
    write_results(run, task=evil, by_level={evil: {"value": 0.1, "interval": [0, 0.2], "n": 9}, "b": {
        "value": 0.9, "interval": [0.8, 1], "n": 9}})  # fmt: skip
    files = build_files(api, repo_id, read_artifacts(str(run)), base[1], "mit")
    card = files["README.md"].decode()
    assert "\x1b" not in card and "\u202e" not in card

    from markdown_it import MarkdownIt

    tokens = MarkdownIt().enable("table").parse(card.split("---\n", 2)[2])
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert not any("fence" in heading for heading in headings)
    tokens += [child for token in tokens for child in token.children or []]
    assert not {token.type for token in tokens} & {"html_block", "html_inline", "image"}
    assert [token.attrs["href"] for token in tokens if token.type == "link_open"] == [
        f"https://huggingface.co/{base[1]}"
    ]


def test_a_command_in_a_card_is_one_for_a_shell(base, tmp_path):
    run = write_results(make_run(tmp_path / "run", base[0]))
    (stage,) = read_artifacts(str(run))
    command = "python eval/run.py --tasks svamp --note 'a --b; <c>' --output_dir /home/alice/x --task_paths /home/b/c"
    results = stage.results[0].model_copy(update={"command": command})
    words = eval_command(results, base[1], "owner/x", stage)
    assert shlex.split(" ".join(words))[-8:] == [
        "--tasks", "svamp", "--note", "a --b; <c>", "--output_dir", "outputs/x-eval", "--task_paths", "<local>"
    ]  # fmt: skip
