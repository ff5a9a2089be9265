# One entry point: each target calls a program that can be called by hand.
# Variables are taken from the command line, not from the environment, where NAME or PORT may be set
# for other ends.

# What goes into the archive. Another classifier is another NAME, with its own of the rest. What was said
# once for an archive holds for its next build.
NAME     = convnet
# 1.0
VERSION  =
# model/convnet.py, model/convnet.pth, model/model-config.yaml; `MODEL=` for weights that need no class
MODEL    =
WEIGHTS  =
CONFIG   =
# JSON from index to label, where the contract holds no list of them
LABELS   =
# tests/images: a folder of images that the model has to know
GOLDEN   =
# onnx, torchscript, aoti or eager: what answers; without a class the weights answer as they are
RUNTIME  =
# JSON with the figures of training and evaluation; without it, the file beside the weights
FIGURES  =
# model_store/NAME.mar
MAR      =
# Where `make adopt` puts the parts of another's archive.
FOLDER   =

# How it is served; MARS may be several archives of one folder, as words of a shell.
MARS       =
PROPERTIES = config.properties
PORT       =
RUN        = run
PUBLIC_KEY =
# 1: a line of JSON for each request, in logs/requests.jsonl.
REQUEST_LOG =
# 1: answer /explanations, too, by captum, which needs torch: half a gigabyte more in each worker that does.
EXPLAIN    =
# no: an archive that make archive did not seal is served, too.
SEALED     =
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
CONTAINER    =
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

# What a user writes reaches the programs by the environment alone. Neither make nor a shell ever reads it:
# a file's name may hold spaces, quotes, `$` and brackets.
override name := $(value name)
$(foreach name,$(.VARIABLES),$(if $(filter command override,$(origin $(name))),$(eval override $(name) := $$(value $(name)))))
export NAME VERSION MODEL WEIGHTS CONFIG LABELS GOLDEN RUNTIME FIGURES MAR FOLDER MARS PROPERTIES PORT RUN PUBLIC_KEY \
	REQUEST_LOG EXPLAIN SEALED TOKENS KIND DOOR RATE CONNECTIONS TLS_CERT TLS_KEY TARGET CONTAINER DOCKER_BUILD DOCKER_RUN \
	MUTATIONS SEED MINUTES SERVICE KEY IMAGE IMAGES OUT URL TOKEN
# Where ONNX Runtime is installed it reports to its makers, from its import on, unless it is told not to.
export ORT_DISABLE_TELEMETRY = 1

override VENV := .venv
override BIN  := $(VENV)/bin
# Each folder of modules is a source root: inside the archive they are all neighbours, too.
override PY   := PYTHONPATH=model:handler:archive:servers:client:exports:bench $(BIN)/python
# With the tests' pictures, which hostile input is made of.
override HOSTILE := PYTHONPATH=model:handler:archive:servers:client:exports:bench:tests $(BIN)/python
# TensorFlow never meets torch: what serves needs none of its 1.6 GB, and its lock goes against onnx2tf's pins.
override TENSORFLOW := .venv-tensorflow
# Nor does what serves need what it is looked at with.
override AUDIT := .venv-audit
# What some commands need besides; requirements/dev.txt has all of it.
override EXTRAS := $(patsubst %,$(VENV)/%.installed,parquet onnx flask explain client)

# An option and its value, which the shell takes from the environment as one word: `set` where the value
# is not empty, `given` where the variable was given, be it empty.
override was_given = $(filter command override,$(origin $1))
override set   = $${$1:+--$2="$$$1"}
override given = $(if $(call was_given,$1),--$2="$$$1")
override THE_MAR := "$${MAR:-model_store/$$NAME.mar}"

override BUILD = $(PY) archive/build.py --name="$$NAME" $(call given,VERSION,version) $(call given,MODEL,model) \
	$(call given,WEIGHTS,weights) $(call given,CONFIG,config) $(call given,LABELS,labels) \
	$(call given,GOLDEN,golden) $(call given,FIGURES,figures) $(call given,RUNTIME,runtime)
# The exports of one archive: made again where it, or what exports it, has changed.
override EXPORT = PYTHONHASHSEED=0 $(PY) archive/once.py --reads=$(THE_MAR) --reads=exports
override exported = "exported/$$NAME$1"
override SERVE := $(PY) servers/serve.py --run="$$RUN"
override STARTED = --config="$$PROPERTIES" $(call set,PORT,port) --picture="$${GOLDEN:-tests/images}" \
	$(call set,TOKENS,tokens) $(call set,PUBLIC_KEY,public-key)
override DOORWAY = $(call set,DOOR,door) $(call set,RATE,rate) $(call set,CONNECTIONS,connections) \
	$(call set,TLS_CERT,tls-certificate) $(call set,TLS_KEY,tls-key)
override ARCHIVES = $(if $(call was_given,MARS),--archives="$$MARS",-- $(THE_MAR))
override EXPLAINER := $(if $(filter 1 yes on true,$(EXPLAIN)),$(VENV)/explain.installed)
override DOCKER := $(BIN)/python deploy/docker.py --name="$$NAME"

# These check no signature, and do not pass over that one is wanted.
override UNCHECKED := $(filter docker torchscript aoti onnx tensorflow parity interpreter-lock bench bench-all \
	request-path reduced-decoding metrics-cost ink-cost dashboard screenshots faults fuzz soak,$(MAKECMDGOALS))
$(if $(and $(PUBLIC_KEY),$(UNCHECKED)),$(error make $(UNCHECKED) checks no signature; leave PUBLIC_KEY out, and \
	check it first: make verify PUBLIC_KEY=file))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# `make stop serve` is first the one and then the other, whatever MAKEFLAGS says.
.NOTPARALLEL:
.PHONY: help setup archive adopt serve up deploy flask stop status token logs predict verify sign docker docker-run docker-stop torchscript \
	aoti onnx tensorflow cpp parity interpreter-lock bench bench-all request-path reduced-decoding faults fuzz soak \
	metrics-cost ink-cost dashboard screenshots doctor train evaluate evaluate-real test lint types audit lock clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r target text; do \
		printf '  make %-16s %s\n' "$$target" "$$text"; done

setup: $(VENV)/serve.installed ## Make the environment in .venv (TORCH=cpu: torch's small CPU build)

archive: $(VENV)/serve.installed $(if $(filter-out onnx,$(RUNTIME)),,$(VENV)/onnx.installed) ## Bundle class, weights, contract and handler into model_store/convnet.mar
	@$(BUILD) -- $(THE_MAR)

adopt: | $(VENV)/serve.installed ## Make a model folder of an archive that was not built here: make adopt MAR=old.mar FOLDER=mine
	@$(if $(and $(MAR),$(FOLDER)),,$(error say of which archive, and where to: make adopt MAR=old.mar FOLDER=mine))
	@$(PY) archive/adopt.py $(if $(call was_given,NAME),--name="$$NAME") -- "$$MAR" "$$FOLDER"

# What serves or reads an archive uses the one that is named as it is. Where none is named, this checkout's
# own is brought up to date.
ready: FORCE $(VENV)/serve.installed $(if $(filter-out onnx,$(RUNTIME)),,$(VENV)/onnx.installed)
	@$(if $(call was_given,NAME)$(call was_given,MAR)$(call was_given,MARS),,$(BUILD) --if-needed -- $(THE_MAR))

serve: ready $(EXPLAINER) ## Serve the archive by TorchServe on 8080 and 8081 (PORT=9080; TOKENS=on: to those with a token)
	@$(SERVE) start $(STARTED) $(ARCHIVES)

up: ready $(EXPLAINER) ## Serve it for others: behind nginx on 8000 (DOOR=443, TLS_CERT=file TLS_KEY=file), started again if it dies
	@$(SERVE) up $(STARTED) $(DOORWAY) $(ARCHIVES)

deploy: ready ## Put the archive in the place of the one that make up serves, without a gap (VERSION=2.0)
	@$(SERVE) deploy $(call set,PUBLIC_KEY,public-key) $(ARCHIVES)

flask: ready $(VENV)/flask.installed $(EXPLAINER) ## Serve the archive by Flask on 8890 until Ctrl-C (PORT=9890)
	@$(if $(TOKENS),$(error Flask has no tokens; leave TOKENS out: it listens on this machine alone))
	@exec env $(PY) servers/flask_app.py --config="$$PROPERTIES" $(call set,PORT,port) \
		--picture="$${GOLDEN:-tests/images}" $(call set,PUBLIC_KEY,public-key) -- $(THE_MAR)

stop: | $(VENV)/serve.installed ## Stop TorchServe
	@$(SERVE) stop

status: | $(VENV)/serve.installed ## Say whether TorchServe runs and how many workers are ready
	@$(SERVE) status

token: | $(VENV)/serve.installed ## Print the token that TorchServe wants after TOKENS=on (KIND=management: the other one)
	@$(SERVE) token $(call set,KIND,kind)

logs: | $(VENV)/serve.installed ## Print the end of TorchServe's log
	@$(SERVE) logs

predict: $(if $(URL),$(VENV)/client.installed,ready) $(if $(filter %.parquet,$(OUT)),$(VENV)/parquet.installed) ## Answer pictures without a server, or by one: make predict IMAGE=file (URL=http://…), or IMAGES=folder OUT=answers.csv
	@$(if $(IMAGE)$(and $(IMAGES),$(OUT)),,$(error say which picture: make predict IMAGE=tests/images/2.png, \
		or which folder and where to: make predict IMAGES=folder OUT=answers.csv))
	@$(PY) $(if $(URL),client/ask_server.py --model="$$NAME" $(if $(IMAGE),-- "$$URL" "$$IMAGE",--out="$$OUT" -- "$$URL" "$$IMAGES"),$(if \
		$(IMAGE),archive/predict.py $(call set,PUBLIC_KEY,public-key) -- $(THE_MAR) "$$IMAGE",archive/batch.py \
		$(call set,PUBLIC_KEY,public-key) -- $(THE_MAR) "$$IMAGES" "$$OUT"))

verify: | $(VENV)/serve.installed ## Look at an archive (MAR=any.mar); PUBLIC_KEY=file wants it signed; RUN=1 runs it, apart
	@PYTHONPATH=archive $(BIN)/python archive/verify.py $(call set,PUBLIC_KEY,public-key) \
		$(if $(filter 1,$(RUN)),--run) -- $(THE_MAR)

sign: ready ## Sign the archive with a private key: make sign KEY=private.pem
	@$(if $(KEY),,$(error say which key: make sign KEY=private.pem))
	@$(PY) archive/signature.py --key="$$KEY" -- $(THE_MAR)

torchscript: ready ## Export to TorchScript, scripted and traced
	@for kind in scripted traced; do $(EXPORT) --out=$(call exported,.$$kind.pt) -- \
		$(BIN)/python exports/to_torchscript.py $$kind -- $(THE_MAR) $(call exported,.$$kind.pt) || exit; done

aoti: ready ## Compile for this processor by torch.export and AOTInductor (needs g++)
	@$(EXPORT) --out=$(call exported,.pt2) -- $(BIN)/python exports/to_aoti.py -- $(THE_MAR) $(call exported,.pt2)

onnx: ready $(VENV)/onnx.installed ## Export to ONNX
	@$(EXPORT) --out=$(call exported,.onnx) -- $(BIN)/python exports/to_onnx.py -- $(THE_MAR) $(call exported,.onnx)

tensorflow: onnx $(TENSORFLOW)/installed ## Export a SavedModel and a frozen graph into exported/
	@PYTHONPATH=archive:exports:handler $(BIN)/python archive/once.py --reads=$(call exported,.onnx) --reads=exports \
		--out=$(call exported,.savedmodel) --out=$(call exported,.pb) -- $(TENSORFLOW)/bin/python exports/to_tensorflow.py \
		--golden="$${GOLDEN:-tests/images}" -- $(call exported,.onnx) $(call exported,.savedmodel) $(call exported,.pb)

# The environment's torch is what it is linked with.
cpp: $(VENV)/serve.installed ## Compile exported/classify, which answers pictures by an exported model without Python
	@$(PY) archive/once.py --reads=exports/cpp --reads=$(VENV)/serve.installed --out=exported/classify -- \
		exports/cpp/build.sh $(BIN)/python exported/classify

parity: torchscript aoti onnx tensorflow cpp $(VENV)/dev.installed ## Hold every road against the eager model, on 10,000 pictures
	@$(PY) bench/parity.py --docker-run="$$DOCKER_RUN" -- $(THE_MAR) exported

bench: ready $(VENV)/dev.installed ## Measure this archive's server against TorchServe as it comes (needs wrk; 3 minutes)
	@$(PY) bench/serving.py -- $(THE_MAR)

bench-all: ready $(VENV)/dev.installed ## Measure it against all other servers, write docs/benchmark.md (an hour)
	@$(PY) bench/serving.py --all -- $(THE_MAR)

request-path: ready $(VENV)/dev.installed ## Measure where a worker's time for a request goes
	@$(PY) bench/request_path.py -- $(THE_MAR)

reduced-decoding: ready $(VENV)/dev.installed ## Measure what decoding photos at an eighth changes
	@$(PY) bench/reduced_decoding.py -- $(THE_MAR)

interpreter-lock: torchscript aoti onnx $(VENV)/dev.installed ## Measure threads against processes, for each runtime
	@$(PY) bench/interpreter_lock.py -- $(THE_MAR) exported

metrics-cost: ready $(VENV)/dev.installed ## Measure what metrics and the request log cost (needs wrk; 3 minutes)
	@$(PY) bench/metrics_cost.py -- $(THE_MAR)

ink-cost: ready $(VENV)/dev.installed ## Measure what the search for ink costs (needs wrk; 8 minutes)
	@$(PY) bench/ink_cost.py -- $(THE_MAR)

dashboard: ready $(VENV)/dev.installed ## Draw what the dashboard shows of a short load (needs prometheus; 2 minutes)
	@$(PY) bench/dashboard.py -- $(THE_MAR)

screenshots: ready $(VENV)/dev.installed ## Draw on the page and take its pictures, docs/page*.png (needs chromium)
	@$(PY) bench/screenshots.py $(call set,PORT,port) -- $(THE_MAR)

faults: ready $(VENV)/dev.installed ## Measure what faults cost the clients of make up (as root, needs nginx; 8 minutes)
	@$(PY) bench/faults.py -- $(THE_MAR)

fuzz: ready $(VENV)/dev.installed ## Send hostile input, in a process and over HTTP (needs nginx; MUTATIONS=20000 SEED=0)
	@$(HOSTILE) bench/fuzz.py --mutations="$$MUTATIONS" --seed="$$SEED" -- $(THE_MAR)

soak: ready $(VENV)/dev.installed ## Send good, bad and hostile requests, and watch memory and answers (needs nginx; MINUTES=20)
	@$(HOSTILE) bench/soak.py --minutes="$$MINUTES" -- $(THE_MAR)

doctor: | $(VENV)/serve.installed ## Say what this machine has and lacks
	@$(PY) servers/doctor.py --run="$$RUN" --config="$$PROPERTIES" $(call set,PORT,port)

docker: ready ## Build the images convnet:torchserve and convnet:flask
	@$(DOCKER) --options="$$DOCKER_BUILD" build -- $(THE_MAR)

docker-run: $(VENV)/serve.installed ## Run an image, locked down, on 8080 and 8081 (PORT=9080; TARGET=flask: on 8890)
	@$(DOCKER) --options="$$DOCKER_RUN" run --target="$$TARGET" $(call set,CONTAINER,container) $(call set,PORT,port)

docker-stop: $(VENV)/serve.installed ## Stop what docker-run started
	@$(DOCKER) stop --target="$$TARGET" $(call set,CONTAINER,container)

train: $(VENV)/dev.installed ## Train on MNIST's 60,000 pictures and save model/convnet.pth
	$(PY) model/train.py

evaluate: $(VENV)/dev.installed ## Measure the weights on the 10,000 test pictures, draw docs/*.png
	$(PY) model/evaluate.py

evaluate-real: $(VENV)/dev.installed ## Measure them on pictures as people send them, write docs/real-pictures.md
	$(PY) model/evaluate_real.py

test: $(VENV)/dev.installed $(TENSORFLOW)/installed $(AUDIT)/installed lint types ready ## Lint, check the types, run every test
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(VENV)/dev.installed ## Lint
	$(BIN)/ruff check .

types: $(VENV)/dev.installed ## Check the types
	$(BIN)/mypy

audit: ready $(AUDIT)/installed ## Ask for known flaws of what is served, look at our code, write exported/convnet.cdx.json
	@PYTHONPATH=archive:audit $(AUDIT)/bin/python audit/audit.py --environment=$(VENV) --service="$$SERVICE" \
		--bill=$(call exported,.cdx.json) $(call set,PUBLIC_KEY,public-key) -- $(THE_MAR)

lock: $(VENV)/serve.installed ## Pin what pyproject.toml names, with all it needs, in requirements/
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/uv.txt
	setup/lock.sh $(BIN)/uv

clean: | $(VENV)/serve.installed ## Remove what was built; the environment, MNIST and your own files stay
	@$(PY) archive/clean.py
	rm -rf model_store/.build-* model_store/.image .mypy_cache .pytest_cache .ruff_cache

FORCE:

# --- Files ---------------------------------------------------------------------------------------

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
