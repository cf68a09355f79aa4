# make quickstart: from scans of digits to a fine-tuned BEiT in minutes.  make quickstart-v2: likewise, to BEiT v2.
# make quickstart-seg: likewise, to one that finds digits in pictures.
# make quickstart-v3: from pictures of digits and what is said of them to answers, captions and retrieval with BEiT-3.
# make test: the test suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt
export OMP_NUM_THREADS ?= 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: quickstart quickstart-v2 quickstart-seg quickstart-v3 test lint digits scenes digit-pairs clean

quickstart: $(VENV)/.quickstart digits
	@$(BIN)/python tools/quickstart.py

quickstart-v2: $(VENV)/.quickstart digits
	@$(BIN)/python tools/quickstart_v2.py

quickstart-seg: $(VENV)/.seg scenes
	@$(BIN)/python tools/quickstart_seg.py

quickstart-v3: $(VENV)/.quickstart digit-pairs
	@$(BIN)/python tools/quickstart_v3.py

test: $(VENV)/.test lint
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

digits: $(VENV)/.quickstart
	@$(BIN)/python tools/dataset_converters/digits.py data/digits

scenes: digits
	@$(BIN)/python tools/dataset_converters/digit_scenes.py data/digits data/digit_scenes

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

$(VENV)/.seg: $(VENV)/.quickstart
	@$(PIP) --editable '.[quickstart,seg]'
	@touch $@

$(VENV)/.test: $(VENV)/.torch constraints.txt setup.py
	@$(PIP) --editable '.[quickstart,seg,mim,test]'
	@touch $@ $(VENV)/.quickstart $(VENV)/.seg

clean:
	rm -rf $(VENV) data/digits data/digit_scenes data/digit_pairs work_dirs/quickstart $(addprefix work_dirs/quickstart-, v2 seg v3)
