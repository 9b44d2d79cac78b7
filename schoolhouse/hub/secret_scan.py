"""Scan of every file before it is uploaded: secrets, and text that tells who made it, where and on which machine."""

from __future__ import annotations

import base64
import bisect
import contextlib
import getpass
import itertools
import json
import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from schoolhouse.core.escape import one_line
from schoolhouse.core.redaction import PATH, Finding, find_private, redact


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
    name = one_line(redact(path))
    found = {kind for kind, *_ in _find(path, names) if kind != PATH}
    findings = [f"{name}: {kind}" for kind in found]
    for text, is_vocabulary in _texts(path, content):
        # The same text without escapes adds what escapes hid.
        new = [(kind, start) for kind, start, _ in _find(text, None if is_vocabulary else names) if kind not in found]
        places = dict.fromkeys((text.count("\n", 0, start) + 1, kind) for kind, start in new)
        findings += [f"{name}, line {number}: {kind}" for number, kind in places]
        found |= {kind for kind, _ in new}
    return findings


def _texts(path: str, content: bytes) -> list[tuple[str, bool]]:
    """Return texts of a file, each with `True` for a vocabulary: pieces of paths and names in it are no finding."""
    name = Path(path).name
    if name.endswith(".safetensors"):
        content = safetensors_header(path, content)
    text = content.replace(b"\0", b"").decode(errors="replace")  # without the zeros, UTF-16 reads as UTF-8 does
    try:
        value = json.loads(text) if name.endswith((".json", ".safetensors")) else None
    except (ValueError, RecursionError):
        return [(text, False)]
    if name == "tokenizer.json" and isinstance(value, dict) and isinstance(value.get("model"), dict):
        value["model"] |= {"vocab": [], "merges": []}
    elif name in ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt"):
        return [(text, name != "tokenizer.json")]
    if value is None:
        return [(text, False)]
    # JSON a second time without its escapes, in which letters hide, and with blanks for its line breaks.
    plain = re.sub(r"(?<!\\)((?:\\\\)*)\\[nrt]", r"\1  ", json.dumps(value, ensure_ascii=False, indent=2))
    return [(text, name == "tokenizer.json"), (plain, False)]


def safetensors_header(path: str, content: bytes) -> bytes:
    """Return the JSON header of a safetensors file; `ValueError` if bytes belong to no tensor."""
    try:
        size = 8 + struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8:size])
        end = max(value["data_offsets"][1] for key, value in header.items() if key != "__metadata__")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        end = None
    if end is None or size + end != len(content):
        raise ValueError(f"{one_line(path)} is no safetensors file, or holds more than its tensors: save it anew")
    return content[8:size]


def _find(text: str, names: dict[str, str] | None = None) -> Iterator[Finding]:
    """Find what is private in a text, also in its base64. Without `names`, only tokens are looked for."""
    yield from find_private(text, is_vocabulary=names is None)
    decoded, starts = _decoded(text)
    ends = list(itertools.accumulate(len(piece) + 1 for piece in decoded))
    for kind, start, _ in find_private("\n".join(decoded), is_vocabulary=True):
        run = bisect.bisect(ends, start)
        yield Finding(kind, starts[run], starts[run] + 1)
    for name, kind in (names or {}).items():
        for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text):
            yield Finding(kind, *match.span())


def _decoded(text: str) -> tuple[list[str], list[int]]:
    """Return the content of each base64 in a text, and where it begins."""
    found = {}
    for run in re.finditer(r"[\w+/-]{20,}", text, re.ASCII):
        with contextlib.suppress(ValueError):
            altchars = b"-_" if {*"-_"} & {*run[0]} else None
            found[run.start()] = base64.b64decode(run[0][: len(run[0]) // 4 * 4], altchars=altchars).decode("latin-1")
    return list(found.values()), list(found)


def _own_names(allowed: tuple[str, ...]) -> dict[str, str]:
    """Return names of this machine and its user -> kind of finding."""
    host = socket.gethostname()
    names = {Path.home().name: "a user name", host: "a host name", host.partition(".")[0]: "a host name"}
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
