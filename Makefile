# The two that need nothing but Python, make and a package index:
#   make demo         train, extract, search and measure on scikit-learn's digits
#   make test         the whole test suite
# and for those who work on it: check, docs, conformance, benchmark, wheel, lock, clean.

PYTHON ?= python3
RUN := .venv/bin/python
PIP := -m pip install --quiet --disable-pip-version-check
DIGITS := runs/digits
SITE := build/site

.PHONY: demo test check docs conformance benchmark wheel lock clean

demo: .venv/runtime
	$(RUN) train.py --config configs/digits.yaml --run $(DIGITS) --restart
	$(RUN) extract.py --run $(DIGITS) --split test
	$(RUN) search.py --run $(DIGITS) digits/0007 --grid $(DIGITS)/plots/neighbours.png
	$(RUN) -m cbir_tf evaluate --run $(DIGITS)

test: check
	$(RUN) -m pytest -n auto --dist worksteal --durations 40 --durations-min 5 $(TESTS)

check: .venv/development
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# Nothing is fetched: the site has no address but its own. The variables silence advertisements.
docs: .venv/development
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true \
		$(RUN) -m mkdocs build --strict --site-dir $(SITE)

.venv/runtime: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11 to 3.13 is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(RUN) $(PIP) --require-hashes -r requirements.txt
	touch $@

# annoy compiles from source, and all else works without a compiler.
.venv/development: .venv/runtime requirements-dev.txt requirements-annoy.txt
	$(RUN) $(PIP) --require-hashes -r requirements-dev.txt
	@$(RUN) $(PIP) --require-hashes -r requirements-annoy.txt >/dev/null 2>&1 || \
		echo "annoy could not be installed, for which a C++ compiler is needed: its tests will be skipped"
	touch $@

wheel: .venv/development
	$(RUN) -m build --wheel --no-isolation

lock: .venv/development
	$(RUN) $(PIP) uv
	$(RUN) -m uv pip compile $(LOCK) -o requirements.txt pyproject.toml
	$(RUN) -m uv pip compile $(LOCK) -o requirements-dev.txt -c requirements.txt --group dev pyproject.toml
	echo annoy | $(RUN) -m uv pip compile $(LOCK) -o requirements-annoy.txt -

LOCK := --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-annotate --no-header

clean:
	rm -rf .venv $(ADDONS) $(TRANSFORMERS) build dist *.egg-info

# The same as cbir_tf, by others: each in an environment of its own, for Python 3.11.
PYTHON311 ?= python3.11
ADDONS := .venv-conformance-losses
TRANSFORMERS := .venv-conformance-bit

conformance: .venv/development $(ADDONS)/ready $(TRANSFORMERS)/ready
	mkdir -p build
	$(ADDONS)/bin/python conformance/losses/record.py build/losses.npz
	PYTHONPATH=. $(RUN) conformance/losses/check.py build/losses.npz
	PYTHONPATH=. $(ADDONS)/bin/python conformance/keras2/record.py build/keras2
	PYTHONPATH=. $(RUN) conformance/keras2/check.py build/keras2
	$(TRANSFORMERS)/bin/python conformance/bit/reference.py build/bit.npz 128x128 160x160 224x224 160x224 97x131
	PYTHONPATH=. $(RUN) conformance/bit/check.py build/bit.npz
	$(TRANSFORMERS)/bin/python conformance/residual/reference.py build/residual.npz 64x64 224x224 97x131
	PYTHONPATH=. $(RUN) conformance/residual/check.py build/residual.npz
	$(TRANSFORMERS)/bin/python conformance/efficientnet_lite/reference.py build/lite.npz 224x224 260x260 97x131
	PYTHONPATH=. $(RUN) conformance/efficientnet_lite/check.py build/lite.npz

benchmark: .venv/runtime $(ADDONS)/ready
	PYTHONPATH=. $(RUN) benchmarks/triplet_loss.py --addons $(ADDONS)/bin/python

$(ADDONS)/ready: conformance/losses/requirements.txt
$(TRANSFORMERS)/ready: conformance/bit/requirements.txt
.venv-conformance-%/ready:
	$(PYTHON311) -m venv $(@D)
	$(@D)/bin/python $(PIP) --require-hashes -r conformance/$*/requirements.txt
	touch $@
