# Two commands do all the set-up: `make demo` and `make test`. Each makes what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := router operator tests hack

.PHONY: demo test check format lock bench bench-sequential vllm-test clean
.PHONY: cluster cluster-down images install e2e
demo: $(STAMP)
	$(BIN)/weir demo $(DEMO)

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python hack/gen/current.py

format: $(STAMP)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

# Needs Python 3.12 and 6 GB of disk; the environment is made once, in the user's cache.
vllm-test: $(STAMP)
	WEIR_PYTHON=$(BIN)/python hack/vllm/run.sh

# A real one-node Kubernetes: by kind where a Docker daemon answers, else with root and Go 1.26.
# Its programs are built once, 10 minutes, into the user's cache.
cluster:
	$(PYTHON) hack/cluster/weir-cluster up
	@echo 'now: eval "$$($(PYTHON) hack/cluster/weir-cluster env)"'

cluster-down:
	$(PYTHON) hack/cluster/weir-cluster down

images: $(STAMP)
	$(BIN)/python hack/images/build.py

# Weir as it stands in this checkout, on that cluster; pods of an earlier build are replaced.
# INSTALL="--set replicas=2" and the like are Helm's.
install: $(STAMP)
	archive="$$($(BIN)/python hack/images/build.py)" && \
	$(PYTHON) hack/cluster/weir-cluster load "$$archive" && \
	eval "$$($(PYTHON) hack/cluster/weir-cluster env)" && \
	built="$$(sha256sum "$$archive" | cut -c -16)" && \
	helm upgrade --install weir charts/weir --namespace weir-system --create-namespace --wait \
	  --values hack/images/values.yaml --set-string "podAnnotations.built=$$built" \
	  --set-string "router.podAnnotations.built=$$built" $(INSTALL)

# The cluster goes down afterwards if it was down before; WEIR_CLUSTER_KEEP=1 lets it stand.
e2e: $(STAMP)
	$(BIN)/python -m pytest tests/e2e $(E2E)

# Everything installed is named by its hash in requirements.lock, the build backend too.
$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Needs uv; run it after a change of the dependencies in pyproject.toml.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
