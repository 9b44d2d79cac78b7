# make demo      the main job on the embedded tiny model: fine-tune, measure before and after
# make test      every test that runs offline in minutes       make lint   ruff
# make evidence  what takes longer: several seeds, real models
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

demo: $(INSTALLED)
	@PATH="$(CURDIR)/$(BIN):$$PATH" ./demo.sh

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
	touch $@

.PHONY: demo test evidence lint
