"""Loading, generating and likelihoods, against naive loops and closed forms."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from scipy import stats
from tiny_models import make_tiny_model, make_tiny_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from schoolhouse.core.generation import (
    InverseTransform,
    Sample,
    Sampling,
    bits_per_byte,
    generate,
    loglikelihood,
    plan_batches,
    render,
    sampling_processors,
    stop_token_ids,
)
from schoolhouse.core.models import adapter_hash, load_model, load_tokenizer, model_hash, template_hash


QUESTIONS = [
    "Hi",
    "How many apples are left?",
    "Where does Tom live? " * 4,
    "12 - 5",
    "The quick brown fox",
    "7",
    "Why?",
]


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    torch.set_num_threads(1)
    return str(make_tiny_model(tmp_path_factory.mktemp("base"), tied=False))


def make_adapter(base, folder, seed, name="adapter"):
    torch.manual_seed(seed)
    # Two targets: peft writes them in no fixed order.
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder / name)
    return str(folder / name)


@pytest.fixture(scope="session")
def model(base):
    return load_model(base, device="cpu")


@pytest.fixture(scope="session")
def tokenizer(base):
    return load_tokenizer(base)


@pytest.fixture(scope="session")
def prompts(tokenizer):
    return [render(tokenizer, [{"role": "user", "content": question}]) for question in QUESTIONS]


def draw(model, tokenizer, prompts, sampling, indices=None, **kwargs):
    batches = generate(model, tokenizer, prompts, indices or [0] * len(prompts), sampling, **kwargs)
    samples = dict(entry for batch in batches for entry in batch)
    return [samples[position] for position in range(len(prompts))]


# Models, tokenizers, hashes


def test_a_tokenizer_is_ready_for_batches_and_chats(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "copy")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token == tokenizer.eos_token
    assert tokenizer.chat_template
    assert len(tokenizer) == load_model(base, device="cpu").get_input_embeddings().num_embeddings


def test_the_adapters_tokenizer_goes_first(base, tmp_path):
    adapter = make_adapter(base, tmp_path, seed=1)
    assert template_hash(load_tokenizer(base, adapter)) == template_hash(load_tokenizer(base))
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}!"
    tokenizer.save_pretrained(adapter)
    assert load_tokenizer(base, adapter).chat_template == "{{ messages[0]['content'] }}!"
    assert template_hash(load_tokenizer(base, adapter)) != template_hash(load_tokenizer(base))


def test_an_adapter_loads_as_with_plain_peft(base, tmp_path, tokenizer):
    adapter = make_adapter(base, tmp_path, seed=1)
    ids = tokenizer("How many apples", return_tensors="pt").input_ids
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    with torch.no_grad():
        logits = load_model(base, adapter, device="cpu")(ids).logits
        assert torch.equal(logits, plain(ids).logits)
        assert not torch.allclose(logits, load_model(base, device="cpu")(ids).logits)


def test_the_cpu_computes_in_fp32_unless_told_otherwise(base):
    assert load_model(base, device="cpu").dtype == torch.float32
    assert load_model(base, device="cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_what_is_no_model_is_refused_in_a_line(base, tmp_path):
    adapter = make_adapter(base, tmp_path, seed=1)
    with pytest.raises(ValueError, match="holds a LoRA adapter"):
        load_model(adapter)
    with pytest.raises(ValueError, match=r"no adapter_config\.json"):
        load_model(base, base)
    with pytest.raises(ValueError, match="does not exist"):
        model_hash(str(tmp_path / "nowhere"))


def test_pickled_weights_are_refused(base, tmp_path):
    pickled = shutil.copytree(base, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pickled"):
        model_hash(str(pickled))
    with pytest.raises(OSError):
        load_model(str(pickled))
    adapter = tmp_path / "adapter"
    make_adapter(base, tmp_path, seed=1)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"no adapter_model\.safetensors"):
        load_model(base, str(adapter))


def test_a_model_hash_follows_the_content_not_the_place(base, tmp_path):
    copy = shutil.copytree(base, tmp_path / "copy")
    assert model_hash(str(copy)) == model_hash(base)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(
        json.dumps(config | {"transformers_version": "0", "_name_or_path": "/elsewhere"})
    )
    assert model_hash(str(copy)) == model_hash(base)
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert model_hash(str(copy)) != model_hash(base)
    other = make_tiny_model(tmp_path / "other", tied=False, seed=1)
    assert model_hash(str(other)) != model_hash(base)


def test_an_adapter_hash_follows_the_content_not_the_place(base, tmp_path):
    one, two = make_adapter(base, tmp_path, seed=1, name="one"), make_adapter(base, tmp_path, seed=2, name="two")
    assert adapter_hash(one) != adapter_hash(two)
    config_file = tmp_path / "one" / "adapter_config.json"
    config, before = json.loads(config_file.read_text()), adapter_hash(one)
    targets = sorted(config["target_modules"], reverse=True)
    config_file.write_text(json.dumps(config | {"base_model_name_or_path": "/elsewhere", "target_modules": targets}))
    assert adapter_hash(one) == before
    config_file.write_text(json.dumps(config | {"lora_alpha": 99}))
    assert adapter_hash(one) != before


# Generation


def test_greedy_completions_are_those_of_the_naive_loop_in_any_batch(model, tokenizer, prompts):
    sampling = Sampling(max_new_tokens=12)
    alone = draw(model, tokenizer, prompts, sampling, batch_size=1)
    assert draw(model, tokenizer, prompts, sampling, batch_size=8) == alone
    assert draw(model, tokenizer, prompts, sampling, tokens_per_batch=150) == alone
    for prompt, sample in zip(prompts, alone, strict=True):
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(12):
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert sample.text == tokenizer.decode(ids[len(prompt) :])
        assert (sample.tokens, sample.finish_reason) == (12, "length")


def test_samples_depend_on_seed_prompt_and_index_only(model, tokenizer, prompts):
    sampling = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=16, seed=5)
    asked, indices = prompts * 3, [index for index in range(3) for _ in prompts]
    together = draw(model, tokenizer, asked, sampling, indices, batch_size=8)
    assert draw(model, tokenizer, asked, sampling, indices, batch_size=3) == together
    backwards = draw(model, tokenizer, asked[::-1], sampling, indices[::-1], batch_size=8)
    assert backwards[::-1] == together
    assert len({sample.text for sample in together}) == len(together)
    other = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=16, seed=6)
    assert not {sample.text for sample in draw(model, tokenizer, asked, other, indices)} & {x.text for x in together}


def test_a_batch_with_a_hole_is_generated_whole_and_only_the_hole_returned(model, tokenizer, prompts, monkeypatch):
    sampling = Sampling(temperature=1.0, max_new_tokens=8)
    whole = draw(model, tokenizer, prompts, sampling, batch_size=3)
    sizes, original = [], model.generate

    def spy(input_ids, **kwargs):
        sizes.append(len(input_ids))
        return original(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model, "generate", spy)
    first = plan_batches([len(prompt) + 8 for prompt in prompts], 3, 32_768)[0]
    done = set(first[1:])
    batches = list(generate(model, tokenizer, prompts, [0] * 7, sampling, batch_size=3, is_done=done.__contains__))
    assert sizes == [3, 3, 1]
    assert batches[0] == [(first[0], whole[first[0]])]
    sizes.clear()
    assert list(generate(model, tokenizer, prompts, [0] * 7, sampling, is_done=lambda position: True)) == []
    assert sizes == []


def test_tokens_are_drawn_with_their_probabilities():
    rng = np.random.default_rng(0)
    scores = torch.tensor(rng.normal(size=(1, 12)), dtype=torch.float32)
    expected = np.exp(scores[0].double().numpy()) / np.exp(scores[0].double().numpy()).sum()
    draws = rng.random((20_000, 1))
    kept = InverseTransform(draws, 4)(torch.zeros(20_000, 4), scores.expand(20_000, 12))
    assert torch.isfinite(kept).sum(1).eq(1).all()
    observed = torch.bincount(kept.argmax(1), minlength=12).numpy()
    assert stats.chisquare(observed, expected * 20_000).pvalue > 1e-3


def test_every_position_takes_a_draw_of_its_own():
    draws = np.array([[0.1, 0.6, 0.9]])
    processor = InverseTransform(draws, 5)
    scores = torch.zeros(1, 2)
    assert [int(processor(torch.zeros(1, 5 + step), scores).argmax()) for step in range(3)] == [0, 1, 1]


def test_a_token_without_chance_is_never_drawn():
    processor = InverseTransform(np.array([[0.0], [0.5], [1 - 2**-53]]), 5)
    scores = torch.tensor([[-torch.inf, 1.0, -torch.inf, 1.0, -torch.inf]] * 3)
    assert processor(torch.zeros(3, 5), scores).argmax(1).tolist() == [1, 3, 3]


def test_every_prompt_and_index_has_draws_of_its_own(prompts):
    rows = [(prompts[0], 0), (prompts[0], 1), (prompts[1], 0)]
    draws = sampling_processors(rows, Sampling(temperature=1.0, max_new_tokens=5), 9)[-1].draws
    assert len(np.unique(draws)) == 15


def test_top_p_and_temperature_shape_the_draw(model, tokenizer, prompts):
    rows = [(prompts[0], index) for index in range(400)]
    scores = torch.tensor([[4.0, 3.0, 2.0, -1.0]]).expand(400, 4)
    processors = sampling_processors(rows, Sampling(temperature=0.5, top_p=0.95, max_new_tokens=2), 3)
    shaped = scores
    for processor in processors:
        shaped = processor(torch.zeros(400, 3), shaped)
    # At temperature 0.5 the chances are e^8 : e^6 : e^4 : e^-2 = 0.867, 0.117, 0.016, 0.00004; 0.95 needs two of them.
    counts = torch.bincount(shaped.argmax(1), minlength=4).tolist()
    assert counts[2:] == [0, 0]
    assert stats.binomtest(counts[1], 400, math.exp(6) / (math.exp(8) + math.exp(6))).pvalue > 1e-3


def test_the_models_generation_config_does_not_leak(model, tokenizer, prompts):
    expected = draw(model, tokenizer, prompts, Sampling(max_new_tokens=8))
    own = model.generation_config
    own.repetition_penalty, own.no_repeat_ngram_size, own.temperature, own.do_sample = 9.0, 1, 3.0, True
    try:
        assert draw(model, tokenizer, prompts, Sampling(max_new_tokens=8)) == expected
        assert model.generation_config is own
    finally:
        own.repetition_penalty, own.no_repeat_ngram_size, own.temperature, own.do_sample = None, None, None, None


def test_a_completion_ends_at_any_stop_token(model, tokenizer, prompts):
    with torch.no_grad():
        first = int(model(torch.tensor([prompts[0]])).logits[0, -1].argmax())
    own, model.generation_config.eos_token_id = model.generation_config.eos_token_id, [first, own_eos := 0]
    try:
        assert stop_token_ids(model, tokenizer) == sorted({first, own_eos, tokenizer.eos_token_id})
        sample = draw(model, tokenizer, prompts[:1], Sampling(max_new_tokens=6))[0]
    finally:
        model.generation_config.eos_token_id = own
    assert (sample.text, sample.tokens, sample.finish_reason) == ("", 1, "stop")


def test_a_completion_is_cut_at_a_stop_text(model, tokenizer, prompts):
    sampling = Sampling(temperature=1.0, max_new_tokens=30, seed=1)
    free = draw(model, tokenizer, prompts, sampling)
    stop = next(sample.text[8:11] for sample in free if sample.text[8:11].isascii() and len(sample.text) > 20)
    cut = draw(model, tokenizer, prompts, Sampling(temperature=1.0, max_new_tokens=30, seed=1, stop=(stop,)))
    stopped = [position for position, sample in enumerate(free) if stop in sample.text]
    assert stopped
    for position, (before, after) in enumerate(zip(free, cut, strict=True)):
        assert after.text == before.text.split(stop)[0]
        assert after.finish_reason == ("stop" if position in stopped else before.finish_reason)
        assert after.tokens < before.tokens or position not in stopped


def test_the_first_of_several_stop_texts_cuts(model, tokenizer, prompts, monkeypatch):
    ids, eos = tokenizer("The fox and the dog").input_ids, tokenizer.eos_token_id

    def sample(output, *stop):
        monkeypatch.setattr(
            model, "generate", lambda input_ids, **_: torch.tensor([[*input_ids[0].tolist(), *output]])
        )
        return draw(model, tokenizer, prompts[:1], Sampling(max_new_tokens=9, stop=stop))[0]

    assert sample(ids, " dog", " and", " the").text == "The fox"
    assert sample(ids, "cat") == Sample("The fox and the dog", len(ids), "length")
    assert sample([*ids, eos, eos]) == Sample("The fox and the dog", len(ids) + 1, "stop")


def test_a_prompt_beyond_the_context_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="context of 512 tokens"):
        draw(model, tokenizer, [[5] * 500], Sampling(max_new_tokens=13))


@pytest.mark.parametrize("seed", range(5))
def test_batches_hold_every_sequence_once_within_bounds(seed):
    lengths = np.random.default_rng(seed).integers(1, 120, size=57).tolist()
    batches = plan_batches(lengths, batch_size=6, tokens_per_batch=200)
    assert sorted(position for batch in batches for position in batch) == list(range(57))
    for batch in batches:
        assert len(batch) <= 6
        assert len(batch) == 1 or len(batch) * max(lengths[position] for position in batch) <= 200
    assert [max(lengths[x] for x in batch) for batch in batches] == sorted(
        (max(lengths[x] for x in batch) for batch in batches), reverse=True
    )


# Likelihoods


def naive_loglikelihood(model, context, continuation):
    with torch.no_grad():
        chances = model(torch.tensor([context + continuation])).logits[0].double().log_softmax(-1)
    return sum(float(chances[len(context) + step - 1, token]) for step, token in enumerate(continuation))


def test_likelihoods_are_those_of_the_naive_loop(model, tokenizer):
    contexts = ["User: How many", [{"role": "user", "content": "Hi"}], "", "Tom lives in"]
    continuations = [" apples are left?", "There are 7.", "The fox", " Paris"]
    expected = []
    for context, continuation in zip(contexts, continuations, strict=True):
        ids = render(tokenizer, context)
        expected.append(naive_loglikelihood(model, ids, tokenizer(continuation).input_ids))
    for batch_size in (1, 4):
        assert loglikelihood(model, tokenizer, contexts, continuations, batch_size) == pytest.approx(
            expected, abs=1e-3
        )


def test_a_token_across_the_seam_belongs_to_the_continuation(model, tokenizer):
    # " apples" is one token or two; "a" and "pples" read apart are others.
    whole, context = tokenizer("The apples").input_ids, tokenizer("The a").input_ids
    assert len(context) > 1 and whole[: len(context)] != context
    shared = next(position for position, ids in enumerate(zip(whole, context, strict=False)) if ids[0] != ids[1])
    value = loglikelihood(model, tokenizer, ["The a"], ["pples"])[0]
    assert value == pytest.approx(naive_loglikelihood(model, whole[:shared], whole[shared:]), abs=1e-4)
    with pytest.raises(ValueError, match="adds no token"):
        loglikelihood(model, tokenizer, ["The a"], [""])


def test_a_model_that_knows_nothing_needs_log2_of_its_vocabulary_per_token(tokenizer):
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    uniform = LlamaForCausalLM(config).eval()
    torch.nn.init.zeros_(uniform.lm_head.weight)
    texts = ["7", "The quick brown fox jumps. " * 30, "Tom ü " * 11]
    for text, (bits, size) in zip(texts, bits_per_byte(uniform, tokenizer, texts, batch_size=3), strict=True):
        assert bits == pytest.approx(len(tokenizer(text).input_ids) * math.log2(len(tokenizer)), rel=1e-5)
        assert size == len(text.encode())


def test_bits_of_a_short_text_are_its_likelihood_after_the_start_token(model, tokenizer):
    text = "The quick brown fox"
    nats = naive_loglikelihood(model, [tokenizer.eos_token_id], tokenizer(text).input_ids)
    assert bits_per_byte(model, tokenizer, [text]) == [(pytest.approx(-nats / math.log(2), rel=1e-4), len(text))]


def test_a_long_text_is_read_with_half_a_window_of_context(model, tokenizer):
    text = "12 - 5 = 7 and 6 * 7 = 42. " * 100
    ids = [tokenizer.eos_token_id, *tokenizer(text).input_ids]
    assert len(ids) > 1.5 * 512
    nats = naive_loglikelihood(model, ids[:1], ids[1:512])
    for start in range(512, len(ids), 256):
        end = min(start + 256, len(ids))
        nats += naive_loglikelihood(model, ids[end - 512 : start], ids[start:end])
    assert bits_per_byte(model, tokenizer, [text])[0][0] == pytest.approx(-nats / math.log(2), rel=1e-4)
