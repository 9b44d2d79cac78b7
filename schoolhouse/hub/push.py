"""
Upload in one commit, so that a repository is complete or unchanged, then one tag for each adapter.

A recipe with `push_to_hub: true` shares its finished adapter as recipes/share.py does it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schoolhouse.core.escape import one_line
from schoolhouse.hub.artifacts import ADAPTER_FILES, read_artifacts
from schoolhouse.hub.bundle import build_files
from schoolhouse.hub.client import check_account, retried


if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from transformers import TrainingArguments

_WEIGHTS = (".safetensors", ".bin", ".gguf")


def push(
    api: HfApi, repo_id: str, files: dict[str, bytes], tags: list[str], public: bool = False, overwrite: bool = False
) -> str:
    """
    Upload files as one commit. An interrupted push leaves all of it or nothing, and the same call goes on.

    Args:
        api ([`~huggingface_hub.HfApi`]):
            Client.
        repo_id (`str`):
            `owner/name`; created if it does not exist.
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
        retried(lambda tag=tag: api.create_tag(repo_id, tag=tag, revision=commit, exist_ok=True))  # type: ignore[misc]
    return commit


def add_to_collection(api: HfApi, repo_id: str, title: str, public: bool = False) -> str:
    """
    Add a repository to a collection of its owner, such as that of all stages of a family, and return its slug.

    A collection of this title that is there is used, else one is made, as private as the repository.
    """
    owner = repo_id.partition("/")[0]
    collection = retried(lambda: api.create_collection(title, namespace=owner, private=not public, exists_ok=True))
    retried(lambda: api.add_collection_item(collection.slug, repo_id, "model", exists_ok=True))
    return collection.slug


def _commit(api: HfApi, repo_id: str, files: dict[str, bytes], public: bool, overwrite: bool) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.hf_api import RepoFile

    # Read anew at each attempt: a commit whose answer was lost is then found to be there.
    info = api.model_info(repo_id)
    if bool(info.private) == public:
        visibility, flag = ("private", "--private") if info.private else ("public", "--public")
        raise ValueError(
            f"{repo_id} exists and is {visibility}: say {flag}, or change it in its settings on the Hub first"
        )
    tree = api.list_repo_tree(repo_id, revision=info.sha, recursive=True)
    there = {file.path: file.lfs.sha256 if file.lfs else None for file in tree if isinstance(file, RepoFile)}
    foreign = [
        path
        for path, digest in sorted(there.items())
        if path.endswith(_WEIGHTS) and (path not in files or digest != hashlib.sha256(files[path]).hexdigest())
    ]
    if foreign and not overwrite:
        raise ValueError(
            f"{repo_id} holds a different adapter or model ({one_line(foreign[0])}): --overwrite replaces it"
        )
    # An old chat template or claim would be taken for this adapter's. Other files of the owner stay.
    ours = {*ADAPTER_FILES, "run.json", "results.json"}
    stale = [
        path
        for path in there
        if path not in files and (path in foreign or path.split("/")[-1] in ours or path.startswith(".eval_results/"))
    ]
    # `upload_folder(delete_patterns=...)` makes such a commit, too, but reads the files from a folder: what it uploads
    # need not be what was scanned.
    return api.create_commit(
        repo_id,
        [
            *(CommitOperationAdd(path, content) for path, content in sorted(files.items())),
            *(CommitOperationDelete(path) for path in stale),
        ],
        commit_message="Add the adapter with its card, manifest and lineage",
        parent_commit=info.sha,  # refused (412) if somebody commits in between, and then tried again
    ).oid


@dataclass
class PushTarget:
    """
    Destination of a push that a recipe asked for: client with its token, `owner/name`, and visibility if it is new.
    """

    api: HfApi
    repo_id: str
    public: bool


def prepare_push(training_args: TrainingArguments, base: str) -> PushTarget:
    """
    Check before training that the push can succeed, and take it over from the trainer.

    The trainer's own push uploads its checkpoints and a pickled file with them, so `push_to_hub` is set to `False`.
    The repository is `hub_model_id`, by default the name of `output_dir`, and private unless `hub_private_repo` is
    `false`.

    Raises:
        ValueError: the push would fail after hours of training: the base is not on the Hub, or there is no token.
    """
    from huggingface_hub import HfApi

    training_args.push_to_hub = False
    if Path(base).is_dir():
        raise ValueError(
            f"the base is only known as the folder {base}: leave push_to_hub out, then "
            "`python recipes/share.py push <output_dir> owner/name --base_model owner/base`"
        )
    api = HfApi(token=training_args.hub_token)
    repo_id = check_account(api, training_args.hub_model_id or Path(str(training_args.output_dir)).name)
    return PushTarget(api, repo_id, public=training_args.hub_private_repo is False)


def push_after_training(folder: Path, target: PushTarget) -> None:
    """Push a finished run. A failure is printed; the run is finished all the same."""
    try:
        artifacts = read_artifacts(str(folder))
        files = build_files(target.api, target.repo_id, artifacts, public=target.public)
        push(target.api, target.repo_id, files, [artifact.tag for artifact in artifacts], target.public)
    except (ValueError, OSError) as error:
        command = f"python recipes/share.py push {folder} {target.repo_id}"
        print(f"trained, but not pushed: {one_line(error, 600)}; try `{command}`")
    else:
        print(f"pushed to {target.api.endpoint}/{target.repo_id}")
