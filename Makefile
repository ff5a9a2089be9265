# One entry point. Files are targets: what did not change is not made again.

NAME    ?= convnet
VERSION ?= 1.0
CONFIG  ?= config.properties
PORT    ?=
RUN     ?= run
IMAGE   ?=

VENV  := .venv
BIN   := $(VENV)/bin
# Each folder of modules is a source root: inside the archive they are all neighbours, too.
PY    := PYTHONPATH=model:handler:archive:servers $(BIN)/python
MAR   := model_store/$(NAME).mar
SERVE := $(PY) servers/serve.py --run $(RUN) --archive $(MAR)
# The picture that must be answered rightly before the server counts as ready.
KNOWN := --picture tests/images/2.png --answer 2

HANDLER := handler/convnet_handler.py
MODULES := handler/contract.py handler/images.py handler/request_body.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup archive serve stop status logs predict doctor train evaluate test lint types lock clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r target text; do \
		printf '  make %-10s %s\n' "$$target" "$$text"; done

setup: $(VENV)/serve.installed ## Make the environment in .venv (TORCH=cpu: torch's small CPU build)

archive: $(MAR) ## Bundle class, weights, contract and handler into model_store/convnet.mar

serve: $(MAR) ## Serve the archive by TorchServe on 8080 and 8081 (PORT=9080, CONFIG=file)
	@$(SERVE) start --config $(CONFIG) $(if $(PORT),--port $(PORT)) $(KNOWN)

stop: | $(VENV)/serve.installed ## Stop TorchServe
	@$(SERVE) stop

status: | $(VENV)/serve.installed ## Say whether TorchServe runs and how many workers are ready
	@$(SERVE) status

logs: | $(VENV)/serve.installed ## Print the end of TorchServe's log
	@$(SERVE) logs

predict: $(MAR) ## Answer a picture without a server: make predict IMAGE=tests/images/2.png
	@$(if $(IMAGE),,$(error say which picture: make predict IMAGE=tests/images/2.png))
	@$(PY) archive/predict.py $(MAR) "$(IMAGE)"

doctor: | $(VENV)/serve.installed ## Say what this machine has and lacks
	@$(PY) servers/doctor.py --run $(RUN) --config $(CONFIG) $(if $(PORT),--port $(PORT))

train: $(VENV)/dev.installed ## Train on MNIST's 60,000 pictures and save model/convnet.pth
	$(PY) model/train.py

evaluate: $(VENV)/dev.installed ## Measure the weights on the 10,000 test pictures, draw docs/*.png
	$(PY) model/evaluate.py

test: $(VENV)/dev.installed lint types $(MAR) ## Lint, check the types, run every test
	$(BIN)/pytest

lint: $(VENV)/dev.installed ## Lint
	$(BIN)/ruff check .

types: $(VENV)/dev.installed ## Check the types
	$(BIN)/mypy

lock: $(VENV)/serve.installed ## Pin what pyproject.toml names, with all it needs, in requirements/
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/uv.txt
	setup/lock.sh $(BIN)/uv

clean: ## Remove what was built; the environment and MNIST stay
	rm -rf $(MAR) .mypy_cache .pytest_cache .ruff_cache

# --- Files ---------------------------------------------------------------------------------------

# Built in a folder of its own, beside its place: the archiver deletes and fills a folder in TMPDIR,
# and a build that is stopped leaves no half archive.
$(MAR): model/convnet.py model/convnet.pth model/model-config.yaml $(HANDLER) $(MODULES) $(MAR).made | $(VENV)/serve.installed
	@scratch=$$(mktemp -d model_store/.build-XXXXXX) && trap 'rm -rf "$$scratch"' EXIT && \
	TMPDIR=$$scratch $(BIN)/torch-model-archiver --model-name $(NAME) --version $(VERSION) \
		--model-file model/convnet.py --serialized-file model/convnet.pth \
		--config-file model/model-config.yaml --handler $(HANDLER) \
		--extra-files $$(echo $(MODULES) | tr ' ' ,) --export-path $$scratch && \
	mv $$scratch/$(NAME).mar $@
	@echo "built $@"

# Another VERSION is another archive: this file changes when what it was built with does.
$(MAR).made: FORCE
	@echo "$(NAME) $(VERSION)" | cmp --silent - $@ || echo "$(NAME) $(VERSION)" >$@

FORCE:

$(VENV)/serve.installed: requirements/serve.txt
	@setup/venv.sh $(VENV) $<
	@touch $@

$(VENV)/dev.installed: requirements/dev.txt requirements/uv.txt
	@setup/venv.sh $(VENV) requirements/dev.txt
	@touch $@ $(VENV)/serve.installed
