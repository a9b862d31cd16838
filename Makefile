# Two commands from nothing: `make run` and `make test`. Each makes the virtual environment it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
TESTABLE := $(VENV)/testable
OUT ?= runs/digits

# Every process imports torch; compiled once and kept, that takes half as long.
unexport PYTHONDONTWRITEBYTECODE

run: $(INSTALLED)
	@$(BIN)/laconic compare sgd signsgd-mv dropsign compskip \
	  --driver processes --workers 4 --layout rank0 --dataset digits --model mlp \
	  --epochs 40 --batch-size 16 --lr-schedule cosine \
	  --lr-of sgd=0.3 --lr-of signsgd-mv=0.001 --lr-of dropsign=0.005 --lr-of compskip=0.005 \
	  --set dropsign.c=0.3 --set dropsign.server_c=0.3 --set compskip.c=0.1 --set compskip.server_c=0.1 \
	  --out $(OUT) --overwrite

# Two files at a time: the tests of a file share what is dear to make. Files keep their order, in which slow ones come first.
# A third one fills what waiting leaves of two cores, but imports, collects and forks as much again.
AT_ONCE := -n 2 --dist loadfile --no-loadscope-reorder

test: $(TESTABLE)
	$(BIN)/pytest $(AT_ONCE)

nightly: $(TESTABLE)
	$(BIN)/pytest $(AT_ONCE) -m "nightly or not nightly"

# What is installed has a version and a hash (pins/README.md), but for torch and this folder. Not compiling every file of
# every package ahead halves the time; what is imported is compiled then.
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --no-compile
PINNED := $(PIP) --no-deps --require-hashes --requirement

$(INSTALLED): pyproject.toml constraints.txt pins/run.txt
	$(PYTHON) -m venv $(VENV)
	$(PINNED) pins/run.txt
	$(PIP) --constraint constraints.txt torch
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $(INSTALLED)

$(TESTABLE): $(INSTALLED) pins/test.txt
	$(PINNED) pins/test.txt
	@touch $(TESTABLE)

# The documentation as pages that open from a folder: build/site/index.html
site: $(TESTABLE)
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=src $(BIN)/mkdocs build --quiet

UV := build/pins/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
  --override pins/without-torch.txt --constraint constraints.txt

pins:
	$(PYTHON) -m venv build/pins
	build/pins/bin/pip --disable-pip-version-check install --quiet uv
	$(UV) pyproject.toml pins/torch-and-build.in --output-file pins/run.txt
	$(UV) pyproject.toml pins/torch-and-build.in --extra test --extra site --extra prometheus --constraint pins/run.txt --output-file pins/test.txt

# The fast tests with the oldest versions that pyproject.toml names, and with the newest that there are.
oldest:
	$(PYTHON) benchmarks/versions.py oldest

newest:
	$(PYTHON) benchmarks/versions.py newest

clean:
	rm -rf $(VENV) build *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: run test nightly site pins oldest newest clean
