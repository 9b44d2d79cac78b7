# make demo      the main job on the embedded tiny model: fine-tune, measure before and after
# make test      every test that runs offline in minutes       make lint   ruff
# make evidence  what takes longer: several seeds, real models
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

TINY := --model_name_or_path data/tiny/base --tasks tiny_arithmetic,tiny_stories,tiny_facts,tiny_forms,tiny_heldout
demo: $(INSTALLED)
	$(BIN)/accelerate launch --config_file accelerate_config.yaml recipes/sft.py --config recipes/configs/tiny/sft.yaml
	$(BIN)/python eval/run.py $(TINY) --output_dir outputs/tiny/base/eval
	$(BIN)/python eval/run.py $(TINY) --adapter_name_or_path outputs/tiny/sft/adapter --output_dir outputs/tiny/sft/eval
	$(BIN)/python eval/run.py --compare outputs/tiny/base/eval outputs/tiny/sft/eval
	@echo 'The adapter: outputs/tiny/sft/adapter, its record: outputs/tiny/sft/run.json'

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not evidence"

evidence: $(INSTALLED)
	$(BIN)/python -m pytest -m evidence

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,hygiene,ifeval,gguf]'
	# Only the filters of lm-eval, which the tests compare ours with; its dependencies are many and not needed.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps lm_eval
	touch $@

.PHONY: demo test evidence lint
