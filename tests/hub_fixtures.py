"""A Hub on loopback with its owner, a base on it and a run to push; a plugin of tests/test_hub_*.py."""

import re
from zlib import crc32

import pytest
from huggingface_hub import HfApi, constants

from tests.hub_runs import REAL, TOKEN, make_run, write_results
from tests.hub_server import HubServer
from tests.tiny_models import make_tiny_model


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


@pytest.fixture
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


@pytest.fixture(scope="module")
def run(tmp_path_factory, base):
    return write_results(make_run(tmp_path_factory.mktemp("sft"), base[0]))


@pytest.fixture
def repo_id(request, owner, api):
    slug = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:50].strip("-")
    name = f"{owner}/schoolhouse-test-{slug}-{crc32(request.node.name.encode()):08x}"
    yield name
    if REAL:
        api.delete_repo(name, missing_ok=True)
