# Everything runs in .venv, which is made on first use, with the versions in requirements/*.lock:
#   make demo    a small corpus, re-ranked by the embedded model
#   make test    the test suite, with coverage
#   make lint    style, formatting, types, and who may import whom
#   make typecheck     what users write, by mypy and pyright
#   make test-oldest   the tests with the oldest versions that are supported, in .venv-oldest
#   make test-newest   the tests with the newest there are, in .venv-newest
#   make test-explore   the property-based tests on new random cases, a thousand each
#   make test-ray    what runs on Ray, which it installs in .venv-ray
#   make test-browser    the server's page in chromium, which must be installed; needs npm
#   make test-architectures   every causal language model that transformers can build
#   make audit   known weaknesses of the locked versions, and of our own code
#   make lock    resolve the versions anew (docs/development.md)
# Another interpreter: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RAY := 2.60.0
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps

# Set once that is installed which running, or developing, needs; a change of these files installs
# again.
RUNNABLE := $(VENV)/.runnable
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-oldest test-newest test-explore test-ray test-browser test-architectures audit lock lint typecheck install clean

demo: $(RUNNABLE)
	$(BIN)/icr-rag demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --cov=icr_rag --cov-report=term

# `make test` draws the same cases every time.
test-explore: $(INSTALLED)
	ICR_RAG_HYPOTHESIS=explore $(BIN)/python -m pytest -n auto --maxprocesses 4 -m hypothesis

# Ray has two hundred files of its own and starts processes for seconds; the rest of the environment
# is .venv's.
test-ray: $(INSTALLED)
	$(PYTHON) -m venv .venv-ray
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' \
		> "$$(.venv-ray/bin/python -c 'import site; print(site.getsitepackages()[0])')/main.pth"
	.venv-ray/bin/python -m pip install --quiet --disable-pip-version-check 'ray[serve,data]==$(RAY)'
	.venv-ray/bin/python -m pytest tests/test_ray_*.py

CHROMIUM ?= /usr/bin/chromium
test-browser: $(INSTALLED)
	$(PYTHON) -m venv .venv-browser
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' \
		> "$$(.venv-browser/bin/python -c 'import site; print(site.getsitepackages()[0])')/main.pth"
	.venv-browser/bin/python -m pip install --quiet --disable-pip-version-check playwright
	cd .venv-browser && npm pack --silent axe-core@4.14.1 && tar xzf axe-core-4.14.1.tgz
	CHROMIUM=$(CHROMIUM) AXE=.venv-browser/package/axe.min.js \
		.venv-browser/bin/python -m pytest tests/test_browser.py

test-oldest:
	$(PYTHON) scripts/test_versions.py oldest .venv-oldest

test-newest:
	$(PYTHON) scripts/test_versions.py newest .venv-newest

# What bandit may not say is explained in SECURITY.md.
audit: $(BIN)/python
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check bandit pip-audit
	.venv-audit/bin/bandit --quiet --recursive icr_rag --skip B104,B310,B311,B404,B603,B615
	.venv-audit/bin/pip-audit --disable-pip --no-deps --requirement requirements/dev.lock

lock:
	$(PYTHON) scripts/make_lock.py .venv-lock

test-architectures: $(INSTALLED)
	$(BIN)/python -m pytest tests/test_architectures.py -m "architectures or not architectures"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict icr_rag tests/typing/user_code.py
	$(BIN)/lint-imports

# pyright fetches itself from npm on first use, so that it is no part of lint.
typecheck: $(INSTALLED)
	$(BIN)/mypy --strict tests/typing/user_code.py
	$(BIN)/pyright --pythonpath $(BIN)/python tests/typing/user_code.py

install: $(INSTALLED)

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest .venv-lock .venv-ray .venv-audit .venv-browser

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit( \
		"Python 3.10 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + \
		"; name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# torch goes first, so that its CPU build is in place; the locks leave it out. Nothing but what they
# name is installed: no dependencies are looked up, and what is fetched must have a known hash.
$(RUNNABLE): requirements/runtime.lock requirements/torch.txt scripts/install_torch.py pyproject.toml \
		| $(BIN)/python
	$(BIN)/python scripts/install_torch.py $(VENV)/torch.txt
	$(PIP) --require-hashes --requirement requirements/runtime.lock
	$(PIP) --no-build-isolation --editable .
	touch $@

$(INSTALLED): $(RUNNABLE) requirements/dev.lock
	$(PIP) --require-hashes --requirement requirements/dev.lock
	touch $@
