# Every target sets up what it needs. `make help` lists them.
PYTHON ?= python3
DEFAULT_BUNDLE := training/bundles/derma-mini
BUNDLE ?= $(DEFAULT_BUNDLE)
IMAGE ?= .run/synthetic
PRECISION ?= fp32
P99 ?= 1000
HTTP_PORT ?= 8000
GRPC_PORT ?= 8001
METRICS_PORT ?= 8002
SALIENCY_PORT ?= 8003
APP_PORT ?= 8501
# What operators show: the launcher writes it, `make status`, `make rollout` and `derma-export --load` read it.
DERMA_ADMIN_KEY_FILE ?= .run/admin.key
export HTTP_PORT GRPC_PORT METRICS_PORT SALIENCY_PORT DERMA_ADMIN_KEY_FILE
# A GPU profile, e.g. PROFILE=cuda.
ifdef PROFILE
export DERMA_PROFILE := $(PROFILE)
endif

# The project's environment, with PyTorch; and the one that serves and asks, without.
BIN := .venv/bin
SERVE := .triton/bin
LAUNCHER := $(SERVE)/python -m derma_serving
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/ready .triton/ready ## Make both environments: the project's and the Triton server's

.venv/ready: requirements/project.lock pyproject.toml
	@echo "Installing the project's environment: about 7 GB, most of it PyTorch; some minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements/project.lock
	$(BIN)/python $(PIP_INSTALL) --no-deps --editable .
	@touch $@

.triton/ready: requirements/triton.lock pyproject.toml
	@echo "Installing the Triton server's environment: 0.6 GB."
	$(PYTHON) -m venv --clear .triton
	$(SERVE)/python $(PIP_INSTALL) --no-deps --require-hashes -r requirements/triton.lock
	$(SERVE)/python $(PIP_INSTALL) --no-deps --editable .
	@touch $@

# Small, without PyTorch: for `make check` alone.
.check/ready: requirements/check.lock pyproject.toml
	@echo "Installing the environment of make check: 1 GB."
	$(PYTHON) -m venv .check
	.check/bin/python $(PIP_INSTALL) --no-compile --require-hashes -r requirements/check.lock
	.check/bin/python $(PIP_INSTALL) --no-deps --editable .
	@touch $@

.PHONY: demo
demo: exported .run/synthetic ## Classify IMAGE (a file or folder; default: drawn pictures) and stop again
	@test -e "$(IMAGE)" || { echo "IMAGE=$(IMAGE) does not exist"; exit 2; }
	$(LAUNCHER) run -- $(SERVE)/derma classify "$(IMAGE)"

.run/synthetic: | .triton/ready
	$(SERVE)/derma synthetic $@

.PHONY: serve
serve: exported ## Serve BUNDLE in PRECISION, and after `make setup` its saliency, on *_PORT until Ctrl-C or `make stop`; AUDIT=file keeps an audit log
	$(LAUNCHER) serve --bundle $(BUNDLE) $(if $(AUDIT),--audit-log "$(AUDIT)")

.PHONY: app
app: setup exported ## Serve BUNDLE and open the web app on APP_PORT until Ctrl-C
	$(LAUNCHER) run --bundle $(BUNDLE) -- $(BIN)/derma app --port $(APP_PORT) || test $$? -eq 130

.PHONY: stop
stop: .triton/ready ## Stop the service
	$(LAUNCHER) stop

.PHONY: status
status: .triton/ready ## Say what is served
	$(SERVE)/derma status --url 127.0.0.1:$(GRPC_PORT) --saliency-url http://127.0.0.1:$(SALIENCY_PORT)

# The default bundle comes with its graph, which is put together without PyTorch.
.PHONY: exported
ifeq ($(BUNDLE) $(PRECISION),$(DEFAULT_BUNDLE) fp32)
exported: .triton/ready
	$(LAUNCHER) prepare
else
exported: setup
	$(EXPORT) --if-needed
endif

.PHONY: graph
graph: setup ## Export the default bundle anew, and keep its graph in training/graphs to be committed
	$(BIN)/derma-export $(DEFAULT_BUNDLE) --repository .run/graph --keep training/graphs/$(notdir $(DEFAULT_BUNDLE))/fp32

.PHONY: export
export: setup ## Export BUNDLE in PRECISION as a new model version; lower ones are gated on ISIC2018_DIR
	$(EXPORT)

.PHONY: rollout
rollout: setup ## Have the running service serve BUNDLE in PRECISION; CANARY=20: to 20 % of the images
	$(ROLLOUT) start $(BUNDLE) --precision $(PRECISION) $(if $(CANARY),--canary $(CANARY)) \
		$(if $(filter-out fp32,$(PRECISION)),$(if $(ISIC2018_DIR),--data "$(ISIC2018_DIR)"))

.PHONY: promote
promote: setup ## Have the canary answer everything
	$(ROLLOUT) promote

.PHONY: abort
abort: setup ## End the canary; the version before answers everything
	$(ROLLOUT) abort

.PHONY: rollback
rollback: setup ## Return to the version before, or to VERSION
	$(ROLLOUT) back $(if $(VERSION),--version $(VERSION))

.PHONY: versions
versions: setup ## List the model versions and which serves
	$(BIN)/derma-rollout list

ROLLOUT = DERMA_URL=127.0.0.1:$(GRPC_PORT) $(BIN)/derma-rollout

# Lower precisions are judged on labelled images, where there are any.
EXPORT = $(BIN)/derma-export $(BUNDLE) --precision $(PRECISION) \
	$(if $(filter-out fp32,$(PRECISION)),$(if $(ISIC2018_DIR),--data "$(ISIC2018_DIR)"))

.PHONY: train
train: setup ## Train derma-mini anew from ISIC2018_DIR, ISIC2017_DIR and VIT_TINY into training/runs
	$(BIN)/derma-train fit training/configs/derma-mini.toml --out training/runs/derma-mini \
		$(if $(ISIC2018_DIR),--data "$(ISIC2018_DIR)") $(if $(ISIC2017_DIR),--data "$(ISIC2017_DIR)")

FOLDS = $(addprefix training/runs/folds/fold-,0 1 2 3 4)

.PHONY: folds
folds: $(addsuffix /bundle.json,$(FOLDS)) ## Train on four fifths of ISIC2018_DIR and test on the fifth, five times, and compare
	$(BIN)/derma-train compare $(FOLDS)  # figures of folds that were there already are of the code that made them

training/runs/folds/fold-%/bundle.json: | setup
	@test -n "$(ISIC2018_DIR)" || { echo "ISIC2018_DIR is not set: it names the data set's folder"; exit 2; }
	$(BIN)/derma-train fit training/configs/derma-mini.toml --data "$(ISIC2018_DIR)" \
		--set split.test=0.2 --set split.fold=$* --out $(@D)

.PHONY: data-report
data-report: setup ## Count, compare and check the images of ISIC2018_DIR
	@test -n "$(ISIC2018_DIR)" || { echo "ISIC2018_DIR is not set: it names the data set's folder"; exit 2; }
	$(BIN)/derma-train data "$(ISIC2018_DIR)"

.PHONY: evaluate
evaluate: setup ## Measure BUNDLE on the held-out lesions of ISIC2018_DIR; report and plots in .run/evaluation
	$(BIN)/derma-train evaluate $(BUNDLE) --out .run/evaluation

.PHONY: bench
bench: setup exported peer ## Measure BUNDLE in PRECISION: engines, service against others, highest load; report in .run/bench
	$(BIN)/derma-bench engine $(BUNDLE) $(BENCH_IMAGES)
	$(BIN)/derma-bench decode --bundle $(BUNDLE) $(BENCH_IMAGES)
	$(BIN)/derma-bench service --bundle $(BUNDLE) --against baseline --against peer $(BENCH_IMAGES)
	$(BIN)/derma-bench saturate --p99 $(P99) $(BENCH_IMAGES)
	$(BIN)/derma-bench report .run/bench/*.json --out .run/bench/report

BENCH_IMAGES = $(if $(BENCH_FOLDER),--images "$(BENCH_FOLDER)")

.PHONY: peer
peer: .peer/ready ## Install the public server that `make bench` compares with (7 GB)

.peer/ready: requirements/peer.lock
	@echo "Installing the public server that benchmarks compare with: 7 GB."
	$(PYTHON) -m venv .peer
	.peer/bin/python $(PIP_INSTALL) --require-hashes -r requirements/peer.lock
	@touch $@

.PHONY: docs
docs: setup ## Write the client's reference as web pages into .run/docs
	$(BIN)/python docs/reference.py .run/docs

.PHONY: check
check: .check/ready ## Check style, types and unit tests: the inner loop, a minute without PyTorch
	.check/bin/ruff check
	.check/bin/ruff format --check
	.check/bin/mypy $(TYPES_WITHOUT_TORCH)
	.check/bin/python -m pytest tests/unit $(PARALLEL)

# A package that is not installed there has no types; `make lint` has them all.
TYPES_WITHOUT_TORCH := --cache-dir .check/types --ignore-missing-imports --allow-untyped-decorators \
	--allow-subclassing-any --no-warn-return-any --no-warn-unused-ignores

# The tests of a file share what they set up, so they stay together.
PARALLEL := -n logical --maxprocesses 4 --dist loadfile

.PHONY: test
test: setup ## Run all tests; says at the end what was skipped and why
	@rm -f $(SKIPPED)
	DERMA_SKIPPED=$(SKIPPED) $(BIN)/python -m pytest tests/unit tests/model tests/parity $(PARALLEL)
	DERMA_SKIPPED=$(SKIPPED) $(BIN)/python -m pytest tests/e2e $(STEADY)

SKIPPED := .run/skipped

# Of the faults, those whose verdict does not depend on how busy the machine is.
STEADY := tests/faults/test_disk.py tests/faults/test_same_answer.py

.PHONY: faults
faults: setup ## Break everything on purpose, at full length (20 minutes); figures in .run/faults
	DERMA_FAULTS=full $(BIN)/python -m pytest tests/faults

SOAK ?= 60
.PHONY: soak
soak: setup ## Ask for SOAK minutes, and say what the memory of each process did
	DERMA_FAULTS=full DERMA_SOAK_MINUTES=$(SOAK) $(BIN)/python -m pytest tests/faults/test_memory.py

.PHONY: lint
lint: setup ## Check style, and types with those of all packages
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.PHONY: sbom
sbom: setup ## List what is locked, as CycloneDX, in .run/sbom
	mkdir -p .run/sbom
	for lock in project triton container; do $(BIN)/cyclonedx-py requirements requirements/$$lock.lock \
		--pyproject pyproject.toml --output-reproducible -o .run/sbom/$$lock.json || exit 1; done

.PHONY: audit-deps
audit-deps: setup ## Look for known vulnerabilities in what is locked (needs the network)
	for lock in project triton container; do $(BIN)/pip-audit --strict --disable-pip \
		--require-hashes -r requirements/$$lock.lock || exit 1; done

.PHONY: lock
lock: setup ## Resolve the dependencies anew
	$(BIN)/python $(PIP_INSTALL) uv
	$(BIN)/uv pip compile $(LOCK_OPTIONS) --extra dev pyproject.toml -o requirements/project.lock
	$(BIN)/uv pip compile $(LOCK_OPTIONS) --extra check pyproject.toml -c requirements/project.lock -o requirements/check.lock
	$(BIN)/uv pip compile $(LOCK_OPTIONS) --no-deps requirements/triton.in -o requirements/triton.lock
	$(BIN)/uv pip compile $(LOCK_OPTIONS) pyproject.toml requirements/container.in -c requirements/triton.lock -o requirements/container.lock
	$(BIN)/uv pip compile $(LOCK_OPTIONS) requirements/peer.in -o requirements/peer.lock

LOCK_OPTIONS := --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url
