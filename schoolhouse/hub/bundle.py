"""All files of a shared repository: adapters, card, run manifests, results and lineage, scanned before they leave."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schoolhouse.core.escape import one_line
from schoolhouse.core.files import parse_json
from schoolhouse.core.models import folder_digest
from schoolhouse.core.redaction import anonymize
from schoolhouse.hub.artifacts import ADAPTER_FILES, WEIGHTS_FILE, Artifact, all_tasks
from schoolhouse.hub.client import retried
from schoolhouse.hub.lineage import LINEAGE_FILE, BaseOnHub, Lineage, LineageStage
from schoolhouse.hub.model_card import eval_command, eval_results, model_card, training_data
from schoolhouse.hub.secret_scan import find_secrets


if TYPE_CHECKING:
    from huggingface_hub import HfApi

PERMISSIVE = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "cc0-1.0", "cc-by-3.0", "cc-by-4.0",
    "odc-by", "pddl",
}  # fmt: skip


def build_files(
    api: HfApi | None,
    repo_id: str,
    artifacts: list[Artifact],
    base_model: str | None = None,
    license: str | None = None,
    public: bool = False,
) -> dict[str, bytes]:
    """
    Return everything that will be uploaded, path -> content.

    Args:
        api ([`~huggingface_hub.HfApi`] or `None`):
            Client; with `None` the Hub is not asked for the base and its license.
        base_model (`str`, *optional*):
            Hub id of the base, where the manifest knows only a folder.
        license (`str`, *optional*):
            The owner's decision, instead of the derived one.
        public (`bool`, *optional*, defaults to `False`):
            `True` if strangers will see it.

    Raises:
        ValueError: a base that does not match, no license for a public push, an adapter that changes
            meanwhile, a secret (and where).
    """
    if api is None:
        base, base_license = unchecked_base(artifacts, base_model), None
    else:
        base = find_base(api, artifacts, base_model)
        card_data = retried(lambda: api.model_info(base.name)).card_data
        base_license = card_data.get("license") if card_data else None
    derived, clashes = derive_license(
        base_license, [(source.name, source.license) for source in training_data(artifacts)], api is not None
    )
    license = license or derived
    if public and license is None:
        raise ValueError(
            f"a public card needs a license, and none follows ({'; '.join(map(one_line, clashes))}): --license"
        )
    files: dict[str, bytes] = {}
    for artifact in artifacts:
        files |= _artifact_files(repo_id, artifact, base.name)
    files["README.md"] = model_card(repo_id, artifacts, base, license, clashes).encode()
    lineage = Lineage(
        schema=1,
        base=base,
        stages=[
            LineageStage(
                name=artifact.name,
                folder=artifact.folder,
                adapter=artifact.hash,
                parent=artifact.manifest.parent_adapter.hash if artifact.manifest.parent_adapter else None,
                reward_models=[model.hash for model in artifact.manifest.reward_models],
            )
            for artifact in artifacts
        ],
        files={path: hashlib.sha256(content).hexdigest() for path, content in sorted(files.items())},
    )
    files[LINEAGE_FILE] = lineage.to_json().encode()
    owner = repo_id.partition("/")[0]
    found = [line for path, content in files.items() for line in find_secrets(path, content, (owner,))]
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise ValueError(f"nothing was uploaded: {'; '.join(found[:5])}{more}")
    return files


def _artifact_files(repo_id: str, artifact: Artifact, base: str) -> dict[str, bytes]:
    prefix = f"{artifact.folder}/" if artifact.folder else ""
    names = [name for name in ADAPTER_FILES if (artifact.adapter / name).is_file()]
    files = {prefix + name: (artifact.adapter / name).read_bytes() for name in names}
    # Each file is read once: the bytes that are hashed and scanned here are those that are uploaded.
    weights = hashlib.sha256(files[prefix + WEIGHTS_FILE]).digest()
    if folder_digest(parse_json(files[f"{prefix}adapter_config.json"]), [weights]) != artifact.hash:
        raise ValueError(f"{artifact.adapter} changed while it was read: push again")
    files[f"{prefix}adapter_config.json"] = _json(artifact.config | {"base_model_name_or_path": base})
    manifest = anonymize(artifact.manifest.model_dump(mode="json", by_alias=True))
    manifest["model"]["name"] = manifest["config"]["model_name_or_path"] = base
    files[f"{prefix}run.json"] = _json(manifest)
    if artifact.results:
        first = artifact.results[0]
        command = " ".join(eval_command(first, base, repo_id, artifact))
        published = {"command": command, "model": base, "adapter": repo_id, "tasks": all_tasks(artifact.results)}
        files[f"{prefix}results.json"] = _json(anonymize(first.model_copy(update=published).to_json()))
    for name, content in eval_results(repo_id, artifact).items():
        files[f".eval_results/{prefix.replace('/', '-')}{name}"] = content.encode()
    return files


def derive_license(
    base: str | None, data: Iterable[tuple[str, str | None]], is_known: bool = True
) -> tuple[str | None, list[str]]:
    """
    Derive the license of an adapter; `None` where none can be derived, with one line for each clash.

    Only clear cases are decided: if all is permissive, or under the base's license, the adapter takes the base's. All
    else is reported and left to the owner.

    Args:
        base (`str` or `None`):
            License of the base model.
        data (`Iterable[tuple[str, str | None]]`):
            Name and license of each data set.
        is_known (`bool`, *optional*, defaults to `True`):
            Whether the base was asked for its license.
    """
    unstated = "the base model states no license" if is_known else "the license of the base model was not looked up"
    clashes = [] if base else [unstated]
    base = base and base.lower()
    for name, license in data:
        if not license:
            clashes.append(f"the data set {name} states no license")
        elif base in PERMISSIVE and license.lower() not in PERMISSIVE:
            clashes.append(f"the data set {name} is under {license}, which binds more than the base's {base}")
        elif base and license.lower() not in PERMISSIVE | {base}:
            clashes.append(f"the base is under {base}, the data set {name} under {license}")
    return (base if base and not clashes else None), clashes


def local_repo_id(folder: str) -> str:
    """Return a repository's name for a card of a folder that has none yet: `OWNER/` and the folder's name."""
    return f"OWNER/{_repo_name(folder)}"


def unchecked_base(artifacts: list[Artifact], base_model: str | None) -> BaseOnHub:
    """Return the base by the name that it is given or was trained by; a folder's is `OWNER/` and its name."""
    trained_on = artifacts[0].base
    # The SHA-256 of a folder has 64 digits; a model from the Hub is known by its commit.
    name = base_model or (trained_on.name if len(trained_on.hash) != 64 else f"OWNER/{_repo_name(trained_on.name)}")
    return BaseOnHub(name=name, revision=trained_on.hash, hash=trained_on.hash)


def _repo_name(folder: str) -> str:
    return re.sub(r"[^\w.-]+|--+|\.\.+", "-", Path(folder).resolve().name, flags=re.ASCII).strip("-.") or "adapter"


def find_base(api: HfApi, artifacts: list[Artifact], base_model: str | None) -> BaseOnHub:
    """
    Find the base on the Hub that the adapters belong to, by the name that the user gave or that of the manifest.

    Raises:
        ValueError: only a folder is known, or the base on the Hub is another one.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    trained_on = artifacts[0].base
    is_folder = len(trained_on.hash) == 64  # the SHA-256 of a folder; a model from the Hub is known by its commit
    name = base_model or (None if is_folder else trained_on.name)
    if name is None or Path(name).is_dir():
        raise ValueError(
            f"the base is only known as the folder {trained_on.name}: name it on the Hub, --base_model owner/name"
        )
    try:
        info = retried(lambda: api.model_info(name, revision=None if is_folder else trained_on.hash))
        commit = str(info.sha)
        found = retried(lambda: base_hash_on_hub(api, name, commit)) if is_folder else commit
    except HFValidationError as error:
        raise ValueError(f"--base_model {one_line(name)} is no Hub id: {one_line(error)}") from None
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403, 404):
            raise ValueError(
                f"the base {one_line(name)} is not on the Hub, or not at the commit of the training"
            ) from None
        raise
    if found != trained_on.hash:
        raise ValueError(
            f"the base {one_line(name)} on the Hub does not match the one that was trained on ({trained_on.name})"
        )
    return BaseOnHub(name=name, revision=commit, hash=trained_on.hash)


def base_hash_on_hub(api: HfApi, base: str, revision: str) -> str:
    """
    Return the [`~schoolhouse.core.models.model_hash`] that a base on the Hub would have as a folder.

    Weights that the Hub stores as large files are not downloaded: their SHA-256 is known.
    """
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(base, revision=revision)
    files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    weights = sorted(path for path in files if path.startswith("model") and path.endswith(".safetensors"))
    if "config.json" not in files or not weights:
        raise ValueError(f"{base} is no model with safetensors weights")

    def read(path: str) -> bytes:
        return Path(api.hf_hub_download(base, path, revision=revision)).read_bytes()

    digests = [
        bytes.fromhex(lfs.sha256) if (lfs := files[path].lfs) else hashlib.sha256(read(path)).digest()
        for path in weights
    ]
    return folder_digest(parse_json(read("config.json")), digests)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
