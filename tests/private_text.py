"""
Secrets and personal text of every kind, put together when a test runs: no whole one stands in this repository.

`TOKENS` and `PERSONAL` map a kind to a line that holds one and the part that must not stay. The forms are those that
the services' documentation describes; letters and digits are drawn anew for each kind, and the same at every run.
"""

import base64
import random
import string


HEX = "0123456789abcdef"
LOWER = string.ascii_lowercase + string.digits
UPPER = string.ascii_uppercase + string.digits
WORD = string.ascii_letters + string.digits
URL_SAFE = f"{WORD}_-"
BASE64 = f"{WORD}+/"

_draw = random.Random(13)


def some(length, letters=WORD):
    """Letters and digits at random; of both kinds, as in a real token, where the alphabet has them."""
    while True:
        text = "".join(_draw.choice(letters) for _ in range(length))
        if any(map(str.isdigit, text)) and any(map(str.isalpha, text)) and text[0].isalnum() and text[-1].isalnum():
            return text


def _block(kind):
    lines = "\n".join(some(64, BASE64) for _ in range(3))
    return f"-----BEGIN {kind}-----\n{lines}\n-----END {kind}-----"


def _b64(text):
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _uuid():
    return "-".join(some(size, HEX) for size in (8, 4, 4, 4, 12))


def _jwt():
    return ".".join([_b64('{"alg":"HS256","typ":"JWT"}'), _b64('{"sub":"1234567890"}'), some(43, URL_SAFE)])


# Tokens that are known by their form alone.
BY_FORM = {
    "Hugging Face": "hf_" + some(34, string.ascii_letters + "12"),
    "Hugging Face organisation": "api_" + "org_" + some(34),
    "GitHub personal": "ghp_" + some(36),
    "GitHub OAuth": "gho_" + some(36),
    "GitHub user to server": "ghu_" + some(36),
    "GitHub server to server": "ghs_" + some(36),
    "GitHub refresh": "ghr_" + some(36),
    "GitHub fine-grained": "github_" + "pat_" + some(22) + "_" + some(59),
    "GitLab personal": "glpat-" + some(20, URL_SAFE),
    "GitLab deploy": "gldt-" + some(20, URL_SAFE),
    "GitLab runner": "glrt-" + some(20, URL_SAFE),
    "GitLab trigger": "glptt-" + some(40, HEX),
    "OpenAI": "sk-" + some(20) + "T3Blbk" + "FJ" + some(20),
    "OpenAI project": "sk-" + "proj-" + some(60, URL_SAFE),
    "OpenAI service account": "sk-" + "svcacct-" + some(60, URL_SAFE),
    "Anthropic": "sk-" + "ant-api03-" + some(93, URL_SAFE) + "AA",
    "OpenRouter": "sk-" + "or-v1-" + some(64, HEX),
    "Groq": "gsk_" + some(52),
    "NVIDIA": "nvapi-" + some(64, URL_SAFE),
    "xAI": "xai-" + some(80),
    "Perplexity": "pplx-" + some(48),
    "Replicate": "r8_" + some(37),
    "Weights & Biases, of today": "wandb_" + "v1_" + some(40),
    "LangSmith": "lsv2_" + "pt_" + some(32, HEX) + "_" + some(10, HEX),
    "Pinecone": "pcsk_" + some(60),
    "Databricks": "dapi" + some(32, HEX),
    "AWS access key": "AKIA" + some(16, string.ascii_uppercase + "234567"),
    "AWS temporary access key": "ASIA" + some(16, string.ascii_uppercase + "234567"),
    "Google API": "AIza" + some(35, URL_SAFE),
    "Google OAuth secret": "GOCSPX-" + some(28, URL_SAFE),
    "Google OAuth access": "ya29." + some(80, URL_SAFE),
    "Google OAuth refresh": "1//" + "0" + some(60, URL_SAFE),
    "Azure client secret": some(3) + "8Q~" + some(34, URL_SAFE),
    "Slack bot": "xoxb-" + some(12, "123456789a")[:11] + "1-" + some(24),
    "Slack user": "xoxp-" + "1234567890-1234567890-" + some(32, HEX),
    "Slack app": "xapp-" + "1-A0123456789-1234567890123-" + some(64, HEX),
    "Slack webhook": f"https://hooks.slack{'.com'}/services/T{some(8, UPPER)}/B{some(8, UPPER)}/{some(24)}",
    "Stripe": "sk_" + "live_" + some(24),
    "Stripe restricted": "rk_" + "live_" + some(24),
    "Stripe webhook": "whsec_" + some(32),
    "Square": "sq0" + "csp-" + some(43, URL_SAFE),
    "Shopify": "shpat_" + some(32, HEX),
    "npm": "npm_" + some(36),
    "PyPI": "pypi-" + "AgEIcHlwaS5vcmc" + some(90, URL_SAFE),
    "RubyGems": "rubygems_" + some(48, HEX),
    "Docker Hub": "dckr_" + "pat_" + some(27, URL_SAFE),
    "Artifactory": "AKCp" + some(69),
    "Terraform Cloud": some(14) + ".atlasv1." + some(67),
    "HashiCorp Vault": "hvs." + some(95, URL_SAFE),
    "HashiCorp Vault batch": "hvb." + some(140, URL_SAFE),
    "DigitalOcean": "dop_" + "v1_" + some(64, HEX),
    "Fly.io": "fo1_" + some(43, URL_SAFE),
    "Supabase": "sbp_" + some(40, HEX),
    "Netlify": "nfp_" + some(36),
    "SendGrid": "SG." + some(22, URL_SAFE) + "." + some(43, URL_SAFE),
    "Twilio": "SK" + some(32, HEX),
    "Mailgun": "key-" + some(32, HEX),
    "Mailchimp": some(32, HEX) + "-us14",
    "Brevo": "xkeysib-" + some(64, HEX) + "-" + some(16),
    "Telegram": "7101542013:" + "AA" + some(33, URL_SAFE),
    "Discord bot": "MT" + some(24) + "." + some(6) + "." + some(38),
    "Discord webhook": "https://discord" + ".com/api/webhooks/1234567890123456789/" + some(68),
    "JSON Web Token": _jwt(),
    "Atlassian": "ATATT3" + some(180, URL_SAFE),
    "Notion": "ntn_" + some(46),
    "Linear": "lin_" + "api_" + some(40),
    "Figma": "figd_" + some(40, URL_SAFE),
    "Airtable": "pat" + some(14) + "." + some(64, HEX),
    "Grafana": "glsa_" + some(32) + "_" + some(8, HEX),
    "Sentry": "sntryu_" + some(64, HEX),
    "Postman": "PMAK-" + some(24, HEX) + "-" + some(34, HEX),
    "Doppler": "dp.pt." + some(43),
    "New Relic": "NRAK-" + some(27, UPPER),
    "Dynatrace": "dt0c01." + some(24, UPPER) + "." + some(64, UPPER),
    "Pulumi": "pul-" + some(40, HEX),
    "HubSpot": "pat-" + "na1-" + _uuid(),
    "Tailscale": "tskey-" + "auth-" + some(12) + "-" + some(32),
    "age": "AGE-SECRET-KEY-" + "1" + some(58, "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"),
    "Facebook": "EAAC" + some(150),
    "Heroku": "HRKU-" + _uuid(),
    "PlanetScale": "pscale_" + "tkn_" + some(43, URL_SAFE),
    "Together": "tgp_" + "v1_" + some(43, URL_SAFE),
    "Amazon Bedrock": "bedrock-" + "api-key-" + some(80, BASE64),
    "Docker swarm": "SWMTKN-" + "1-" + some(50, LOWER) + "-" + some(25, LOWER),
    "PASETO": "v4." + "local." + some(80, URL_SAFE),
    "Dropbox": "sl." + some(130, URL_SAFE),
    "Salesforce": "00D" + some(15) + "!" + some(90),
    "Cloudflare, of today": "cfut_" + some(48),
    "RSA private key": _block("RSA PRIVATE " + "KEY"),
    "OpenSSH private key": _block("OPENSSH PRIVATE " + "KEY"),
    "PKCS #8 private key": _block("PRIVATE " + "KEY"),
    "encrypted private key": _block("ENCRYPTED PRIVATE " + "KEY"),
    "PGP private key": _block("PGP PRIVATE " + "KEY BLOCK"),
}  # fmt: skip

_pw = some(14)
_basic = base64.b64encode(f"someone:{_pw}".encode()).decode()
# Secrets that are known by what stands beside them: text around `{}`, and the secret.
BESIDE = {
    "AWS secret key": ("aws_secret_access_key = {}", some(40, BASE64)),
    "AWS session token": ("AWS_SESSION_TOKEN={}", some(200, BASE64)),
    "Azure storage": (
        "DefaultEndpointsProtocol=https;AccountName=x;AccountKey={};EndpointSuffix=core", some(86, BASE64) + "==",
    ),
    "Azure shared access signature": ("https://x.blob.core.windows.net/c/f?sv=2024-11-04&sig={}", some(43) + "%3D"),
    "Azure service bus": ("Endpoint=sb://x.servicebus.windows.net/;SharedAccessKey={}", some(43, BASE64) + "="),
    "Weights & Biases": ("export WANDB_API_KEY={}", some(40, HEX)),
    "Datadog": ("DD_API_KEY: {}", some(32, HEX)),
    "Cohere": ("cohere_api_key={}", some(40)),
    "Cloudflare": ("CLOUDFLARE_API_TOKEN={}", some(40, URL_SAFE)),
    "Heroku": ("HEROKU_API_KEY={}", _uuid()),
    "Kaggle": ('{"username":"someone","key":"{}"}', some(32, HEX)),
    "Google service account": (
        '{"type": "service_account", "private_key": "{}"}', _block("PRIVATE " + "KEY").replace("\n", r"\n"),
    ),
    ".netrc": ("machine api.example.org login someone password {}", _pw),
    ".netrc on several lines": ("machine api.example.org\n  login someone\n  password {}\n", _pw),
    ".npmrc": ("//registry.example.org/:_authToken={}", _uuid()),
    ".pypirc": ("[pypi]\nusername = someone\npassword = {}", _pw),
    ".pgpass": ("db.example.org:5432:main:someone:{}", _pw),
    "Docker config": ('{"auths": {"registry.example.org": {"auth": "{}"}}}', _basic),
    "basic authorization": ("Authorization: Basic {}", _basic),
    "bearer": ("curl -H 'Authorization: Bearer {}' https://example.org", some(32)),
    "authorization token": ('{"Authorization": "token {}"}', some(40, HEX)),
    "API key header": ("-H 'X-Api-Key: {}'", some(32, HEX)),
    "GitLab header": ("PRIVATE-TOKEN: {}", some(20)),
    "cookie": ("Cookie: session={}", some(40)),
    "password in an address": ("https://someone:{}@example.org/x.git", _pw),
    "password in an address without a user": ("redis://:{}@cache.example.org:6379/0", _pw),
    "database address": ("postgresql+psycopg2://someone:{}@db.example.org/main", _pw),
    "token as a user": ("https://{}@git.example.org/x.git", some(40, HEX)),
    "token in a query": ("https://example.org/f?x=1&access_token={}", some(32)),
    "--token X": ("python push.py --token {} --public", some(20)),
    "--hub_token=X": ("sft.py --hub_token={}", some(20)),
    "--api-key X in a list": ('["run.py", "--api-key", "{}"]', some(24)),
    "--password X": ("docker login -u someone --password {}", _pw),
    "curl -u": ("curl -u someone:{} https://example.org", _pw),
    "wandb login": ("wandb login {}", some(40, HEX)),
    "password of a setting": ('"db_password": "{}"', _pw),
    "passphrase": ("passphrase: {}", _pw),
    "client secret": ("client_secret={}", some(32, HEX)),
    "Django": ("SECRET_KEY = '{}'", some(50)),
    "any service's variable": ("FANCY_SERVICE_TOKEN={}", some(24)),
    "WireGuard": ("PrivateKey = {}", some(43, BASE64) + "="),
    "htpasswd": ("someone:{}", "$apr1$" + some(8) + "$" + some(22)),
}  # fmt: skip

TOKENS = {kind: (f"x: {token}", token) for kind, token in BY_FORM.items()} | {
    kind: (text.replace("{}", secret), secret) for kind, (text, secret) in BESIDE.items()
}

PERSONAL = {
    kind: (text, text)
    for kind, text in {
        "e-mail": "alice.liddell@" + "wonderland.org",
        "e-mail of a company": "a.liddell+ml@" + "mail.looking-glass.co.uk",
        "e-mail, spelled": "alice [at] " + "wonderland [dot] org",
        "home folder": "/home/" + "alice/data",
        "home folder of macOS": "/Users/" + "alice/Desktop/x.jsonl",
        "home folder of root": "/root/" + ".cache/huggingface",
        "data folder": "/scratch/" + "project_17/runs",
        "~": "~/" + "secret-project/data",
        "~name": "~" + "alice/data",
        "Windows user folder": "C:\\" + "Users\\alice\\models",
        "Windows user folder with slashes": "C:/" + "Users/alice/models",
        "Windows drive": "D:\\" + "projects\\secret\\run1",
        "WSL": "/mnt/c/" + "Users/alice",
        "UNC": "\\\\" + "fileserver\\share\\models",
        "file address": "file:///" + "home/alice/x",
        "S3": "s3://" + "alice-private-bucket/runs",
        "Google storage": "gs://" + "alice-private-bucket/runs",
        "Azure storage": "abfss://" + "data@account.dfs.core.windows.net/x",
        "HDFS": "hdfs://" + "namenode:9000/user/alice",
        "private address, class A": "10.17" + ".3.42",
        "private address, class B": "172.20" + ".1.7",
        "private address, class C": "192.168" + ".178.23",
        "link-local address": "169.254" + ".169.254",
        "carrier address": "100.101" + ".12.9",
        "IPv6, unique local": "fd12:3456:" + "789a:1::1",
        "IPv6, link-local": "fe80::" + "1ff:fe23:4567:890a",
        "MAC": "3c:22:fb:" + "9a:01:7e",
        "intranet host": "gpu-box" + ".corp",
        "internal host": "node17.hpc" + ".internal",
        "local host of the network": "http://nas" + ".local/x",
        "cluster host": "trainer.default.svc" + ".cluster.local",
        "host without a domain": "http://gpu-box" + ":8000/v1",
        "copy from a host": "alice@" + "gpu01:/data/run",
        "ssh": "ssh " + "alice@gpu01",
        "phone": "+49 170 " + "555 0123",
    }.items()
}
