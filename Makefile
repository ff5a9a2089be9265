# Each target calls a program that can be called by hand: `.venv/bin/marctl --help` lists the commands, and
# `marctl COMMAND --help` their options. The variables below are those options; they count only where they are
# given on make's command line, not where the environment happens to have a NAME or a PORT.
override VARIABLES := NAME VERSION MODEL WEIGHTS CONFIG LABELS GOLDEN RUNTIME FIGURES MAR MARS FOLDER PROPERTIES PORT RUN \
	PUBLIC_KEY REQUEST_LOG EXPLAIN SEALED TOKENS KIND DOOR RATE CONNECTIONS TLS_CERT TLS_KEY TARGET CONTAINER \
	DOCKER_BUILD DOCKER_RUN MUTATIONS SEED MINUTES SERVICE KEY IMAGE IMAGES OUT URL TOKEN

# What a user writes reaches the programs through the environment alone. Neither make nor a shell ever reads it:
# the name of a file may hold spaces, quotes, `$` and brackets.
override name := $(value name)
$(foreach name,$(.VARIABLES),$(if $(filter command override,$(origin $(name))),$(eval override $(name) := $$(value $(name)))))
override GIVEN := $(foreach name,$(VARIABLES),$(if $(filter override,$(origin $(name))),$(name)))
$(foreach name,$(filter-out $(GIVEN),$(VARIABLES)),$(eval override $(name) :=))
export $(VARIABLES)
# ONNX Runtime reports to its makers, from its import on, unless it is told not to.
export ORT_DISABLE_TELEMETRY = 1
# Nobody's folder comes before the packages of the environment.
unexport PYTHONPATH

override VENV := .venv
override BIN := $(VENV)/bin
# Which of them were given is said to one command alone: the tests and the benchmarks start others.
override SAY_GIVEN := MARCTL_VARIABLES="$(GIVEN)"
override MARCTL := $(SAY_GIVEN) $(BIN)/marctl
override BENCH := $(BIN)/python -m bench
# TensorFlow never meets torch, and what serves needs none of the tools that it is audited with.
override TENSORFLOW := .venv-tensorflow
override AUDIT := .venv-audit
override SERVES := $(VENV)/serve.installed
override BUILDS := $(VENV)/archive.installed
override EXPLAINS := $(if $(filter 1 yes on true,$(EXPLAIN)),$(VENV)/explain.installed)
override DEVELOPS := $(VENV)/dev.installed
override EXTRAS := $(patsubst %,$(VENV)/%.installed,archive parquet flask explain client)
# The archive that the variables mean; the shell takes what is printed as one word.
override THE_MAR := -- "$$($(MARCTL) path)"

# These check no signature, and say so where one is wanted.
override UNCHECKED := $(filter docker torchscript aoti onnx tensorflow parity bench bench-all dashboard screenshots \
	faults fuzz soak,$(MAKECMDGOALS))
$(if $(and $(PUBLIC_KEY),$(UNCHECKED)),$(error make $(UNCHECKED) checks no signature; leave PUBLIC_KEY out, and \
	check it first: make verify PUBLIC_KEY=file))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# `make stop serve` is first the one and then the other, whatever MAKEFLAGS says.
.NOTPARALLEL:
.PHONY: help setup archive adopt serve up deploy flask stop status token logs predict verify sign docker docker-run docker-stop \
	torchscript aoti onnx tensorflow cpp parity bench bench-all dashboard screenshots faults fuzz soak doctor \
	train evaluate evaluate-real test check format lint types audit lock clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r target text; do \
		printf '  make %-16s %s\n' "$$target" "$$text"; done
setup: $(SERVES) ## Make the environment in .venv (TORCH=cpu: torch's small CPU build)

archive: $(BUILDS) ## Build model_store/NAME.mar from the folder model (MODEL=mine/resnet18: from another)
adopt: | $(SERVES) ## Make a model folder of an archive that was not built here: make adopt MAR=old.mar FOLDER=mine
# An archive that is named is used as it is. Where none is named, this checkout's own is brought up to date.
ready: FORCE $(BUILDS)
	@$(if $(filter NAME MAR MARS,$(GIVEN)),,$(MARCTL) archive --if-needed)
serve: ready $(EXPLAINS) ## Serve the archive by TorchServe on 8080 and 8081 (PORT=9080; TOKENS=on: to those with a token)
up: ready $(EXPLAINS) ## Serve it for others: behind nginx on 8000 (DOOR=443, TLS_CERT=file TLS_KEY=file), started again if it dies
deploy: ready ## Put the archive in the place of the one that make up serves, without a gap (VERSION=2.0)
flask: ready $(VENV)/flask.installed $(EXPLAINS) ## Serve the archive by Flask on 8890 until Ctrl-C (PORT=9890)
stop: | $(SERVES) ## Stop TorchServe
status: | $(SERVES) ## Say whether TorchServe runs and how many workers are ready
token: | $(SERVES) ## Print the token that TorchServe wants after TOKENS=on (KIND=management: the other one)
logs: | $(SERVES) ## Print the end of TorchServe's log
predict: $(if $(URL),$(VENV)/client.installed,ready) $(if $(filter %.parquet,$(OUT)),$(VENV)/parquet.installed) ## Answer images without a server, or by one: make predict IMAGE=file (URL=http://…), or IMAGES=folder OUT=answers.csv
verify: | $(SERVES) ## Look at an archive (MAR=any.mar); PUBLIC_KEY=file wants it signed; RUN=1 runs it, apart
doctor: | $(SERVES) ## Say what this machine has and lacks
sign: ready ## Sign the archive with a private key: make sign KEY=private.pem
# Each of these is the command of marctl with its name.
archive adopt serve up deploy flask stop status token logs predict verify sign doctor:
	@$(MARCTL) $@

torchscript: ready ## Export to TorchScript, scripted and traced
	@$(MARCTL) export scripted && $(MARCTL) export traced
aoti: ready ## Compile for this processor by torch.export and AOTInductor (needs g++)
	@$(MARCTL) export aoti
onnx: ready ## Export to ONNX
	@$(MARCTL) export onnx
tensorflow: ready $(TENSORFLOW)/installed ## Export a SavedModel and a frozen graph into exported/
	@$(MARCTL) export tensorflow
cpp: $(SERVES) ## Compile exported/classify, which answers images by an exported model without Python
	@$(MARCTL) once --reads=cpp --reads=$(SERVES) --out=exported/classify -- cpp/build.sh $(BIN)/python exported/classify

parity: torchscript aoti onnx tensorflow cpp $(DEVELOPS) ## Hold every runtime against the eager model, on 10,000 images
	@$(BENCH).parity --docker-run="$$DOCKER_RUN" $(THE_MAR) exported
bench: ready $(DEVELOPS) ## Measure this archive's server against TorchServe as it comes (needs wrk; 3 minutes)
	@$(BENCH).serving $(THE_MAR)
bench-all: ready $(DEVELOPS) ## Measure it against all other servers, write docs/benchmark.md (an hour)
	@$(BENCH).serving --all $(THE_MAR)
dashboard: ready $(DEVELOPS) ## Draw what the dashboard shows of a short load (needs prometheus; 2 minutes)
screenshots: ready $(DEVELOPS) $(VENV)/explain.installed ## Draw on the page and take its screenshots, docs/page*.png (needs chromium)
faults: ready $(DEVELOPS) ## Measure what faults cost the clients of make up (as root, needs nginx; 8 minutes)
# Each of these is the program in bench/ with its name.
dashboard screenshots faults:
	@$(BENCH).$@ $(THE_MAR)
fuzz: ready $(DEVELOPS) ## Send hostile input, in a process and over HTTP (needs nginx; MUTATIONS=20000 SEED=0)
	@$(BENCH).fuzz --mutations="$${MUTATIONS:-20000}" --seed="$${SEED:-0}" $(THE_MAR)
soak: ready $(DEVELOPS) ## Send good, bad and hostile requests, and watch memory and answers (needs nginx; MINUTES=20)
	@$(BENCH).soak --minutes="$${MINUTES:-20}" $(THE_MAR)

docker: ready ## Build the images convnet:torchserve and convnet:flask
	@$(MARCTL) docker --options="$$DOCKER_BUILD" build $(THE_MAR)
docker-run: $(SERVES) ## Run an image, locked down, on 8080 and 8081 (PORT=9080; TARGET=flask: on 8890)
	@$(MARCTL) docker --options="$$DOCKER_RUN" run
docker-stop: $(SERVES) ## Stop what docker-run started
	@$(MARCTL) docker stop

train: $(DEVELOPS) ## Train on MNIST's 60,000 images and save model/convnet.pth
	$(BIN)/python -m training.train
evaluate: $(DEVELOPS) ## Measure the weights on the 10,000 test images, draw docs/*.png
	$(BIN)/python -m training.evaluate
evaluate-real: $(DEVELOPS) ## Measure them on images as people send them, write docs/real-images.md
	$(BIN)/python -m training.evaluate_real
test: $(DEVELOPS) $(TENSORFLOW)/installed $(AUDIT)/installed lint types ready ## Lint, check the types, run every test
	$(BIN)/pytest -n 2 --dist loadfile
check: $(DEVELOPS) lint types ## Lint, check format and types, run the unit tests: no server, no network, a minute
	$(BIN)/ruff format --check --quiet .
	$(BIN)/pytest --quiet tests/unit
format: $(DEVELOPS) ## Format the code
	$(BIN)/ruff format .
lint: $(DEVELOPS) ## Lint
	$(BIN)/ruff check .
types: $(DEVELOPS) ## Check the types
	$(BIN)/mypy
audit: ready $(AUDIT)/installed ## Check what is served for known vulnerabilities, and our code; write exported/convnet.cdx.json
	@$(SAY_GIVEN) $(AUDIT)/bin/python -P -m marctl audit --environment=$(VENV)
lock: $(SERVES) ## Pin what pyproject.toml names, with all it needs, in requirements/
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	setup/lock.sh $(BIN)/uv
clean: | $(SERVES) ## Remove what was built; the environment, MNIST and your own files stay
	@$(MARCTL) clean
	rm -rf model_store/.build-* model_store/.image .mypy_cache .pytest_cache .ruff_cache
FORCE:

# --- Environments. What a model of your own needs besides stands in requirements/own.txt. ------------
$(SERVES): requirements/serve.txt $(wildcard requirements/own.txt)
	@for lock in $^; do setup/venv.sh $(VENV) $$lock || exit; done
	@touch $@
$(EXTRAS): $(VENV)/%.installed: requirements/%.txt | $(SERVES)
	@setup/venv.sh $(VENV) $<
	@touch $@
$(TENSORFLOW)/installed: requirements/tensorflow.txt
	@setup/venv.sh $(TENSORFLOW) $<
	@touch $@
$(AUDIT)/installed: requirements/audit.txt
	@setup/venv.sh $(AUDIT) $<
	@touch $@
$(DEVELOPS): requirements/dev.txt requirements/uv.txt
	@setup/venv.sh $(VENV) requirements/dev.txt
	@touch $@ $(SERVES) $(EXTRAS)
