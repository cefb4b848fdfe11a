# Everything here needs Python 3.11+, make and pip only; what a test misses on this machine is printed as skipped.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
JOBS   ?= auto

.PHONY: help setup demo test soak check format bench bench-guard bench-peers planted readme types-page clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## a virtual environment with everything, from the lock file

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "crdtstore needs Python 3.11 or newer; $$($(PYTHON) --version) is $(PYTHON). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "this Python cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

demo: setup ## three regions, one blizzard, one cut, one proof (under a minute); ARGS="--kill lga"
	@$(BIN)/crdtstore demo $(ARGS)

test: setup ## the whole suite
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -q -rs $(ARGS)

soak: setup ## the long forms of the fault tests: kills, power cuts, disks that fail, members that change (up to 25 minutes)
	CRDTSTORE_SOAK=1 timeout --signal=INT 1500 $(BIN)/python -m pytest -n 2 --dist worksteal -v -rs --durations=0 \
	  --durations-min=5 tests/faults tests/node/test_log_large.py tests/simulation/test_sim_members.py $(ARGS)

check: setup ## formatting, lint, types, who may import whom
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## let ruff format the code
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

bench: setup ## the figures of docs/benchmarks.md, measured here; ARGS="--only durability" for those of state on disk, "--only members" for those of joins
	$(BIN)/python -m benchmarks $(ARGS)

bench-guard: setup ## fails when an operation costs over 1.25 times the CPU that docs/benchmarks.md says (two minutes)
	$(BIN)/python -m benchmarks --only core --only cluster --runs 3 --guard $(ARGS)

bench-peers: setup ## install what make bench measures beside: redis-server (Debian, needs root) and pycrdt-websocket (build/peers)
	command -v redis-server >/dev/null || apt-get install -y -qq --no-install-recommends redis-server redis-tools
	test -x build/peers/bin/hypercorn || { $(PYTHON) -m venv build/peers \
	  && build/peers/bin/pip install --quiet --disable-pip-version-check pycrdt-websocket==0.16.5 hypercorn==0.18.0 httpx-ws==0.9.0; }

planted: setup ## plants bugs and prints which checker found each
	$(BIN)/crdtstore sim planted $(ARGS)

readme: setup ## paste the outputs of real runs into README.md
	$(BIN)/python -m tools.readme $(ARGS)

types-page: setup ## write docs/types.md: what the types are, what concurrency does
	@$(BIN)/python -m tools.types_page

clean: ## remove what setup and runs have made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
