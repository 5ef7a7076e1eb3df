# Every command makes what it needs first, so each works in a fresh clone with nothing done before.
# What pip installed is remembered in .venv/ and redone only when the requirements change.

PYTHON := .venv/bin/python
INSTALLED := .venv/.installed
INSTALLED_DEV := .venv/.installed-dev

.PHONY: help run test stress memory lint format screenshots

help:
	@echo "make run          the dashboard, in your browser at http://localhost:8501"
	@echo "make test         all tests (ARGS='tests/core -x' goes to pytest)"
	@echo "make stress       50 killed workers, 10 killed servers, 30 writers, on two databases (a"
	@echo "                  few minutes each)"
	@echo "make memory       memory of 200 random configurations, predicted and measured (half an"
	@echo "                  hour or more; nothing else should run)"
	@echo "make lint         ruff: rules and format"
	@echo "make format       ruff: mend both"
	@echo "make screenshots  docs/screenshots/, from a real server (minutes: it trains a network)"

run: $(INSTALLED)
	$(PYTHON) -m streamlit run dashboard.py

test: $(INSTALLED_DEV)
	@$(PYTHON) -m tests.prerequisites
	$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

stress: $(INSTALLED_DEV)
	@$(PYTHON) -m tests.prerequisites
	$(PYTHON) -m benchmarks.stress --postgresql

memory: $(INSTALLED_DEV)
	$(PYTHON) -m benchmarks.memory_model --longest 10

lint: $(INSTALLED_DEV)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format: $(INSTALLED_DEV)
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

screenshots: $(INSTALLED_DEV)
	@$(PYTHON) -m tests.prerequisites
	$(PYTHON) -m docs.screenshots

$(INSTALLED): requirements.txt | $(PYTHON)
	$(PYTHON) -m pip install -r requirements.txt
	@touch $@

$(INSTALLED_DEV): requirements.txt requirements-dev.txt requirements-onnx.txt requirements-postgresql.txt requirements-tensorboard.txt | $(PYTHON)
	$(PYTHON) -m pip install -r requirements-dev.txt
	@touch $(INSTALLED) $@

# The first Python that is new enough and can make a virtual environment. Debian and Ubuntu keep
# the latter (ensurepip) in a package of its own.
$(PYTHON):
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
		if $$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Creating .venv with $$($$python --version)"; \
			$$python -m venv --clear .venv && exit 0; \
			rm -rf .venv; \
		fi; \
	done; \
	echo "Python 3.11 or newer with venv is needed; on Debian and Ubuntu: apt install python3-venv" >&2; \
	exit 1
