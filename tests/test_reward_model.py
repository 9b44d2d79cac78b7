"""Reward models: what is copied, what is saved, what is left out, what is read; and their eval."""

import json
import pickle
import signal

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from scripts import exiting
from tiny_models import make_tiny_model, make_tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

from recipes.reward import main as script_main
from schoolhouse.config.arguments import ModelArguments
from schoolhouse.core.chat_templates import ensure_chat_template
from schoolhouse.core.reward_models import conversation_ids, load_scorer, score_ids
from schoolhouse.rewards import RewardModel
from schoolhouse.training.pairs import encode_pairs
from schoolhouse.training.reward_model import load_reward_model


main = exiting(script_main)
pytestmark = pytest.mark.usefixtures("one_thread")


def turn(role, text):
    return [{"role": role, "content": text}]


def pair(question, better, worse, **more):
    return {
        "prompt": turn("user", question),
        "chosen": turn("assistant", better),
        "rejected": turn("assistant", worse),
    } | more


SUMS = [
    pair(f"What is {a} + {b}?", f"{a} + {b} = {a + b}", "Who knows?" if b % 2 else f"{a + b + 1}", margin=float(a + 1))
    for a in range(6)
    for b in range(4)
]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_sft_adapter(folder, base, **options):
    """An adapter whose every tensor is random, as training leaves it."""
    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **options)
    model = get_peft_model(model, config)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.1)
    model.save_pretrained(folder)
    ensure_chat_template(AutoTokenizer.from_pretrained(base)).save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """A folder with a tiny base, its SFT adapter, pairs and a recipe."""
    folder = tmp_path_factory.mktemp("setup")
    make_tiny_model(folder / "base")
    make_sft_adapter(folder / "sft", folder / "base")
    write(folder / "data/train.jsonl", SUMS[:20])
    write(folder / "data/test.jsonl", SUMS[20:])
    (folder / "reward.yaml").write_text(
        f"""
        model_name_or_path: {folder / "base"}
        adapter_name_or_path: {folder / "sft"}
        dataset_name: {folder / "data"}
        output_dir: {folder / "run"}
        per_device_train_batch_size: 4
        num_train_epochs: 2
        learning_rate: 1.0e-2
        gradient_checkpointing: false
        train_sampling_strategy: group_by_length
        head_learning_rate: 2.0e-2
        logging_steps: 1
        save_steps: 2
        report_to: none
        disable_tqdm: true
        use_cpu: true
        """.replace("\n        ", "\n")
    )
    return folder


def reward(monkeypatch, setup, run, *flags):
    monkeypatch.setattr(
        "sys.argv", ["reward.py", "--config", str(setup / "reward.yaml"), "--output_dir", str(run), *flags]
    )
    main()
    return json.loads((run / "run.json").read_text())


def weights(adapter):
    return (adapter / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole_run(setup):
    """An uninterrupted run, and its trainer as it was when training ended."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        import schoolhouse.training.reward as module

        kept, told = [], module.reference_statistics
        monkeypatch.setattr(
            module, "reference_statistics", lambda trainer, rows: kept.append(trainer) or told(trainer, rows)
        )
        record = reward(monkeypatch, setup, setup / "whole")
    return setup / "whole", kept[0], record


def load_plainly(base, adapter):
    """A reward adapter loaded with peft alone; the base's random head must not matter."""
    torch.manual_seed(99)
    classifier = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    return PeftModel.from_pretrained(classifier, adapter).eval()


# What is copied


@pytest.mark.parametrize("rows", [None, {"embed_tokens": [5, 7]}])
def test_a_reward_model_begins_with_exactly_what_the_sft_adapter_computes(tmp_path, rows):
    base = make_tiny_model(tmp_path / "base")
    sft = make_sft_adapter(tmp_path / "sft", base, trainable_token_indices=rows)
    args = RewardConfig(str(tmp_path / "out"), use_cpu=True, bf16=False, report_to=[])
    names = ModelArguments(model_name_or_path=str(base), adapter_name_or_path=str(tmp_path / "sft"), dtype="float32")
    model = load_reward_model(names, args, AutoTokenizer.from_pretrained(tmp_path / "sft"))
    ids = torch.tensor([[5, 6, 7, 8, 9, 3]])
    with torch.no_grad():
        theirs = sft.eval().get_base_model().model(ids).last_hidden_state
        ours = model.eval().get_base_model().base_model(ids).last_hidden_state
        score = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        assert torch.equal(ours, theirs)
        assert torch.equal(score[0], model.get_base_model().score(ours[0, -1]))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("score.modules_to_save" in name for name in trained)
    assert any("trainable_tokens_delta" in name for name in trained) == (rows is not None)
    assert not any("base_layer" in name or "original_module" in name for name in trained)


def test_the_head_is_that_of_the_seed(setup):
    args = RewardConfig(str(setup / "out"), use_cpu=True, bf16=False, report_to=[], seed=3)
    names = ModelArguments(model_name_or_path=str(setup / "base"), adapter_name_or_path=str(setup / "sft"))
    tokenizer = AutoTokenizer.from_pretrained(setup / "sft")

    def head():
        return load_reward_model(names, args, tokenizer).get_base_model().score.weight

    first, again = head(), head()
    args.seed = 4
    assert torch.equal(first, again) and not torch.equal(first, head())


def test_an_adapter_that_a_classifier_cannot_take_over_is_refused(setup, tmp_path):
    make_sft_adapter(tmp_path / "whole", setup / "base", modules_to_save=["norm"])
    args = RewardConfig(str(tmp_path), use_cpu=True, bf16=False, report_to=[])
    names = ModelArguments(model_name_or_path=str(setup / "base"), adapter_name_or_path=str(tmp_path / "whole"))
    with pytest.raises(ValueError, match=r"brings whole modules \(norm\)"):
        load_reward_model(names, args, AutoTokenizer.from_pretrained(setup / "sft"))


# What is saved


def test_a_run_leaves_one_adapter_with_its_head_and_the_scale_of_its_scores(setup, whole_run):
    run, _, record = whole_run
    assert sorted(path.name for path in run.iterdir()) == ["adapter", "checkpoints", "log.json", "run.json"]
    assert sorted(path.name for path in (run / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "reward_statistics.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = json.loads((run / "adapter/adapter_config.json").read_text())
    assert (config["task_type"], config["modules_to_save"]) == ("SEQ_CLS", ["score"])
    assert config["base_model_name_or_path"] == str(setup / "base")
    assert record["status"] == "done" and record["parent_adapter"]["name"] == str(setup / "sft")
    assert record["pairs"]["used"] == 20 and record["test_pairs"]["used"] == 4 and record["steps"] == 10
    assert record["metrics"]["accuracy"] == 1 and record["metrics"]["loss"] < 0.3


def test_plain_peft_reloads_the_head_and_all_else_to_the_bit(setup, whole_run):
    run, trainer, _ = whole_run
    trained, loaded = trainer.model.eval(), load_plainly(setup / "base", run / "adapter")
    theirs = loaded.state_dict()
    for name, tensor in trained.state_dict().items():
        if "original_module" not in name:  # the base's random head, which nothing reads
            assert torch.equal(tensor, theirs[name]), name
    tokenizer = AutoTokenizer.from_pretrained(run / "adapter")
    rows = [conversation_ids(tokenizer, row["prompt"], row["chosen"]) for row in SUMS]
    scores = score_ids(trained, rows)
    assert (scores - score_ids(loaded, rows)).abs().max() == 0 and scores.std() > 0
    with torch.no_grad():  # the stock forward multiplies the head with every token: another order of the sum
        plain = torch.stack([loaded(torch.tensor([row])).logits[0, 0] for row in rows])
    torch.testing.assert_close(plain, scores[0], atol=1e-6, rtol=0)


def test_the_statistics_are_those_of_the_held_out_texts(setup, whole_run):
    run, _, _ = whole_run
    scorer, tokenizer = load_scorer(str(run / "adapter"))
    rows = [
        conversation_ids(tokenizer, row["prompt"], row[side]) for row in SUMS[20:] for side in ("chosen", "rejected")
    ]
    scores = torch.cat([score_ids(scorer, [row])[0] for row in rows]).double()
    told = json.loads((run / "adapter/reward_statistics.json").read_text())
    assert told == {
        "mean": pytest.approx(scores.mean().item(), abs=1e-5),
        "sd": pytest.approx(scores.std().item(), abs=1e-5),
        "n": 8,
    }


def test_the_same_seed_gives_the_same_adapter_and_another_another(monkeypatch, setup, whole_run, tmp_path):
    reward(monkeypatch, setup, tmp_path / "again")
    assert weights(tmp_path / "again/adapter") == weights(whole_run[0] / "adapter")
    reward(monkeypatch, setup, tmp_path / "other", "--seed", "1")
    assert weights(tmp_path / "other/adapter") != weights(whole_run[0] / "adapter")


def interrupt_at(monkeypatch, step, member=0):
    """SIGINT in the middle of a step."""
    training_step, raised = RewardTrainer.training_step, []

    def signalled(self, *args, **kwargs):
        if self.state.global_step == step and self.args.seed == 42 + member and not raised:
            raised.append(True)
            signal.raise_signal(signal.SIGINT)
        return training_step(self, *args, **kwargs)

    monkeypatch.setattr(RewardTrainer, "training_step", signalled)


def test_a_stopped_run_goes_on_to_the_same_adapter(monkeypatch, setup, whole_run, tmp_path):
    run = tmp_path / "stopped"
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(patch, step=6)
        reward(patch, setup, run)
    assert not (run / "adapter").exists()
    assert reward(monkeypatch, setup, run)["resumed"][0]["checkpoint"] == "checkpoint-7"
    assert weights(run / "adapter") == weights(whole_run[0] / "adapter")
    assert (run / "adapter/reward_statistics.json").read_bytes() == (
        whole_run[0] / "adapter/reward_statistics.json"
    ).read_bytes()


def test_an_ensemble_differs_in_seeds_and_goes_on_where_it_was_stopped(monkeypatch, setup, whole_run, tmp_path):
    reward(monkeypatch, setup, tmp_path / "second", "--seed", "43")
    run = tmp_path / "ensemble"
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(patch, step=4, member=1)
        reward(patch, setup, run, "--num_members", "2")
    first = (run / "members/0").stat().st_mtime_ns
    record = reward(monkeypatch, setup, run, "--num_members", "2")
    assert (run / "members/0").stat().st_mtime_ns == first  # kept, not trained again
    assert record["product"] == "members" and record["status"] == "done" and record["resumed"]
    # A member is the single model of its seed.
    assert weights(run / "members/0") == weights(whole_run[0] / "adapter")
    assert weights(run / "members/1") == weights(tmp_path / "second/adapter")

    scores = {}
    for folder in ("members/0", "members/1", "members"):
        scorer, tokenizer = load_scorer(str(run / folder))
        rows = [conversation_ids(tokenizer, row["prompt"], row["chosen"]) for row in SUMS]
        scores[folder] = score_ids(scorer, rows)
    assert torch.equal(scores["members"], torch.cat([scores["members/0"], scores["members/1"]]))


def test_a_reward_model_needs_no_sft_adapter(monkeypatch, setup, tmp_path):
    recipe = (setup / "reward.yaml").read_text().replace(f"adapter_name_or_path: {setup / 'sft'}", "lora_r: 4")
    (tmp_path / "reward.yaml").write_text(recipe)
    record = reward(monkeypatch, tmp_path, tmp_path / "new")
    assert record["parent_adapter"] is None
    config = json.loads((tmp_path / "new/adapter/adapter_config.json").read_text())
    assert (config["task_type"], config["modules_to_save"], config["r"]) == ("SEQ_CLS", ["score"], 4)
    scorer, tokenizer = load_scorer(str(tmp_path / "new/adapter"))
    rows = [conversation_ids(tokenizer, row["prompt"], row[side]) for row in SUMS for side in ("chosen", "rejected")]
    scores = score_ids(scorer, rows)[0]
    assert (scores[::2] > scores[1::2]).float().mean() > 0.9


def test_every_weight_can_be_trained(monkeypatch, setup, tmp_path):
    recipe = (setup / "reward.yaml").read_text().replace(f"adapter_name_or_path: {setup / 'sft'}", "use_peft: false")
    (tmp_path / "reward.yaml").write_text(recipe)
    record = reward(monkeypatch, tmp_path, tmp_path / "full")
    assert record["product"] == "model"
    values = RewardModel(str(tmp_path / "full/model"))([turn("user", "Hi")], [turn("assistant", "Hello")], [[0]])
    assert np.isfinite(values).all()
    with pytest.raises(SystemExit):
        reward(monkeypatch, tmp_path, tmp_path / "many", "--num_members", "2")


# What is left out


def pairs_of(rows, tokenizer=None, **options):
    tokenizer = tokenizer or ensure_chat_template(make_tiny_tokenizer())
    args = RewardConfig("out", **{"max_length": None, "use_cpu": True, "bf16": False, "report_to": []} | options)
    return encode_pairs(Dataset.from_list(rows), tokenizer, args)


def test_pairs_that_teach_nothing_are_counted_and_left_out():
    sound, long = pair("Q?", "right", "wrong"), pair("Q?", "right " * 60, "wrong")
    rows = [
        sound,
        sound,
        pair("Q?", "wrong", "right"),
        pair("Q?", "same", "same"),
        pair("Q?", "  ", "text"),
        pair("Q?", "a", "b", score_chosen=7.0, score_rejected=7.0),
        long,
    ]
    rows = [{"score_chosen": None, "score_rejected": None} | row for row in rows]
    pairs = pairs_of(rows, max_length=64)
    assert pairs.counts == {
        "read": 7, "used": 3, "ties": 1, "equal": 1, "empty": 1, "too_long": 1, "repeated": 1, "contradicted": 3,
    }  # fmt: skip
    assert "3 of 7 pairs are used; left out: 1 ties" in str(pairs)
    limit = max(map(len, (pairs.rows[0]["chosen_ids"], pairs.rows[0]["rejected_ids"])))
    assert pairs_of([sound], max_length=limit).counts["used"] == 1
    assert pairs_of([sound], max_length=limit - 1).counts == {
        **dict.fromkeys(pairs.counts, 0),
        "read": 1,
        "too_long": 1,
    }


@pytest.mark.parametrize("chat", [True, False])
def test_the_trainer_scoring_and_the_account_read_the_same_tokens(setup, chat):
    tokenizer = AutoTokenizer.from_pretrained(setup / "sft")
    rows = SUMS[:6]
    if not chat:
        rows = [{key: row[key] if key == "margin" else row[key][0]["content"] for key in row} for row in rows]
    args = RewardConfig("out", max_length=None, use_cpu=True, bf16=False, report_to=[])
    model = AutoModelForSequenceClassification.from_pretrained(setup / "base", num_labels=1)
    theirs = RewardTrainer(
        model, args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    ).train_dataset
    ours = pairs_of(rows, tokenizer).rows
    for row, one, other in zip(rows, theirs, ours, strict=True):
        for side in ("chosen", "rejected"):
            scored = conversation_ids(tokenizer, row["prompt"], row[side])
            assert one[f"{side}_ids"] == other[f"{side}_ids"] == scored


def test_a_run_without_pairs_ends_before_weights_load(monkeypatch, capsys, setup, tmp_path):
    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", None)
    for flags, words in (
        (["--max_length", "3"], "max_length: no pair is left to train on: 0 of 20 pairs are used"),
        (["--num_members", "0"], "num_members: must be at least 1"),
        (["--num_members", "2", "--push_to_hub", "true"], "push_to_hub: only one adapter can be pushed"),
        (["--dataloader_drop_last", "--per_device_train_batch_size", "64"], "20 pairs do not fill one batch of 64"),
    ):
        with pytest.raises(SystemExit) as stopped:
            reward(monkeypatch, setup, tmp_path / "run", *flags)
        assert stopped.value.code == 2 and words in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["reward.py", "--config", str(setup / "reward.yaml"), "--check"])
    main()
    told = capsys.readouterr().out
    assert "20 of 20 pairs are used" in told and "4 pairs a step, 5 steps an epoch, 10 in all" in told
    assert not (setup / "run").exists()


def test_the_margin_reaches_the_loss_only_when_asked(monkeypatch, setup, whole_run, tmp_path):
    write(tmp_path / "data/train.jsonl", [{key: row[key] for key in row if key != "margin"} for row in SUMS[:20]])
    write(tmp_path / "data/test.jsonl", SUMS[20:])
    reward(monkeypatch, setup, tmp_path / "without", "--dataset_name", str(tmp_path / "data"))
    assert weights(tmp_path / "without/adapter") == weights(whole_run[0] / "adapter")
    reward(monkeypatch, setup, tmp_path / "asked", "--use_margin")
    assert weights(tmp_path / "asked/adapter") != weights(whole_run[0] / "adapter")


# What is read


def test_loss_and_gradients_are_those_of_unpadded_pairs_though_padding_is_eos(setup, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(setup / "sft")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    rows = [{"prompt": "Q: ", "chosen": "a " * n, "rejected": "b " * (9 - n), "margin": 0.1} for n in (1, 4, 8)]
    args = RewardConfig(str(tmp_path), use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=False)
    names = ModelArguments(model_name_or_path=str(setup / "base"), adapter_name_or_path=str(setup / "sft"))
    model = load_reward_model(names, args, tokenizer)
    pairs = pairs_of(rows, tokenizer).rows
    trainer = RewardTrainer(model, args, train_dataset=pairs, processing_class=tokenizer)
    loss = trainer.compute_loss(model, trainer.data_collator(list(pairs)))
    loss.backward()
    found = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    model.zero_grad()

    classifier, naive = model.get_base_model(), []
    for row in pairs:
        assert row["chosen_ids"][-1] == tokenizer.eos_token_id
        chosen, rejected = (
            classifier.score(classifier.model(torch.tensor([row[f"{side}_ids"]])).last_hidden_state[0, -1])
            for side in ("chosen", "rejected")
        )
        naive.append(torch.log1p(torch.exp(rejected - chosen)))
    wanted = torch.cat(naive).mean()
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-6)
    assert found and any("score" in name for name in found)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_only_the_head_learns_at_its_own_rate(monkeypatch, setup, tmp_path):
    flags = ["--learning_rate", "1e-12", "--head_learning_rate", "1e-2", "--max_steps", "1"]
    reward(monkeypatch, setup, tmp_path / "run", *flags, "--warmup_steps", "0")
    trained = load_file(tmp_path / "run/adapter/adapter_model.safetensors")
    args = RewardConfig(str(tmp_path), use_cpu=True, bf16=False, report_to=[], seed=42)
    names = ModelArguments(model_name_or_path=str(setup / "base"), adapter_name_or_path=str(setup / "sft"))
    begun = load_reward_model(names, args, AutoTokenizer.from_pretrained(setup / "sft")).state_dict()
    for name, tensor in trained.items():
        inner = "base_model.model.score.modules_to_save.default.weight" if "score" in name else None
        start = begun[inner or name.replace(".weight", ".default.weight")]
        # Adam's first step is the learning rate.
        assert (tensor - start).abs().max().item() == pytest.approx(1e-2 if inner else 0, abs=1e-4)


def test_accumulated_batches_train_as_one(monkeypatch, setup, tmp_path):
    flags = ["--learning_rate", "1e-3", "--train_sampling_strategy", "random"]
    reward(monkeypatch, setup, tmp_path / "one", *flags)
    halves = ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2"]
    reward(monkeypatch, setup, tmp_path / "two", *flags, *halves)
    one, two = (load_file(tmp_path / run / "adapter/adapter_model.safetensors") for run in ("one", "two"))
    start = load_file(setup / "sft/adapter_model.safetensors")
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], atol=2e-5, rtol=1e-3)
    moved = max((one[name] - start[name]).abs().max() for name in start)
    assert moved > 1e-3


def test_a_reward_is_counted_in_deviations_and_members_are_combined(setup, whole_run, tmp_path):
    for number, (mean, sd) in enumerate(((0.5, 2.0), (-1.0, 0.5))):
        folder = tmp_path / "members" / str(number)
        folder.mkdir(parents=True)
        for path in (whole_run[0] / "adapter").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "reward_statistics.json").write_text(json.dumps({"mean": mean, "sd": sd, "n": 9}))
    prompts, answers = [row["prompt"] for row in SUMS[:5]], [row["chosen"] for row in SUMS[:5]]

    def ask(**options):
        reward = pickle.loads(pickle.dumps(RewardModel(str(tmp_path / "members"), **options)))
        return np.array(reward(prompts, answers, [[0]] * 5)), np.array(reward.spread)

    raw, spread = ask(normalize=False)
    assert spread == pytest.approx(0)  # two copies
    one, two = (raw - 0.5) / 2, (raw + 1) / 0.5
    sd = np.abs(one - two) / 2
    for options, wanted in (
        ({}, (one + two) / 2),
        ({"combine": "min"}, np.minimum(one, two)),
        ({"combine": "mean-std", "uncertainty_coef": 3.0}, (one + two) / 2 - 3 * sd),
    ):
        values, spread = ask(**options)
        assert values == pytest.approx(wanted, abs=1e-6) and spread == pytest.approx(sd, abs=1e-6)
    with pytest.raises(ValueError, match="combine is 'max': it must be one of mean, min, mean-std"):
        RewardModel(str(tmp_path / "members"), combine="max")
    (tmp_path / "members/1/reward_statistics.json").unlink()
    with pytest.raises(ValueError, match=r"1 has no reward_statistics.json.*set normalize: false"):
        RewardModel(str(tmp_path / "members"))


def test_of_a_long_text_the_end_is_read_and_the_cut_is_counted(whole_run):
    scorer, tokenizer = load_scorer(str(whole_run[0] / "adapter"))
    prompts, answers = [turn("user", "word " * 50), turn("user", "Hi")], [turn("assistant", "Yes.")] * 2
    rows = [conversation_ids(tokenizer, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    reward = RewardModel(str(whole_run[0] / "adapter"), normalize=False, max_length=30)
    with pytest.warns(UserWarning, match="1 of 2 texts are over 30 tokens"):
        values = reward(prompts, answers, [[0]] * 2)
    assert reward.truncated == 1
    assert values == pytest.approx([score_ids(scorer, [row[-30:]])[0, 0].item() for row in rows], abs=1e-6)


def test_a_classifier_in_memory_is_scored_on_its_own_tensors(setup, whole_run):
    base = AutoModelForSequenceClassification.from_pretrained(setup / "base", num_labels=1)
    shared = base.model.layers[0].mlp.up_proj.weight
    scorer, tokenizer = load_scorer(str(whole_run[0] / "adapter"), base)
    assert scorer.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight.data_ptr() == shared.data_ptr()
    rows = [conversation_ids(tokenizer, SUMS[0]["prompt"], SUMS[0]["chosen"])]
    assert torch.equal(score_ids(scorer, rows), score_ids(load_scorer(str(whole_run[0] / "adapter"))[0], rows))


def test_what_would_score_at_random_is_refused(setup, whole_run, tmp_path):
    headless = tmp_path / "headless"
    headless.mkdir()
    for path in (whole_run[0] / "adapter").iterdir():
        (headless / path.name).write_bytes(path.read_bytes())
    tensors = load_file(headless / "adapter_model.safetensors")
    save_file(
        {name: tensor for name, tensor in tensors.items() if "score" not in name},
        headless / "adapter_model.safetensors",
    )
    for folder, words in (
        (headless, "saved without its head"),
        (setup / "sft", "is an adapter for CAUSAL_LM: name a reward model"),
        (setup / "base", "no weights for score.weight"),
    ):
        with pytest.raises(ValueError, match=words):
            load_scorer(str(folder))


@pytest.mark.evidence
@pytest.mark.timeout(3600)
def test_a_reward_model_sees_through_a_careless_annotator_on_every_seed(tmp_path):
    """A quarter of its labels is wrong, so no reward model agrees with more than three quarters of such labels."""
    from test_tiny_pipeline import measure, run

    run("recipes/sft.py", "--config", "recipes/configs/tiny/sft.yaml", "--output_dir", tmp_path / "sft")
    for seed in (0, 1, 2):
        folder = tmp_path / f"reward{seed}"
        flags = ("--adapter_name_or_path", tmp_path / "sft/adapter", "--seed", seed, "--output_dir", folder)
        run("recipes/reward.py", "--config", "recipes/configs/tiny/reward.yaml", *flags)
        measure(folder / "eval", "tiny_preferences", "--adapter_name_or_path", folder / "adapter")
        task = json.loads((folder / "eval/results.json").read_text())["tasks"]["tiny_preferences"]
        assert task["value"] >= 0.75, seed
        assert 0.5 < task["metrics"]["agrees_with_noisy_label"] < task["metrics"]["ceiling_with_noisy_labels"]
        # Its certainty is that of the labels it saw.
        error = task["preference"]["calibration_with_noisy_labels"]
        assert error["ece"] < error["ece_by_chance"][1]
        assert task["preference"]["batch_invariance"] < 1e-4
