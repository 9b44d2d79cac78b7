"""
A Hub on loopback: as much of the protocol as `huggingface_hub` speaks to push and load a model, with faults on demand.

Repositories, blobs and commits live in memory. What is answered, and in which form, was taken from the client's own
requests. Large files go by basic LFS, which the client accepts in place of Xet.
"""

import base64
import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep as real_sleep
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


@dataclass
class Repository:
    """Commits (id -> path -> (content, is LFS)), branches and tags of one model repository."""

    private: bool
    commits: dict[str, dict[str, tuple[bytes, bool]]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, tuple[bytes, bool]], message: str) -> str:
        oid = hashlib.sha1(f"{self.refs}{message}{time.time_ns()}".encode()).hexdigest()
        self.commits[oid] = files
        self.refs["main"] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision) or self.tags.get(revision) or (revision if revision in self.commits else None)


class HubServer(ThreadingHTTPServer):
    """
    The server; a context manager that serves while it is open.

    Args:
        tokens (`dict[str, dict]`):
            Token -> `{"name": user, "orgs": [...], "role": "write" | "read"}`; anything else is answered 401.

    Attributes:
        faults (`dict[int | str, str]`): what befalls the request of this number, counted from 0 since [`reset`], or
            every request in whose method and path this text occurs: a status (`"500"`, `"429"` with `Retry-After: 0`),
            `"cut"` before it is handled, `"cut-after"` (handled, the answer lost), `"slow"`, `"hold"` and
            `"hold-after"` (as the two cuts, once `let_go` is set).
        held (`threading.Event`): set while a request is held.
        dead_from (`int` or `None`): every request from this number on is cut.
        log (`list[str]`): method and path of every request.
        received (`list[bytes]`): every body received.
    """

    daemon_threads = True

    def __init__(self, tokens: dict[str, dict]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tokens = tokens
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.collections: dict[str, dict] = {}
        self.lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Forget requests and faults, keep the repositories."""
        self.faults: dict[int | str, str] = {}
        self.dead_from: int | None = None
        self.held, self.let_go = threading.Event(), threading.Event()
        self.log: list[str] = []
        self.received: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files(self, repo_id: str) -> dict[str, bytes]:
        """Path -> content on the branch main."""
        repository = self.repositories[repo_id]
        return {path: content for path, (content, _) in repository.commits[repository.refs["main"]].items()}

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """A client that was cut off is no news."""


class _Answer(Exception):
    def __init__(self, status: int, message: str = "", code: str | None = None, **values: str):
        self.status, self.message, self.code, self.values = status, message, code, values


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_) -> None:
        pass

    def _handle(self) -> None:
        body = self._body()
        with self.server.lock:
            number, request = len(self.server.log), f"{self.command} {urlsplit(self.path).path}"
            self.server.log.append(request)
            self.server.received.append(body)
        named = (fault for part, fault in self.server.faults.items() if isinstance(part, str) and part in request)
        fault = self.server.faults.get(number) or next(named, None)
        if self.server.dead_from is not None and number >= self.server.dead_from:
            fault = "cut"
        if fault == "slow":
            real_sleep(0.3)
        elif fault == "hold":
            self._hold()
        if fault in ("cut", "hold"):
            self.close_connection = True
            return
        if fault and fault.isdigit():
            self._send(int(fault), {"error": "injected"}, {"Retry-After": "0"} if fault == "429" else {})
            return
        try:
            status, value, headers = 200, *self._route(urlsplit(self.path).path, body)
        except _Answer as answer:
            status, value = answer.status, {"error": answer.message, **answer.values}
            headers = {"X-Error-Code": answer.code} if answer.code else {}
            headers["X-Error-Message"] = answer.message
        if fault == "hold-after":
            self._hold()
        if fault in ("cut-after", "hold-after"):
            self.close_connection = True
            return
        self._send(status, value, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def _hold(self) -> None:
        let_go = self.server.let_go
        self.server.held.set()
        let_go.wait()

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, value, headers: dict[str, str]) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(value, bytes) else "application/json"
        for name, text in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _user(self, wanted: bool = True) -> dict | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        user = self.server.tokens.get(token)
        if user is None and (wanted or token):
            raise _Answer(401, "Invalid credentials in Authorization header")
        return user

    def _repository(self, repo_id: str, write: bool = False) -> Repository:
        user = self._user(wanted=write)
        mine = user is not None and repo_id.split("/", maxsplit=1)[0] in {user["name"], *user.get("orgs", [])}
        repository = self.server.repositories.get(repo_id)
        if repository is None or (repository.private and not mine):
            raise _Answer(401 if user is None else 404, "Repository Not Found", "RepoNotFound")
        if write and (not mine or user.get("role", "write") != "write"):
            raise _Answer(403, "Forbidden: you don't have the rights to write to this repository")
        return repository

    def _commit(self, repository: Repository, revision: str) -> str:
        if (oid := repository.resolve(unquote(revision))) is None:
            raise _Answer(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    def _route(self, path: str, body: bytes) -> tuple:
        for pattern, method in _ROUTES:
            if match := re.fullmatch(pattern, f"{'GET' if self.command == 'HEAD' else self.command} {path}"):
                return method(self, *(unquote(part) for part in match.groups() if part is not None), body=body)
        raise _Answer(404, f"no route for {self.command} {path}", "EntryNotFound")

    def whoami(self, body: bytes) -> tuple:
        user = self._user()
        return {
            "type": "user",
            "name": user["name"],
            "orgs": [{"name": name} for name in user.get("orgs", [])],
            "auth": {"type": "access_token", "accessToken": {"role": user.get("role", "write")}},
        }, {}

    def create_collection(self, body: bytes) -> tuple:
        wanted, user = json.loads(body), self._user()
        if wanted["namespace"] not in {user["name"], *user.get("orgs", [])}:
            raise _Answer(403, "You don't have the rights to create a collection there")
        slug = f"{wanted['namespace']}/{wanted['title'].lower().replace(' ', '-')}-0123456789abcdef01234567"
        if slug in self.server.collections:
            raise _Answer(409, "You already have a collection of this title", slug=slug)
        self.server.collections[slug] = {
            "slug": slug, "title": wanted["title"], "owner": {"name": wanted["namespace"]}, "items": [],
            "lastUpdated": "2026-11-26T00:00:00.000Z", "position": 0, "private": wanted["private"], "theme": "blue",
            "upvotes": 0,
        }  # fmt: skip
        return self.collection(slug)

    def add_to_collection(self, slug: str, body: bytes) -> tuple:
        self._user()
        item, items = json.loads(body)["item"], self.server.collections[slug]["items"]
        if item["id"] in {entry["id"] for entry in items}:
            raise _Answer(409, "The item is there already")
        items.append({"_id": str(len(items)), "position": len(items), **item})
        return self.collection(slug)

    def collection(self, slug: str, body: bytes = b"") -> tuple:
        return self.server.collections[slug], {}

    def create(self, body: bytes) -> tuple:
        wanted, user = json.loads(body), self._user()
        namespace = wanted.get("organization") or user["name"]
        repo_id = f"{namespace}/{wanted['name']}"
        if namespace not in {user["name"], *user.get("orgs", [])} or user.get("role", "write") != "write":
            raise _Answer(403, f"You don't have the rights to create a model under the namespace {namespace}")
        with self.server.lock:
            if repo_id in self.server.repositories:
                raise _Answer(409, "You already created this model repo", url=f"{self.server.url}/{repo_id}")
            repository = Repository(wanted.get("visibility") == "private" or bool(wanted.get("private")))
            repository.commit({".gitattributes": (b"*.safetensors filter=lfs -text\n", False)}, "initial commit")
            self.server.repositories[repo_id] = repository
        return {"url": f"{self.server.url}/{repo_id}", "name": repo_id, "id": repo_id}, {}

    def validate_yaml(self, body: bytes) -> tuple:
        content = json.loads(body)["content"]
        errors = []
        try:
            values = yaml.safe_load(content.split("---")[1]) if content.startswith("---") else {}
            if not isinstance(values, dict):
                errors.append({"message": "metadata must be a mapping"})
        except yaml.YAMLError as error:
            errors.append({"message": str(error)})
        if errors:
            raise _Answer(400, errors[0]["message"])
        return {"errors": [], "warnings": []}, {}

    def preupload(self, repo_id: str, revision: str, body: bytes) -> tuple:
        repository = self._repository(repo_id, write=True)
        here = repository.commits[self._commit(repository, revision)]
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if _is_large(file["path"]) else "regular",
                "shouldIgnore": False,
                "oid": _oid(*here[file["path"]]) if file["path"] in here else None,
            }
            for file in json.loads(body)["files"]
        ]
        return {"files": files}, {}

    def lfs_batch(self, repo_id: str, body: bytes) -> tuple:
        self._repository(repo_id, write=True)
        objects = []
        for entry in json.loads(body)["objects"]:
            entry = {"oid": entry["oid"], "size": entry["size"]}
            if entry["oid"] not in self.server.blobs:
                entry["actions"] = {
                    "upload": {"href": f"{self.server.url}/lfs/{entry['oid']}"},
                    "verify": {"href": f"{self.server.url}/lfs/{entry['oid']}/verify"},
                }
            objects.append(entry)
        return {"transfer": "basic", "objects": objects}, {}

    def lfs_put(self, oid: str, body: bytes) -> tuple:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Answer(400, "content does not have the announced SHA-256")
        self.server.blobs[oid] = body
        return {}, {}

    def lfs_verify(self, oid: str, body: bytes) -> tuple:
        if len(self.server.blobs.get(oid, b"")) != json.loads(body)["size"]:
            raise _Answer(404, "no such object")
        return {}, {}

    def commit(self, repo_id: str, revision: str, body: bytes) -> tuple:
        repository = self._repository(repo_id, write=True)
        lines = [json.loads(line) for line in body.splitlines()]
        with self.server.lock:
            head = repository.refs["main"]
            if lines[0]["value"].get("parentCommit") not in (None, head):
                raise _Answer(412, "A commit has happened since. Please refresh and try again.")
            files = dict(repository.commits[head])
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = (base64.b64decode(value["content"]), False)
                elif line["key"] == "lfsFile":
                    if value["oid"] not in self.server.blobs:
                        raise _Answer(400, f"LFS object {value['oid']} was not uploaded")
                    files[value["path"]] = (self.server.blobs[value["oid"]], True)
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
                else:
                    raise _Answer(400, f"unknown operation {line['key']}")
            oid = repository.commit(files, lines[0]["value"]["summary"])
        return {"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/{repo_id}/commit/{oid}"}, {}

    def tag(self, repo_id: str, revision: str, body: bytes) -> tuple:
        repository, name = self._repository(repo_id, write=True), json.loads(body)["tag"]
        if name in repository.tags:
            raise _Answer(409, "Tag reference exists already.")
        repository.tags[name] = self._commit(repository, revision)
        return {}, {}

    def untag(self, repo_id: str, name: str, body: bytes) -> tuple:
        if self._repository(repo_id, write=True).tags.pop(name, None) is None:
            raise _Answer(404, "no such tag", "RevisionNotFound")
        return {}, {}

    def refs(self, repo_id: str, body: bytes) -> tuple:
        repository = self._repository(repo_id)

        def listed(kind: str, named: dict[str, str]) -> list[dict]:
            return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in named.items()]

        return {
            "converts": [],
            "branches": listed("heads", repository.refs),
            "tags": listed("tags", repository.tags),
        }, {}

    def info(self, repo_id: str, revision: str = "main", body: bytes = b"") -> tuple:
        repository = self._repository(repo_id)
        oid = self._commit(repository, revision)
        files = repository.commits[oid]
        card = files.get("README.md", (b"", False))[0].decode()
        return {
            "_id": oid[:24],
            "id": repo_id,
            "modelId": repo_id,
            "sha": oid,
            "private": repository.private,
            "tags": [],
            "cardData": yaml.safe_load(card.split("---")[1]) if card.startswith("---") else None,
            "siblings": [{"rfilename": path} for path in sorted(files)],
        }, {}

    def tree(self, repo_id: str, revision: str, folder: str | None = None, body: bytes = b"") -> tuple:
        repository = self._repository(repo_id)
        files = repository.commits[self._commit(repository, revision)]
        prefix = f"{folder.strip('/')}/" if folder and folder.strip("/") else ""
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
        entries: dict[str, dict] = {}
        for path, (content, large) in sorted(files.items()):
            if not path.startswith(prefix):
                continue
            parts = path.removeprefix(prefix).split("/")
            for depth in range(1, len(parts)) if recursive else range(1, min(len(parts), 2)):
                name = prefix + "/".join(parts[:depth])
                entries[name] = {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest()}
            if recursive or len(parts) == 1:
                entry = {"type": "file", "path": path, "oid": _git_oid(content), "size": len(content)}
                if large:
                    sha = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 130}
                entries[path] = entry
        if prefix and not entries:
            raise _Answer(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        return list(entries.values()), {}

    def resolve(self, repo_id: str, revision: str, path: str, body: bytes) -> tuple:
        repository = self._repository(repo_id)
        oid = self._commit(repository, revision)
        if path not in repository.commits[oid]:
            raise _Answer(404, "Entry not found", "EntryNotFound")
        content, large = repository.commits[oid][path]
        return content, {"ETag": f'"{_oid(content, large)}"', "X-Repo-Commit": oid, "Accept-Ranges": "none"}


def _is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin", ".gguf"))


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _oid(content: bytes, large: bool) -> str:
    return hashlib.sha256(content).hexdigest() if large else _git_oid(content)


_REPO = r"([\w.-]+/[\w.-]+)"
_ROUTES = [
    (r"GET /api/whoami-v2", _Handler.whoami),
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/collections", _Handler.create_collection),
    (r"POST /api/collections/([^/]+/[^/]+)/items", _Handler.add_to_collection),
    (r"GET /api/collections/([^/]+/[^/]+)", _Handler.collection),
    (r"POST /api/validate-yaml", _Handler.validate_yaml),
    (rf"POST /api/models/{_REPO}/preupload/([^/]+)", _Handler.preupload),
    (rf"POST /api/models/{_REPO}/commit/([^/]+)", _Handler.commit),
    (rf"POST /api/models/{_REPO}/tag/([^/]+)", _Handler.tag),
    (rf"DELETE /api/models/{_REPO}/tag/([^/]+)", _Handler.untag),
    (rf"POST /{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (r"PUT /lfs/(\w+)", _Handler.lfs_put),
    (r"POST /lfs/(\w+)/verify", _Handler.lfs_verify),
    (rf"GET /api/models/{_REPO}/refs", _Handler.refs),
    (rf"GET /api/models/{_REPO}/tree/([^/]+)(?:/(.*))?", _Handler.tree),
    (rf"GET /api/models/{_REPO}(?:/revision/([^/]+))?", _Handler.info),
    (rf"GET /(?:api/models/)?{_REPO}/resolve(?:-cache)?/([^/]+)/(.+)", _Handler.resolve),
]
