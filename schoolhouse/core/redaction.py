"""
Rules for what is never written down (secrets) or never published (personal text, rows of data): all of them are here.

Redaction and the scan before an upload use the same rules: [`redact`] and [`anonymize`] replace what [`find_private`]
finds.
"""

import itertools
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast
from urllib.parse import quote


if TYPE_CHECKING:
    from detect_secrets.plugins.base import RegexBasedDetector

Value = TypeVar("Value")

REDACTED = "[redacted]"
LOCAL_PATH = "<local>"
ENVIRONMENT = "a secret of the environment"
PATH = "an absolute path"


class Finding(NamedTuple):
    """Kind of a secret or of personal text, in words, and where it begins and ends in the text that was searched."""

    kind: str
    start: int
    end: int


# Tokens that show by their form, from the documentation of the services that issue them. They stand in a run of at
# least 12 characters without blanks, and no letter or digit stands before them.
_TOKENS = {
    "a Hugging Face token": r"(?:hf|api_org)_(?:oauth_|jwt_)?(?=[a-z]*[A-Z\d])[A-Za-z0-9]{10,}",
    "a GitHub token": r"gh[pousr]_[A-Za-z0-9_]{16,}|github_pat_\w{16,}",
    "a GitLab token": r"gl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|oas|soat|ffct|wt)-[\w.-]{16,}|GR1348941[\w-]{16,}",
    "an Anthropic key": r"sk-ant-[\w-]{16,}",
    "an OpenAI key": r"sk-(?=[A-Za-z_-]{0,60}\d)[\w-]{10,}|sess-[A-Za-z0-9]{36,}",
    "a Slack token": r"(?:xox[a-z](?:\.xox[a-z])?|xapp|xwfp)-[\w-]{10,}",
    "a Slack webhook": r"hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/[\w/]{16,}",
    "a Stripe key": r"[sr]k_(?:live|test|prod)_\w{10,}|whsec_[\w+/=]{16,}",
    "an AWS key": r"(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}(?![A-Z0-9])|ABSK[A-Za-z0-9+/]{60,}",
    "a Google key": r"AIza[\w-]{30,}|GOCSPX-[\w-]{20,}|ya29\.[\w-]{16,}|1//0[\w-]{30,}",
    "an Azure key": (
        r"[\w~.]{3}\dQ~[\w~.-]{31,34}|[A-Za-z0-9]{52}JQQJ99[A-Za-z0-9]{20,}|[A-Za-z0-9]{60,80}AZDO\w{4}(?!\w)"
        r"|[A-Za-z0-9+/]{33,76}(?:\+ASt|ACDb|AIoT|\+ARm|AzFu|AzSe|AzCa|APIM|\+ACR|AZEG|\+AEh)[A-Za-z0-9+/]{5,10}={0,2}"
        r"(?![\w+/])"
    ),
    "an npm token": r"npm_[A-Za-z0-9]{20,}",
    "a PyPI token": r"pypi-(?:A[\w-]{20,}|[\w-]{60,})",
    "a Weights & Biases key": r"wandb_v\d_\w{16,}|local-[a-f0-9]{40}",
    "a Databricks token": r"d(?:api|kea|ose)[a-f0-9]{32}",
    "a Replicate token": r"r8_[A-Za-z0-9]{16,}",
    "a Vault token": r"hv[sbr]\.[\w-]{16,}|s\.(?=[A-Za-z]*\d)[A-Za-z0-9]{24}(?![\w.(-])",
    "a Docker token": r"dckr_[a-z]+_[\w-]{16,}",
    "a DigitalOcean token": r"do[opr]_v1_[a-f0-9]{40,}",
    "a SendGrid key": r"SG\.[\w-]{16,}\.[\w-]{16,}",
    "a Twilio key": r"(?:SK|AC)[a-f0-9]{32}(?!\w)",
    "a Mailgun key": r"(?:key|pubkey)-[a-z0-9]{32}(?!\w)|[a-f0-9]{32}-[a-f0-9]{8}-[a-f0-9]{8}(?![\w-])",
    "a Mailchimp key": r"[a-f0-9]{32}-us\d{1,2}(?!\w)|md-[\w-]{22}(?!\w)",
    "a Brevo key": r"x(?:keysib|smtpsib)-[a-f0-9]{32,}-\w{8,}",
    "a Telegram token": r"\d{8,10}:[\w-]{35}(?![\w-])",
    "a Discord token": r"[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,40}|mfa\.[\w-]{60,}",
    "a webhook": r"discord(?:app)?\.com/api/webhooks/\d+/[\w-]{16,}|webhook\.office\.com/webhookb2/[\w@/-]{30,}",
    "a JSON Web Token": r"eyJ[\w-]{8,}={0,2}\.[\w-]{8,}={0,2}(?:\.[\w-]*){0,3}",
    "a Shopify or Square token": r"shp(?:at|ca|pa|ss|ua)_[a-fA-F0-9]{32}|sq0[a-z]{3}-[\w-]{20,}|EAAA[\w-]{50,}",
    "a Facebook token": r"EAA[A-Za-z0-9]{60,}",
    "a Twitter token": r"A{20}[A-Za-z0-9%]{50,}",
    "a PayPal token": r"access_token\$[a-z]+\$[a-z0-9]{16}\$[a-z0-9]{32}",
    "an Atlassian token": r"AT(?:ATT|CTT|STT|BB)[A-Za-z0-9][\w=-]{20,}",
    "an Airtable token": r"pat[A-Za-z0-9]{14}\.[a-f0-9]{40,}",
    "an Asana token": r"[12]/\d{12,}(?:/\d+)?:[a-f0-9]{32}",
    "a Notion token": r"ntn_[\w-]{30,}|secret_[A-Za-z0-9]{40,}",
    "a Grafana token": r"gl(?:c|sa)_[\w+/=]{30,}",
    "a Sentry token": r"sntry[a-z]_[\w+/=.-]{30,}",
    "a Doppler token": r"dp\.[a-z]{2,5}\.(?:[\w-]+\.)?[A-Za-z0-9]{30,}",
    "a Dynatrace token": r"dt0[a-z]\d\d\.[A-Z0-9]{24}\.[A-Z0-9]{40,}",
    "a New Relic key": r"NR(?:AK|AA|II|IQ|JS|RA|SP)-[\w-]{20,}|[a-f0-9]{36}NRAL",
    "a HubSpot token": r"pat-[a-z]{2}\d-[a-f0-9]{8}-[a-f0-9-]{20,}",
    "a Postman key": r"PMAK-[a-f0-9]{20,}-[a-f0-9]{30,}",
    "a Terraform token": r"[A-Za-z0-9]{14}\.atlasv1\.[\w=-]{40,}",
    "a Pulumi or Sourcegraph token": r"pul-[a-f0-9]{40}|sgp_(?:\w+_)?[a-f0-9]{40}",
    "an Artifactory key": r"AKCp[\w-]{50,}|cmVmdGtu[A-Za-z0-9]{40,}",
    "a package registry's key": (
        r"cio[A-Za-z0-9]{32}(?!\w)|oy2[a-z0-9]{43}(?!\w)|rubygems_[a-f0-9]{40,}|CLOJARS_\w{50,}"
    ),
    "a Cloudflare key": r"v1\.0-[a-f0-9]{24}-[a-f0-9]{100,}",
    "a Supabase key": r"sbp_(?:v\d_)?[a-f0-9]{40}|sb_secret_[\w-]{20,}",
    "a Fly.io token": r"fo1_[\w-]{40,}|fm[12][a-z]?_[A-Za-z0-9+/=]{60,}",
    "a 1Password key": r"ops_eyJ[\w+/=]{40,}|A3-[A-Z0-9]{6}-(?:[A-Z0-9]{5,11}-){3,4}[A-Z0-9]{5}",
    "a Tailscale key": r"tskey-[\w-]{16,}",
    "an age key": r"AGE-SECRET-KEY-1[A-Z0-9]{50,}",
    "an extended private key": r"[xyz]prv[1-9A-HJ-NP-Za-km-z]{100,}",
    "a Groq, NVIDIA, xAI or Perplexity key": (
        r"gsk_[A-Za-z0-9]{20,}|nvapi-[\w-]{20,}|xai-[A-Za-z0-9]{30,}|pplx-[\w-]{30,}|csk-[a-z0-9]{40,}"
    ),
    "a LangSmith key": r"lsv?\d?_(?:pt|sk)_[a-f0-9]{32}\w*|ls__[a-f0-9]{32}",
    "a Pinecone key": r"pcsk_\w{20,}",
    "a Zhipu key": r"[a-f0-9]{32}\.[A-Za-z0-9]{16}(?![\w.])",
    "a Modal or ElevenLabs key": r"a[ks]-[A-Za-z0-9]{22}(?![\w-])|sk_[a-f0-9]{40,}",
    "a Firecrawl, Tavily or Voyage key": r"fc-[a-f0-9]{32}|tvly-[\w-]{20,}|pa-[\w-]{40,}",
    "an Alibaba or Tencent key": r"LTAI[A-Za-z0-9]{12,}|AKID[A-Za-z0-9]{32}",
    "a Yandex key": r"AQVN[\w-]{30,}|y0_[\w-]{40,}|t1\.[\w-]{20,}={0,2}\.[\w-]{60,}={0,2}",
    "a Mapbox token": r"[st]k\.eyJ[\w-]{20,}\.[\w-]{16,}",
    "a Contentful token": r"CFPAT-[\w-]{40,}",
    "a SonarQube token": r"sq[pua]_[a-f0-9]{40}",
    "a CI service's token": r"CCIPAT_\w{22,}_[a-f0-9]{40}|bk[a-z]{1,2}_[a-f0-9]{40}|p8e-[a-z0-9]{32}",
    "a Resend key": r"re_[A-Za-z0-9]{8}_[A-Za-z0-9]{20,}",
    "a payment service's key": r"rzp_(?:live|test)_\w{14}|FLWSECK(?:_TEST)?-[\w-]{12,}|EZ[AT]K[A-Za-z0-9]{54}",
    "a Plaid or LaunchDarkly key": r"(?:access-[a-z]+|sdk|mob|api)-[a-f0-9]{8}(?:-[a-f0-9]{4}){3}-[a-f0-9]{12}",
    "an OpenShift token": r"sha256~[\w-]{40,}",
    "a Harness token": r"[ps]at\.[\w-]{22}\.[a-f0-9]{24}\.[A-Za-z0-9]{20}",
    "a Twitch token": r"oauth:[a-z0-9]{30}(?!\w)",
    "an Octopus key": r"API-[A-Z0-9]{26}(?!\w)",
    "a password hash": r"\$(?:2[abxy]|5|6|y|apr1|argon2id?)\$[\w./$=,+-]{20,}",
    "a token of another service": (
        r"bedrock-api-key-[\w+/=-]{16,}|da2-[a-z0-9]{26}|amzn\.mws\.[a-f0-9-]{30,}|dnkey-\w{20,}-\w{30,}|IGQV[\w-]{40,}"
        r"|(?:HRKU|RGAPI|waka|BBDC|pscale|nyk|llx|tfp|tgp|fig[a-z]{1,2}|SWM(?:TKN|KEY)-1|lin|nfp|rnd|jina|e2b|dtn|cosmo|ck)"
        r"[_-](?=[\w-]*\d)[\w.-]{24,}|v[1-4]\.(?:local|public)\.[\w-]{30,}|k[1-4]\.(?:secret|local)[\w-]*\.[\w-]{20,}"
        r"|sl\.(?:u\.)?[\w-]{60,}|S[OUNAC][A-Z2-7]{50,56}(?!\w)|\d{13,17}\|[\w-]{20,}|00D[A-Za-z0-9]{12,15}![\w.]{40,}"
    ),
    # A short prefix, then at least 24 letters of both cases and digits: how most services write tokens now. A run as
    # long as a digest in base64 is taken for one.
    "a token of an unknown service": (
        r"(?<![\w-])(?!(?:sha|md|blake)\d|[\w-]{43}(?![\w-])|[\w-]{86}(?![\w-]))[a-z][a-z0-9]{1,9}[_-](?:[a-z0-9]{1,10}[_-])?"
        r"(?=[A-Za-z]*\d[A-Za-z]*\d[A-Za-z]*\d)(?=[a-z0-9]*[A-Z])(?=[A-Z0-9]*[a-z])[A-Za-z0-9]{24,}(?![\w=-])"
    ),
}
_RUN = re.compile(r"[\w.~+/=:$%|!-]{12,}")

# Names that hold secrets. Not simply "token": `eos_token` and its like are settings.
_SERVICES = (
    r"hub|access|auth|authentication|api|apikey|bearer|bot|client|csrf|deploy|dev|github|gh|gitlab|gitea|hf|hugging_?face|"
    r"id|jwt|login|npm|oauth2?|openai|pat|personal|private|push_to_hub|pypi|refresh|registry|replicate|secret|security|"
    r"server|service|session|slack|sonar|telegram|user|vault|wandb|web|x_auth|account|app|admin|cloudflare|codecov|aws"
)
_NAME = (
    r"(?:passw(?:or)?d|passwort|passphrase|pwd|secret|credentials?|creds|"
    r"(?:api|access|account|private|secret|signing|encryption|shared_?access|storage|service|subscription|license|deploy|"
    rf"master|admin|ssh)[_.-]?key|(?:{_SERVICES})[_.-]?(?:token|pat)|client[_.-]?secret|connection[_.-]?string)"
)
# An environment variable's name may be any word before `_TOKEN` or `_KEY`.
_VARIABLE = r"(?-i:[A-Z][A-Z0-9_]{0,60}_(?:TOKEN|KEY|PAT|PASS|PW|AUTH|SECRET|DSN|WEBHOOK(?:_URL)?))"
_SECRET_NAME = re.compile(rf"(?:^|.*[_.-])(?:{_NAME}|{_VARIABLE})|token", re.IGNORECASE)
_SECRET_VARIABLE = re.compile(
    r"TOKEN(?!IZ)|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|CREDENTIAL|(?:^|_)(?:KEY|PAT|PASS|PW|DSN|WEBHOOK|COOKIE)(?:_|$)"
)
# What stands where a secret would stand, and is none: redacted, a variable, a placeholder, a constant.
_BLANK = (
    r"(?!\[redacted\]|<|\$|%|\{|\(|\*|\.\.\.|\\|your[_-]|os\.|x{4,}"
    r"|(?:null|none|true|false|undefined|str|string|x+)(?![a-z0-9]))"
)
_QUOTE = r"(?:\\{0,3}[\"'])?"  # also that of JSON within JSON
_IS = rf"{_QUOTE}\]?[ \t]*(?:=>|:=|[=:])[ \t]*{_QUOTE}"
# Values with a name or a sign that says that they are secret; the group `secret` is the part that is replaced.
_NAMED = {
    "a private key": (
        r"-{4,5} ?BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)? ?-{4,5}"
        r"(?:[\s\S]{0,8000}?-{4,5} ?END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)? ?-{4,5})?|PuTTY-User-Key-File-\d"
    ),
    "a password in an address": (
        r"(?<=://)(?!user(?:name)?:pass(?:word)?@)(?P<secret>[^/\s:@\"'<>{}$*]*:(?!//)[^/\s@\"'<>{}$*\[]+)(?=@)"
        r"|(?<=://)(?P<secret>(?=[\w-]*\d)[\w-]{16,})(?=@)"
    ),
    "a secret in an address": (
        r"[?&;](?:[\w-]*(?:token|secret|password|passwd|api_?key|signature|credential)|sig|key|auth|code)="
        r"(?P<secret>[\w%+/=.~-]{16,})"
    ),
    "an authorization header": (
        rf"(?:authorization|(?:set-)?cookie){_IS}(?:(?:bearer|basic|token|digest|apikey)[ \t]+|[\w.-]{{1,40}}=)"
        rf"(?P<secret>{_BLANK}[\w.~+/=%-]{{8,}})|\bbearer[ \t]+(?P<secret>(?=[^\s\"']*\d)[\w.~+/=-]{{16,}})"
        rf"|\b(?:x-(?:\w{{1,20}}-){{0,4}}(?:key|token|auth|secret)|private-token|job-token|deploy-token|api-key){_IS}"
        rf"(?P<secret>{_BLANK}[\w.~+/=%-]{{8,}})"
    ),
    "a password of .netrc": (
        rf"\b(?:machine\s+\S+|login\s+\S+)\s+(?:(?:login|account)\s+\S+\s+){{0,2}}password\s+(?P<secret>{_BLANK}\S+)"
    ),
    "a password of .pgpass": (
        rf"(?<![\w.:/@-])(?:[\w-]+\.[\w.-]+|localhost|\*):(?:\d{{2,5}}|\*):[\w*-]+:[\w*.-]+:"
        rf"(?P<secret>{_BLANK}[^\s\"'`]+)"
    ),
    "a secret of .npmrc, Docker or Kaggle": (
        rf"(?:\b_auth(?:Token)?|[\"']auth){_IS}(?P<secret>(?=[a-z+/-]*[\d=])[\w+/=-]{{12,}})"
        rf"|\busername{_IS}[^\"'\\,]+{_QUOTE},\s*{_QUOTE}key{_IS}(?P<secret>[a-f0-9]{{32}})"
    ),
    "a flag with a secret": (
        rf"(?<![\w-])--?(?:[a-z0-9]+[_-])*?(?:{_NAME}|(?<=-)(?:token|pass))(?:[ \t]*=[ \t]*|[\\\"',\s]+)"
        rf"(?P<secret>{_BLANK}(?!-)[^\s\"',;|&<>\\]{{4,}})"
        rf"|\b(?:curl|wget)\b[^\n]{{0,200}}?[ \t](?:-u|--user)[ =][\"']?[^\s\"':]+:(?P<secret>{_BLANK}[^\s\"']{{3,}})"
        r"|\b(?:wandb|huggingface-cli|hf auth|docker|npm)[ \t]+login[ \t]+(?:--\S+[ \t]+)*(?P<secret>\w{20,})"
        r"|\bsshpass[ \t]+-p[ \t]*[\"']?(?P<secret>[^\s\"']+)"
    ),
    "a secret": (
        rf"(?:(?:\b|_){_NAME}|\b{_VARIABLE}){_IS}(?P<secret>{_BLANK}(?!\"|')[^\s\"',;}}\\]{{6,}})"
        # A weaker name, and a value with letters of both cases and digits.
        rf"|\b(?:token|key|auth){_IS}(?P<secret>(?=[\w-]*[G-Zg-z])(?=[\w-]*(?-i:[A-Z]))(?=[\w-]*(?-i:[a-z]))(?=[\w-]*\d)"
        r"[\w-]{24,}(?![\w.+/=(-]))"
    ),
}

# Text that says who works where, on which machine. Published files hold none of it.
_PLACE = r"[\w.@+~-]+"
_PERSONAL = {
    # An absolute path of at least two parts, one in a home folder, of Windows or of a share; not part of a URL.
    PATH: (
        r"(?:(?<=file://)|(?<![\w/.<>~)\]-]))(?:~?(?!/(?:path/to|mnt/data|dev/(?:null|shm|std)|usr/bin/env|bin/(?:ba)?sh))"
        rf"(?:/{_PLACE}){{2,}}/?|~(?:[a-z_][\w.-]*)?/[\w./-]+)"
        r"|(?<!\w)[A-Za-z]:[\\/]{1,2}(?:Users|Documents and Settings|home)[\\/]{1,2}[\w.\\/ -]+"
        r"|(?<!\w)[A-Z]:(?:\\{1,2}[\w.$ -]{2,}){2,}|%(?:USERPROFILE|HOMEPATH|APPDATA|LOCALAPPDATA)%[\w.\\/ -]+"
        r"|(?<![\\\w])(?:\\{2}[A-Za-z][\w.$-]+\\(?!\\)|\\{4}[A-Za-z][\w.$-]+\\{2}(?!\\))[\w.$\\ -]+"
        r"|\bdbfs:/[\w./-]+"
    ),
    "a storage address": (
        r"\b(?:s3[an]?|gs|gcs|az|abfss?|wasbs?|adl|hdfs|webhdfs|viewfs|oss|cos|obs|r2|b2|swift|dbfs|nfs|smb|cifs|afp|"
        r"sftp|ssh|rsync|alluxio|lakefs|minio)://[^\s\"'<>`)\]},]+"
    ),
    "an e-mail address": (
        r"(?<![\w.+/@-])(?!git@|(?:[\w.+-]*\b)?(?:no-?reply|donotreply)\b)[A-Za-z0-9][\w.+-]*@(?!(?:[\w-]+\.)*"
        r"(?:example\.(?:com|org|net)|[\w-]+\.(?:example|invalid|test)|users\.noreply\.github\.com)\b)"
        r"(?:[A-Za-z0-9][\w-]+\.)+(?:[a-z]{2,24}|[A-Z]{2,6})(?![\w(=])"
        r"|\b[\w.+-]{1,64} ?[\[(] ?at ?[\])] ?[\w-]+(?: ?[\[(] ?dot ?[\])] ?|\.)[a-z]{2,}"
    ),
    "a private address": (
        r"(?:nvidia[\w-]*|[=<>~!]=|\bv(?:ersion)?)[\"']?[ :=]*[\"']?[\d.]+(?P<skip>)"
        r"|(?<![\d.])(?:10\.\d{1,3}|172\.(?:1[6-9]|2\d|3[01])|192\.168|169\.254|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7]))"
        r"(?:\.\d{1,3}){2}(?![\d.]*\d)"
        r"|(?<![\w:])(?:f[cd][0-9a-f]{2}|fe[89ab][0-9a-f]):(?:[0-9a-f]{0,4}:){1,6}[0-9a-f]{0,4}(?![\w:])"
        r"|(?<![\w:-])(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?![\w:-])"
        r"|(?<![\w:-])(?=[\d-]*[a-f])(?:[0-9a-f]{2}-){5}[0-9a-f]{2}(?![\w:-])"
    ),
    "an internal host": (
        r"(?<![\w.-])(?:[\w-]+\.)+(?:lan|corp|intranet|intra|localdomain|home\.arpa|cluster\.local|ts\.net)(?![\w(=-]|\.\w)"
        r"|(?<![\w.-])(?:(?<=://)|(?<=@)|(?=[\w.-]*[\d-])|(?=(?:[\w-]+\.){2,}internal))(?:[\w-]+\.)+(?:internal|local|home|private|svc)"
        r"(?![\w(=-]|\.\w)"
        r"|(?<=://)(?!localhost|host\b|hostname|example|server\b|your)[A-Za-z][\w-]*(?=:\d|[\w-]*[\d-][\w-]*/)(?:[\w-]*)(?::\d+)?"
        r"|(?<![\w.@+-])(?!git@(?:github|gitlab|bitbucket)\.|git@(?:hf|huggingface)\.co)[\w.+-]+@[A-Za-z][\w.-]*:[~/\w][\w./-]*"
        r"|\bssh[ \t]+(?:-\S{1,40}[ \t]+){0,6}[\w.-]+@[\w.-]+"
        r"|\b(?:ssh-\w+|ecdsa-[\w-]+) AAAA[\w+/=]+ (?P<secret>\S+@\S+)"
        r"|\b(?-i:USER|LOGNAME|USERNAME|HOSTNAME|COMPUTERNAME|SUDO_USER|USERDOMAIN)=[\w.-]{2,}"
    ),
    "a phone number": r"(?<![\w.+])\+\d{1,3}[ .-]\(?\d{2,4}\)?(?:[ .-]\d{2,5}){2,4}(?![\w.-])",
}
# Detectors of detect-secrets that are not used.
_NO_DETECTORS = {
    "ArtifactoryDetector",  # finds words of a vocabulary
    "BasicAuthDetector",  # finds placeholders
    "CloudantDetector", "IbmCloudIamDetector", "IbmCosHmacDetector", "SoftlayerDetector",  # find hashes by their key
    "IPPublicDetector",  # finds versions of four parts
    "JwtTokenDetector", "NpmDetector", "OpenAIDetector",  # take time that grows with the square of the text
}  # fmt: skip
# Keys that hold rows of the data (`malformed_rows`) or parts of the environment.
_UNPUBLISHED_KEYS = {"malformed_rows", "env", "environ", "environment", "traceback", "samples", "hostname", "user"}


def find_private(text: str, is_vocabulary: bool = False) -> list[Finding]:
    """
    Find what must not be published, in order and without overlaps: secrets and personal text.

    Of a vocabulary only tokens are looked for: pieces of words, paths and addresses are no findings there.
    """
    known = _find_known(text, _environment())
    if is_vocabulary:
        return _disjoint([*known, *_find_tokens(text), *_find_detected(text)])
    found = [*known, *_find_tokens(text), *_find(_NAMED, text), *_find_detected(text), *_find(_PERSONAL, text)]
    return _disjoint(found)


def redact(value: Value, *secrets: str | None) -> Value:
    """
    Copy a JSON value without secrets.

    Secrets are the values of keys and flags that name one, the values of environment variables that name one, strings
    in the form of a token or after a name of a secret, and the given `secrets`, wherever they occur.
    """
    known = _environment() + _forms(secrets)
    return _copy(value, lambda text: _replace(text, _disjoint([
        *_find_known(text, known), *_find_tokens(text), *_find(_NAMED, text)
    ])))  # fmt: skip


def redact_home(text: str) -> str:
    """Remove secrets from a command or a path, and write the home folder as `~`."""
    home = str(Path.home())
    text = redact(text)
    return text if home == "/" else re.sub(rf"{re.escape(home)}(?=/|\s|$)", "~", text)


def anonymize(value: Value) -> Value:
    """
    Copy a JSON value without what strangers must not see: secrets, rows of data and environment; each path, host and
    address becomes `<local>`.
    """
    return _copy(value, lambda text: _replace(text, find_private(text)), _UNPUBLISHED_KEYS)


def _copy(value: Value, clean: Callable[[str], str], left_out: Collection[str] = ()) -> Value:
    """Copy a JSON value with its texts cleaned, and redacted where a key or the flag before them names a secret."""

    def copy(value: object, name: str = "") -> object:
        if isinstance(value, dict):
            items = ((key, item) for key, item in value.items() if str(key).lower() not in left_out)
            return {copy(key): copy(item, str(key)) for key, item in items}
        if isinstance(value, list):
            names = ["", *(item if isinstance(item, str) and item.startswith("-") else "" for item in value)]
            return [copy(item, name.lstrip("-")) for item, name in zip(value, names, strict=False)]
        if not isinstance(value, str):
            return value
        return REDACTED if _SECRET_NAME.fullmatch(name) and not value.startswith("--") else clean(value)

    return cast(Value, copy(value))


def _replace(text: str, findings: list[Finding]) -> str:
    for kind, start, end in reversed(findings):
        text = text[:start] + (LOCAL_PATH if kind in _PERSONAL else REDACTED) + text[end:]
    return text


def _disjoint(findings: list[Finding]) -> list[Finding]:
    """Join findings that overlap into one of the kind that was found first, in the order of the text."""
    order = {kind: number for number, kind in reversed(list(enumerate(finding.kind for finding in findings)))}
    joined: list[Finding] = []
    for kind, start, end in sorted(findings, key=lambda finding: finding.start):
        if joined and start < joined[-1].end:
            last = joined[-1]
            joined[-1] = Finding(min(last.kind, kind, key=order.__getitem__), last.start, max(last.end, end))
        else:
            joined.append(Finding(kind, start, end))
    return joined


def _environment() -> list[str]:
    """Return the values of environment variables whose name says that they are secret."""
    return _forms(text for name, text in os.environ.items() if _SECRET_VARIABLE.search(name))


def _forms(secrets: Iterable[str | None]) -> list[str]:
    """Return secrets that are long enough to be told from words, as they are and as in an address."""
    return list({form for text in secrets if text and len(text) >= 8 for form in (text, quote(text, safe=""))})


def _find_known(text: str, secrets: list[str]) -> Iterator[Finding]:
    for secret in secrets:
        yield from (Finding(ENVIRONMENT, *match.span()) for match in re.finditer(re.escape(secret), text))


def _find_tokens(text: str) -> Iterator[Finding]:
    pattern = _token_pattern()
    for run in _RUN.finditer(text):
        for match in pattern.finditer(text, *run.span()):
            yield Finding(list(_TOKENS)[int(str(match.lastgroup)[1:])], *match.span())


@cache
def _token_pattern() -> re.Pattern[str]:
    """Return one pattern for all tokens, with a group `k0`, `k1`, … for each kind: most runs hold none of them."""
    kinds = "|".join(f"(?P<k{number}>{rule})" for number, rule in enumerate(_TOKENS.values()))
    return re.compile(rf"(?<![A-Za-z0-9])(?:{kinds})")


def _find(rules: dict[str, str], text: str) -> Iterator[Finding]:
    for kind, pattern in _compiled(tuple(rules.items())):
        for match in pattern.finditer(text):
            parts = {name: value for name, value in match.groupdict().items() if value is not None}
            if "skip" not in parts:
                yield Finding(kind, *match.span(next(iter(parts), 0)))


@cache
def _compiled(rules: tuple[tuple[str, str], ...]) -> list[tuple[str, re.Pattern[str]]]:
    """Return each rule as a pattern. In one rule, several groups may be named `secret`: they get numbers."""
    number = itertools.count()
    numbered = ((kind, re.sub(r"P<secret>", lambda _: f"P<secret{next(number)}>", rule)) for kind, rule in rules)
    return [(kind, re.compile(rule, re.MULTILINE | re.IGNORECASE)) for kind, rule in numbered]


def _find_detected(text: str) -> Iterator[Finding]:
    for detector in _detectors():
        for secret in filter(None, {*detector.analyze_string(text)}):
            kind = f"a secret ({detector.secret_type})"
            yield from (Finding(kind, *match.span()) for match in re.finditer(re.escape(secret), text))


@cache
def _detectors() -> list["RegexBasedDetector"]:
    # The detectors alone, without detect-secrets' scanner, which runs git and a pool of processes. Those by entropy
    # and by keyword are no `RegexBasedDetector`: each hash has the entropy of a secret, and the rules above know how a
    # redacted setting is written.
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.plugins.base import RegexBasedDetector

    found: list[type] = list(get_mapping_from_secret_type_to_class().values())
    return [kind() for kind in found if issubclass(kind, RegexBasedDetector) and kind.__name__ not in _NO_DETECTORS]
