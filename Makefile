# Headrace. `make` alone lists the targets. Everything sets itself up in .venv; nothing else is touched
# but the system packages that the tests need (browser, broker, C compiler), and only by `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= data/demo
SEED ?= 1
SEEDS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test check format soak sim bench lock wheel sbom release clean system-packages

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 22

$(VENV)/.demo: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "!!  Headrace needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.12 demo"; exit 1; }
	@$(PYTHON) scripts/environment.py $(VENV) requirements.lock
	@$(BIN)/headrace --help >/dev/null
	@touch $@

$(VENV)/.test: $(VENV)/.demo requirements-test.lock
	@$(PYTHON) scripts/environment.py $(VENV) requirements-test.lock
	@$(BIN)/python -m pytest --version >/dev/null
	@touch $@

demo: $(VENV)/.demo  ## Start the whole platform with a simulated site
	@echo "==> Starting the demo (Ctrl-C stops it; the data stay in $(DATA))"
	@exec $(BIN)/headrace up --demo --data $(DATA) --seed $(SEED)

system-packages:
	@bash scripts/system_packages.sh

test: $(VENV)/.test system-packages  ## Run all tests (about 20 minutes on 2 cores)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python scripts/run_tests.py -m "not soak"

check: $(VENV)/.test  ## Lint, types and the quick tests (under 2 minutes)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python scripts/dependency_audit.py
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not soak and not foreign and not browser and not kill"

format: $(VENV)/.test  ## Format and mend what can be mended
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

soak: $(VENV)/.test system-packages  ## The long tests: whole recordings, many kills, hours
	@$(BIN)/python -m pytest -m soak --timeout 36000

sim: $(VENV)/.test  ## Simulated worlds: make sim SEED=123 [SEEDS=1000]; failing seeds go to scenarios/
	@$(BIN)/headrace sim world --seed $(SEED) --seeds $(SEEDS)

bench: $(VENV)/.test  ## Figures, each as a ratio to a peer in the same run
	@for bench in bench/[a-z]*.py; do case $$bench in */peers.py|*/rig.py) ;; *) $(BIN)/python $$bench || exit 1;; esac; done

lock: $(VENV)/.test  ## Renew the locks from pyproject.toml
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "!!  Some libraries are needed by Python 3.11 only: make the locks with it (make clean; make PYTHON=python3.11 lock)"; exit 1; }
	@$(BIN)/pip-compile -q --strip-extras --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --extra demo -o requirements.lock pyproject.toml
	@$(BIN)/pip-compile -q --strip-extras --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --extra dev -o requirements-test.lock pyproject.toml
	@sed -i '/^headrace @/d; /^#/d; /^$$/d' requirements.lock requirements-test.lock

wheel: $(VENV)/.test  ## One wheel in dist/
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

sbom: $(VENV)/.test  ## Bill of materials of what is installed: dist/headrace.cdx.json (CycloneDX 1.6)
	@mkdir -p dist
	@$(BIN)/python scripts/sbom.py dist/headrace.cdx.json
	@echo "==> dist/headrace.cdx.json"

release: wheel sbom  ## Wheel, SBOM and signed sums: make release KEY=private.pem
	@test -n "$(KEY)" || { echo "!!  Name the private Ed25519 key: make release KEY=private.pem"; exit 1; }
	@$(BIN)/headrace release sign dist --key-file $(KEY)

clean:  ## Remove the environment and caches; data stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
