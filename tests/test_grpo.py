"""`recipes/grpo.py` from its command line: one adapter, exact resumption, what it refuses, optima it must find."""

import json
import math
import signal
import warnings
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from scipy.optimize import brentq
from scripts import exiting
from tiny_models import make_tiny_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from trl import GRPOConfig

from recipes.grpo import main as script_main
from schoolhouse.rewards import RewardModel
from schoolhouse.training.grpo import GRPOTrainer
from schoolhouse.training.reasoning_metrics import reasoning_metrics, shows_work


main = exiting(script_main)
pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[1]
MINE = """
def vowels(completions, completion_ids, bonus=0, **_):
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [sum(letter in "aeiou" for letter in text) / (1 + len(text)) + bonus for text in texts]

def broken(completions, **_):
    return [float("nan") if index % 4 == 0 else 0.0 for index, _ in enumerate(completions)]

def constant(completions, **_):
    return [1.0] * len(completions)

def never(completions, **_):
    return [None] * len(completions)

def letters(completions, **_):
    worth = {"a": 0.0, "b": 0.3, "c": 0.6, "d": 1.0}
    return [worth.get(text.strip(), 0.0) for text in completions]
"""


def spelling(letters):
    """A tokenizer with a token per letter; padding is EOS."""
    tokenizer = Tokenizer(
        models.WordLevel({"<eos>": 0} | {c: i for i, c in enumerate(letters, 1)}, unk_token=letters[0])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """A folder with a tiny random model, data, rewards and a recipe."""
    folder = tmp_path_factory.mktemp("setup")
    make_tiny_model(folder / "base", spelling("?aeobcd0123456789 "))  # few tokens, so that answers do end
    (folder / "mine.py").write_text(MINE)
    (folder / "data").mkdir()
    rows = [{"prompt": [{"role": "user", "content": f"What is {a} + 3?"}], "answer": f"{a + 3}"} for a in range(12)]
    (folder / "data/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "grpo.yaml").write_text(
        f"""
        model_name_or_path: {folder / "base"}
        dataset_name: {folder / "data"}
        dataset_test_split: null
        rewards:
          - {{name: "{folder / "mine.py"}:vowels"}}
          - {{name: math, weight: 0}}
        preflight_prompts: 0
        output_dir: {folder / "run"}
        max_steps: 6
        num_generations: 4
        max_completion_length: 8
        lora_dropout: 0
        per_device_train_batch_size: 8
        learning_rate: 1.0e-2
        gradient_checkpointing: false
        logging_steps: 1
        save_steps: 2
        report_to: none
        use_cpu: true
        """.replace("\n        ", "\n")
    )
    return folder


def grpo(monkeypatch, setup, run, *flags):
    command = ["grpo.py", "--config", str(setup / "grpo.yaml"), "--output_dir", str(run), *flags]
    monkeypatch.setattr("sys.argv", command)
    main()
    record = run / "run.json"
    return json.loads(record.read_text()) if record.exists() else None


def refusal(monkeypatch, capsys, setup, run, *flags):
    """The one line with which a run is refused."""
    with pytest.raises(SystemExit) as stopped:
        grpo(monkeypatch, setup, run, *flags)
    assert stopped.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def weights(run):
    return (run / "adapter/adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole_run(setup):
    with pytest.MonkeyPatch.context() as monkeypatch:
        grpo(monkeypatch, setup, setup / "whole")
    return setup / "whole"


def test_a_run_leaves_one_adapter_and_its_record(setup, whole_run):
    record = json.loads((whole_run / "run.json").read_text())
    assert record["status"] == "done" and record["steps"] == 6 and record["product"] == "adapter"
    assert {"reward", "rewards/vowels/mean", "rewards/math/mean", "rewards/grader_failed", "entropy"} <= set(
        record["metrics"]
    )
    assert {"completions/mean_length", "reasoning/shows_work", "reasoning/corrects_itself"} <= set(record["metrics"])
    assert record["config"]["rewards"][1] == {"name": "math", "weight": 0}
    base = AutoModelForCausalLM.from_pretrained(setup / "base")
    assert list(PeftModel.from_pretrained(base, whole_run / "adapter").peft_config) == ["default"]


def test_a_reward_adapter_scores_texts_as_plain_peft_does(monkeypatch, setup, tmp_path):
    torch.manual_seed(1)
    classifier = AutoModelForSequenceClassification.from_pretrained(setup / "base", num_labels=1)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="SEQ_CLS", init_lora_weights=False)
    get_peft_model(classifier, config).save_pretrained(tmp_path / "reward_model")
    tokenizer = AutoTokenizer.from_pretrained(setup / "base")
    tokenizer.chat_template = (ROOT / "schoolhouse/core/templates/fallback.jinja").read_text()
    tokenizer.save_pretrained(tmp_path / "reward_model")
    (tmp_path / "reward_model/reward_statistics.json").write_text('{"mean": 0.1, "sd": 2.0, "n": 8}')
    heard, score = [], RewardModel.__call__

    def overheard(self, prompts, completions, **others):
        heard.append([prompt + completion for prompt, completion in zip(prompts, completions, strict=True)])
        return score(self, prompts, completions, **others)

    monkeypatch.setattr(RewardModel, "__call__", overheard)
    reward = [{"name": "reward_model", "model": str(tmp_path / "reward_model")}]
    grpo(monkeypatch, setup, tmp_path / "run", "--rewards", json.dumps(reward), "--max_steps", "2")

    base = AutoModelForSequenceClassification.from_pretrained(setup / "base", num_labels=1)
    plain = PeftModel.from_pretrained(base, tmp_path / "reward_model").eval()
    log = [row for row in json.loads((tmp_path / "run/log.json").read_text()) if "reward" in row]
    assert len(heard) == len(log) == 2
    for texts, row in zip(heard, log, strict=True):
        ids = [tokenizer.apply_chat_template(text, return_dict=True)["input_ids"] for text in texts]
        with torch.no_grad():
            hidden = [plain.get_base_model().model(torch.tensor([one])).last_hidden_state[0, -1] for one in ids]
            scores = [(plain.get_base_model().score(state).item() - 0.1) / 2.0 for state in hidden]
        assert row["reward"] == pytest.approx(sum(scores) / len(scores), abs=1e-5)
        assert row["reward"] == row["rewards/reward_model/mean"] != 0


@pytest.mark.parametrize("samples_used", [["--lora_dropout", "0.1"], ["--num_iterations", "2", "--beta", "0.1"]])
def test_a_run_stopped_between_rollouts_goes_on_to_the_same_weights(monkeypatch, setup, tmp_path, samples_used):
    grpo(monkeypatch, setup, tmp_path / "whole", *samples_used)
    step, raised = GRPOTrainer.training_step, []

    def signalled(self, *args, **kwargs):
        if self.state.global_step == 3 and not raised:
            raised.append(1)
            signal.raise_signal(signal.SIGTERM)
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(GRPOTrainer, "training_step", signalled)
        grpo(patch, setup, tmp_path / "stopped", *samples_used)
    record = grpo(monkeypatch, setup, tmp_path / "stopped", *samples_used)
    assert record["resumed"][0]["checkpoint"] == "checkpoint-4"
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    whole = json.loads((tmp_path / "whole/run.json").read_text())
    assert {**record["metrics"], "step_time": 0} == {**whole["metrics"], "step_time": 0}


def test_the_preflight_does_not_change_the_run(monkeypatch, setup, tmp_path):
    flags = ["--lora_dropout", "0.1", "--max_steps", "2"]
    grpo(monkeypatch, setup, tmp_path / "plain", *flags)
    record = grpo(monkeypatch, setup, tmp_path / "looked", *flags, "--preflight_prompts", "3")
    assert weights(tmp_path / "looked") == weights(tmp_path / "plain")
    assert record["preflight"]["prompts"] == 3
    # Another preflight is no other run: the same folder is taken, and another setting is not.
    again = grpo(monkeypatch, setup, tmp_path / "looked", *flags, "--preflight_prompts", "2")
    assert again["status"] == "done" and again["preflight"]["prompts"] == 2


def test_with_beta_the_reference_is_the_adapter_that_came_in(monkeypatch, setup, whole_run, tmp_path):
    flags = ["--adapter_name_or_path", str(whole_run / "adapter"), "--beta", "0.5"]
    record = grpo(monkeypatch, setup, tmp_path / "two", *flags)
    came_in = load_file(whole_run / "adapter/adapter_model.safetensors")
    reference = load_file(tmp_path / "two/checkpoints/checkpoint-6/ref/adapter_model.safetensors")
    product = load_file(tmp_path / "two/adapter/adapter_model.safetensors")
    assert came_in.keys() == reference.keys() == product.keys()
    assert all(torch.equal(came_in[name], reference[name]) for name in came_in)
    assert not any(torch.equal(came_in[name], product[name]) for name in came_in if "lora_B" in name)
    assert not (tmp_path / "two/adapter/ref").exists()
    state = json.loads((tmp_path / "two/checkpoints/checkpoint-6/trainer_state.json").read_text())
    assert state["log_history"][0]["kl"] == pytest.approx(0, abs=1e-6) and record["metrics"]["kl"] > 0


def test_trained_token_rows_are_part_of_the_reference(setup, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(setup / "base")
    config = LoraConfig(target_modules="all-linear", trainable_token_indices={"embed_tokens": [1, 2]})
    model = get_peft_model(model, config)
    rows = [p for name, p in model.named_parameters() if "trainable_tokens_delta" in name]
    with torch.no_grad():
        rows[0].add_(1.0)
    head = model.get_output_embeddings()
    if not hasattr(head, "bias"):
        head.bias = None
    trainer = GRPOTrainer(
        model,
        reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
        args=GRPOConfig(str(tmp_path), beta=0.1, use_cpu=True, bf16=False, report_to="none", num_generations=4),
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 8),
        processing_class=AutoTokenizer.from_pretrained(setup / "base"),
    )
    named = dict(trainer.model.named_parameters())
    pairs = [(p, named[n.removesuffix("default") + "ref"]) for n, p in named.items() if n.endswith(".default")]
    assert pairs and all(torch.equal(mine, reference) for mine, reference in pairs)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7}, {"use_dora": True}])
def test_on_a_cpu_log_probabilities_and_gradients_are_those_of_trl(monkeypatch, setup, tmp_path, settings):
    model = AutoModelForCausalLM.from_pretrained(setup / "base")
    config = LoraConfig(target_modules="all-linear", init_lora_weights=False, use_dora=settings.pop("use_dora", False))
    trainer = GRPOTrainer(
        get_peft_model(model, config),
        reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
        args=GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", num_generations=4, **settings),
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 8),
        processing_class=AutoTokenizer.from_pretrained(setup / "base"),
    )
    ids = torch.randint(1, 8, (5, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0] * left + [1] * (9 - left - right) + [0] * right for left, right in
                         [(0, 0), (2, 0), (3, 3), (0, 1), (1, 4)]])  # fmt: skip
    found, forwards = [], []
    trainer.model.register_forward_pre_hook(lambda _, __, kwargs: forwards.append(kwargs), with_kwargs=True)
    for held in (2**27, 0):  # 0: too many logits for any batch, so the parent's
        monkeypatch.setattr("schoolhouse.training.grpo._LOGITS_HELD", held)
        forwards.clear()
        logps, entropies, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, 5, batch_size=2, compute_entropy=True, pixel_values=None
        )
        assert len(forwards) == 3 and all(("fused_lm_head" in kwargs) == (held == 0) for kwargs in forwards)
        trainer.model.zero_grad()
        (logps * torch.arange(5.0)).sum().backward()
        gradients = [p.grad.clone() for p in trainer.model.parameters() if p.requires_grad]
        assert sum(gradient.abs().sum() for gradient in gradients) > 0
        found.append([logps.detach(), entropies.detach(), *gradients])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_failed_grader_takes_its_completions_out_and_is_counted(monkeypatch, setup, tmp_path):
    seen = []
    generate = GRPOTrainer._generate_and_score_completions

    def watched(self, inputs):
        output = generate(self, inputs)
        seen.append((output["advantages"], list(self._logs["rewards"]["vowels"])[-len(inputs) :]))
        return output

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", watched)
    mine = setup / "mine.py"
    flags = ["--rewards", f"[{{name: '{mine}:vowels'}}, {{name: '{mine}:broken'}}, {{name: '{mine}:never'}}]"]
    record = grpo(monkeypatch, setup, tmp_path / "run", *flags, "--scale_rewards", "none")
    assert record["metrics"]["rewards/grader_failed"] == 0.25 and record["metrics"]["rewards/not_applicable"] == 0
    for advantages, vowels in seen:
        for start in range(0, 8, 4):
            valid = torch.tensor(vowels[start + 1 : start + 4])
            assert math.isnan(vowels[start]) and advantages[start] == 0
            torch.testing.assert_close(advantages[start + 1 : start + 4], valid - valid.mean())


@pytest.mark.parametrize("loss_type", ["dr_grpo", "dapo"])
def test_a_failed_completion_has_no_say_in_the_divergence(monkeypatch, setup, whole_run, tmp_path, loss_type):
    losses = []
    generate, loss_of = GRPOTrainer._generate_and_score_completions, GRPOTrainer._compute_loss

    def moved(self, inputs):
        output = generate(self, inputs)
        failed = output["advantages"].new_tensor([float(index % 4 == 0) for index in range(len(inputs))])
        # As if the policy had left its reference by far, at failed completions alone.
        output["ref_per_token_logps"] = output["ref_per_token_logps"] + 5 * failed.unsqueeze(1)
        assert torch.equal(output["completion_mask"].sum(dim=1) == 0, failed.bool())
        assert output["num_items_in_batch"] == output["completion_mask"].sum()
        return output

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", moved)
    monkeypatch.setattr(
        GRPOTrainer, "_compute_loss", lambda self, *args: losses.append(loss_of(self, *args)) or losses[-1]
    )
    rewards = f"[{{name: '{setup / 'mine.py'}:broken'}}]"  # 0 for all that it does not fail on
    adapter = ["--adapter_name_or_path", str(whole_run / "adapter"), "--max_steps", "1"]
    record = grpo(
        monkeypatch,
        setup,
        tmp_path / "run",
        "--rewards",
        rewards,
        "--beta",
        "0.5",
        "--loss_type",
        loss_type,
        *adapter,
    )
    assert record["metrics"]["rewards/grader_failed"] == 0.25
    assert record["metrics"]["kl"] == pytest.approx(0, abs=1e-6) and losses[0].item() == pytest.approx(0, abs=1e-6)


def test_a_reward_of_weight_zero_does_not_bring_back_a_row_without_a_valid_reward(monkeypatch, setup, tmp_path):
    mine = setup / "mine.py"
    flags = ["--rewards", f"[{{name: '{mine}:never'}}, {{name: '{mine}:vowels', weight: 0}}]", "--max_steps", "1"]
    record = grpo(monkeypatch, setup, tmp_path / "run", *flags)
    assert record["metrics"]["rewards/not_applicable"] == 1 and record["metrics"]["grad_norm"] == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--num_generations", "3"], ("num_generations", "divisible")),
        (["--per_device_train_batch_size", "64"], ("12 training rows do not fill one batch of 16 prompts",)),
        (["--rewards", "[{name: code}]"], ("rewards[0]", "applies to no row", "answer, prompt", "tests")),
        (["--rewards", "[{name: math}, {name: formt}]"], ("rewards[1].name", "did you mean format")),
        (["--reward_weights", "[1.0, 2.0]"], ("reward_weights", "entry of `rewards`")),
        (["--remove_unused_columns", "true"], ("remove_unused_columns",)),
    ],
)
def test_what_would_train_nothing_is_refused_before_weights_load(monkeypatch, capsys, setup, tmp_path, flags, words):
    monkeypatch.setattr("schoolhouse.training.policy.load_policy", lambda *_: pytest.fail("weights were loaded"))
    line = refusal(monkeypatch, capsys, setup, tmp_path / "run", *flags)
    assert all(word in line for word in words), line
    assert not (tmp_path / "run").exists()


@pytest.fixture
def programs(setup):
    """A data set whose prompts show two tests of three."""
    asserts = [f"assert f({n}) == {n + 9}" for n in (30, 31, 32)]
    row = {"prompt": "Write f.\n" + "\n".join(asserts[:2]), "tests": asserts[1:], "entry_point": "f"}
    other = row | {"tests": asserts[2:]}
    (setup / "programs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [other, row] * 6))
    return str(setup / "programs.jsonl")


def test_tests_that_are_graded_and_shown_are_a_warning_of_the_check(monkeypatch, capsys, setup, programs, tmp_path):
    flags = ["--check", "--rewards", "[{name: code}]", "--dataset_name"]
    with pytest.warns(UserWarning, match=r"in 6 of 12 rows .* \(row 1: f\(31\) is 40\).*shown_tests"):
        grpo(monkeypatch, setup, tmp_path / "run", *flags, programs)
    own = setup / "apart.yaml"
    rows = [json.loads(line) | {"prompt": "Write f."} for line in Path(programs).read_text().splitlines()]
    (setup / "apart.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own.write_text("path: apart.jsonl\nshown_tests: 1\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        grpo(monkeypatch, setup, tmp_path / "run", *flags, str(own))
    assert "columns prompt, tests, entry_point, shown_tests" in capsys.readouterr().out


def test_the_preflight_warns_of_a_table_of_the_tests_in_the_prompt(monkeypatch, capsys, setup, programs, tmp_path):
    # The policy writes no program; without another reward there would be nothing to learn.
    rewards = f"[{{name: code}}, {{name: '{setup / 'mine.py'}:vowels', weight: 0.0001}}]"
    flags = ["--preflight", "--preflight_prompts", "12", "--rewards", rewards, "--dataset_name", programs]
    with pytest.warns(UserWarning, match="in 6 of 12 rows"):
        grpo(monkeypatch, setup, tmp_path / "run", *flags)
    out = capsys.readouterr().out
    # Half of the rows grade two tests, of which the table knows one; the others grade one that it does not know.
    assert "rewarded   +0.250  a table of the tests in the prompt" in out
    assert "!!! a table of the tests in the prompt is rewarded with +0.250" in out


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_row_whose_reference_cannot_be_read_is_refused_by_number(monkeypatch, capsys, setup, tmp_path, check):
    rows = [{"prompt": "1 + 1?", "answer": "2"}] * 11 + [{"prompt": "2 + 2?", "answer": "\\boxed{}"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--dataset_name", str(tmp_path / "rows.jsonl"), "--rewards", "[{name: format}, {name: math}]", *check]
    line = refusal(monkeypatch, capsys, setup, tmp_path / "run", *flags)
    assert "rewards[1]: math cannot score 1 of 12 training rows: row 11: the reference answer" in line, line
    assert not (tmp_path / "run").exists()


def test_rows_that_no_program_can_pass_are_told_before_weights_load(monkeypatch, capsys, setup, tmp_path):
    monkeypatch.setattr("schoolhouse.training.policy.load_policy", lambda *_: pytest.fail("weights were loaded"))
    bad = {"prompt": "f", "tests": "assert f(lambda x: x) == 2", "entry_point": "f", "answer": "def f(g): return 2"}
    good = bad | {"tests": "assert f(1) == 2"}
    data = tmp_path / "rows.jsonl"
    flags = ("--dataset_name", str(data), "--rewards", "[{name: code}]")
    data.write_text("".join(json.dumps(row) + "\n" for row in [bad] * 4))
    line = refusal(monkeypatch, capsys, setup, tmp_path / "run", *flags)
    assert "rewards[0]: code can reward no row: 4 of 4 rows: the tests pass a value of type 'function'" in line
    data.write_text("".join(json.dumps(row) + "\n" for row in [good, bad, good, good, bad]))
    with pytest.warns(UserWarning, match="code can never reward 2 of 5 rows: the tests pass .*row 1, 4"):
        grpo(monkeypatch, setup, tmp_path / "run", *flags, "--check")
    assert "code, weight 1, applies to 5 rows, and can never reward 2 of 5 rows: the tests" in capsys.readouterr().out


def test_the_preflight_reports_and_stops(monkeypatch, capsys, setup, tmp_path):
    assert grpo(monkeypatch, setup, tmp_path / "run", "--preflight", "--preflight_prompts", "4") is None
    out = capsys.readouterr().out
    assert "4 prompts, 4 completions each" in out and "pass@4" in out and "without variance" in out
    assert not list((tmp_path / "run").glob("*"))


def test_the_preflight_warns_of_what_fools_the_rewards(monkeypatch, capsys, setup, tmp_path):
    rewards = f"[{{name: '{setup / 'mine.py'}:vowels', weight: -1.0}}]"  # nothing at all has no vowel either
    grpo(monkeypatch, setup, tmp_path / "run", "--preflight", "--preflight_prompts", "4", "--rewards", rewards)
    warned = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WARNING")]
    assert any("nothing at all is rewarded" in line for line in warned)
    assert not any("the the the" in line for line in warned)


def test_the_preflight_stops_a_run_with_nothing_to_learn(monkeypatch, capsys, setup, tmp_path):
    rewards = f"[{{name: '{setup / 'mine.py'}:constant'}}]"
    line = refusal(
        monkeypatch, capsys, setup, tmp_path / "run", "--preflight_prompts", "4", "--rewards", rewards,
    )  # fmt: skip
    assert "rewards: within each of the 4 sampled groups" in line and "mean 1.000" in line


def test_reasoning_metrics_tell_corrections_for_the_better_from_those_for_the_worse():
    texts = [
        "3+4 = 7\n#### 7",
        "#### 8\nWait, 3+4 = 7\n#### 7",
        "The answer is 7. Hmm, actually\n#### 8",
        "wait for it: #### 7",
    ]
    rows = [{"answer": "7"}] * 4 + [{"answer": "def f(): 0", "tests": ["f() == 0"]}]
    assert reasoning_metrics([*texts, "wait"], rows) == {
        "reasoning/shows_work": 0.5,
        "reasoning/corrects_itself": 0.75,
        "reasoning/wrong_to_right": 0.25,
        "reasoning/right_to_wrong": 0.25,
    }
    assert reasoning_metrics(["wait"], rows[4:]) == {}
    assert shows_work("48/2 = 24") and not shows_work("x = y, so #### 24")


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A model that answers one prompt with one of five tokens: its whole policy can be written down."""
    folder = tmp_path_factory.mktemp("letters")
    make_tiny_model(folder / "base", spelling("abcd"), tied=False)
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    model.lm_head.weight.data *= 10  # a frozen head of small weights would keep every policy near uniform
    model.save_pretrained(folder / "base")
    (folder / "mine.py").write_text(MINE)
    (folder / "train.jsonl").write_text((json.dumps({"prompt": "a"}) + "\n") * 4)
    (folder / "grpo.yaml").write_text(
        f"""
        model_name_or_path: {folder / "base"}
        dataset_name: {folder / "train.jsonl"}
        dataset_test_split: null
        rewards: [{{name: "{folder / "mine.py"}:letters"}}]
        preflight_prompts: 0
        output_dir: {folder / "run"}
        num_generations: 128
        per_device_train_batch_size: 256
        max_completion_length: 1
        scale_rewards: none
        loss_type: dr_grpo
        learning_rate: 1.0e-2
        lr_scheduler_type: linear
        lora_r: 8
        lora_alpha: 16
        lora_dropout: 0
        gradient_checkpointing: false
        save_strategy: "no"
        logging_steps: 20
        report_to: none
        use_cpu: true
        """.replace("\n        ", "\n")
    )
    return folder


def policy(folder, adapter=None):
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    model = PeftModel.from_pretrained(model, adapter) if adapter else model
    with torch.no_grad():
        return model.eval()(torch.tensor([[1]])).logits[0, -1].double().softmax(-1)


WORTH = torch.tensor([0.0, 0.0, 0.3, 0.6, 1.0], dtype=torch.float64)


def test_it_finds_the_best_answer(monkeypatch, letters, tmp_path):
    grpo(monkeypatch, letters, tmp_path / "run", "--max_steps", "60")
    assert policy(letters) @ WORTH < 0.6
    assert policy(letters, tmp_path / "run/adapter") @ WORTH > 0.98


def reverse_kl_optimum(reference, worth, beta):
    """p(x) = ref(x) exp(r(x) / beta) / Z."""
    return (reference.log() + worth / beta).softmax(-1)


def forward_kl_optimum(reference, worth, beta):
    """r(x) + beta ref(x) / p(x) is the same for all x: TRL's default estimate has the gradient of KL(ref, p)."""
    level = brentq(
        lambda level: (beta * reference / (level - worth)).sum() - 1, worth.max() + 1e-9, worth.max() + beta
    )
    return beta * reference / (level - worth)


@pytest.mark.parametrize(("corrected", "optimum_of"), [("true", reverse_kl_optimum), ("false", forward_kl_optimum)])
def test_it_finds_the_optimum_of_reward_and_divergence(monkeypatch, letters, tmp_path, corrected, optimum_of):
    flags = ["--max_steps", "80", "--beta", "0.5", "--use_bias_correction_kl", corrected]
    grpo(monkeypatch, letters, tmp_path / "run", *flags)
    reference, found = policy(letters), policy(letters, tmp_path / "run/adapter")
    # An answer is part of its own group's mean, which shrinks its advantage by (G - 1) / G.
    optimum = optimum_of(reference, WORTH * 127 / 128, 0.5)
    assert (optimum - reference).abs().sum() / 2 > 0.2
    assert (optimum - found).abs().sum() / 2 < 0.02
