"""Calls to the Hub that are tried again while it fails for a time, and the account that makes them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from schoolhouse.core.escape import one_line


if TYPE_CHECKING:
    from huggingface_hub import HfApi

Result = TypeVar("Result")

ATTEMPTS = 5
_TRANSIENT = (408, 409, 412, 429, 500, 502, 503, 504)


def retried(call: Callable[[], Result]) -> Result:
    """
    Call the Hub, again after longer and longer pauses while it fails for a time.

    The client itself repeats only some of its requests (uploads of large files, not commits). `ValueError` if the Hub
    was not reached in the end, or refuses.
    """
    import httpx2
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(ATTEMPTS):
        try:
            return call()
        # The client wraps a failed upload of a large file in a RuntimeError.
        except (HfHubHTTPError, httpx2.TransportError, RuntimeError, OSError) as error:
            response = error.response if isinstance(error, HfHubHTTPError) else None
            if response is not None and response.status_code == 403:
                raise ValueError(f"the Hub refuses to write: {one_line(error)}") from None
            if response is not None and response.status_code not in _TRANSIENT:
                raise
            if attempt == ATTEMPTS - 1 or is_offline_mode():
                told = one_line(error)
                raise ValueError(
                    f"the Hub cannot be reached, nothing is left half done, the same command goes on: {told}"
                ) from None
            wait = response.headers.get("Retry-After", "") if response is not None else ""
            time.sleep(min(float(wait) if wait.isdigit() else 2.0**attempt, 60))
    raise AssertionError


def check_repo_id(repo_id: str) -> str:
    """Return a name on the Hub, or raise `ValueError` if it breaks the rules for names."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{one_line(repo_id)} breaks the Hub's rules for names: {one_line(error)}") from None
    return repo_id


def check_account(api: HfApi, repo_id: str) -> str:
    """
    Check that the token may write to a repository, which need not exist, and return its `owner/name`.

    `name` alone is in the own account.

    Raises:
        ValueError: no token, an expired one, one that cannot write, a name that breaks the rules, someone else's.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError

    check_repo_id(repo_id)
    if not (api.token or get_token()):
        raise ValueError("no token: log in with `hf auth login`, or set HF_TOKEN")
    try:
        user = retried(api.whoami)
    except HfHubHTTPError as error:
        if error.response.status_code == 401:
            raise ValueError(
                "the Hub does not accept the token, which is expired or revoked: `hf auth login`"
            ) from None
        raise
    owner = repo_id.split("/", maxsplit=1)[0] if "/" in repo_id else user["name"]
    names = [user["name"], *(entry["name"] for entry in user.get("orgs", []))]
    if owner not in names:
        mine = ", ".join(map(one_line, names))
        raise ValueError(f"{one_line(repo_id)} is someone else's: the token may write to {mine}")
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise ValueError("the token may only read: make one that may write, at huggingface.co/settings/tokens")
    return repo_id if "/" in repo_id else f"{owner}/{repo_id}"
