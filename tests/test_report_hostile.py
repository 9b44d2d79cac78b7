"""Completions that want to leave their box: read by a parser, and by Chromium where there is one."""

import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from chromium import Browser
from markdown_it import MarkdownIt
from report_samples import data_source, sample, write_manifest, write_pipeline
from scripts import exiting

from eval.report import main as script_main


main = exiting(script_main)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RUN = "document.title='owned'"
HOSTILE = [
    f"<script>{RUN}</script>",
    f"<img src=x onerror=\"{RUN}\"><svg onload=\"{RUN}\"><a href=\"javascript:{RUN}\">x</a>",
    "x" * 1_000_000,
    "\u202egnp.exe\u202c \u2067back\u2069 \u200f \x1b[31m \x00 \ud800",
    "```python\nnever closed",
    f"</script><script>{RUN}</script><!--<script>",
    f"\"'><iframe srcdoc='<script>parent.{RUN}</script>'></iframe>",
    f"</pre></article></section></main><style>*{{display:none}}</style></title><script>{RUN}</script>",
    "| a | b |\n|---|---|\n| <b>bold</b> | [x](javascript:alert(1)) ![y](http://example.org/y.png) |",
    "]]> &lt;script&gt; \u2028 \u2029 ${7*7} {{7*7}}",
]  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    lines = {
        stage: [
            sample(
                i,
                right ^ (i % 2 == 0),
                text,
                level=text[:40].replace("\ud800", ""),
                reference=text[:999],
                id=f"{i}{text[:60]}",
            )
            | {"prompt": [{"role": "user", "content": text}], "right_in_any_form": True}
            for i, text in enumerate(HOSTILE)
        ]
        for stage, right in (("base", True), ("sft", False))
    }
    pipeline = write_pipeline(
        folder, {"base": (None, {"sums": lines["base"]}), "sft": ("base", {"sums": lines["sft"]})}
    )
    content = json.loads(pipeline.read_text())
    content["name"] = HOSTILE[5] + HOSTILE[3]
    content["stages"][1] |= {"recipe": HOSTILE[1], "config": HOSTILE[0]}
    pipeline.write_text(json.dumps(content))
    write_manifest(folder / "sft")
    manifest = json.loads((folder / "sft/run.json").read_text())
    manifest |= {"command": HOSTILE, "data": [data_source(name=HOSTILE[1], license=HOSTILE[0]).model_dump()]}
    (folder / "sft/run.json").write_text(json.dumps(manifest))
    main(["--pipeline", str(pipeline), "--output_dir", str(folder / "out")])
    return folder / "out"


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.scripts = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag == "script":
            self.scripts.append([dict(attributes).get("type"), ""])
        if tag not in ("meta", "link", "br", "img", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1][1] += data


def test_a_parser_finds_only_our_elements(report):
    text = (report / "report.html").read_text(encoding="utf-8")
    page = Elements(text)
    assert page.open == []
    assert not {"img", "iframe", "object", "embed", "base", "link"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert all(value.startswith("#") for name, value in page.attributes if name in ("href", "src"))
    assert [kind for kind, _ in page.scripts] == ["application/json", None]
    rows = json.loads(page.scripts[0][1])
    texts = {answer["text"] for row in rows for answer in row["answers"]}
    assert HOSTILE[0] in texts and HOSTILE[5] in texts
    assert "owned" not in page.scripts[1][1]


def test_unseen_characters_are_written_out_and_long_lines_cut(report):
    for name in ("report.html", "report.md"):
        text = (report / name).read_text(encoding="utf-8")
        assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\x00-\x08\x1b\u2028\u2029\ud800-\udfff]", text)
        assert len(text) < 1_000_000 and "x" * 3000 not in text
    assert "U+202E" in text and "1,000,000 characters in all" in (report / "report.html").read_text()


def test_markdown_keeps_its_tables_and_holds_no_html(report):
    lines = (report / "report.md").read_text(encoding="utf-8").split("\n")
    assert not re.search("<[a-zA-Z/!]", "\n".join(lines))
    assert not any(line.lstrip().startswith("```") for line in lines)
    assert not re.search(r"(?<!\\)\]\(", "\n".join(lines))
    for heading, cells in (("## Every stage, every task", 2), ("## Audit of reward hacking", 5)):
        table = [line for line in lines[lines.index(heading) :] if line.startswith("|")]
        table = table[: next((i for i, line in enumerate(table) if line.startswith("| stage") and i), len(table))]
        assert len(table) > 2 and {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {cells + 1}


def browse(page, tmp_path, *flags):
    if BROWSER is None:
        pytest.skip("no chromium is installed (Debian: apt-get install chromium)")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=4000", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_nothing_runs_in_chromium_but_the_page_itself(report, tmp_path):
    dom = browse(report / "report.html", tmp_path, "--dump-dom")
    assert "<title>owned" not in dom and "<iframe" not in dom and "<img" not in dom
    assert re.search(r'<output id="samples-count">10 of 10 prompts</output>', dom)  # our script ran
    for key in ("changes", "table", "samples", "audit", "provenance", "missing"):
        assert f'<section id="{key}">' in dom
    assert dom.count('<article class="sample">') == 10 and "broken by this stage" in dom


def test_a_script_that_got_in_would_still_not_run(report, tmp_path):
    """The page's policy is a second wall: planted unescaped, a script does nothing; without it, it does."""
    text = (report / "report.html").read_text(encoding="utf-8")
    planted = text.replace("<main>", f"<main><script>{RUN}</script>")
    bare = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", planted)
    for name, content in (("planted", planted), ("bare", bare)):
        (tmp_path / f"{name}.html").write_text(content, encoding="utf-8")
    assert "<title>owned" not in browse(tmp_path / "planted.html", tmp_path, "--dump-dom")
    assert "<title>owned" in browse(tmp_path / "bare.html", tmp_path, "--dump-dom")


# HTML, JavaScript and Markdown for every place where a name or a text is shown; file names hold no slash.
INJECTIONS = {
    "name": f'<img src=x onerror="{RUN}">',
    "recipe": f'<svg onload="{RUN}"><b>',
    "task": f"**bold** [x](javascript:{RUN}) <img src=x onerror={RUN}>",
    "level": '"><svg onload="document.title=1"> | b',
    "completion": f"</pre></script><script>{RUN}</script>\n# heading\n- [x](http://example.org)\n<b>bold</b>",
    "metric": f"pass@<script>{RUN}</script>",
    "command": f"`code` ![x](http://example.org/x.png) </td><script>{RUN}</script>",
}


@pytest.fixture(scope="module")
def injected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("injected")
    levels = (INJECTIONS["level"], "easy")
    lines = [sample(i, i % 3 == 0, INJECTIONS["completion"], level=levels[i % 2]) for i in range(8)]
    better = [line | {"correct": True, "metrics": {INJECTIONS["metric"]: 0.5}} for line in lines]
    tasks = INJECTIONS["task"]
    pipeline = write_pipeline(folder, {"base": (None, {tasks: lines}), "sft": ("base", {tasks: better})})
    content = json.loads(pipeline.read_text())
    content["name"] = INJECTIONS["name"]
    content["stages"][1] |= {
        "name": INJECTIONS["name"],
        "recipe": INJECTIONS["recipe"],
    }
    pipeline.write_text(json.dumps(content))
    write_manifest(folder / "sft", command=[INJECTIONS["command"]])
    (folder / "sft/log.json").write_text(json.dumps([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]))
    main(["--pipeline", str(pipeline), "--output_dir", str(folder / "out")])
    return folder / "out"


@pytest.mark.parametrize("scripts", [True, False])
def test_injected_names_run_nothing_in_chromium_and_show_as_text(injected, tmp_path, scripts):
    with Browser(tmp_path) as browser:
        browser.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        browser.open(injected / "report.html")
        browser.run("document.querySelectorAll('details').forEach(each => { each.open = true })")
        assert browser.run("document.title") == f"Report: {INJECTIONS['name']}"
        for selector in ("img", "iframe", "script:not([type]) ~ script", "h1 ~ h1", "[onload]", "[onerror]", "pre b"):
            assert browser.run(f"document.querySelectorAll({json.dumps(selector)}).length") == 0
        assert browser.run("[...document.links].every(link => link.getAttribute('href').startsWith('#'))")
        assert browser.run("document.scripts.length") == 2
        shown = browser.run("document.body.innerText")
        for place in INJECTIONS.keys() - {"metric"}:
            assert all(line in shown for line in INJECTIONS[place].split("\n")), place


def test_injected_names_are_text_in_markdown(injected):
    tokens = (
        MarkdownIt("commonmark", {"html": True, "linkify": False})
        .enable("table")
        .parse((injected / "report.md").read_text(encoding="utf-8"))
    )
    kinds = {child.type for token in tokens for child in [token, *(token.children or [])]}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "code_inline", "fence", "code_block"}
    headings = [after.content for token, after in itertools.pairwise(tokens) if token.type == "heading_open"]
    assert len(headings) == 8  # ours, and one of each stage
    shown = "\n".join("".join(x.content for x in token.children) for token in tokens if token.type == "inline")
    for place in INJECTIONS.keys() - {"metric", "recipe", "level", "completion"}:
        assert INJECTIONS[place] in shown, place
    strong = [token for each in tokens for token in each.children or [] if token.type == "strong_open"]
    assert len(strong) == 1  # the one change
