# Everything that a person or a machine does with this repository. `make` alone lists it.

VENV  ?= .venv
# cpu: vLLM's CPU build (x86-64 Linux) or transformers; gpu: vLLM for CUDA.
EXTRA ?= cpu
BIN    = $(VENV)/bin
READY  = $(VENV)/.ready-$(EXTRA)
READY_DEV = $(READY)-dev
READY_DOCS = $(READY)-docs

PROBLEM ?= A train has 6 cars with 40 seats in each car. 175 seats are taken. How many seats are free?
MODEL    ?=
STRATEGY ?=
TOKENS   ?=
LIMIT    ?=
SEED     ?=
ROUNDS   ?= 4
ARGS     ?=
JOBS     ?= 2
# A process that dies fails its test, by name, and is not replaced: pytest-xdist 3.8 hangs where the new one has nothing to do.
PARALLEL  = --numprocesses $(JOBS) --no-loadscope-reorder --max-worker-restart 0

.DEFAULT_GOAL := help
.PHONY: help env dev demo up eval rounds nano attack chaos bench-sandbox bench-search bench-strategies bench-prompts bench-votes bench-verified bench-evaluators fuzz bench-api kill-trainer soak compose-test test-facade test test-all test-export test-page screenshots tables docs lint format clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  EXTRA=gpu installs vLLM for CUDA, PYTHON=python3.12 chooses the interpreter, VENV= the environment's folder."

env: $(READY) ## Make the environment (.venv); does nothing if it is up to date

dev: $(READY_DEV) ## The same, with what tests and lint need

$(READY): pyproject.toml scripts/install scripts/requirements.py
	@scripts/install $(VENV) local $(EXTRA)
	@touch $@

$(READY_DEV): pyproject.toml scripts/install scripts/requirements.py
	@scripts/install $(VENV) local $(EXTRA) dev
	@touch $(READY) $@

$(READY_DOCS): pyproject.toml scripts/install scripts/requirements.py
	@scripts/install $(VENV) local $(EXTRA) docs
	@touch $(READY) $@

# The problem travels in the environment and as it is: neither make nor the shell reads the "$" in it.
demo: export PROBLEM_TEXT := $(value PROBLEM)
# Status 1 is an answer that nobody is sure of, or none: it was told, and is no error of make's.
demo: $(READY) ## Solve one problem with a real model: [PROBLEM="..."] [MODEL=small]
	@$(BIN)/ratchet solve "$$PROBLEM_TEXT" $(if $(MODEL),--model "$(MODEL)") || test $$? -eq 1

up: $(READY) ## Start the local stack for a person: [MODEL=small] [ARGS=]; Ctrl-C stops it
	@$(BIN)/ratchet up $(if $(MODEL),--model "$(MODEL)") $(ARGS)

eval: $(READY) ## Accuracy on DATA=file.jsonl: [MODEL=] [STRATEGY=] [TOKENS=] [LIMIT=] [SEED=] [ARGS=]
	@test -n "$(DATA)" || { echo "make eval needs a problem file: make eval DATA=problems.jsonl" >&2; exit 2; }
	@$(BIN)/ratchet eval "$(DATA)" $(if $(MODEL),--model "$(MODEL)") $(if $(STRATEGY),--strategy $(STRATEGY)) \
	    $(if $(TOKENS),--tokens $(TOKENS)) $(if $(LIMIT),--limit $(LIMIT)) $(if $(SEED),--seed $(SEED)) $(ARGS)

rounds: $(READY) ## Let a model improve itself: [MODEL=nano] [PRESET=nano] [SEED=0] [ROUNDS=4] [ARGS=]
	@$(BIN)/ratchet rounds run --rounds $(ROUNDS) --model $(or $(MODEL),nano) --preset $(or $(PRESET),nano) --seed $(or $(SEED),0) \
	    --data results/rounds/$(or $(MODEL),nano)-seed$(or $(SEED),0) $(ARGS)

nano: $(READY) ## Make nano's tokenizer and base weights again, into models/nano/policy
	@$(BIN)/python models/nano/make.py $(ARGS)

attack: $(READY) ## Attack the sandbox, each attack with its positive control: [ARGS="--only sessions"]
	@$(BIN)/python -m benchmarks.attack $(ARGS)

bench-sandbox: $(READY) ## Speed and memory of the sandbox beside its baselines: [ARGS=--quick]
	@$(BIN)/python -m benchmarks.sandbox_speed $(ARGS)

bench-strategies: $(READY) ## Tree search against best-of-N at equal tokens: [RUN=] [PROBLEMS=] [SEEDS=0,1,2] [TOKENS=200,400,800] [PRMS=] [ARGS=]
	@$(BIN)/python -m benchmarks.strategies $(or $(RUN),results/rounds/nano-seed2) $(if $(PROBLEMS),--problems $(PROBLEMS)) \
	    $(if $(SEEDS),--seeds $(SEEDS)) $(if $(TOKENS),--tokens $(TOKENS)) $(if $(PRMS),--prms $(PRMS)) $(ARGS)

bench-search: $(READY) ## Speed of searches beside the engine and a lock-step driver: [MODEL=nano] [PROBLEMS=] [ARGS="--parts cost"]
	@$(BIN)/python -m benchmarks.search_speed $(if $(MODEL),--model "$(MODEL)") $(if $(PROBLEMS),--problems "$(PROBLEMS)") $(ARGS)

bench-votes: $(READY) ## Which vote finds the right answer? Counted on stored trees: RUNS="results/rounds/nano-seed2 …"
	@test -n "$(RUNS)" || { echo "make bench-votes needs data folders of rounds: RUNS=results/rounds/nano-seed2" >&2; exit 2; }
	@$(BIN)/python -m benchmarks.votes $(RUNS)

bench-verified: $(READY) ## Is what is called verified right? [MODEL=small] [LIMIT=200] [DATA=hub:gsm8k] [SEED=] [ARGS="--fit 200"]
	@$(BIN)/python -m benchmarks.verified "$(or $(DATA),hub:gsm8k)" --model "$(or $(MODEL),small)" \
	    --data results/verified/$(or $(MODEL),small) $(if $(LIMIT),--limit $(LIMIT)) $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz: $(READY_DEV) ## Hostile callers and hostile model text against all services: [ARGS="--examples 15 --seed 1"]
	@$(BIN)/python -m benchmarks.fuzz $(ARGS)

bench-api: $(READY) ## Submissions beside a round, Redis under large steps, idle readers of events: [ARGS="--readers 1000"]
	@$(BIN)/python -m benchmarks.api_load $(ARGS)

kill-trainer: $(READY) ## Kill the trainer of a round at random moments, and compare what the round makes: [ARGS="--kills 20"]
	@$(BIN)/python -m benchmarks.trainer_kills $(ARGS)

soak: $(READY) ## Does the sandbox leak under random load, floods and kills? [ARGS="--minutes 10"]
	@$(BIN)/python -m benchmarks.sandbox_soak $(ARGS)

chaos: $(READY) ## Is a search ever lost? Kills, outages, a frozen worker: [ARGS="--seed 0 --searches 200 --kills 30"]
	@$(BIN)/python -m benchmarks.chaos $(ARGS)

bench-prompts: $(READY) ## Which prompt suits a model? DATA=gsm8k_train.jsonl [MODEL=small] [LIMIT=120] [ARGS="--samples 6"]
	@test -n "$(DATA)" || { echo "make bench-prompts needs GSM8K's training file: DATA=gsm8k_train.jsonl" >&2; exit 2; }
	@$(BIN)/python -m benchmarks.prompts --data "$(DATA)" $(if $(MODEL),--model "$(MODEL)") $(if $(LIMIT),--limit $(LIMIT)) $(ARGS)

compose-test: $(READY) ## Bring docker-compose.yml up for real and treat it badly: [ARGS=--keep]
	@$(BIN)/python -m tests.compose $(ARGS)

test-facade: $(READY) ## Ask the OpenAI façade with the real clients, in an environment of their own: [ARGS=LiteLLM]
	@PYTHON=$(abspath $(BIN))/python scripts/facade-clients build/facade
	@$(BIN)/python -m tests.facade build/facade/bin/python $(ARGS)

bench-evaluators: $(READY) ## Does lm-eval measure what we measure, does Inspect AI? [ARGS="--strategy greedy --limit 10"]
	@PYTHON=$(abspath $(BIN))/python scripts/facade-clients build/facade
	@$(BIN)/python -m benchmarks.evaluators build/facade/bin/python $(ARGS)

# Two processes: most of these tests wait for a service that they have asked.
test: $(READY_DEV) ## Run the tests, the slow ones apart: [ARGS=tests/unit] [JOBS=2]
	@$(BIN)/python -m pytest $(PARALLEL) -m "not slow" $(ARGS)

# An environment of their own: nobody who trains or evaluates elsewhere has ours.
EXPORT_VENV = $(VENV)-export

$(EXPORT_VENV)/.ready: pyproject.toml scripts/install
	@scripts/install $(EXPORT_VENV) test-export
	@touch $@

test-export: $(EXPORT_VENV)/.ready ## What leaves, in the hands of datasets, TRL, Inspect AI and lm-eval: [ARGS="-k inspect"]
	@$(EXPORT_VENV)/bin/python -m pytest tests/export -p no:cacheprovider $(ARGS)

test-page: $(READY_DEV) ## The page in a real Chromium on a real stack: [ARGS="-k history"]
	@$(BIN)/python -m tests.page $(ARGS)

screenshots: $(READY_DEV) ## Take the screenshots of README and docs anew, into docs/images
	@$(BIN)/python -m tests.page --screenshots $(ARGS)

test-all: $(READY_DEV) ## Run all tests: those of vLLM and of the benchmarks too
	@$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

tables: $(READY) ## Make the tables of README and docs/measurements anew from benchmarks/results: [ARGS=--check]
	@$(BIN)/python -m benchmarks.tables $(ARGS)

docs: $(READY_DOCS) ## Build the site of docs/ into build/site, warnings are errors; ARGS=--serve shows it
	@$(BIN)/python -m docs_site $(ARGS)

lint: $(READY_DEV) ## Format, lint, types, and which module may import which
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@scripts/check-page

format: $(READY_DEV) ## Put the code into its one format
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

clean: ## Remove the environment, caches and builds; data (.ratchet) and results stay
	@rm -rf $(VENV) $(EXPORT_VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache node_modules
	@find ratchet services tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
