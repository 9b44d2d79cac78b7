"""Strict recipes: each broken config is one line with file and line, each good one means what it says."""

import dataclasses
import importlib
import json
import re
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml
from trl import GRPOConfig, RewardConfig, SFTConfig

from recipes import share
from recipes.reward import PreferenceArguments
from schoolhouse.config.arguments import DataArguments, ModelArguments, RecipeParser
from schoolhouse.config.errors import ConfigError, FlagParser
from schoolhouse.config.key_rules import BOUNDS, EXCLUSIVE, LORA_KEYS, REMOVED, RENAMED
from schoolhouse.config.parser import has_native_bf16
from schoolhouse.config.yaml_file import load_mapping
from schoolhouse.evaluation.arguments import EvalArguments
from schoolhouse.training.checks import config_errors


ROOT = Path(__file__).parent.parent
BROKEN = sorted((ROOT / "tests/fixtures/broken_configs").glob("*.yaml"))
REQUIRED = ("model_name_or_path", "output_dir")
GOOD = "model_name_or_path: org/model\noutput_dir: outputs/x\ndataset_name: org/data\n"
FLAGS = ["--model_name_or_path", "org/model", "--output_dir", "outputs/x"]


@pytest.mark.parametrize("spelled", ["--dry_run", "--dry-run"])
def test_dashes_and_underscores_in_flags_are_the_same(spelled):
    parser = FlagParser()
    parser.add_argument("--dry_run", nargs="?", const="")
    parser.add_argument("--top-k", type=int)
    below = parser.add_subparsers().add_parser("push")
    below.add_argument("--base_model")
    below.add_argument("--dry-run", action="store_true")
    assert parser.parse_args([f"{spelled}=a-b_c"]).dry_run == "a-b_c"  # values stay as they are
    assert parser.parse_args([spelled, "a_b"]).dry_run == "a_b"
    assert parser.parse_args(["--top_k", "3"]).top_k == parser.parse_args(["--top-k=3"]).top_k == 3
    pushed = parser.parse_args(["push", "--base-model", "a-b/c_d", spelled])
    assert (pushed.base_model, pushed.dry_run) == ("a-b/c_d", True)
    shared = share.parse_arguments(["push", "folder", "a/b", "--base-model", "c/d", spelled])
    assert (shared.base_model, shared.dry_run) == ("c/d", "")
    _, training_args, _ = parser_of().parse_args([*FLAGS, "--learning-rate", "1e-3", "--dataset-name", "org/data"])
    assert training_args.learning_rate == 1e-3


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def parser_of(trainer=SFTConfig, **kwargs):
    return RecipeParser((DataArguments, trainer, ModelArguments), required=REQUIRED, **kwargs)


def parse(tmp_path, text="", *flags, **kwargs):
    config = tmp_path / "recipe.yaml"
    config.write_text(GOOD + text)
    parser = parser_of(**kwargs)
    return parser, *parser.parse_args(["--config", str(config), *flags])


def fails(capsys, argv, parser=None):
    """The one line on stderr with which parsing ends."""
    with pytest.raises(SystemExit) as exit_info:
        (parser or parser_of()).parse_args(argv)
    captured = capsys.readouterr()
    assert exit_info.value.code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and captured.err.endswith("\n")
    return captured.err.strip()


@pytest.mark.parametrize("config", BROKEN, ids=lambda path: path.stem)
def test_a_broken_config_is_one_line_with_its_file_and_line(config, capsys):
    expected, line, message = config.read_text().split("\n")[0].split(": ", 2)
    assert expected == "# expect"
    name = str(config.relative_to(ROOT))
    error = fails(capsys, ["--config", name])
    assert error.startswith(f"{name}:{line}: ")
    assert message in error


@pytest.mark.parametrize(
    ("error", "line", "message"),
    [
        (ValueError("no such file"), 3, "dataset_name: no such file"),
        (ConfigError((), "no such file"), 3, "dataset_name: no such file"),
        (ConfigError(("datasets", 0, "weight"), "too large"), 4, "datasets[0].weight: too large"),
    ],
)
def test_an_error_of_loading_names_its_own_key_or_the_one_that_is_set(error, line, message, tmp_path, capsys):
    text = "model_name_or_path: org/model\noutput_dir: x\n"
    text += "dataset_name: org/data\n" if line == 3 else "datasets:\n- {name: org/data, weight: 9}\n"
    (tmp_path / "recipe.yaml").write_text(text)
    parser = parser_of()
    parser.parse_args(["--config", str(tmp_path / "recipe.yaml")])
    with pytest.raises(SystemExit), config_errors(parser, "dataset_path", "dataset_name"):
        raise error
    assert capsys.readouterr().err.strip() == f"{tmp_path / 'recipe.yaml'}:{line}: {message}"


def test_there_are_more_than_thirty_different_broken_configs():
    assert len({path.read_text().split(": ", 2)[2].split("\n")[0] for path in BROKEN}) > 30


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"", 1, "the file is empty"),
        (b"\n\n", 1, "the file is empty"),
        (b"lora_r: 8\n\x80\x00\xff safetensors", 2, "not a UTF-8 text file"),
        ("lora_r: 8\nrun_name: Müller\n".encode("latin-1"), 2, "not a UTF-8 text file"),
        (b"lora_r: 8\n\nrun_name: a\x00b\n", 3, "may not stand in YAML"),
        (None, 1, "Is a directory"),
        ("absent", 1, "No such file or directory"),
    ],
)
def test_an_unreadable_file_is_one_line(tmp_path, capsys, content, line, message):
    config = tmp_path / "recipe.yaml"
    if content is None:
        config.mkdir()
    elif content != "absent":
        config.write_bytes(content)
    error = fails(capsys, ["--config", str(config)])
    assert error.startswith(f"{config}:{line}: ")
    assert message in error


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--max_lenght", "3"], "--max_lenght: unknown flag; did you mean max_length?"),
        (["--max-seq-length=3"], "--max_seq_length: unknown flag; it is called max_length here"),
        (["--lora_r", "eight"], "--lora_r: expected an integer, got 'eight'"),
        (["--lora_r", "0"], "--lora_r: must be at least 1, got 0"),
        (["--lora_r"], "--lora_r: expected one argument"),
        (["--learning_rate=-1e-4"], "--learning_rate: must be 0 or more, got -0.0001"),
        (["--seed", "4294967296"], "--seed: must be from 0 to below 2**32"),
        (["--packing", "yes"], "--packing: expected true or false, got 'yes'"),
        (["--eval_strategy", "sometimes"], "--eval_strategy: 'sometimes' is not a choice; "),
        (["--datasets", "[{name: a, wieght: 1}]"], "--datasets[0].wieght: unknown key; did you mean weight?"),
        (["--dataset_columns", "{prompt: [}"], "--dataset_columns: '{prompt: [}' is no YAML: "),
        (["--bf16", "--fp16"], "--fp16: excludes bf16"),
        (["--save_steps", "2.5"], "--save_steps: --save_steps must be an integer if bigger than 1"),
        (["--model_name_or_path", "./nowhere"], "--model_name_or_path: './nowhere' does not exist"),
        (["recipe.yaml"], "command line: recipe.yaml: a value without a flag; a YAML file is given as --config"),
    ],
)
def test_an_error_in_a_flag_names_the_flag(capsys, flags, expected):
    assert fails(capsys, [*FLAGS, *flags]).startswith(expected)


def test_a_flag_that_contradicts_the_file_names_the_flag(tmp_path, capsys):
    config = tmp_path / "recipe.yaml"
    config.write_text(GOOD + "bf16: true\n")
    assert fails(capsys, ["--config", str(config), "--fp16"]).startswith("--fp16: excludes bf16")


def test_a_missing_key_without_a_file_names_the_flag(capsys):
    assert fails(capsys, []).startswith("--model_name_or_path: missing: ")


def test_a_flag_wins_over_the_file_and_the_file_over_the_defaults(tmp_path):
    house = {"logging_steps": 3, "lora_r": 4, "max_length": 32}
    parser, data, training, model = parse(
        tmp_path, "lora_r: 8\nmax_length: 64\nlearning_rate: 1e-4\n", "--max-length=128", "--packing", defaults=house
    )
    assert (training.logging_steps, model.lora_r, training.max_length, training.packing) == (3, 8, 128, True)
    assert training.learning_rate == 0.0001
    assert data.dataset_name == "org/data"
    assert parser.config_path == tmp_path / "recipe.yaml"
    assert parser.check is False
    assert parser.resolved == {
        "model_name_or_path": "org/model",
        "output_dir": "outputs/x",
        "dataset_name": "org/data",
        "lora_r": 8,
        "max_length": 128,
        "learning_rate": 0.0001,
        "packing": True,
    }


def test_all_required_keys_may_come_from_flags():
    parser = parser_of()
    _, training, model = parser.parse_args([*FLAGS, "--check", "--packing", "false"])
    assert parser.check and parser.config_path is None
    assert (model.model_name_or_path, training.output_dir, training.packing) == ("org/model", "outputs/x", False)


def test_flags_take_nested_yaml_lists_and_text_as_it_is():
    flags = [
        "--dataset_columns",
        "{prompt: question, completion: answer}",
        "--lora_target_modules",
        "q_proj",
        "v_proj",
    ]
    flags += ["--lr_scheduler_kwargs", '{"num_cycles": 2}', "--label_names", "labels", "--eos_token", "#"]
    flags += ["--model_revision", "1234567", "--run_name", "null", "--max_length", "null", "--warmup_steps", "1e-1"]
    data, training, model = parser_of().parse_args([*FLAGS, *flags])
    assert data.dataset_columns == {"prompt": "question", "completion": "answer"}
    assert model.lora_target_modules == ["q_proj", "v_proj"]
    assert training.lr_scheduler_kwargs == {"num_cycles": 2}
    assert training.label_names == ["labels"]
    assert (training.eos_token, model.model_revision, training.run_name) == ("#", "1234567", None)
    assert (training.max_length, training.warmup_steps) == (None, 0.1)


def test_epochs_in_the_file_give_way_to_steps_on_the_command_line(tmp_path):
    _, _, training, _ = parse(tmp_path, "num_train_epochs: 3\n", "--max_steps", "5")
    assert training.max_steps == 5


def test_lora_keys_in_the_file_give_way_to_full_training_on_the_command_line(tmp_path):
    *_, model = parse(tmp_path, "lora_r: 8\n", "--use_peft", "false")
    assert model.use_peft is False


def test_yaml_anchors_and_the_word_no_mean_what_they_say(tmp_path):
    config = tmp_path / "recipe.yaml"
    config.write_text(
        GOOD.replace("dataset_name: org/data\n", "")
        + "eval_strategy: no\ndatasets:\n  - &first {name: a, split: train, weight: 1}\n  - {<<: *first, name: b}\n"
    )
    data, training, _ = parser_of().parse_args(["--config", str(config)])
    assert training.eval_strategy == "no"
    assert data.datasets == [
        {"name": "a", "split": "train", "weight": 1},
        {"name": "b", "split": "train", "weight": 1},
    ]


def test_ordinary_yaml_reads_as_in_pyyaml():
    text = "a: 1\nb: [x, 'y: z', 2.5, ~]\nc: {d: true, e: {f: -3, g: 1.0e-4}}\n"
    text += "h: |\n  two\n  lines\ni: >-\n  fo\n  ld\nj:\n"
    values, lines = load_mapping(text.encode())
    assert values == yaml.safe_load(text)
    assert {path: lines[path] for path in [("b", 1), ("c", "e", "g"), ("i",)]} == {
        ("b", 1): 2,
        ("c", "e", "g"): 3,
        ("i",): 7,
    }


def test_an_error_of_the_recipe_points_at_the_line_the_flag_or_the_file(tmp_path, capsys):
    parser, *_ = parse(tmp_path, "datasets: \n", "--seed", "1")
    config = tmp_path / "recipe.yaml"
    for key, expected in [
        ("dataset_name", f"{config}:3: dataset_name: no rows"),
        (("dataset_name", 0, "x"), f"{config}:3: dataset_name[0].x: no rows"),
        ("seed", "--seed: no rows"),
        ("max_length", f"{config}:1: max_length: no rows"),
        (None, f"{config}:1: no rows"),
    ]:
        with pytest.raises(SystemExit) as exit_info:
            parser.error(key, "no\nrows")
        assert exit_info.value.code == 2
        assert capsys.readouterr().err == expected + "\n"


def test_bf16_and_dtype_follow_the_hardware_unless_the_recipe_speaks(tmp_path, monkeypatch):
    *_, training, model = parse(tmp_path)
    assert (training.bf16, model.dtype) == (False, "float32")
    *_, training, model = parse(tmp_path, "bf16: true\nuse_cpu: true\ndtype: float16\n")
    assert (training.bf16, model.dtype) == (True, "float16")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    emulated = lambda including_emulation=True: including_emulation  # noqa: E731
    monkeypatch.setattr("torch.cuda.is_bf16_supported", emulated)
    assert not has_native_bf16()
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: True)
    assert has_native_bf16() and not has_native_bf16(use_cpu=True)
    for text, expected in [
        ("", (True, "bfloat16")),
        ("use_peft: false\n", (True, "float32")),
        ("fp16: true\n", (False, "float32")),
        ("use_cpu: true\n", (False, "float32")),
    ]:
        values = yaml.safe_load(text) or {}
        parser_of()._follow_hardware(values)
        assert (values["bf16"], values["dtype"]) == expected


def test_a_continued_adapter_brings_its_own_lora_settings(tmp_path):
    # The adapter was saved with the modules that "all-linear" stood for, and peft saves lists in no certain order.
    text = "model_name_or_path: HuggingFaceTB/SmolLM2-135M-Instruct\noutput_dir: x\n"
    text += "adapter_name_or_path: tests/fixtures/adapters/rank8\nlora_alpha: 16\nlora_target_modules: "
    for modules in ("all-linear", "[q_proj, v_proj]"):
        (tmp_path / "recipe.yaml").write_text(f"{text}{modules}\n")
        *_, model = parser_of().parse_args(["--config", str(tmp_path / "recipe.yaml")])
        assert (model.lora_r, model.lora_alpha, model.lora_dropout) == (8, 16, 0.0)


@pytest.mark.parametrize(("hidden_size", "refused"), [(64, False), (128, True)])
def test_local_bases_are_told_apart_by_their_shape(tmp_path, capsys, hidden_size, refused):
    for name, size in [("base", 64), ("moved", hidden_size)]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": size}))
    (tmp_path / "adapter").mkdir()
    adapter = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(adapter))
    argv = ["--output_dir", "x", "--model_name_or_path", str(tmp_path / "moved")]
    argv += ["--adapter_name_or_path", str(tmp_path / "adapter")]
    if refused:
        assert fails(capsys, argv).startswith("--adapter_name_or_path: it was trained on ")
    else:
        parser_of().parse_args(argv)


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.jsonl").touch()
    data, *_ = parser_of().parse_args([*FLAGS, "--dataset_path", "~/rows.jsonl"])
    assert data.dataset_path == str(tmp_path / "rows.jsonl")


def test_a_hub_token_stays_out_of_the_record(tmp_path):
    parser, _, training, _ = parse(tmp_path, "hub_token: hf_secret\n")
    assert training.hub_token == "hf_secret"
    assert "hf_secret" not in json.dumps(parser.resolved)


def test_a_good_recipe_parses_without_a_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse(tmp_path)


def test_help_shows_our_keys_first(capsys):
    with pytest.raises(SystemExit) as exit_info:
        parser_of(description="Fine-tunes.").parse_args(["--help", "all"])
    shown = capsys.readouterr().out
    assert exit_info.value.code == 0
    marks = ["Fine-tunes.", "--check  ", "DataArguments:", "ModelArguments:", "--adapter_name_or_path", "--lora_r"]
    places = [shown.index(mark) for mark in [*marks, "SFTConfig:", "--learning_rate"]]
    assert places == sorted(places)


def test_help_shows_few_keys_and_says_how_to_see_all(capsys):
    with pytest.raises(SystemExit):
        parser_of().parse_args(["-h"])
    shown = capsys.readouterr().out
    assert 8 <= len(re.findall(r"^  --\w+ VALUE", shown, re.MULTILINE)) <= 16
    assert "--learning_rate" in shown and "--adam_beta1" not in shown and re.search(r"--help all` shows\s+\d+", shown)


def test_the_table_of_names_is_true_for_the_installed_versions():
    classes = (DataArguments, ModelArguments, PreferenceArguments, SFTConfig, GRPOConfig, RewardConfig)
    known = {spec.name for cls in classes for spec in dataclasses.fields(cls)}
    assert not known & {*RENAMED, *REMOVED}
    # PPO has a key that GRPO has under another name.
    assert {name for names in RENAMED.values() for name in names} <= known | {"kl_coef"}
    of_evals = {spec.name for spec in dataclasses.fields(EvalArguments)}
    assert {key for _, keys in BOUNDS.values() for key in keys} <= known | of_evals | {"weight", "max_rows"}
    assert {name for key, others, _ in EXCLUSIVE for name in (key, *others)} <= known
    assert set(LORA_KEYS) <= known


@pytest.mark.parametrize("trainer", [SFTConfig, GRPOConfig, RewardConfig])
def test_every_default_of_trl_is_a_value_we_accept(trainer):
    parser = parser_of(trainer)
    for spec in dataclasses.fields(trainer):
        default = getattr(spec.default, "value", spec.default)
        if spec.init and default is not None and default is not dataclasses.MISSING:
            parser._check_value(spec.name, default)


@pytest.mark.parametrize(
    ("script", "argv", "expected"),
    [
        ("recipes.share", [], "the following arguments are required: card|push|pull|verify|merge|export; see --help"),
        ("recipes.share", ["verify", "user/x", "--limit", "all"], "--limit: invalid int value: 'all'"),
        ("recipes.share", ["pull", "user/x", "--output", "x"], "the following arguments are required: --output_dir"),
        ("recipes.pipeline", ["--only", "sft"], "the following arguments are required: --config; see --help"),
        ("recipes.pipeline", ["--only", "a", "--from", "b"], "--from: not allowed with argument --only"),
        ("recipes.chat", ["--temperature", "warm"], "--temperature: invalid float value: 'warm'"),
    ],
)
def test_a_script_without_a_recipe_reports_in_one_line_too(capsys, script, argv, expected):
    with pytest.raises(SystemExit) as exit_info:
        importlib.import_module(script).main(argv)
    captured = capsys.readouterr()
    assert (exit_info.value.code, captured.out) == (2, "")
    assert captured.err.startswith(expected) and captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--config", "tests/fixtures/broken_configs/unknown_key.yaml"], "unknown_key.yaml:10: max_lenght: "),
        (["--lora_r", "eight"], "--lora_r: "),
    ],
)
def test_a_script_reports_within_ten_seconds_and_without_a_traceback(tmp_path, argv, expected):
    script = tmp_path / "script.py"
    script.write_text(
        "from trl import SFTConfig\n"
        "from schoolhouse.config.arguments import DataArguments, ModelArguments, RecipeParser\n"
        "RecipeParser((DataArguments, SFTConfig, ModelArguments), required=('output_dir',)).parse_args()\n"
    )
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    done = subprocess.run([sys.executable, str(script), *argv], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and expected in done.stderr
    # Processor time: the same seconds on an idle machine, and no false alarm on a busy one.
    assert sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before < 10
