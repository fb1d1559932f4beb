# Every target sets up what it needs. `make help` lists them.
PYTHON ?= python3
BUNDLE ?= training/bundles/derma-mini
IMAGE ?= .run/synthetic
HTTP_PORT ?= 8000
GRPC_PORT ?= 8001
METRICS_PORT ?= 8002
export HTTP_PORT GRPC_PORT METRICS_PORT

BIN := .venv/bin
LAUNCHER := $(BIN)/python deploy/launcher.py
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/ready .triton/ready ## Make both environments: the project's and the Triton server's

.venv/ready: requirements/project.lock pyproject.toml
	@echo "Installing the project's environment: about 6 GB, most of it PyTorch; some minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements/project.lock
	$(BIN)/python $(PIP_INSTALL) --no-deps --editable .
	@touch $@

.triton/ready: requirements/triton.lock pyproject.toml
	@echo "Installing the Triton server's environment."
	$(PYTHON) -m venv .triton
	.triton/bin/python $(PIP_INSTALL) --require-hashes -r requirements/triton.lock
	.triton/bin/python $(PIP_INSTALL) --no-deps --editable .
	@touch $@

.PHONY: demo
demo: exported .run/synthetic ## Classify IMAGE (a file or folder; default: drawn pictures) and stop again
	@test -e "$(IMAGE)" || { echo "IMAGE=$(IMAGE) does not exist"; exit 2; }
	$(LAUNCHER) run -- $(BIN)/derma classify "$(IMAGE)"

.run/synthetic: | setup
	$(BIN)/python -m derma_semantics.synthetic $@

.PHONY: serve
serve: exported ## Serve BUNDLE on HTTP_PORT, GRPC_PORT, METRICS_PORT until Ctrl-C or `make stop`
	$(LAUNCHER) serve

.PHONY: stop
stop: setup ## Stop the service
	$(LAUNCHER) stop

.PHONY: status
status: setup ## Say what is served
	$(BIN)/derma status --url 127.0.0.1:$(GRPC_PORT)

.PHONY: exported
exported: setup
	$(BIN)/derma-export $(BUNDLE) --if-needed

.PHONY: export
export: setup ## Export BUNDLE as a new model version
	$(BIN)/derma-export $(BUNDLE)

.PHONY: train
train: setup ## Train derma-mini anew from ISIC2018_DIR and VIT_TINY into training/runs
	$(BIN)/derma-train fit training/configs/derma-mini.toml --out training/runs/derma-mini

.PHONY: audit
audit: setup ## Count, compare and check the images of ISIC2018_DIR
	$(BIN)/derma-train data "$(ISIC2018_DIR)"

.PHONY: evaluate
evaluate: setup ## Measure BUNDLE on the held-out lesions of ISIC2018_DIR; report and plots in .run/evaluation
	$(BIN)/derma-train evaluate $(BUNDLE) --out .run/evaluation

.PHONY: test
test: setup ## Run all tests
	$(BIN)/python -m pytest

.PHONY: lint
lint: setup ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.PHONY: lock
lock: setup ## Resolve the dependencies anew
	$(BIN)/python $(PIP_INSTALL) uv
	$(BIN)/uv pip compile $(LOCK_OPTIONS) --all-extras pyproject.toml -o requirements/project.lock
	$(BIN)/uv pip compile $(LOCK_OPTIONS) requirements/triton.in -o requirements/triton.lock

LOCK_OPTIONS := --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url
