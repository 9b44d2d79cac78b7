"""What never leaves the machine: tokens, environment, absolute paths, user names."""

from __future__ import annotations

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

from eval.harness.redaction import redact


LOCAL = "<local>"
# Rows of the data (what was malformed in them), and whatever a record may hold of the environment.
_LEFT_OUT = {"malformed_rows", "env", "environ", "environment", "traceback", "samples", "hostname", "user"}
_PATH = re.compile(
    r"(?<![\w:/.<>~)\]-])(?:~?(?:/[\w.@+~-]+){2,}/?|[A-Za-z]:[\\/]{1,2}Users[\\/]{1,2}[\w.\\/ -]+|~/[\w./-]+)"
)
_TOKENS = {
    "an AWS key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a JSON web token": re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"),
    "a Google key": re.compile(r"\bAIza[\w-]{30,}"),
    "a secret": re.compile(
        r"(?:secret\w*|passw\w*|api_?key|access_?key|private_?key|(?:auth|hub|access|bearer)_?token)[\"']?\s*[=:]\s*"
        r"[\"']?(?!\[redacted\]|<hidden>|null\b|None\b|true\b|false\b|\"|')[^\s\"',}]{6,}",
        re.IGNORECASE,
    ),
}
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
            Its content; of safetensors the header is read, which is where text is.
        allowed (`tuple[str, ...]`, *optional*):
            User names that are public anyhow: the owner of the repository.

    Returns:
        `list[str]`: `path, line N: kind` for each finding, never the secret itself.
    """
    if path.endswith(".safetensors"):
        size = struct.unpack("<Q", content[:8])[0]
        text = json.dumps(json.loads(content[8 : 8 + size]).get("__metadata__", {}))
    else:
        text = content.decode(errors="replace")
    # A vocabulary holds pieces of paths and names by right, but no token.
    is_vocabulary = Path(path).name in ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")
    names = {} if is_vocabulary else _own_names(allowed)
    findings = []
    for number, line in enumerate([path, *text.splitlines()]):
        kinds = [kind for kind, pattern in _TOKENS.items() if pattern.search(line) and not is_vocabulary]
        if redact(line) != line:
            kinds.append("a token, or a secret of the environment")
        if not is_vocabulary:
            kinds += ["an absolute path"] if number and _PATH.search(line) else []
            kinds += [kind for name, kind in names.items() if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", line)]
        findings += [f"{shown(path)}, line {number}: {kind}" for kind in dict.fromkeys(kinds)]
    return findings


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
        `str`: one line in which nothing is markup, HTML or the end of a table cell.
    """
    text = shown(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|!~])", r"\\\1", text)


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
