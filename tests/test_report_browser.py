"""The page in Chromium: nothing overflows, everything is legible, all of it works by keyboard, and it prints."""

import json

import pytest
from chromium import Browser
from report_samples import sample, write_full_pipeline, write_manifest, write_pipeline
from scripts import exiting

from eval.report import main as script_main


main = exiting(script_main)
LONG = "a_task_with_a_name_that_is_longer_than_a_phone_is_wide_" * 2


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    judged = {
        name: [
            sample(i, i % 3 < k, f"words {i} " * k, index=n, metrics={"utility": (i * 7 + n * k) % 5})
            for i in range(12)
            for n in range(2)
        ]
        for k, name in ((1, "base"), (2, "sft"))
    }
    sums = {name: [sample(i, i % 4 < k, level=i % 5) for i in range(40)] for k, name in ((1, "base"), (3, "sft"))}
    lost = [sample(i, i % 4 < 1, level=i % 5) for i in range(40)]
    pipeline = write_pipeline(
        folder,
        {
            "base": (None, {"sums": sums["base"], "talks": judged["base"], LONG: sums["base"]}),
            "sft": ("base", {"sums": sums["sft"], "talks": judged["sft"], LONG: sums["sft"]}),
            "ppo": ("sft", {"sums": lost, "talks": judged["sft"]}),
        },
    )
    log = [{"step": s, "reward": s / 9, "completions/mean_length": 5.0 * s} for s in range(1, 9)]
    (folder / "ppo/log.json").write_text(json.dumps(log))
    write_manifest(folder / "ppo", "ppo", command=["x" * 300], versions={"torch": "2"})
    points = [{"step": s, "kl": 0.5 * s, "proxy": s / 9, "gold": 1 - (s - 4) ** 2 / 16} for s in range(1, 9)]
    peak = {"step": 4, "kl": 2.0, "gold": 1.0, "interval": [1.5, 2.5]}
    measured = {"points": points, "peak": peak, "stopped": {"by": "kl_budget", "step": 8}}
    (folder / "ppo/overoptimization.json").write_text(json.dumps(measured))
    main(["--pipeline", str(pipeline), "--output_dir", str(folder / "out")])
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    main(["--pipeline", str(write_full_pipeline(folder)), "--output_dir", str(folder / "out")])
    return folder / "out" / "report.html"


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_makes_the_page_scroll_sideways(page, tmp_path, width):
    with Browser(tmp_path, width) as browser:
        browser.open(page)
        assert browser.run("document.documentElement.scrollWidth") <= width
        browser.run("document.querySelectorAll('details').forEach(each => { each.open = true })")
        assert browser.run("document.documentElement.scrollWidth") <= width


# WCAG 2.2, 1.4.3: relative luminances of a text and of the first opaque background behind it.
FAINT = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const faint = [];
  let seen = 0;
  while (walker.nextNode()) {
    const node = walker.currentNode, box = node.parentElement;
    if (!node.data.trim() || !box.getClientRects().length) continue;
    if (["SCRIPT", "STYLE", "OPTION"].includes(box.tagName)) continue;
    seen += 1;
    const style = getComputedStyle(box);
    let behind = box;
    while (behind.parentElement && (parse(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0)
      behind = behind.parentElement;
    const ground = parse(getComputedStyle(behind).backgroundColor);
    const [a, b] = [parse(box.closest("svg") ? style.fill : style.color), ground].map(light).sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faint.push(node.data.trim().slice(0, 40) + " " + ratio.toFixed(2));
  }
  return [seen, faint];
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_stands_out_from_its_ground(page, tmp_path, dark):
    with Browser(tmp_path, dark=dark) as browser:
        browser.open(page)
        browser.run("document.querySelectorAll('details').forEach(each => { each.open = true })")
        seen, faint = browser.run(FAINT)
        assert seen > 200 and faint == []
        paper = browser.run("getComputedStyle(document.body).backgroundColor")
        assert (int(paper[4:].split(",")[0]) < 64) == dark


FOCUSED = (
    "(e => [e.tagName, e.name || e.getAttribute('aria-label') || e.textContent.slice(0, 40), "
    "getComputedStyle(e).outlineStyle, e.getBoundingClientRect().height])(document.activeElement)"
)


def test_all_of_it_works_by_keyboard(page, tmp_path):
    with Browser(tmp_path) as browser:
        browser.open(page)
        links = browser.run("document.querySelectorAll('nav a').length")
        browser.press("Tab")
        assert browser.run(FOCUSED)[1] == "Skip to the results"
        visited = [browser.run(FOCUSED)]
        while (browser.press("Tab"), browser.run(FOCUSED))[1][0] != "BODY":
            visited.append(browser.run(FOCUSED))
            assert len(visited) < 200
        assert all(outline != "none" and height > 0 for *_, outline, height in visited)
        names = [name for _, name, *_ in visited]
        assert [tag for tag, *_ in visited[1 : links + 1]] == ["A"] * links
        order = [names.index(name) for name in ("Results", "task", "stage", "verdict", "Audit")]
        assert order == sorted(order)
        assert len([tag for tag, *_ in visited if tag == "SUMMARY"]) == browser.run(
            "[...document.querySelectorAll('summary')].filter(e => e.getClientRects().length).length"
        )


# Words of the field that a section may show, and no reader needs to know.
JARGON = (
    "KL|nats|Holm|pass@k|entropy|gold reward|calibration|log loss|noisy labels|p-values|95 % interval|bits per byte"
)
UNEXPLAINED = f"""(() => {{
  const bare = [];
  for (const section of document.querySelectorAll("section")) {{
    const copy = section.cloneNode(true);
    copy.querySelectorAll("svg, pre, script, h2").forEach((each) => each.remove());
    const found = new Set(copy.textContent.match(/(?<![\\w\\u221a])({JARGON})(?!\\w)/gi) || []);
    const explained = [...copy.querySelectorAll("abbr")].map((each) => each.textContent.toLowerCase());
    for (const word of found) if (!explained.includes(word.toLowerCase())) bare.push(section.id + ": " + word);
  }}
  return [document.querySelectorAll("abbr").length, bare];
}})()"""


@pytest.mark.parametrize("width", [390, 1280])
def test_every_term_is_explained_where_it_stands_and_by_keyboard(full, tmp_path, width):
    with Browser(tmp_path, width) as browser:
        browser.open(full)
        browser.run("document.querySelectorAll('details').forEach(each => { each.open = true })")
        number, bare = browser.run(UNEXPLAINED)
        assert number > 20 and bare == []
        browser.run("document.querySelector('nav a:last-child').focus()")
        browser.press("Tab")  # the first one after the links
        shown = browser.run(
            "(e => {const s = getComputedStyle(e, '::after'), left = parseFloat(s.left); return [e.tagName, e.title, "
            "s.content, s.position, left, left + parseFloat(s.width), parseFloat(s.bottom)]})(document.activeElement)"
        )
        tag, title, content, position, left, right, bottom = shown
        assert tag == "ABBR" and title and content == f'"{title}"' and position == "fixed"
        assert 0 <= left < right <= width and bottom >= 0
        browser.press("Tab")
        assert browser.run("getComputedStyle(document.querySelector('abbr'), '::after').content") == "none"


APART = """[...document.querySelectorAll(".legend span")].filter((span) => {
  const key = span.querySelector("svg").getBoundingClientRect(), range = document.createRange();
  range.selectNodeContents([...span.childNodes].findLast((node) => node.data && node.data.trim()));
  const words = range.getBoundingClientRect(), middle = key.y + key.height / 2;
  return words.left < key.right || words.left > key.right + 20 || middle < words.top || middle > words.bottom;
}).map((span) => span.textContent)"""


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_key_of_a_legend_stays_with_its_words(full, tmp_path, width):
    with Browser(tmp_path, width) as browser:
        browser.open(full)
        assert browser.run("document.querySelectorAll('.legend span').length") > 10
        assert browser.run(APART) == []


def test_filters_and_details_answer_to_keys(page, tmp_path):
    with Browser(tmp_path) as browser:
        browser.open(page)
        count = "document.getElementById('samples-count').textContent"
        whole = browser.run(count)
        browser.run("document.querySelector('[name=verdict]').focus()")
        browser.press("ArrowDown")
        assert browser.run("document.querySelector('[name=verdict]').value") == "fixed"
        assert browser.run(count) != whole
        shown = browser.run("[...document.querySelectorAll('.sample')].every(e => e.textContent.includes('fixed by'))")
        assert shown and browser.run("document.querySelectorAll('.sample').length") > 0
        browser.run("document.querySelector('#provenance summary').focus()")
        browser.press("Enter")
        assert browser.run("document.querySelector('#provenance details').open")


def test_it_prints_light_and_without_what_only_a_screen_needs(page, tmp_path):
    with Browser(tmp_path / "profile", dark=True) as browser:
        browser.open(page)
        browser.media("dark", "print")
        assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        for selector in ("nav", "#filters", ".skip"):
            assert browser.run(f"getComputedStyle(document.querySelector('{selector}')).display") == "none"
        _, faint = browser.run(FAINT)
        assert faint == []
        browser.print(tmp_path / "report.pdf")
        assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
