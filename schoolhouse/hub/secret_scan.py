"""Scan of every file before it is uploaded: tokens, secret settings, absolute paths, names of user and machine."""

from __future__ import annotations

import base64
import contextlib
import getpass
import json
import re
import socket
import struct
import subprocess
from pathlib import Path

from schoolhouse.core.escape import one_line
from schoolhouse.core.redaction import PATH, private_kinds, token_kinds


_COMMON_NAMES = {"root", "user", "admin", "ubuntu", "runner", "docker", "home", "work", "nobody", "jovyan", "tiny"}


def find_secrets(path: str, content: bytes, allowed: tuple[str, ...] = ()) -> list[str]:
    """
    Find in one file what must not be uploaded: `path, line N: kind` for each finding, never the secret itself.

    Of safetensors the header is scanned (tensor names and metadata); a header that cannot be read, or bytes that
    belong to no tensor, are a `ValueError`.

    Args:
        path (`str`):
            Name of the file, which is scanned too.
        allowed (`tuple[str, ...]`, *optional*):
            User names that are public anyhow: the owner of the repository.
    """
    names = _own_names(allowed)
    found = {kind: f"{one_line(path)}: {kind}" for kind in _kinds(path, names) if kind != PATH}
    findings = list(found.values())
    for text, is_vocabulary in _texts(path, content):
        scanned = None if is_vocabulary else names
        # Most files hold nothing: the whole text is scanned first, and line by line only for the place of a finding.
        kinds = [kind for kind in _kinds(text, scanned) if kind not in found]
        for number, line in enumerate(text.splitlines() if kinds else [], 1):
            places = {kind: f"{one_line(path)}, line {number}: {kind}" for kind in _kinds(line, scanned)}
            places = {kind: place for kind, place in places.items() if kind in kinds}
            findings += places.values()
            found |= places
    return findings


def _texts(path: str, content: bytes) -> list[tuple[str, bool]]:
    """Return texts of a file, each with `True` for a vocabulary: pieces of paths and names in it are no finding."""
    name = Path(path).name
    if name.endswith(".safetensors"):
        content = _safetensors_header(path, content)
    text = content.decode(errors="replace")
    try:
        value = json.loads(text) if name.endswith((".json", ".safetensors")) else None
    except ValueError:
        return [(text, False)]
    if name == "tokenizer.json" and isinstance(value, dict) and isinstance(value.get("model"), dict):
        value["model"] |= {"vocab": [], "merges": []}
    elif name in ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt"):
        return [(text, name != "tokenizer.json")]
    # JSON a second time without its escapes, in which letters hide.
    plain = [] if value is None else [(json.dumps(value, ensure_ascii=False, indent=2), False)]
    return [(text, name == "tokenizer.json"), *plain]


def _safetensors_header(path: str, content: bytes) -> bytes:
    """Return the JSON header of a safetensors file; `ValueError` if bytes belong to no tensor."""
    try:
        size = 8 + struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8:size])
        end = max(value["data_offsets"][1] for key, value in header.items() if key != "__metadata__")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        end = None
    if end is None or size + end != len(content):
        raise ValueError(f"{one_line(path)} is no safetensors file, or holds more than its tensors: save it anew")
    return content[8:size]


def _kinds(text: str, names: dict[str, str] | None = None) -> list[str]:
    """Return the kinds of findings in a text, each once. Without `names`, only tokens are looked for."""
    kinds = [*token_kinds(text), *token_kinds(_decoded(text))]
    if names is not None:
        kinds += private_kinds(text)
        kinds += [kind for name, kind in names.items() if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]
    return list(dict.fromkeys(kinds))


def _decoded(text: str) -> str:
    """Return the content of all base64 in a text."""
    found = []
    for run in re.findall(r"[\w+/-]{20,}", text, re.ASCII):
        with contextlib.suppress(ValueError):
            found.append(base64.b64decode(run[: len(run) // 4 * 4], altchars=b"-_" if {*"-_"} & {*run} else None))
    return b"\n".join(found).decode("latin-1")


def _own_names(allowed: tuple[str, ...]) -> dict[str, str]:
    """Return names of this machine and its user -> kind of finding."""
    names = {Path.home().name: "a user name", socket.gethostname(): "a host name"}
    with contextlib.suppress(OSError, KeyError):  # a user id without a name
        names[getpass.getuser()] = "a user name"
    with contextlib.suppress(OSError):  # no git here
        command = ["git", "config", "user.email"]
        email = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        names[email] = "an e-mail address"
    return {
        name: kind
        for name, kind in names.items()
        if len(name) >= 4 and name.lower() not in _COMMON_NAMES and name not in allowed
    }
