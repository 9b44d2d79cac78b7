"""The 25 kinds of instructions of IFEval, strictly and loosely, and the task made of them."""

import json
import sys
import time

import pytest

from schoolhouse.evaluation.tasks import load_task
from schoolhouse.graders.instructions import (
    INSTRUCTIONS,
    check_instructions,
    check_instructions_loose,
    count_sentences,
)


ENGLISH = "the weather was fine and so we walked along the river until the evening came"
GERMAN = "Das Wetter war schön, also gingen wir am Fluss entlang, bis der Abend kam."

# kind, arguments, responses that follow, responses that do not
CASES = [
    (
        "keywords:existence",
        {"keywords": ["correlated", "peace"]},
        ["Correlated, in PEACE.", "peaceful and uncorrelated"],
        ["correlated only", "cor related peace"],
    ),
    (
        "keywords:frequency",
        {"keyword": "war", "frequency": 2, "relation": "at least"},
        ["War and war", "a warm award"],
        ["war", "peace"],
    ),
    (
        "keywords:frequency",
        {"keyword": "C++", "frequency": 2, "relation": "less than"},
        ["one c++ only", "none"],
        ["C++ is not c++."],
    ),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["rock", "BC"]},
        ["rocket and abc", "pop"],
        ["We ROCK.", "in 44 bc"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "t", "let_frequency": 2, "let_relation": "less than"},
        ["one T", "no"],
        ["that", "Two t"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "!", "let_frequency": 3, "let_relation": "at least"},
        ["Hi! Oh! Wow!"],
        ["Hi! Oh!"],
    ),
    ("language:response_language", {"language": "de"}, [GERMAN], [ENGLISH]),
    ("language:response_language", {"language": "kn"}, ["ಹವಾಮಾನ ಚೆನ್ನಾಗಿತ್ತು, ನಾವು ನದಿಯ ಉದ್ದಕ್ಕೂ ನಡೆದೆವು"], [ENGLISH]),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "at least"},
        ["One. Two! Three?", 'He said "No." Then he left. So?'],
        ["Dr. A. Smith paid $3.50, e.g. to Mrs. Jones.", "One. Two."],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "less than"},
        ["Only one here.", "no mark at all"],
        ["One. Two."],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["one\n***\ntwo", "***\none *** two\n\nstill two\n***"],
        ["one", "one\n\ntwo", "one\n***\n***\ntwo", "a *** b *** c"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 4, "relation": "at least"},
        ["well, it is so", "it's so, yes"],
        ["only three words"],
    ),
    ("length_constraints:number_words", {"num_words": 4, "relation": "less than"}, ["a b c"], ["a b c d"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "bonding"},
        ["First\n\nBonding, they said.", 'First\nstill first\n\n"bonding" is second'],
        ["Bonding\n\nSecond", "First\n\nBonding\n\nThird", "First\n\nBondings", "First. Bonding"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["Dear [name] of [address],", "[a] [b] [c]"],
        ["Dear [name],", "[a\nb] [c]"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Yours\n\nP.S. Write soon", "p. s. and more"],
        ["Yours", "PS: no periods"],
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["P.P.S. two", "p. p. s"], ["P.S. one"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* one\n* two", "List:\n  - one\n  - two", "* one\n- two\nend"],
        ["* one", "* one\n* two\n* three", "**bold**\n* one", "1. one\n2. two"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "I think: My answer is maybe. Sorry."],
        ["my answer is yes.", "My answer is perhaps."],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*one* and *two*", "**one** and *two*"],
        ["**one**", "* *  ** **", "*one\ntwo* **", "none"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1 a SECTION 2 b", "SECTION1\nSECTION2\nSECTION3"],
        ["SECTION 1", "Section 1\nSection 2", "SECTION one SECTION two"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1, null]}', '```json\n{"a": 1}\n```', "```JSON\n[]\n```", "```\n[1]\n```"],
        ['{"a": 1,}', "{'a': 1}", 'Here: {"a": 1}', "[" * 100_000],
    ),
    (
        "detectable_format:title",
        {},
        ["<<A title>>\ntext", "see <<this>> and <<that>>"],
        ["<A title>", "<<>>", "<< >>", "<<a\nb>>", ">>a<<"],
    ),
    (
        "combination:two_responses",
        {},
        ["one\n******\ntwo", "******\none ****** two ******"],
        ["one", "one\n******\n one ", "one ****** ****** two", "1 ****** 2 ****** 3"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Write a poem."},
        ["Write a poem.\nRoses are red", " WRITE A POEM. ok"],
        ["Sure! Write a poem.", "Write a  poem."],
    ),
    (
        "startend:end_checker",
        {"end_phrase": "Anything else? "},
        ["So. anything ELSE?", '"So. Anything else?"\n'],
        ["Anything else? No.", "Anything els"],
    ),
    ("startend:quotation", {}, ['"all of it"', ' "a" and "b"\n'], ['"', 'He said "no"', "'single'", '"open']),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["NASA and COVID-19", "I AM"],
        ["NASA only", "Nasa Esa"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "less than"},
        ["the U.S.A. alone", "none"],
        ["A B"],
    ),
    (
        "change_case:english_capital",
        {},
        [ENGLISH.upper(), "THE SUN ROSE AT 7, AND WE ATE BREAKFAST TOGETHER!"],
        [ENGLISH, ENGLISH.title(), "12"],
    ),
    (
        "change_case:english_lowercase",
        {},
        [ENGLISH, ENGLISH + " (2)!"],
        [ENGLISH.upper(), "A" + ENGLISH, GERMAN.lower()],
    ),
    ("punctuation:no_comma", {}, ["none; here"], ["one, here"]),
]


def test_all_25_kinds_are_known_and_tried():
    assert len(INSTRUCTIONS) == 25
    assert {kind for kind, *_ in CASES} == set(INSTRUCTIONS)


@pytest.mark.parametrize(("kind", "arguments", "follow", "fail"), CASES, ids=[case[0] for case in CASES])
def test_a_kind_tells_following_from_failing(kind, arguments, follow, fail):
    on_the_hub = {"num_bogus": None, "language": None} | arguments  # irrelevant columns are filled with None there
    for response in follow:
        assert check_instructions(response, [kind], [on_the_hub]) == [True], response
        assert check_instructions_loose(response, [kind], [on_the_hub]) == [True], response
    for response in fail:
        assert check_instructions(response, [kind], [on_the_hub]) == [False], response
    assert check_instructions(" \n", [kind], [on_the_hub]) == [False]
    assert check_instructions_loose("", [kind], [on_the_hub]) == [False]


def test_each_instruction_gets_its_own_verdict():
    kinds = ["punctuation:no_comma", "length_constraints:number_words", "startend:quotation"]
    arguments = [{}, {"relation": "at least", "num_words": 3}, {}]
    assert check_instructions('"one two three"', kinds, arguments) == [True, True, True]
    assert check_instructions("one, two three", kinds, arguments) == [False, True, False]


@pytest.mark.parametrize(
    ("response", "kind", "arguments"),
    [
        ("Sure, here it is:\nno commas", "punctuation:no_comma", {}),  # without the first line
        ("no commas\nHope this helps, bye", "punctuation:no_comma", {}),  # without the last
        ("Sure, yes:\nno commas\nwell, bye", "punctuation:no_comma", {}),  # without both
        ("**My** answer is yes.", "detectable_format:constrained_response", {}),  # without asterisks
        ("Sure:\n**My** answer is no.\n", "detectable_format:constrained_response", {}),
        ('Sure:\n*"quoted"*', "startend:quotation", {}),  # without the first line and asterisks
        ('*"quoted"*\nbye', "startend:quotation", {}),  # without the last and asterisks
        ('Sure:\n*"quoted"*\nbye', "startend:quotation", {}),  # without either line and asterisks
    ],
)
def test_loose_reading_forgives_introductions_closings_and_asterisks(response, kind, arguments):
    assert check_instructions_loose(response, [kind], [arguments]) == [True]
    if kind != "detectable_format:constrained_response" or "**" not in response:
        assert check_instructions(response, [kind], [arguments]) == [False]


def test_loose_reading_forgives_no_more_than_one_line_at_either_end():
    response = "a, b\nc, d\nno commas\ne, f"
    assert check_instructions_loose(response, ["punctuation:no_comma"], [{}]) == [False]
    assert check_instructions_loose("only, line", ["punctuation:no_comma"], [{}]) == [False]


def test_loose_reading_takes_the_best_reading_of_each_instruction():
    kinds = ["punctuation:no_comma", "length_constraints:number_words"]
    arguments = [{}, {"relation": "at least", "num_words": 6}]
    assert check_instructions_loose("Well, here we go\nthree plain words", kinds, arguments) == [True, True]


def test_the_prompt_is_repeated_where_no_text_is_named():
    assert check_instructions("say hi. hi", ["combination:repeat_prompt"], [{}], "Say hi.") == [True]
    named = [{"prompt_to_repeat": "Only this."}]
    assert check_instructions("Say hi. hi", ["combination:repeat_prompt"], named, "Say hi.") == [False]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("...", 0),
        ("no mark", 1),
        ("Wait... what?! Yes.", 3),
        ("It cost 3.5 dollars at www.shop.com today.", 1),
        ("Mr. and Mrs. Smith met J. R. Jones, i.e. me. Really.", 2),
        ("Tea, milk, etc. are here. We met at 5 p.m. Then we left.", 3),
        ('"Stop!" she said. (He did.) **Good.** Fine', 5),
        ("So do I. You too.", 2),
        ("A title\n\nA text that goes on\nand ends.", 1),
        ("1. One.\n2. Two.", 4),  # list numbers count, as in the published checker
    ],
)
def test_sentences_are_counted_by_the_stated_rule(text, count):
    assert count_sentences(text) == count


def test_the_language_verdict_is_the_same_every_time():
    # Two languages at once: unseeded, langdetect says English for half of these and German for most others.
    mixed = ["in der restaurant is a good Wein and Bier"] * 30
    verdicts = [check_instructions(text, ["language:response_language"], [{"language": "de"}]) for text in mixed]
    assert len(set(map(tuple, verdicts))) == 1


def test_without_langdetect_the_error_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "langdetect", None)
    with pytest.raises(ImportError, match="pip install 'langdetect"):
        check_instructions("hello", ["language:response_language"], [{"language": "en"}])
    assert check_instructions("hello", ["punctuation:no_comma"], [{}]) == [True]


@pytest.mark.parametrize(
    ("kinds", "arguments", "message"),
    [
        (["punctuation:no_coma"], [{}], "unknown instruction 'punctuation:no_coma': the known ones are .*no_comma"),
        (["punctuation:no_comma"], [], "1 instructions with 0 sets"),
        (["keywords:existence"], [{"keywords": None}], "instruction keywords:existence: missing .*'keywords'"),
        (["punctuation:no_comma"], [{"letter": "a"}], "unexpected keyword argument 'letter'"),
        (
            ["length_constraints:number_words"],
            [{"num_words": 3, "relation": "at most"}],
            "relation of instruction length_constraints:number_words is 'at most': 'at least' or 'less than'",
        ),
    ],
)
def test_a_malformed_instruction_is_refused_by_name(kinds, arguments, message):
    for check in (check_instructions, check_instructions_loose):
        with pytest.raises(ValueError, match=message):
            check("text", kinds, arguments)


@pytest.mark.parametrize("piece", ["<<", "[", "*", ".", "*_]", "a", "SECTION", "(((", '"', "- ", "\n\n", "x." * 3])
def test_long_adversarial_text_is_checked_in_time(piece):
    text = piece * (20_000 // len(piece))
    kinds = [case for case in CASES if not case[0].startswith(("language", "change_case:english"))]
    start = time.process_time()
    check_instructions_loose(text, [kind for kind, *_ in kinds], [arguments for _, arguments, *_ in kinds])
    assert time.process_time() - start < 5


# The task


def rows():
    return [
        {
            "key": 1000,
            "prompt": "Write without commas, three words or more.",
            "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
            "kwargs": [{"relation": None, "num_words": None}, {"relation": "at least", "num_words": 3}],
        },
        {"key": 1001, "prompt": "Say yes.", "instruction_id_list": ["startend:quotation"], "kwargs": [{}]},
    ]


def build(tmp_path, given, limit=None):
    file = tmp_path / "ifeval.jsonl"
    file.write_text("\n".join(map(json.dumps, given)))
    return load_task("ifeval").build(limit, str(file))


def test_the_task_reads_rows_as_they_are_on_the_hub(tmp_path):
    items = build(tmp_path, rows())
    assert [item.id for item in items] == ["1000", "1001"]
    assert items[0].prompt == [{"role": "user", "content": "Write without commas, three words or more."}]
    assert len(build(tmp_path, rows(), limit=1)) == 1


def score(completion, item):
    (found,) = load_task("ifeval").score([completion], [item])
    return {"correct": found["correct"]} | found["metrics"]


def test_the_task_scores_prompts_and_instructions_strictly_and_loosely(tmp_path):
    first, second = build(tmp_path, rows())
    assert score("three plain words", first) == {
        "correct": True,
        "prompt_loose": True,
        "instruction_strict": [True, True],
        "instruction_loose": [True, True],
    }
    assert score("Sure, here:\nthree plain words", first) == {
        "correct": False,
        "prompt_loose": True,
        "instruction_strict": [False, True],
        "instruction_loose": [True, True],
    }
    assert score('Sure:\n"yes"', second)["instruction_loose"] == [True]
    assert score("", second)["correct"] is False


def test_the_task_refuses_rows_that_it_could_not_grade(tmp_path):
    broken = rows()
    broken[1]["instruction_id_list"] = ["startend:quotes"]
    with pytest.raises(ValueError, match="startend:quotes"):
        build(tmp_path, broken)
