# make quickstart: from scans of digits to a fine-tuned BEiT in minutes.  make quickstart-v2: likewise, to BEiT v2.
# make quickstart-v3: from pictures of digits and what is said of them to answers, captions and retrieval with BEiT-3.
# make test: the test suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt
export OMP_NUM_THREADS ?= 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: quickstart quickstart-v2 quickstart-v3 test lint digits digit-pairs clean

quickstart: $(VENV)/.quickstart digits
	@$(BIN)/python tools/quickstart.py

quickstart-v2: $(VENV)/.quickstart digits
	@$(BIN)/python tools/quickstart_v2.py

quickstart-v3: $(VENV)/.quickstart digit-pairs
	@$(BIN)/python tools/quickstart_v3.py

test: $(VENV)/.test lint
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

digits: $(VENV)/.quickstart
	@$(BIN)/python tools/dataset_converters/digits.py data/digits

digit-pairs: digits
	@$(BIN)/python tools/dataset_converters/digit_pairs.py data/digits data/digit_pairs

# torch comes first, by itself: whoever wants another build of it than the default one installs that into .venv before.
$(VENV)/.torch:
	@echo 'Installing into $(VENV) ...'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) torch torchvision
	@touch $@

$(VENV)/.quickstart: $(VENV)/.torch constraints.txt setup.py
	@$(PIP) --editable '.[quickstart]'
	@touch $@

$(VENV)/.test: $(VENV)/.torch constraints.txt setup.py
	@$(PIP) --editable '.[quickstart,seg,mim,test]'
	@touch $@ $(VENV)/.quickstart

clean:
	rm -rf $(VENV) work_dirs/quickstart work_dirs/quickstart-v2 work_dirs/quickstart-v3 data/digits data/digit_pairs
