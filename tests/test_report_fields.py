"""A hostile text in every field of every file that a report reads: it is text there, and nothing of it is markup."""

import json
import re
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from report_samples import sample, write_eval, write_full_pipeline

from eval.report import main
from schoolhouse.config.errors import exit_with
from schoolhouse.evaluation.results import load_results
from schoolhouse.evaluation.tables import print_results


# The end of a tag, a script, a template, an entity, a table's cell, a link and a comment. Names are cut at 60.
MARK = "\"'></p><q onload=q>{{7}}&#60;`|[q](x:q)<!--"
FILE_MARK = MARK.replace("/", "")  # of tasks, whose names are those of files
# What is no free text: the report, or the reader's own types, ask for one of few values, a place, or a pair of ids.
FIXED = {"status", "role", "kind", "folder", "eval", "finish_reason", "product", "id", "parent", "sha256_of_blocks"}


def poisoned(value, key=None):
    if isinstance(value, dict):
        values = {name: poisoned(item, name) for name, item in value.items()}
        if key in ("by_level", "versions", "tokens", "metrics", "seeds") and values:
            values[f"{MARK}{key}"] = next(iter(values.values()))
        return values
    if isinstance(value, list):
        return [poisoned(item, key) for item in value]
    return f"{MARK}{key}" if isinstance(value, str) and key not in FIXED else value


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fields")
    pipeline = write_full_pipeline(folder)
    for path in folder.rglob("*.json"):
        value = poisoned(json.loads(path.read_text()))
        if "tasks" in value:
            value["tasks"] = {f"{FILE_MARK}{task}": result for task, result in value["tasks"].items()}
        if path == pipeline:
            for stage in value["stages"]:
                stage["name"] = stage["name"] + stage["folder"]
                stage["parent"] = stage["parent"] and f"{MARK}name{stage['parent']}"
        path.write_text(json.dumps(value))
    for path in folder.rglob("*.jsonl"):
        lines = [poisoned(json.loads(line)) for line in path.read_text().splitlines()]
        for line in lines:
            line["id"] = f"{MARK}{line['id']}"
        path.write_text("\n".join(map(json.dumps, lines)))
        path.rename(path.with_name(f"{FILE_MARK}{path.name}"))
    assert main(["--pipeline", str(pipeline), "--output_dir", str(folder / "out")]) == 0
    return [(folder / "out" / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")]


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.comments, self.text = set(), [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes

    def handle_comment(self, data):
        self.comments.append(data)

    def handle_data(self, data):
        self.text.append(data)


def test_every_field_is_text_in_the_page(pages):
    page = Page(pages[0])
    ours = "a abbr article b body caption circle code dd details div dl dt figcaption figure form h1 h2 h3 h4 head"
    ours += " header html label li"
    ours += " main meta nav ol option output p path polyline pre script section select small span strong style summary"
    ours += " svg table tbody td text th thead title tr ul"
    assert page.tags <= {*ours.split()} and page.comments == []
    names = {name for name, _ in page.attributes}
    assert not {name for name in names if name.startswith("on") or name in ("src", "style", "action")}
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    # A mark that was not escaped, or twice, would not stand in the text as it is.
    shown = "".join(page.text)
    fields = "name recipe command revision versions completion reference content license".split()
    assert [field for field in fields if f"{MARK}{field}" not in shown] == []
    assert shown.count(FILE_MARK) > 20


def test_every_field_is_text_in_markdown(pages):
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(pages[1])
    kinds = {child.type for token in tokens for child in [token, *(token.children or [])]}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "code_inline", "fence", "code_block"}
    shown = "".join(child.content for token in tokens for child in token.children or [])
    fields = "name command revision versions completion".split()
    assert [field for field in fields if f"{MARK}{field}" not in shown] == []
    assert FILE_MARK in shown


def test_the_policy_allows_no_request_no_form_no_base_and_no_object(pages):
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', pages[0])
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    for kind in ("connect", "object", "frame", "img", "media", "font", "worker", "manifest"):
        assert rules.get(f"{kind}-src", rules["default-src"]) == ["'none'"]
    assert rules["form-action"] == rules["base-uri"] == ["'none'"]  # `default-src` says nothing of these
    sources = [*rules["style-src"], *rules["script-src"]]
    assert all(re.fullmatch(r"'sha256-[\w+/=]+'", source) for source in sources)


def test_names_with_escapes_of_a_terminal_are_printed_as_text(tmp_path, capsys):
    name = "\x1b]0;owned\x07\x1b[31m\u202e[bold red]"
    write_eval(tmp_path / "eval", {"sums": [sample(1, True)] * 2})
    path = tmp_path / "eval/results.json"
    results = json.loads(path.read_text())
    results["tasks"] = {name: results["tasks"]["sums"] | {"by_level": {name: results["tasks"]["sums"]}}}
    path.write_text(json.dumps(results))
    print_results(load_results(tmp_path / "eval"))
    main(["--stages", f"{name}={tmp_path / 'eval'}", f"{name}={tmp_path / 'eval'}", "--output_dir", str(tmp_path)])
    with pytest.raises(SystemExit):
        exit_with(f"{name}: unknown key")
    out, err = capsys.readouterr()
    assert out.count("owned") >= 2 and err.count("owned") == 2 and "[bold red]" in out
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", out + err)
