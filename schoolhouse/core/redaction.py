"""Rules for what is never written down (secrets) or never published (paths, rows of data): all of them are here."""

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast


if TYPE_CHECKING:
    from detect_secrets.plugins.base import RegexBasedDetector

Value = TypeVar("Value")

REDACTED = "[redacted]"
LOCAL_PATH = "<local>"
TOKEN, PATH, SETTING = "a token, or a secret of the environment", "an absolute path", "a secret"

# Not simply "token": `eos_token` and its like are settings.
_SECRET_NAME = re.compile(
    r"(^|_)((hub|access|auth|api|push_to_hub)_token|api_?key|secret|password|credentials?)$", re.IGNORECASE
)
_SECRET_VARIABLE = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL", re.IGNORECASE)
# Tokens of services that a training run uses, and `user:password` in an address. A run manifest is cleaned of these
# without detect-secrets, whose import takes longer than that of all of this package.
_SECRET_VALUE = re.compile(
    r"\b(hf_|sk-|ghp_|gho_|github_pat_|glpat-|xox[bp]-)[A-Za-z0-9_-]{10,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
_SECRET_SETTING = re.compile(
    r"(?:secret\w*|passw\w*|api_?key|access_?key|private_?key|(?:auth|hub|access|bearer)_?token)[\"']?\s*[=:]\s*"
    r"[\"']?(?!\[redacted\]|<hidden>|null\b|None\b|true\b|false\b|\"|')[^\s\"',}]{6,}",
    re.IGNORECASE,
)
# Kinds that detect-secrets does not know.
_OTHER_TOKENS = {
    "a Google key": re.compile(r"\bAIza[\w-]{30,}"),
    "a private key": re.compile(r"-----BEGIN ENCRYPTED PRIVATE KEY-----"),
}
# Detectors of detect-secrets that are not used.
_NO_DETECTORS = {
    "ArtifactoryDetector",  # finds words of a vocabulary
    "BasicAuthDetector",  # `_SECRET_VALUE` finds more passwords in addresses
    "CloudantDetector", "IbmCloudIamDetector", "IbmCosHmacDetector", "SoftlayerDetector",  # find hashes by their key
    "IPPublicDetector",  # finds versions of four parts
}  # fmt: skip
# An absolute path of at least two parts, a Windows user's folder, or a path in the home folder; not part of a URL.
_PATH = re.compile(
    r"(?:(?<=file://)|(?<![\w/.<>~)\]-]))"
    r"(?:~?(?:/[\w.@+~-]+){2,}/?|[A-Za-z]:[\\/]{1,2}Users[\\/]{1,2}[\w.\\/ -]+|~/[\w./-]+)"
)
# Keys that hold rows of the data (`malformed_rows`) or parts of the environment.
_UNPUBLISHED_KEYS = {"malformed_rows", "env", "environ", "environment", "traceback", "samples", "hostname", "user"}


def redact(value: Value, *secrets: str | None) -> Value:
    """
    Copy a JSON value without secrets.

    Secrets are the values of keys that name one, the values of environment variables that name one, strings in the
    form of an access token, and the given `secrets`, wherever they occur.
    """
    variables = [text for name, text in os.environ.items() if _SECRET_VARIABLE.search(name)]
    # The longest first: a secret may contain another.
    known = sorted({text for text in (*variables, *secrets) if text and len(text) >= 8}, key=len, reverse=True)

    def clean(value: object, name: str = "") -> object:
        if isinstance(value, dict):
            return {clean(key): clean(item, str(key)) for key, item in value.items()}
        if isinstance(value, list):
            return [clean(item) for item in value]
        if not isinstance(value, str):
            return value
        if _SECRET_NAME.search(name):
            return REDACTED
        for text in known:
            value = value.replace(text, REDACTED)
        return _SECRET_VALUE.sub(REDACTED, value)

    return cast(Value, clean(value))


def redact_home(text: str) -> str:
    """Remove secrets from a command or a path, and write the home folder as `~`."""
    home = str(Path.home())
    text = redact(text)
    return text if home == "/" else re.sub(rf"{re.escape(home)}(?=/|\s|$)", "~", text)


def anonymize(value: Value) -> Value:
    """
    Copy a JSON value without what strangers must not see: secrets, rows of data and environment; each absolute path
    becomes `<local>`.
    """

    def clean(value: object) -> object:
        if isinstance(value, dict):
            items = ((key, item) for key, item in value.items() if str(key).lower() not in _UNPUBLISHED_KEYS)
            return {clean(key): clean(item) for key, item in items}
        if isinstance(value, list):
            return [clean(item) for item in value]
        return _PATH.sub(LOCAL_PATH, value) if isinstance(value, str) else value

    return cast(Value, clean(redact(value)))


def token_kinds(text: str) -> list[str]:
    """Return the kinds of tokens and keys in a text, each once and without the secret itself."""
    kinds = [detector.secret_type for detector in _detectors() if any(detector.analyze_string(text))]
    kinds += [kind for kind, pattern in _OTHER_TOKENS.items() if pattern.search(text)]
    return [*dict.fromkeys(kinds), *([TOKEN] if redact(text) != text else [])]


def private_kinds(text: str) -> list[str]:
    """Return the kinds of private text that are no token: a setting that holds a secret, an absolute path."""
    return [kind for kind, pattern in ((SETTING, _SECRET_SETTING), (PATH, _PATH)) if pattern.search(text)]


@cache
def _detectors() -> list["RegexBasedDetector"]:
    # The detectors alone, without detect-secrets' scanner, which runs git and a pool of processes. Those by entropy
    # and by keyword are no `RegexBasedDetector`: each hash has the entropy of a secret, and `_SECRET_SETTING` knows
    # how a redacted setting is written.
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.plugins.base import RegexBasedDetector

    found: list[type] = list(get_mapping_from_secret_type_to_class().values())
    return [kind() for kind in found if issubclass(kind, RegexBasedDetector) and kind.__name__ not in _NO_DETECTORS]
