"""What never leaves the machine: tokens, environment, absolute paths, user names."""

from __future__ import annotations

import base64
import contextlib
import getpass
import json
import re
import socket
import struct
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

from schoolhouse.core.redaction import redact


LOCAL = "<local>"
# Rows of the data (what was malformed in them), and whatever a record may hold of the environment.
_LEFT_OUT = {"malformed_rows", "env", "environ", "environment", "traceback", "samples", "hostname", "user"}
_PATH = re.compile(
    r"(?:(?<=file://)|(?<![\w/.<>~)\]-]))"
    r"(?:~?(?:/[\w.@+~-]+){2,}/?|[A-Za-z]:[\\/]{1,2}Users[\\/]{1,2}[\w.\\/ -]+|~/[\w./-]+)"
)
_TOKENS = {
    "an AWS key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a JSON web token": re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"),
    "a Google key": re.compile(r"\bAIza[\w-]{30,}"),
}
_SETTING = re.compile(
    r"(?:secret\w*|passw\w*|api_?key|access_?key|private_?key|(?:auth|hub|access|bearer)_?token)[\"']?\s*[=:]\s*"
    r"[\"']?(?!\[redacted\]|<hidden>|null\b|None\b|true\b|false\b|\"|')[^\s\"',}]{6,}",
    re.IGNORECASE,
)
_A_TOKEN, _A_PATH = "a token, or a secret of the environment", "an absolute path"
_COMMON_NAMES = {"root", "user", "admin", "ubuntu", "runner", "docker", "home", "work", "nobody", "jovyan", "tiny"}


def published(value: Any) -> Any:
    """
    A record as it may be shown to strangers.

    Args:
        value (`Any`):
            JSON value.

    Returns:
        `Any`: a copy without secrets, without rows of data and environment; each absolute path is `<local>`.
    """

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {clean(key): clean(item) for key, item in value.items() if str(key).lower() not in _LEFT_OUT}
        if isinstance(value, list):
            return [clean(item) for item in value]
        return _PATH.sub(LOCAL, value) if isinstance(value, str) else value

    return clean(redact(value))


def find_secrets(path: str, content: bytes, allowed: tuple[str, ...] = ()) -> list[str]:
    """
    What must not be uploaded in one file.

    Args:
        path (`str`):
            Its name, which is scanned too.
        content (`bytes`):
            Its content; of safetensors the header is read, which is where text is, and it must be all but tensors.
        allowed (`tuple[str, ...]`, *optional*):
            User names that are public anyhow: the owner of the repository.

    Returns:
        `list[str]`: `path, line N: kind` for each finding, never the secret itself.

    Raises:
        ValueError: a safetensors file with a header that cannot be read, or with bytes of no tensor.
    """
    names = _own_names(allowed)
    found = {kind: f"{shown(path)}: {kind}" for kind in _kinds(path, names) if kind != _A_PATH}
    findings = list(found.values())
    for text, is_vocabulary in _texts(path, content):
        scanned = None if is_vocabulary else names
        kinds = [kind for kind in _kinds(text, scanned) if kind not in found]  # most files hold nothing
        for number, line in enumerate(text.splitlines() if kinds else [], 1):
            places = {kind: f"{shown(path)}, line {number}: {kind}" for kind in _kinds(line, scanned) if kind in kinds}
            findings += places.values()
            found |= places
    return findings


def _texts(path: str, content: bytes) -> list[tuple[str, bool]]:
    """What can be read in a file, and whether it is a vocabulary: pieces of paths and names are there by right."""
    name = Path(path).name
    if name.endswith(".safetensors"):
        content = _header(path, content)
    text = content.decode(errors="replace")
    try:
        value = json.loads(text) if name.endswith((".json", ".safetensors")) else None
    except ValueError:
        return [(text, False)]
    if name == "tokenizer.json" and isinstance(value, dict) and isinstance(value.get("model"), dict):
        value["model"] |= {"vocab": [], "merges": []}
    elif name in ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt"):
        return [(text, name != "tokenizer.json")]
    # Once more without JSON's escapes, which hide letters.
    plain = [] if value is None else [(json.dumps(value, ensure_ascii=False, indent=2), False)]
    return [(text, name == "tokenizer.json"), *plain]


def _header(path: str, content: bytes) -> bytes:
    """Of safetensors the part that is text; raises `ValueError` where bytes lie that belong to no tensor."""
    try:
        size = 8 + struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8:size])
        end = max(value["data_offsets"][1] for key, value in header.items() if key != "__metadata__")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        end = None
    if end is None or size + end != len(content):
        raise ValueError(f"{shown(path)} is no safetensors file, or holds more than its tensors: save it anew")
    return content[8:size]


def _kinds(text: str, names: dict[str, str] | None = None) -> list[str]:
    """What must not be published in a text; without `names` only tokens are looked for."""
    kinds = []
    for part in (text, *_decoded(text)):
        kinds += [kind for kind, pattern in _TOKENS.items() if pattern.search(part)]
        kinds += [_A_TOKEN] if redact(part) != part else []
    if names is not None:
        kinds += ["a secret"] if _SETTING.search(text) else []
        kinds += [_A_PATH] if _PATH.search(text) else []
        kinds += [kind for name, kind in names.items() if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]
    return list(dict.fromkeys(kinds))


def _decoded(text: str) -> list[str]:
    """What stands in base64 in a text, as one text."""
    found = []
    for run in re.findall(r"[\w+/-]{20,}", text, re.ASCII):
        with contextlib.suppress(ValueError):
            found.append(base64.b64decode(run[: len(run) // 4 * 4], altchars=b"-_" if {*"-_"} & {*run} else None))
    return [b"\n".join(found).decode("latin-1")] if found else []


def _own_names(allowed: tuple[str, ...]) -> dict[str, str]:
    names = {Path.home().name: "a user name", socket.gethostname(): "a host name"}
    with contextlib.suppress(OSError, KeyError):  # a user id without a name
        names[getpass.getuser()] = "a user name"
    try:
        command = ["git", "config", "user.email"]
        names[subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()] = (
            "an e-mail address"
        )
    except OSError:
        pass
    return {
        name: kind
        for name, kind in names.items()
        if len(name) >= 4 and name.lower() not in _COMMON_NAMES and name not in allowed
    }


def shown(text: Any, limit: int = 200) -> str:
    """
    Text of unknown origin, safe to print on a terminal in one line.

    Args:
        text (`Any`):
            Anything.
        limit (`int`, *optional*, defaults to `200`):
            Characters that are kept.

    Returns:
        `str`: without control, format (bidirectional) and line characters.
    """
    text = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in str(text))
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def markdown(text: Any, limit: int = 200) -> str:
    """
    Text of unknown origin as plain text in Markdown.

    Args:
        text (`Any`):
            Anything.
        limit (`int`, *optional*, defaults to `200`):
            Characters that are kept.

    Returns:
        `str`: one line in which nothing is markup, HTML, a link or the end of a table cell.
    """
    text = shown(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]#|!~@])", r"\\\1", text)
    return re.sub(r":(?=//)|(?<=www)\.", r"\\\g<0>", text, flags=re.IGNORECASE)


def fenced(text: str, language: str = "") -> str:
    """
    A code block that its content cannot close.

    Args:
        text (`str`):
            The code.
        language (`str`, *optional*):
            For highlighting.

    Returns:
        `str`: Markdown.
    """
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    text = "".join(char for char in text if char == "\n" or unicodedata.category(char)[0] != "C")
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
