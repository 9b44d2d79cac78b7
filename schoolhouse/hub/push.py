"""Upload in one commit, so that a repository is complete or unchanged, then one tag for each adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schoolhouse.core.escape import one_line
from schoolhouse.hub.artifacts import ADAPTER_FILES
from schoolhouse.hub.client import retried
from schoolhouse.hub.lineage import file_hash


if TYPE_CHECKING:
    from huggingface_hub import HfApi

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
        if path.endswith(_WEIGHTS) and (path not in files or digest != file_hash(files[path]))
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
