# make quickstart   a small sweep and its report, in a few minutes, without account, network or GPU
# make messages     add the new texts of a report to the catalogue of its Spanish, to be filled in there
# make test         lint and tests, but for the slow ones; make test TESTS= runs all, as .ci/run does
PYTHON ?= python3
BIN := .venv/bin

# make study       every sweep, in the order that answers most per hour; stop and repeat it at any time, it resumes.
#                  make study ARGS="--hours 8 --set dataset=folder:mine" passes options to `study.sweep run`
STUDY := dropout depth mlp augmentation all-conv simple-cnn alexnet activations mlp-architectures mlp-sizes \
	optimizers transfer regularization resnet-grid resnet-best schedulers architectures resnet-search speedrun recipes

TESTS := not slow

.PHONY: quickstart study messages test clean

quickstart: .venv/installed
	$(BIN)/python -m study.sweep run sweeps/quickstart.yaml --per-device 1
	$(BIN)/python -m analysis.summarize --sweep sweeps/quickstart.yaml

study: .venv/installed
	nice -n 19 $(BIN)/python -m study.sweep run $(STUDY:%=sweeps/%.yaml) $(ARGS)

messages: .venv/installed
	$(BIN)/python -m analysis.wording.messages

test: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest -n 3 --dist loadscope --no-loadscope-reorder -m "$(TESTS)"

.venv/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, not " + sys.version.split()[0] + "; say make PYTHON=python3.12, for instance")'
	@echo "Installing torch and the other libraries into .venv; with CUDA that is several GB and takes some minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable .
	@touch $@

.venv/installed-test: .venv/installed
	@echo "Installing the libraries that the tests need into .venv."
	$(BIN)/python -m pip install --editable '.[test]'
	@touch $@

clean:
	rm -rf .venv report
