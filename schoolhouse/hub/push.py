"""What is uploaded, and how: one commit, so that a repository is complete or unchanged, then a tag for each stage."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

from schoolhouse.core.escape import one_line
from schoolhouse.core.models import folder_digest
from schoolhouse.core.redaction import anonymize
from schoolhouse.hub.artifacts import FILES, WEIGHTS, Stage, base_hash_on_hub, file_hash
from schoolhouse.hub.model_card import derive_licence, eval_command, eval_results, model_card, training_data
from schoolhouse.hub.secret_scan import find_secrets


ATTEMPTS = 5
_TRANSIENT = (408, 409, 412, 429, 500, 502, 503, 504)


def check_account(api: Any, repo_id: str) -> str:
    """
    Who is asking, and whether the repository can be theirs.

    Args:
        api ([`~huggingface_hub.HfApi`]):
            Client.
        repo_id (`str`):
            `owner/name`, or `name` alone for the own account.

    Returns:
        `str`: `owner/name`.

    Raises:
        ValueError: no token, an expired one, one that cannot write, a name that breaks the rules, someone else's.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{one_line(repo_id)} breaks the Hub's rules for names: {one_line(error)}") from None
    if not (api.token or get_token()):
        raise ValueError("no token: log in with `hf auth login`, or set HF_TOKEN")
    try:
        user = retried(api.whoami)
    except HfHubHTTPError as error:
        if error.response.status_code == 401:
            raise ValueError(
                "the Hub does not accept the token, which is expired or revoked: `hf auth login`"
            ) from None
        raise
    names = [user["name"], *(entry["name"] for entry in user.get("orgs", []))]
    owner = repo_id.split("/", maxsplit=1)[0] if "/" in repo_id else user["name"]
    if owner not in names:
        raise ValueError(
            f"{one_line(repo_id)} is someone else's: the token may write to {', '.join(map(one_line, names))}"
        )
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise ValueError("the token may only read: make one that may write, at huggingface.co/settings/tokens")
    return repo_id if "/" in repo_id else f"{owner}/{repo_id}"


def resolve_base(api: Any, stages: list[Stage], base_model: str | None) -> tuple[str, str]:
    """
    The base on the Hub that the adapters belong to.

    Args:
        api ([`~huggingface_hub.HfApi`]):
            Client.
        stages (`list[Stage]`):
            The stages, all on one base.
        base_model (`str` or `None`):
            Hub id that the user named.

    Returns:
        `tuple[str, str]`: Hub id and commit.

    Raises:
        ValueError: if only a folder is known, or the base on the Hub is another one.
    """
    from pathlib import Path

    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    model = stages[0].record["model"]
    is_folder = len(model["hash"]) == 64  # the SHA-256 of a folder; a model from the Hub is known by its commit
    name = base_model or (model["name"] if not is_folder else None)
    if name is None or Path(name).is_dir():
        raise ValueError(
            f"the base is only known as the folder {model['name']}: name it on the Hub, --base_model owner/name"
        )
    try:
        commit = retried(lambda: api.model_info(name)).sha
        if is_folder:
            found = retried(lambda: base_hash_on_hub(api, name, commit))
        else:
            found = commit = retried(lambda: api.model_info(name, revision=model["hash"])).sha
    except HFValidationError as error:
        raise ValueError(f"--base_model {one_line(name)} is no Hub id: {one_line(error)}") from None
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403, 404):
            raise ValueError(
                f"the base {one_line(name)} is not on the Hub, or not at the commit of the training"
            ) from None
        raise
    if found != model["hash"]:
        raise ValueError(
            f"the base {one_line(name)} on the Hub does not match the one that was trained on ({model['name']})"
        )
    return name, commit


def build_files(
    api: Any, repo_id: str, stages: list[Stage], base_model: str | None, license: str | None, public: bool
) -> dict[str, bytes]:
    """
    Everything that will be uploaded.

    Args:
        api ([`~huggingface_hub.HfApi`]):
            Client, asked about the base.
        repo_id (`str`):
            `owner/name`.
        stages (`list[Stage]`):
            The stages.
        base_model (`str` or `None`):
            Hub id of the base, where the record knows only a folder.
        license (`str` or `None`):
            The owner's decision, instead of what is derived.
        public (`bool`):
            Whether strangers will see it.

    Returns:
        `dict[str, bytes]`: path -> content.

    Raises:
        ValueError: a base that does not match, no license for a public push, an adapter that changes meanwhile, a
            secret (and where).
    """
    base, commit = resolve_base(api, stages, base_model)
    card = retried(lambda: api.model_info(base)).card_data
    derived, clashes = derive_licence(
        (card or {}).get("license"), [(name, entry["license"]) for name, entry in training_data(stages)]
    )
    license = license or derived
    if public and license is None:
        raise ValueError(
            f"a public card needs a license, and none follows ({'; '.join(map(one_line, clashes))}): --license"
        )
    files: dict[str, bytes] = {}
    for stage in stages:
        prefix = f"{stage.folder}/" if stage.folder else ""
        for name in FILES:
            if (stage.adapter / name).is_file():
                files[prefix + name] = (stage.adapter / name).read_bytes()
        # All is read once: what is scanned and hashed here is what is uploaded.
        weights = hashlib.sha256(files[prefix + WEIGHTS]).digest()
        if folder_digest(json.loads(files[f"{prefix}adapter_config.json"]), [weights]) != stage.hash:
            raise ValueError(f"{stage.adapter} changed while it was read: push again")
        files[f"{prefix}adapter_config.json"] = _json(stage.config | {"base_model_name_or_path": base})
        record = anonymize(stage.record)
        record["model"]["name"] = record["config"]["model_name_or_path"] = base
        files[f"{prefix}run.json"] = _json(record)
        if stage.own_results:
            merged = _merged(stage.own_results)
            command = " ".join(eval_command(merged, base, repo_id, stage))
            merged |= {"command": command, "model": base, "adapter": repo_id}
            files[f"{prefix}results.json"] = _json(anonymize(merged))
        for name, content in eval_results(stage).items():
            files[f".eval_results/{prefix.replace('/', '-')}{name}"] = content.encode()
    files["README.md"] = model_card(repo_id, stages, base, commit, license, clashes).encode()
    files["lineage.json"] = _json(
        {
            "schema": 1,
            "base": {"name": base, "revision": commit, "hash": stages[0].record["model"]["hash"]},
            "stages": [
                {
                    "name": stage.name,
                    "folder": stage.folder,
                    "adapter": stage.hash,
                    "parent": (stage.record.get("parent_adapter") or {}).get("hash"),
                    "reward_models": [judge["hash"] for judge in stage.record.get("reward_models", [])],
                }
                for stage in stages
            ],
            "files": {path: file_hash(content) for path, content in sorted(files.items())},
        }
    )
    owner = repo_id.partition("/")[0]
    found = [line for path, content in files.items() for line in find_secrets(path, content, (owner,))]
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise ValueError(f"nothing was uploaded: {'; '.join(found[:5])}{more}")
    return files


def push(
    api: Any, repo_id: str, files: dict[str, bytes], tags: list[str], public: bool = False, overwrite: bool = False
) -> str:
    """
    Upload files as one commit. What was interrupted is found complete or absent, and the same call goes on.

    Args:
        api ([`~huggingface_hub.HfApi`]):
            Client.
        repo_id (`str`):
            `owner/name`; made if need be.
        files (`dict[str, bytes]`):
            Path -> content.
        tags (`list[str]`):
            Set to the commit.
        public (`bool`, *optional*, defaults to `False`):
            Visibility of a new repository.
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether another adapter there may be replaced.

    Returns:
        `str`: the commit.

    Raises:
        ValueError: a different adapter is there, or the repository has another visibility.
    """
    retried(lambda: api.create_repo(repo_id, private=not public, exist_ok=True))
    commit = retried(lambda: _commit(api, repo_id, files, public, overwrite))
    for tag in tags:
        retried(lambda tag=tag: api.create_tag(repo_id, tag=tag, revision=commit, exist_ok=True))
    return commit


def _commit(api: Any, repo_id: str, files: dict[str, bytes], public: bool, overwrite: bool) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    # Read anew at each attempt: a commit whose answer was lost is then found to be there.
    info = api.model_info(repo_id)
    if bool(info.private) == public:
        there, flag = ("private", "--private") if info.private else ("public", "--public")
        raise ValueError(f"{repo_id} exists and is {there}: say {flag}, or change it in its settings on the Hub first")
    there = {
        file.path: file
        for file in api.list_repo_tree(repo_id, revision=info.sha, recursive=True)
        if hasattr(file, "size")
    }
    foreign = [
        path
        for path, file in sorted(there.items())
        if path.endswith((".safetensors", ".bin", ".gguf"))
        and (path not in files or (file.lfs.sha256 if file.lfs else None) != file_hash(files[path]))
    ]
    if foreign and not overwrite:
        raise ValueError(
            f"{repo_id} holds a different adapter or model ({one_line(foreign[0])}): --overwrite replaces it"
        )
    ours = {*FILES, "run.json", "results.json"}  # an old chat template or claim would be taken for this adapter's
    stale = [
        path
        for path in there
        if path not in files and (path in foreign or path.split("/")[-1] in ours or path.startswith(".eval_results/"))
    ]
    operations = [CommitOperationAdd(path, content) for path, content in sorted(files.items())]
    operations += [CommitOperationDelete(path) for path in stale]
    return api.create_commit(
        repo_id, operations, commit_message="Add the adapter with its card, record and lineage", parent_commit=info.sha
    ).oid


def retried(call: Callable[[], Any]) -> Any:
    """
    Call the Hub again, later and later, while it fails in ways that pass.

    Args:
        call (`Callable`):
            May be called several times.

    Returns:
        `Any`: what it returns.

    Raises:
        ValueError: the Hub was not reached in the end, or refuses.
    """
    import httpx2
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(ATTEMPTS):
        try:
            return call()
        except (HfHubHTTPError, httpx2.TransportError, RuntimeError, OSError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status == 403:
                raise ValueError(f"the Hub refuses to write: {one_line(error)}") from None
            if status is not None and status not in _TRANSIENT:
                raise
            if attempt == ATTEMPTS - 1 or is_offline_mode():
                raise ValueError(
                    "the Hub cannot be reached, nothing is left half done, the same command goes on: "
                    + one_line(error)
                ) from None
            wait = (getattr(error, "response", None) is not None and error.response.headers.get("Retry-After")) or ""
            time.sleep(min(float(wait) if wait.isdigit() else 2.0**attempt, 60))
    raise AssertionError


def _merged(results: list[dict[str, Any]]) -> dict[str, Any]:
    return results[0] | {"tasks": {name: task for found in results for name, task in found["tasks"].items()}}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
