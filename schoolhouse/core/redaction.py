"""Rules for what is never written down (secrets) or never published (paths, rows of data): all of them are here."""

import os
import re
from functools import cache
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
# Tokens of services that a training run uses, and `user:password` in an address. A run record is cleaned of these
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
# An absolute path of at least two parts, a Windows user's folder, or a path in the home folder; not part of a URL.
_PATH = re.compile(
    r"(?:(?<=file://)|(?<![\w/.<>~)\]-]))"
    r"(?:~?(?:/[\w.@+~-]+){2,}/?|[A-Za-z]:[\\/]{1,2}Users[\\/]{1,2}[\w.\\/ -]+|~/[\w./-]+)"
)
# Keys that hold rows of the data (`malformed_rows`) or parts of the environment.
_UNPUBLISHED_KEYS = {"malformed_rows", "env", "environ", "environment", "traceback", "samples", "hostname", "user"}


def redact(value: Value, *secrets: str | None) -> Value:
    """
    Remove secrets from a JSON value.

    Secrets are the values of keys that name one, the values of environment variables that name one, and strings in
    the form of an access token.

    Args:
        value (`Value`):
            JSON value.
        *secrets (`str`):
            Further strings to remove wherever they occur.

    Returns:
        `Value`: a copy.
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


def anonymize(value: Value) -> Value:
    """
    Remove from a JSON value what strangers must not see.

    Args:
        value (`Value`):
            JSON value.

    Returns:
        `Value`: a copy without secrets, rows of data and environment; each absolute path is `<local>`.
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
    """
    Kinds of tokens and keys in a text, each named once.

    Args:
        text (`str`):
            Any text.

    Returns:
        `list[str]`: for people; the secret itself is not among the words.
    """
    kinds = [plugin.secret_type for plugin in _plugins() if any(plugin.analyze_string(text))]
    kinds += [kind for kind, pattern in _OTHER_TOKENS.items() if pattern.search(text)]
    return [*dict.fromkeys(kinds), *([TOKEN] if redact(text) != text else [])]


def private_kinds(text: str) -> list[str]:
    """
    Kinds of private text that are no token: a setting that holds a secret, an absolute path.

    Args:
        text (`str`):
            Any text.

    Returns:
        `list[str]`: for people.
    """
    return [kind for kind, pattern in ((SETTING, _SECRET_SETTING), (PATH, _PATH)) if pattern.search(text)]


@cache
def _plugins() -> list["RegexBasedDetector"]:
    # The detectors alone, without detect-secrets' scanner, which runs git and a pool of processes. Left out are those
    # that decide by entropy (each hash would be found) or by a key's name (IBM, Cloudant and SoftLayer find hashes,
    # too, and `_SECRET_SETTING` knows what a redacted setting looks like), public IP addresses (a version of four
    # parts is one), Artifactory (finds words of a vocabulary), and basic authentication (`_SECRET_VALUE` finds more).
    from detect_secrets.plugins import (
        aws,
        azure_storage_key,
        discord,
        github_token,
        gitlab_token,
        jwt,
        mailchimp,
        npm,
        openai,
        private_key,
        pypi_token,
        sendgrid,
        slack,
        square_oauth,
        stripe,
        telegram_token,
        twilio,
    )  # fmt: skip

    return [
        aws.AWSKeyDetector(), azure_storage_key.AzureStorageKeyDetector(), discord.DiscordBotTokenDetector(),
        github_token.GitHubTokenDetector(), gitlab_token.GitLabTokenDetector(), jwt.JwtTokenDetector(),
        mailchimp.MailchimpDetector(), npm.NpmDetector(), openai.OpenAIDetector(), private_key.PrivateKeyDetector(),
        pypi_token.PypiTokenDetector(), sendgrid.SendGridDetector(), slack.SlackDetector(),
        square_oauth.SquareOAuthDetector(), stripe.StripeDetector(), telegram_token.TelegramBotTokenDetector(),
        twilio.TwilioKeyDetector(),
    ]  # fmt: skip
