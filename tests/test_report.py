"""The report: its figures against the stored samples, what it flags, and what it does not flag."""

import copy
import json
import math
import random
import re
import resource
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_samples import data_source, sample, write_eval, write_manifest, write_pipeline
from scripts import exiting

from eval.report import main as script_main
from schoolhouse.report.audit import audit, repetition
from schoolhouse.report.contents import find_changes
from schoolhouse.report.reading import read_pipeline, read_stages


main = exiting(script_main)
ROOT = Path(__file__).parents[1]


def draw(chance, n, generator, **more):
    return [sample(item, generator.random() < chance, level=item % 3, **more) for item in range(n)]


class Cells(HTMLParser):
    """The text of the results table's cells, row by row."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.in_table, self.in_cell = [], False, False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "table" and not self.rows:
            self.in_table = ("class", "results") in attributes
        if self.in_table and tag == "tr":
            self.rows.append([])
        if self.in_table and tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.in_cell = False
        if tag == "table":
            self.in_table = False

    def handle_data(self, data):
        if self.in_table and self.in_cell:
            self.rows[-1][-1] += data


def wilson_by_hand(right, n):
    z = 1.959963984540054
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return middle - half, middle + half


def mcnemar_by_hand(gained, lost):
    total = gained + lost
    tail = sum(math.comb(total, k) for k in range(min(gained, lost) + 1)) / 2**total
    return min(1.0, 2 * tail)


def holm_by_hand(values):
    order = sorted(values, key=values.get)
    adjusted, highest = {}, 0.0
    for rank, key in enumerate(order):
        highest = max(highest, min(1.0, values[key] * (len(values) - rank)))
        adjusted[key] = highest
    return adjusted


def test_every_figure_of_the_table_follows_from_the_stored_samples(tmp_path):
    generator = random.Random(1)
    chances = {"base": (None, 0.3, 0.5), "sft": ("base", 0.6, 0.5), "grpo": ("sft", 0.8, 0.3)}
    pipeline = write_pipeline(
        tmp_path,
        {
            name: (parent, {"sums": draw(a, 90, generator), "tales": draw(b, 70, generator)})
            for name, (parent, a, b) in chances.items()
        },
    )
    main(["--pipeline", str(pipeline), "--output_dir", str(tmp_path / "out")])
    verdicts = {}
    for name in chances:
        for task in ("sums", "tales"):
            lines = (tmp_path / name / "eval/samples" / f"{task}.jsonl").read_text().splitlines()
            verdicts[name, task] = {(x := json.loads(line))["id"]: x["correct"] for line in lines}
    p_values, differences = {}, {}
    for name, (parent, *_) in chances.items():
        for task in ("sums", "tales") if parent else ():
            old, new = verdicts[parent, task], verdicts[name, task]
            gained, lost = (sum(new[i] == g and old[i] != g for i in old) for g in (True, False))
            p_values[name, task] = mcnemar_by_hand(gained, lost)
            differences[name, task] = (gained - lost) / len(old)
    adjusted = holm_by_hand(p_values)
    head, *rows = Cells((tmp_path / "out/report.html").read_text()).rows
    assert head == ["Stage", "sums", "tales"] and len(rows) == 3
    for name, row in zip(chances, rows, strict=True):
        assert row[0].startswith(name)
        for task, cell in zip(("sums", "tales"), row[1:], strict=True):
            given = verdicts[name, task].values()
            low, high = wilson_by_hand(sum(given), len(given))
            assert cell.startswith(f"{sum(given) / len(given):.3f} [{low:.3f}, {high:.3f}], n = {len(given)}")
            if (name, task) in adjusted:
                p = adjusted[name, task]
                shown = "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"
                assert f"{differences[name, task]:+.3f}, {shown}" in cell
                assert bool(re.search(r"detectable from 0\.\d+", cell)) == (p > 0.05)


def test_a_planted_regression_is_flagged_before_the_gains(tmp_path):
    before = {"sums": [sample(i, i < 20) for i in range(60)], "tales": [sample(i, i < 50) for i in range(60)]}
    after = {"sums": [sample(i, i < 55) for i in range(60)], "tales": [sample(i, i < 25) for i in range(60)]}
    pipeline = write_pipeline(tmp_path, {"base": (None, before), "sft": ("base", after)})
    main(["--pipeline", str(pipeline), "--output_dir", str(tmp_path / "out")])
    page, text = ((tmp_path / "out" / name).read_text() for name in ("report.html", "report.md"))
    assert 0 < page.index("sft, tales: worse") < page.index("sft, sums: improved")
    assert 0 < text.index("sft, tales: worse") < text.index("sft, sums: improved")


def test_reports_in_which_nothing_changed_flag_no_more_than_the_stated_rate(tmp_path):
    """400 tests in 100 reports; the exact test is conservative: even unadjusted, only 8 of these reports flag any."""
    generator = random.Random(7)
    flagged = 0
    for report in range(100):
        folder = tmp_path / str(report)
        # The same true skill at each item, drawn anew: two models without a true difference.
        skill = {task: [generator.choice([0.2, 0.5, 0.9]) for _ in range(80)] for task in ("a", "b")}
        stages = [
            {
                task: [sample(i, generator.random() < chance) for i, chance in enumerate(chances)]
                for task, chances in skill.items()
            }
            for _ in range(3)
        ]
        pairs = [f"s{i}={write_eval(folder / str(i), tasks)}" for i, tasks in enumerate(stages)]
        changes, _ = find_changes(read_stages(pairs)[1])
        assert len(changes) == 4
        flagged += any(change.kind != "none" for change in changes.values())
    assert flagged <= 10  # P(more than 10 of 100 | 5 %) = 1.1 %; seen: 3


def test_the_same_eval_twice_is_no_change_that_could_not_have_been_seen(tmp_path):
    folder = write_eval(tmp_path / "one", {"sums": [sample(i, i % 2 == 0) for i in range(50)]})
    changes, _ = find_changes(read_stages([f"a={folder}", f"b={folder}"])[1])
    (change,) = changes.values()
    assert (change.kind, change.p_adjusted, change.test.difference) == ("none", 1.0, 0.0)


def test_what_is_missing_is_said(tmp_path):
    pipeline = write_pipeline(tmp_path, {"base": (None, {"sums": [sample(0, True), sample(1, False)]})})
    content = json.loads(pipeline.read_text())
    entry = {"recipe": "sft", "config": None, "status": None}
    content["stages"] += [
        entry | {"name": "sft", "parent": "base", "folder": "gone", "eval": "gone/eval", "status": "failed"},
        entry | {"name": "ppo", "parent": "nobody", "folder": "ppo", "eval": "ppo/eval"},
    ]
    (tmp_path / "ppo").mkdir()
    (tmp_path / "ppo/run.json").write_text("{ half a file")
    (tmp_path / "ppo/overoptimization.json").write_text("[]")
    pipeline.write_text(json.dumps(content))
    main(["--pipeline", str(pipeline), "--output_dir", str(tmp_path / "out")])
    text = (tmp_path / "out/report.md").read_text().replace("\\", "")
    for words in (
        "sft: its status is failed",
        "ppo: it is not trained",
        "'nobody'",
        "ppo/run.json is damaged",
        "overoptimization.json is damaged",
        "it has no evaluation",
    ):
        assert words in text


def report_of(pairs, folder):
    main(["--stages", *(f"{name}={evaluation}" for name, evaluation in pairs), "--output_dir", str(folder)])
    return [(folder / name).read_text() for name in ("report.html", "report.md")]


def test_results_without_samples_are_shown_and_called_uncompared(tmp_path, capsys):
    lines = [[sample(i, i < right) for i in range(40)] for right in (10, 30)]
    pairs = [
        (name, write_eval(tmp_path / name, {"sums": mine, "tales": mine}))
        for name, mine in zip(("base", "sft"), lines, strict=True)
    ]
    shutil.rmtree(tmp_path / "base/samples")
    for shown in report_of(pairs, tmp_path / "out"):
        assert "0.250" in shown and "0.750" in shown
        assert "Nothing was compared" in shown and not re.search("[^0-9.]0 (worse|improved|without)", shown)
    out = capsys.readouterr().out
    assert "no stage could be compared" in out and "base/samples/sums.jsonl does not exist" in out
    assert out.count("\n") == 1 and "0 improved" not in out


def test_one_task_without_samples_or_of_another_version_hides_no_other(tmp_path):
    lines = [[sample(i, i < right) for i in range(40)] for right in (10, 30)]
    tasks = ("sums", "tales", "plays", "empty")
    pairs = [
        (name, write_eval(tmp_path / name, dict.fromkeys(tasks, mine)))
        for name, mine in zip(("base", "sft"), lines, strict=True)
    ]
    (tmp_path / "base/samples/tales.jsonl").unlink()
    (tmp_path / "sft/samples/empty.jsonl").write_text("")
    results = json.loads((tmp_path / "sft/results.json").read_text())
    results["tasks"]["plays"]["version"] = 2
    (tmp_path / "sft/results.json").write_text(json.dumps(results))
    changes, notes = find_changes(read_stages([f"{name}={folder}" for name, folder in pairs])[1])
    assert list(changes) == [("sft", "sums")] and changes["sft", "sums"].kind == "improved"
    assert [note for note in notes if "plays" in note and "version" in note] and len(notes) == len(set(notes))
    for shown in report_of(pairs, tmp_path / "out"):
        assert shown.replace("\\", "").count("0.750") >= 4
        assert "empty has results, and no samples" in shown and "tales.jsonl does not exist" in shown.replace("\\", "")


def test_isolation_that_was_off_and_hard_coded_programs_are_said_at_the_top(tmp_path):
    code = {"status": "passed", "hidden_passed": True}
    programs = [sample(i, True, "def f(n): return n", metrics=code | {"hard_coded": i < 3}) for i in range(12)]
    pipeline = write_pipeline(tmp_path, {"base": (None, {"code": programs}), "grpo": ("base", {"code": programs})})
    layers = {"rlimits": True, "landlock": False, "netns": False}
    results = json.loads((tmp_path / "base/eval/results.json").read_text()) | {"sandbox": layers}
    (tmp_path / "base/eval/results.json").write_text(json.dumps(results))
    write_manifest(tmp_path / "grpo", "grpo", sandbox=layers | {"netns": True})
    log = [{"step": s, "reward": 0.5, "rewards/code/hard_coded_of_passed": 0.1 * s} for s in (1, 2)]
    (tmp_path / "grpo/log.json").write_text(json.dumps(log))
    main(["--pipeline", str(pipeline), "--output_dir", str(tmp_path / "out")])
    for shown in ((tmp_path / "out" / name).read_text().replace("\\", "") for name in ("report.html", "report.md")):
        top = re.sub("<[^>]*>", "", shown.split("Every stage, every task" if "# " in shown[:9] else 'id="table"')[0])
        assert "base: programs of the evaluation ran without these layers of isolation: landlock, netns." in top
        assert "grpo: programs of the training ran without these layers of isolation: landlock." in top
        assert "base, code: 25.0% of the programs that pass hold inputs of the tests" in top
        assert "grpo, training: 20.0% of the programs that pass" in top
    whole = write_eval(
        tmp_path / "whole", {"code": [line | {"metrics": code | {"hard_coded": False}} for line in programs]}
    )
    results = json.loads((whole / "results.json").read_text()) | {"sandbox": {"landlock": True}}
    (whole / "results.json").write_text(json.dumps(results))
    for shown in report_of([("base", whole), ("same", whole)], tmp_path / "out"):
        assert "isolation" not in shown.split("provenance")[0] and "hold inputs" not in shown


def test_a_report_begins_with_model_date_machine_time_and_what_its_numbers_are(tmp_path):
    text = {"id": "doc", "index": 0, "prompt": "", "reference": "", "bits": 9.0, "bytes": 3}
    tasks = {"sums": [sample(i, i < 20) for i in range(40)], "texts": [text | {"id": f"doc-{i}"} for i in range(3)]}
    pipeline = write_pipeline(tmp_path, {"base": (None, tasks), "sft": ("base", tasks), "ppo": ("sft", tasks)})
    machine = {"system": "Linux", "machine": "x86_64", "cores": 8, "threads": 8, "processes": 2}
    machine |= {"accelerators": ["NVIDIA H100", "NVIDIA H100"]}
    evaluation = {"folder": "eval", "tasks": [], "fingerprint": "f", "status": "done", "seconds": 60.0}
    for day, name, more in ((24, "base", {"seconds": 0.0}), (25, "sft", {"seconds": 3600.0}), (26, "ppo", {})):
        more = {"model": {"name": "tiny/base", "hash": "0"}, "hardware": machine, "evaluations": [evaluation]} | more
        times = {"started": f"2026-11-{day}T23:50:05+00:00", "ended": f"2026-11-{day}T23:59:59+00:00"}
        write_manifest(tmp_path / name, name, **times, **more)
    main(["--pipeline", str(pipeline), "--output_dir", str(tmp_path / "out")])
    page, markdown = ((tmp_path / "out" / name).read_text() for name in ("report.html", "report.md"))
    for top in (page.split("<nav")[0], markdown.replace("\\", "").split("## ")[0]):
        for words in (
            "tiny/base",
            "2026-11-24 to 2026-11-26",
            "2 × NVIDIA H100, 8 CPU cores, x86_64",
            "1 h 4 min (training 1 h 1 min)",
            "higher is better",
            "lower is better",
        ):
            assert words in top, words
    assert page.index("</nav>") < page.index("<figure>") < re.search(r"<(ul|ol|table)\b", page).start()
    alone = write_eval(tmp_path / "alone", {"sums": tasks["sums"]})
    top = report_of([("base", alone)], tmp_path / "out")[0].split("<nav")[0]
    year = datetime.fromtimestamp((alone / "results.json").stat().st_mtime, UTC).year
    assert "bits per byte" not in top and "cpu" in top and f"<dd>{year}-" in top and "there is one stage" in top


def test_sections_without_content_are_gone(tmp_path):
    folder = write_eval(tmp_path / "one", {"sums": [sample(0, True, level=None), sample(1, False, level=None)]})
    page, _ = report_of([("base", folder)], tmp_path / "out")
    sections = re.findall('<section id="([a-z-]+)">', page)
    assert sections == ["overview", "table", "samples", "audit", "provenance"]
    assert re.findall('<a href="#([a-z-]+)">', page.split("<nav")[1]) == sections
    assert page.split('class="skip" href="#')[1].startswith("overview")


def planted(folder):
    """A pipeline with every file that a report reads."""

    def lines(k):
        return [
            sample(i, i % 3 < k, level=i % 2, index=n, metrics={"utility": i * k}) for i in range(5) for n in (0, 1)
        ]

    pipeline = write_pipeline(folder, {"base": (None, {"sums": lines(1)}), "ppo": ("base", {"sums": lines(2)})})
    results = json.loads((folder / "ppo/eval/results.json").read_text())
    calibrated = {"points": [{"predicted": 0.6, "observed": 0.5, "interval": [0.4, 0.6], "n": 9}], "ece": 0.1}
    bias = {"sd_per_10_tokens": 0.1, "interval": [0.0, 0.2]}
    results["tasks"]["sums"]["preference"] = {"calibration": calibrated, "length_bias": bias, "batch_invariance": 0.0}
    measured = {
        "points": [{"step": 1, "kl": 0.1, "gold": 1.0, "proxy": 2.0}],
        "stopped": {"by": "kl_budget", "step": 1},
    }
    measured |= {"peak": {"step": 1, "kl": 0.1, "gold": 1.0, "interval": [0, 1]}}
    measured |= {"final_minus_peak": {"value": 0.0, "interval": [0, 1]}}
    run = {"schema": 2, "status": "done", "recipe": "ppo", "command": ["a"], "seconds": 3.0}
    run |= {"git": {"revision": "x", "dirty": True}, "data": [data_source().model_dump()]}
    for name, value in {
        "eval/results.json": results,
        "overoptimization.json": measured,
        "run.json": run,
        "log.json": [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}],
    }.items():
        (folder / "ppo" / name).write_text(json.dumps(value))
    return pipeline


def places(value, where=()):
    yield where
    if isinstance(value, dict | list):
        for key in list(value)[:8] if isinstance(value, dict) else range(min(1, len(value))):
            yield from places(value[key], (*where, key))


def damaged(value):
    """The value with each of its parts gone or of another kind."""
    for number, where in enumerate(places(value)):
        for junk in (None, "x", [1], {"a": []}, math.nan)[number % 2 :: 2]:
            broken = copy.deepcopy(value)
            holder = broken
            for key in where[:-1]:
                holder = holder[key]
            if where:
                holder[where[-1]] = junk
            yield broken if where else junk


def as_schema_1(run):
    data = [{"role": "train", "licence": None, "location": "generated", "split": "train", **run["data"][0]}]
    return run | {
        "schema": 1,
        "status": "finished",
        "data": data,
        "resumed": [{"at": "today", "from": "checkpoint-1"}],
    }


@pytest.mark.parametrize(
    "name",
    [
        *("ppo/eval/results.json", "ppo/overoptimization.json", "ppo/log.json", "ppo/run.json", "pipeline.json"),
        *("samples", "run.json of schema 1"),
    ],
)
def test_whatever_is_damaged_the_report_is_written_or_one_line_says_why_not(tmp_path, capsys, name):
    pipeline = planted(tmp_path)
    special = {"samples": "ppo/eval/samples/sums.jsonl", "run.json of schema 1": "ppo/run.json"}
    path = tmp_path / special.get(name, name)
    if name == "run.json of schema 1":
        path.write_text(json.dumps(as_schema_1(json.loads(path.read_text()))))
    whole = path.read_text()
    first, *rest = whole.splitlines() if name == "samples" else [whole]
    texts = ["\n".join([json.dumps(broken), *rest]) for broken in damaged(json.loads(first))]
    texts += [whole[: len(whole) // 2], "", "[" * 50]
    refused = 0
    for text in texts:
        path.write_text(text)
        try:
            main(["--pipeline", str(pipeline), "--output_dir", str(tmp_path / "out")])
        except SystemExit as stop:
            assert stop.code == 2 and name == "pipeline.json"
            assert capsys.readouterr().err.count("\n") == 1
            refused += 1
    assert len(texts) > 10 and refused < len(texts)
    path.write_text(whole)
    main(["--pipeline", str(pipeline), "--output_dir", str(tmp_path / "out")])
    assert "Nothing is missing" in (tmp_path / "out/report.md").read_text()


def test_a_report_loads_only_what_it_needs(tmp_path):
    program = "import sys; from eval.report import main; main(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", program, "--pipeline", planted(tmp_path), "--output_dir", tmp_path / "out"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    ours = [name for name in loaded if name.partition(".")[0] == "schoolhouse"]
    assert {name.split(".")[1] for name in ours if "." in name} <= {"config", "core", "evaluation", "report"}
    assert len(ours) <= 25, ours
    assert not {"torch", "transformers", "datasets", "trl"} & set(loaded)


def test_a_full_disk_is_one_line_and_leaves_the_old_page(tmp_path, capsys):
    pipeline = planted(tmp_path)
    main(["--pipeline", str(pipeline), "--output_dir", str(tmp_path / "out")])
    before = (tmp_path / "out/report.html").read_text()
    capsys.readouterr()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(SystemExit) as stop:
            main(["--pipeline", str(pipeline), "--output_dir", str(tmp_path / "out")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "File too large" in error and error.count("\n") == 1
    assert (tmp_path / "out/report.html").read_text() == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.md"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pipeline", "nowhere.json"], "nowhere.json does not exist"),
        (["--stages", "sft"], "name=folder"),
        (["--stages", "sft=nowhere"], "holds no results.json"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--output_dir", str(tmp_path)])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and words in error and error.count("\n") == 1


def test_the_audit_counts_what_was_planted_and_only_that(tmp_path):
    code = {"fraction": 1.0, "status": "passed", "hidden_passed": True}
    planted = {
        "exit tricks": "import os\ndef f(n):\n    os._exit(0)",
        "hard-coded": "def f(n):\n    if n == 1: return 4\n    if n == 2: return 9\n    return 0",
        "repeated": "so it is then " * 12,
    }
    honest = "def f(n):\n    if n == 1: return 1\n    return n * f(n - 1)"
    programs = [
        sample(i, True, text, metrics=code | {"hard_coded": name == "hard-coded"})
        for i, (name, text) in enumerate((planted | {"honest": honest}).items())
    ]
    programs.append(sample(9, True, honest, metrics=code | {"hidden_passed": False}))
    sums = [
        sample(0, True, metrics={"shows_work": False}),
        sample(1, True, metrics={"shows_work": True}),
        sample(2, False, metrics={"shows_work": False}, right_in_any_form=True),
    ]
    pipeline = write_pipeline(tmp_path, {"base": (None, {"code": programs, "sums": sums})})
    counts = {(f.task, f.check.split(" (")[0]): (f.count, f.total) for f in audit(read_pipeline(pipeline)[1])}
    assert counts["code", "exit tricks"] == (1, 5) and counts["code", "hard-coded tests"] == (1, 4)
    assert counts["code", "repeated text"] == counts["code", "hidden-test gap"] == (1, 5)
    assert counts["sums", "answers without work"] == (1, 2)
    assert counts["sums", "strict-versus-lenient gap"] == (1, 3)
    assert counts["sums", "repeated text"] == (0, 3)


def test_repetition_is_the_share_of_runs_seen_before():
    assert repetition("a b c d e f g h i j k l m") == 0
    assert repetition("a " * 20) == pytest.approx(16 / 17)


def test_charts_read_logs_over_optimization_and_calibration(tmp_path):
    lines = [sample(i, i % 2 == 0) for i in range(8)]
    pipeline = write_pipeline(tmp_path, {"base": (None, {"sums": lines}), "ppo": ("base", {"sums": lines})})
    log = [{"step": s, "loss": 1 / s, "completions/mean_length": 5.0 * s} for s in (1, 2, 3)]
    (tmp_path / "ppo/log.json").write_text(json.dumps([*log, {"step": 4, "loss": math.nan}]))
    points = [{"step": s, "kl": 0.1 * s, "proxy": s, "gold": -s, "length": None} for s in (1, 2, 3)]
    (tmp_path / "ppo/overoptimization.json").write_text(json.dumps({"points": points}))
    results = json.loads((tmp_path / "ppo/eval/results.json").read_text())
    bins = [{"predicted": 0.6, "observed": 0.5, "interval": [0.4, 0.6], "n": 9}]
    results["tasks"]["sums"]["preference"] = {"calibration": {"points": bins, "ece": 0.1}}
    results["tasks"]["sums"]["metrics"] |= {"pass@1": 0.5, "pass@2": 0.7}
    (tmp_path / "ppo/eval/results.json").write_text(json.dumps(results))
    main(["--pipeline", str(pipeline), "--output_dir", str(tmp_path / "out")])
    captions = re.findall("<figcaption>(.*?)</figcaption>", (tmp_path / "out/report.html").read_text())
    assert [re.sub("<[^>]*>", "", caption) for caption in captions] == [
        "sums accuracy, 8 pairs",
        "ppo: loss",
        "ppo: completion length",
        "sums: pass@k",
        "ppo: gold reward and optimized reward",
        "ppo, sums: calibration",
    ]
