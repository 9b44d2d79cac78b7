"""Secrets stay out of what is written down."""

import os
import re
from typing import Any


REDACTED = "[redacted]"

# Not simply "token": `eos_token` and its like are settings.
_SECRET_NAME = re.compile(
    r"(^|_)((hub|access|auth|api|push_to_hub)_token|api_?key|secret|password|credentials?)$", re.IGNORECASE
)
_SECRET_VARIABLE = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL", re.IGNORECASE)
_SECRET_VALUE = re.compile(
    r"\b(hf_|sk-|ghp_|gho_|github_pat_|glpat-|xox[bp]-)[A-Za-z0-9_-]{10,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


def redact(value: Any, *secrets: str | None) -> Any:
    """
    Replace what must not be written down: values of keys that name a secret, of environment variables that do, and
    whatever looks like an access token.

    Args:
        value (`Any`):
            JSON value.
        *secrets (`str`):
            Further strings to remove wherever they occur.

    Returns:
        `Any`: a copy.
    """
    known = [text for name, text in os.environ.items() if _SECRET_VARIABLE.search(name)] + list(secrets)
    known = sorted({text for text in known if text and len(text) >= 8}, key=len, reverse=True)

    def clean(value: Any, name: str = "") -> Any:
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

    return clean(value)
