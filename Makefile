# One entry point. Files are targets: what did not change is not made again.
# Variables are taken from the command line, not from the environment, where NAME or PORT may be set
# for other ends.

# What goes into the archive. Another classifier is another NAME, with its own of the rest.
NAME     = convnet
VERSION  = 1.0
MODEL    = model/convnet.py
WEIGHTS  = model/convnet.pth
CONFIG   = model/model-config.yaml
LABELS   =
GOLDEN   = tests/images
# What answers; a model without a class answers as it is.
RUNTIME  = $(if $(MODEL),onnx,eager)
MAR      = model_store/$(NAME).mar
FIGURES  = $(wildcard $(basename $(WEIGHTS)).json)

# How it is served; MARS may be several archives of one folder.
MARS       = $(MAR)
PROPERTIES = config.properties
PORT       =
RUN        = run
PUBLIC_KEY =
# 1: a line of JSON for each request, in logs/requests.jsonl.
REQUEST_LOG =
# 1: answer /explanations, too, by captum, which needs torch: half a gigabyte more in each worker that does.
EXPLAIN    =
# on: only who sends one of TorchServe's tokens is answered; KIND says which one `make token` prints.
TOKENS     =
KIND       =

# The front door of `make up`: its port, what one address may send, and the PEM files with which it speaks TLS.
DOOR        =
RATE        =
CONNECTIONS =
TLS_CERT    =
TLS_KEY     =

# Docker: which of the two servers, its container, and options for `docker build` and `docker run`.
TARGET       = torchserve
CONTAINER    = $(NAME)-$(TARGET)
DOCKER_BUILD =
DOCKER_RUN   =

# How many spoilt pictures `make fuzz` sends, of which chance, and how long `make soak` goes on.
MUTATIONS = 20000
SEED      = 0
MINUTES   = 20
# Who is asked for known flaws by `make audit`: pypi or osv.
SERVICE = pypi

KEY    =
IMAGE  =
IMAGES =
OUT    =
# The server that `make predict` asks instead of the archive, and the token that it wants.
URL    =
TOKEN  =
# By the environment, so that a file's name may hold quotes and spaces, and others do not see the token.
export IMAGE IMAGES OUT URL TOKEN
export REQUEST_LOG
# Where ONNX Runtime is installed it reports to its makers, from its import on, unless it is told not to.
export ORT_DISABLE_TELEMETRY = 1

# What an archive was made of is kept in this file: `make serve NAME=x` need not be told again.
MADE = $(dir $(MAR)).$(notdir $(MAR)).made
-include $(MADE)

VENV  := .venv
BIN   := $(VENV)/bin
# Each folder of modules is a source root: inside the archive they are all neighbours, too.
PY    := PYTHONPATH=model:handler:archive:servers:client:exports:bench $(BIN)/python
# With the tests' pictures, which hostile input is made of.
HOSTILE := PYTHONPATH=model:handler:archive:servers:client:exports:bench:tests $(BIN)/python
# TorchScript's compiler writes what a set holds in the order of that set: the file would differ.
EXPORT := PYTHONHASHSEED=0 $(PY)
# TensorFlow never meets torch: what serves needs none of its 1.6 GB, and its lock goes against onnx2tf's pins.
TENSORFLOW := .venv-tensorflow
# Nor does what serves need what it is looked at with.
AUDIT := .venv-audit
SERVE := $(PY) servers/serve.py --run $(RUN)
EXPLAINER := $(if $(EXPLAIN),$(VENV)/explain.installed)
# What some commands need besides; requirements/dev.txt has all of it.
EXTRAS := $(patsubst %,$(VENV)/%.installed,parquet onnx flask explain client)

EXPORTERS := $(wildcard exports/*.py)
HANDLER := handler/convnet_handler.py
MODULES := $(filter-out $(HANDLER),$(wildcard handler/*.py)) archive/canonical.py
ifneq ($(shell find "$(GOLDEN)" -name '* *' 2>/dev/null),)
$(error GOLDEN=$(GOLDEN) holds file names with spaces, which make cannot handle; rename them)
endif
EXTRA   := $(MODULES) $(LABELS)
SOURCES := $(MODEL) $(WEIGHTS) $(CONFIG) $(LABELS) $(FIGURES) $(HANDLER) $(MODULES) $(wildcard $(GOLDEN)/*)
# The archive names the commit of its files, and whether they differ from it.
COMMIT  := $(shell git log -1 --format=%h -- $(SOURCES) 2>/dev/null; \
	git status --porcelain -- $(SOURCES) 2>/dev/null | wc -l)
MADE_NOW := $(strip $(VERSION) $(RUNTIME) $(COMMIT) $(SOURCES))
ifneq ($(MADE_NOW),$(strip $(MADE_OF)))
CHANGED := FORCE
endif
EXPORT_TF := $(addprefix exports/,to_tensorflow.py onnx_file.py frozen_graph.py quiet_tensorflow.py)
# What `make serve` shows to be tried.
TRY     := $(firstword $(wildcard $(GOLDEN)/2.png $(GOLDEN)/*))

# Without an engine, one sentence instead of Docker's own.
ENGINE  := docker info >/dev/null 2>&1 || { echo "error: no Docker engine answers to 'docker info';" \
	"install Docker, or start it, or say where it is by DOCKER_HOST" >&2; exit 1; }

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# `make stop serve` is first the one and then the other, whatever MAKEFLAGS says.
.NOTPARALLEL:
.PHONY: help setup archive serve up deploy flask stop status token logs predict verify sign docker docker-run docker-stop torchscript \
	aoti onnx tensorflow cpp parity interpreter-lock bench bench-all request-path reduced-decoding faults fuzz soak \
	metrics-cost ink-cost dashboard screenshots doctor train evaluate evaluate-real test lint types audit lock clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r target text; do \
		printf '  make %-16s %s\n' "$$target" "$$text"; done

setup: $(VENV)/serve.installed ## Make the environment in .venv (TORCH=cpu: torch's small CPU build)

archive: $(MAR) ## Bundle class, weights, contract and handler into model_store/convnet.mar

serve: $(MARS) $(EXPLAINER) ## Serve the archive by TorchServe on 8080 and 8081 (PORT=9080; TOKENS=on: to those with a token)
	@$(SERVE) start --config $(PROPERTIES) $(if $(PORT),--port $(PORT)) --picture $(TRY) \
		$(if $(TOKENS),--tokens $(TOKENS)) $(if $(PUBLIC_KEY),--public-key $(PUBLIC_KEY)) $(MARS)

up: $(MARS) $(EXPLAINER) ## Serve it for others: behind nginx on 8000 (DOOR=443, TLS_CERT=file TLS_KEY=file), started again if it dies
	@$(SERVE) up --config $(PROPERTIES) $(if $(PORT),--port $(PORT)) --picture $(TRY) \
		$(if $(DOOR),--door $(DOOR)) $(if $(RATE),--rate $(RATE)) $(if $(CONNECTIONS),--connections $(CONNECTIONS)) \
		$(if $(TOKENS),--tokens $(TOKENS)) $(if $(PUBLIC_KEY),--public-key $(PUBLIC_KEY)) \
		$(if $(TLS_CERT),--tls-certificate $(TLS_CERT)) $(if $(TLS_KEY),--tls-key $(TLS_KEY)) $(MARS)

deploy: $(MARS) ## Put the archive in the place of the one that make up serves, without a gap (VERSION=2.0)
	@$(SERVE) deploy $(MARS)

flask: $(MAR) $(VENV)/flask.installed $(EXPLAINER) ## Serve the archive by Flask on 8890 until Ctrl-C (PORT=9890)
	@$(if $(TOKENS),$(error Flask has no tokens; leave TOKENS out: it listens on this machine alone))
	@exec env $(PY) servers/flask_app.py $(MAR) --config $(PROPERTIES) $(if $(PORT),--port $(PORT)) --picture $(TRY) \
		$(if $(PUBLIC_KEY),--public-key $(PUBLIC_KEY))

stop: | $(VENV)/serve.installed ## Stop TorchServe
	@$(SERVE) stop

status: | $(VENV)/serve.installed ## Say whether TorchServe runs and how many workers are ready
	@$(SERVE) status

token: | $(VENV)/serve.installed ## Print the token that TorchServe wants after TOKENS=on (KIND=management: the other one)
	@$(SERVE) token $(if $(KIND),--kind $(KIND))

logs: | $(VENV)/serve.installed ## Print the end of TorchServe's log
	@$(SERVE) logs

predict: $(if $(URL),$(VENV)/client.installed,$(MAR)) $(if $(filter %.parquet,$(OUT)),$(VENV)/parquet.installed) ## Answer pictures without a server, or by one: make predict IMAGE=file (URL=http://…), or IMAGES=folder OUT=answers.csv
	@$(if $(IMAGE)$(and $(IMAGES),$(OUT)),,$(error say which picture: make predict IMAGE=tests/images/2.png, \
		or which folder and where to: make predict IMAGES=folder OUT=answers.csv))
	@$(PY) $(if $(URL),client/ask_server.py "$$URL" --model $(NAME) $(if $(IMAGE),"$$IMAGE","$$IMAGES" --out "$$OUT"),$(if \
		$(IMAGE),archive/predict.py $(MAR) "$$IMAGE",archive/batch.py $(MAR) "$$IMAGES" "$$OUT"))

verify: | $(VENV)/serve.installed ## Hold an archive against what it says of itself (MAR=any.mar, PUBLIC_KEY=file)
	@PYTHONPATH=archive $(BIN)/python archive/verify.py $(MAR) $(if $(PUBLIC_KEY),--public-key $(PUBLIC_KEY))

sign: $(MAR) ## Sign the archive with a private key: make sign KEY=private.pem
	@$(if $(KEY),,$(error say which key: make sign KEY=private.pem))
	@$(PY) archive/signature.py $(MAR) --key $(KEY)

torchscript: exported/$(NAME).scripted.pt exported/$(NAME).traced.pt ## Export to TorchScript, scripted and traced

aoti: exported/$(NAME).pt2 ## Compile for this processor by torch.export and AOTInductor (needs g++)

onnx: exported/$(NAME).onnx ## Export to ONNX

tensorflow: exported/$(NAME).pb exported/$(NAME).savedmodel/saved_model.pb ## Export a SavedModel and a frozen graph into exported/

cpp: exported/classify ## Compile exported/classify, which answers pictures by an exported model without Python

parity: torchscript aoti onnx tensorflow cpp $(VENV)/dev.installed ## Hold every road against the eager model, on 10,000 pictures
	@$(PY) bench/parity.py $(MAR) exported --docker-run "$(DOCKER_RUN)"

bench: $(MAR) $(VENV)/dev.installed ## Measure this archive's server against TorchServe as it comes (needs wrk; 3 minutes)
	@$(PY) bench/serving.py $(MAR)

bench-all: $(MAR) $(VENV)/dev.installed ## Measure it against all other servers, write docs/benchmark.md (an hour)
	@$(PY) bench/serving.py $(MAR) --all

request-path: $(MAR) $(VENV)/dev.installed ## Measure where a worker's time for a request goes
	@$(PY) bench/request_path.py $(MAR)

reduced-decoding: $(MAR) $(VENV)/dev.installed ## Measure what decoding photos at an eighth changes
	@$(PY) bench/reduced_decoding.py $(MAR)

interpreter-lock: torchscript aoti onnx $(VENV)/dev.installed ## Measure threads against processes, for each runtime
	@$(PY) bench/interpreter_lock.py $(MAR) exported

metrics-cost: $(MAR) $(VENV)/dev.installed ## Measure what metrics and the request log cost (needs wrk; 3 minutes)
	@$(PY) bench/metrics_cost.py $(MAR)

ink-cost: $(MAR) $(VENV)/dev.installed ## Measure what the search for ink costs (needs wrk; 8 minutes)
	@$(PY) bench/ink_cost.py $(MAR)

dashboard: $(MAR) $(VENV)/dev.installed ## Draw what the dashboard shows of a short load (needs prometheus; 2 minutes)
	@$(PY) bench/dashboard.py $(MAR)

screenshots: $(MAR) $(VENV)/dev.installed ## Draw on the page and take its pictures, docs/page*.png (needs chromium)
	@$(PY) bench/screenshots.py $(MAR) $(if $(PORT),--port $(PORT))

faults: $(MAR) $(VENV)/dev.installed ## Measure what faults cost the clients of make up (as root, needs nginx; 8 minutes)
	@$(PY) bench/faults.py $(MAR)

fuzz: $(MAR) $(VENV)/dev.installed ## Send hostile input, in a process and over HTTP (needs nginx; MUTATIONS=20000 SEED=0)
	@$(HOSTILE) bench/fuzz.py $(MAR) --mutations $(MUTATIONS) --seed $(SEED)

soak: $(MAR) $(VENV)/dev.installed ## Send good, bad and hostile requests, and watch memory and answers (needs nginx; MINUTES=20)
	@$(HOSTILE) bench/soak.py $(MAR) --minutes $(MINUTES)

doctor: | $(VENV)/serve.installed ## Say what this machine has and lacks
	@$(PY) servers/doctor.py --run $(RUN) --config $(PROPERTIES) $(if $(PORT),--port $(PORT))

docker: $(MAR) ## Build the images convnet:torchserve and convnet:flask
	@$(ENGINE)
	docker build $(DOCKER_BUILD) --build-arg MAR=$(MAR) --target flask --tag $(NAME):flask .
	docker build $(DOCKER_BUILD) --build-arg MAR=$(MAR) --target torchserve --tag $(NAME):torchserve .

docker-run: ## Run an image, locked down, on 8080 and 8081 (PORT=9080; TARGET=flask: on 8890)
	@$(ENGINE)
	@deploy/docker-run.sh $(NAME):$(TARGET) $(CONTAINER) "$(PORT)" $(DOCKER_RUN)

docker-stop: ## Stop what docker-run started
	@$(ENGINE)
	@docker stop $(CONTAINER) && docker rm $(CONTAINER) >/dev/null

train: $(VENV)/dev.installed ## Train on MNIST's 60,000 pictures and save model/convnet.pth
	$(PY) model/train.py

evaluate: $(VENV)/dev.installed ## Measure the weights on the 10,000 test pictures, draw docs/*.png
	$(PY) model/evaluate.py

evaluate-real: $(VENV)/dev.installed ## Measure them on pictures as people send them, write docs/real-pictures.md
	$(PY) model/evaluate_real.py

test: $(VENV)/dev.installed $(TENSORFLOW)/installed $(AUDIT)/installed lint types $(MAR) ## Lint, check the types, run every test
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(VENV)/dev.installed ## Lint
	$(BIN)/ruff check .

types: $(VENV)/dev.installed ## Check the types
	$(BIN)/mypy

audit: $(MAR) $(AUDIT)/installed ## Ask for known flaws of what is served, look at our code, write exported/convnet.cdx.json
	@PYTHONPATH=archive:audit $(AUDIT)/bin/python audit/audit.py $(MAR) --environment $(VENV) --service $(SERVICE) \
		--bill exported/$(NAME).cdx.json $(if $(PUBLIC_KEY),--public-key $(PUBLIC_KEY))

lock: $(VENV)/serve.installed ## Pin what pyproject.toml names, with all it needs, in requirements/
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/uv.txt
	setup/lock.sh $(BIN)/uv

clean: ## Remove what was built; the environment and MNIST stay
	rm -rf model_store/*.mar model_store/*.sig model_store/.*.made model_store/.build-* exported \
		.mypy_cache .pytest_cache .ruff_cache

# --- Files ---------------------------------------------------------------------------------------

# Built in a folder of its own, beside its place: the archiver deletes and fills a folder in TMPDIR,
# and a build that is stopped leaves no half archive.
$(MAR): $(SOURCES) $(wildcard archive/*.py) $(if $(filter-out eager,$(RUNTIME)),$(EXPORTERS)) $(CHANGED) | \
		$(VENV)/serve.installed $(if $(filter onnx,$(RUNTIME)),$(VENV)/onnx.installed)
	@scratch=$$(mktemp -d $(dir $(MAR)).build-XXXXXX) && \
	trap 'rm -rf "$$scratch"' EXIT && trap 'exit 130' INT TERM && \
	TMPDIR=$$scratch $(BIN)/torch-model-archiver --model-name $(NAME) --version $(VERSION) \
		$(if $(MODEL),--model-file $(MODEL)) --serialized-file $(WEIGHTS) --config-file $(CONFIG) \
		--handler $(HANDLER) --extra-files $$(echo $(EXTRA) | tr ' ' ,) --export-path $$scratch && \
	$(EXPORT) archive/seal.py $$scratch/$(NAME).mar $$scratch/sealed.mar --golden $(GOLDEN) --runtime $(RUNTIME) \
		$(if $(FIGURES),--figures $(FIGURES)) --sources $(SOURCES) && \
	printf '%s\n' 'VERSION = $(VERSION)' 'MODEL = $(MODEL)' 'WEIGHTS = $(WEIGHTS)' 'CONFIG = $(CONFIG)' \
		'LABELS = $(LABELS)' 'GOLDEN = $(GOLDEN)' 'RUNTIME = $(RUNTIME)' 'MADE_OF = $(MADE_NOW)' >$$scratch/made && \
	rm -f $@.sig && mv $$scratch/made $(MADE) && mv $$scratch/sealed.mar $@

# Both files by one run, as of any pattern with two targets.
exported/%.pb exported/%.savedmodel/saved_model.pb: exported/%.onnx $(EXPORT_TF) | $(TENSORFLOW)/installed
	@PYTHONPATH=exports:handler $(TENSORFLOW)/bin/python exports/to_tensorflow.py $< \
		exported/$*.savedmodel exported/$*.pb --golden $(GOLDEN)

FORCE:

exported/$(NAME).scripted.pt exported/$(NAME).traced.pt: exported/$(NAME).%.pt: $(MAR) $(EXPORTERS)
	@$(EXPORT) exports/to_torchscript.py $* $(MAR) $@

exported/$(NAME).pt2: $(MAR) $(EXPORTERS)
	@$(EXPORT) exports/to_aoti.py $(MAR) $@

exported/$(NAME).onnx: $(MAR) $(EXPORTERS) | $(VENV)/onnx.installed
	@$(EXPORT) exports/to_onnx.py $(MAR) $@

# The environment's torch is what it is linked with.
exported/classify: $(wildcard exports/cpp/*) $(VENV)/serve.installed
	@mkdir -p $(@D)
	@exports/cpp/build.sh $(BIN)/python $@

# What a model of your own needs besides stands in requirements/own.txt.
$(VENV)/serve.installed: requirements/serve.txt $(wildcard requirements/own.txt)
	@for lock in $^; do setup/venv.sh $(VENV) $$lock || exit; done
	@touch $@

$(EXTRAS): $(VENV)/%.installed: requirements/%.txt | $(VENV)/serve.installed
	@setup/venv.sh $(VENV) $<
	@touch $@

# Without dependencies: the lock holds all there is, and onnx2tf's own pins contradict it.
$(TENSORFLOW)/installed: requirements/tensorflow.txt
	@setup/venv.sh $(TENSORFLOW) $< --no-deps
	@touch $@

$(AUDIT)/installed: requirements/audit.txt
	@setup/venv.sh $(AUDIT) $<
	@touch $@

$(VENV)/dev.installed: requirements/dev.txt requirements/uv.txt
	@setup/venv.sh $(VENV) requirements/dev.txt
	@touch $@ $(VENV)/serve.installed $(EXTRAS)
