# Everything runs in .venv, which is made on first use:
#   make demo    a small corpus, re-ranked by the embedded model
#   make test    the test suite, with coverage
#   make lint    style, formatting and types
#   make typecheck     what users write, by mypy and pyright
#   make test-oldest   the tests with the oldest versions that are supported, in .venv-oldest
# Another interpreter: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Set once that is installed which running, or developing, needs; a change of these files installs
# again.
RUNNABLE := $(VENV)/.runnable
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-oldest lint typecheck install clean

demo: $(RUNNABLE)
	$(BIN)/icr-rag demo

test: $(INSTALLED)
	$(BIN)/python -m pytest --cov=icr_rag --cov-report=term

test-oldest:
	$(PYTHON) scripts/test_oldest.py .venv-oldest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict icr_rag tests/typing/user_code.py

# pyright fetches itself from npm on first use, so that it is no part of lint.
typecheck: $(INSTALLED)
	$(BIN)/mypy --strict tests/typing/user_code.py
	$(BIN)/pyright --pythonpath $(BIN)/python tests/typing/user_code.py

install: $(INSTALLED)

clean:
	rm -rf $(VENV) .venv-oldest

$(BIN)/python:
	@$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info[:2] <= (3, 13) or sys.exit( \
		"Python 3.10 to 3.13 is needed, $(PYTHON) is " + sys.version.split()[0] + \
		"; name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# torch goes first, so that the CPU build is in place before anything asks for torch, and is held
# by a constraint. A pip that is new enough for editable installs is left as it is.
$(RUNNABLE): pyproject.toml scripts/install_torch.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=22.0'
	$(BIN)/python scripts/install_torch.py $(VENV)/constraints.txt
	$(call install,all)
	touch $@

$(INSTALLED): $(RUNNABLE)
	$(call install,dev)
	touch $@

define install
$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	--constraint $(VENV)/constraints.txt --editable '.[$(1)]'
endef
