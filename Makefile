# Each target calls a program that you can also call by hand: `.venv/bin/marctl --help` lists the commands, and
# `marctl COMMAND --help` their options. The variables below are those options; they count only on make's command
# line, not if the environment happens to have a NAME or a PORT.
override VARIABLES := NAME VERSION MODEL WEIGHTS CONFIG LABELS GOLDEN RUNTIME FIGURES MAR MARS FOLDER PROPERTIES PORT RUN \
	PUBLIC_KEY REQUEST_LOG EXPLAIN SEALED TOKENS KIND DOOR RATE CONNECTIONS TLS_CERT TLS_KEY TARGET CONTAINER \
	DOCKER_BUILD DOCKER_RUN MUTATIONS SEED MINUTES SERVICE KEY IMAGE IMAGES OUT URL TOKEN

# Values reach the programs only through the environment. Neither make nor a shell interprets them, so a file's name
# may contain spaces, quotes, `$` and brackets.
override name := $(value name)
$(foreach name,$(.VARIABLES),$(if $(filter command override,$(origin $(name))),$(eval override $(name) := $$(value $(name)))))
override GIVEN := $(foreach name,$(VARIABLES),$(if $(filter override,$(origin $(name))),$(name)))
$(foreach name,$(filter-out $(GIVEN),$(VARIABLES)),$(eval override $(name) :=))
export $(VARIABLES)
# ONNX Runtime sends telemetry from its import on, unless this is set.
export ORT_DISABLE_TELEMETRY = 1
# No other folder may come before the environment's packages.
unexport PYTHONPATH

override VENV := .venv
override BIN := $(VENV)/bin
# Most archives are built and served without torch; marctl itself has it installed when it is needed.
override TORCHES := $(VENV)/torch.installed
# The list of given variables is passed only to marctl itself, not to the tests and benchmarks, which start marctl
# on their own. make needs no shell for this line, so the signals that it passes on reach marctl.
override SAY_GIVEN := env MARCTL_VARIABLES='$(GIVEN)' MARCTL_TORCH='$(MAKE) --no-print-directory $(TORCHES)'
override MARCTL := $(SAY_GIVEN) $(BIN)/marctl
override BENCH := $(BIN)/python -m bench
# TensorFlow and torch are kept apart, and serving needs none of the audit's tools.
override TENSORFLOW := .venv-tensorflow
override AUDIT := .venv-audit
override SERVES := $(VENV)/serve.installed
# Further packages that the classes of your own models need go into requirements/own.txt.
override OWN := $(if $(wildcard requirements/own.txt),$(VENV)/own.installed)
override BUILDS := $(VENV)/archive.installed $(OWN)
override EXPLAINS := $(if $(filter 1 yes on true,$(EXPLAIN)),$(VENV)/explain.installed)
override DEVELOPS := $(VENV)/dev.installed
override EXTRAS := $(patsubst %,$(VENV)/%.installed,archive torch parquet flask explain client)
# The archive that the variables select; quoted, so that the shell takes it as one word.
override THE_MAR := -- "$$($(MARCTL) path)"

# These targets do not check signatures, and refuse PUBLIC_KEY.
override UNCHECKED := $(filter docker torchscript aoti onnx tensorflow parity bench bench-all dashboard screenshots \
	faults fuzz soak,$(MAKECMDGOALS))
$(if $(and $(PUBLIC_KEY),$(UNCHECKED)),$(error make $(UNCHECKED) checks no signature; leave out PUBLIC_KEY, and \
	verify the archive first: make verify PUBLIC_KEY=file))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# `make stop serve` runs the targets in this order, whatever MAKEFLAGS says.
.NOTPARALLEL:
.PHONY: help setup archive export adopt serve up deploy flask stop status token logs predict verify sign docker docker-run docker-stop \
	torchscript aoti onnx tensorflow cpp parity bench bench-all dashboard screenshots faults fuzz soak doctor \
	train evaluate evaluate-real test check format lint types audit lock clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r target text; do \
		printf '  make %-16s %s\n' "$$target" "$$text"; done
setup: $(SERVES) $(OWN) $(if $(TORCH),$(TORCHES)) ## Create the environment in .venv (TORCH=cpu, cuda or auto: with torch)

archive: $(BUILDS) ## Build model_store/NAME.mar from the model folder (MODEL=mine/resnet18: from another one)
export: $(BUILDS) $(TORCHES) ## Export the model folder's class to ONNX into its locked/, so that builds need no torch (MODEL=mine/resnet18)
	@$(MARCTL) relock
adopt: | $(SERVES) ## Make a model folder from another project's archive: make adopt MAR=old.mar FOLDER=mine
# A named archive is used as it is. If none is named, this checkout's own is brought up to date.
ready: FORCE $(BUILDS)
	@$(if $(filter NAME MAR MARS,$(GIVEN)),,$(MARCTL) archive --if-needed)
serve: ready $(EXPLAINS) ## Serve the archive with TorchServe on 8080 and 8081 (PORT=9080; TOKENS=on: require a token)
up: ready $(EXPLAINS) ## Serve it to others, behind nginx on 8000 (DOOR=443, TLS_CERT=file TLS_KEY=file); restart what dies
deploy: ready ## Replace the archive that make up serves, without a gap (VERSION=2.0)
flask: ready $(VENV)/flask.installed $(EXPLAINS) ## Serve the archive with Flask on 8890 until Ctrl-C (PORT=9890)
stop: | $(SERVES) ## Stop the server that serve or up started
status: | $(SERVES) ## Show whether TorchServe runs and how many workers are ready
token: | $(SERVES) ## Print a token for a server with TOKENS=on (KIND=management: for the management API)
logs: | $(SERVES) ## Print the end of TorchServe's log
predict: $(if $(URL),$(VENV)/client.installed,ready) $(if $(filter %.parquet,$(OUT)),$(VENV)/parquet.installed) ## Classify images, with or without a server: make predict IMAGE=file (URL=http://…), or IMAGES=folder OUT=answers.csv
verify: | $(SERVES) $(if $(PUBLIC_KEY)$(filter 1,$(RUN)),$(OWN)) ## Examine an archive (MAR=any.mar); PUBLIC_KEY=file requires a signature; RUN=1 runs it in isolation
doctor: | $(SERVES) ## Show what this machine has and lacks
sign: ready ## Sign the archive with a private key: make sign KEY=private.pem
# Each of these is the marctl command of the same name.
archive adopt serve up deploy flask stop status token logs predict verify sign doctor:
	@$(MARCTL) $@

torchscript aoti onnx tensorflow: $(TORCHES)
torchscript: ready ## Export to TorchScript, scripted and traced
	@$(MARCTL) export scripted && $(MARCTL) export traced
aoti: ready ## Compile for this processor with torch.export and AOTInductor (needs g++)
	@$(MARCTL) export aoti
onnx: ready ## Export to ONNX
	@$(MARCTL) export onnx
tensorflow: ready $(TENSORFLOW)/installed ## Export a SavedModel and a frozen graph into exported/
	@$(MARCTL) export tensorflow
cpp: $(SERVES) $(TORCHES) ## Compile exported/classify, which answers images with an exported model without Python
	@$(MARCTL) once --reads=cpp --reads=$(SERVES) --out=exported/classify -- cpp/build.sh $(BIN)/python exported/classify

parity: torchscript aoti onnx tensorflow cpp $(DEVELOPS) ## Compare every runtime with the eager model, on 10,000 images
	@$(BENCH).parity --docker-run="$$DOCKER_RUN" $(THE_MAR) exported
bench: ready $(DEVELOPS) ## Compare this archive's server with TorchServe as it comes (needs wrk; 3 minutes)
	@$(BENCH).serving $(THE_MAR)
bench-all: ready $(DEVELOPS) ## Compare it with all other servers, write docs/benchmark.md (an hour)
	@$(BENCH).serving --all $(THE_MAR)
dashboard: ready $(DEVELOPS) ## Draw the dashboard's panels over a short load (needs prometheus; 2 minutes)
screenshots: ready $(DEVELOPS) $(VENV)/explain.installed ## Draw on the web page and take its screenshots, docs/page*.png (needs chromium)
faults: ready $(DEVELOPS) ## Measure what faults cost the clients of make up (as root, needs nginx; 8 minutes)
# Each of these is the program of the same name in bench/.
dashboard screenshots faults:
	@$(BENCH).$@ $(THE_MAR)
fuzz: ready $(DEVELOPS) ## Send hostile input to the handler and over HTTP (needs nginx; MUTATIONS=20000 SEED=0)
	@$(BENCH).fuzz --mutations="$${MUTATIONS:-20000}" --seed="$${SEED:-0}" $(THE_MAR)
soak: ready $(DEVELOPS) ## Send good, bad and hostile requests, and watch memory and answers (needs nginx; MINUTES=20)
	@$(BENCH).soak --minutes="$${MINUTES:-20}" $(THE_MAR)

docker: ready ## Build the images convnet:torchserve and convnet:flask (TARGET=torch: the one with torch)
	@$(MARCTL) docker --options="$$DOCKER_BUILD" build $(THE_MAR)
docker-run: $(SERVES) ## Run the image, locked down, on 8080 and 8081 (PORT=9080; TARGET=flask: on 8890; TARGET=torch)
	@$(MARCTL) docker --options="$$DOCKER_RUN" run
docker-stop: $(SERVES) ## Stop what docker-run started
	@$(MARCTL) docker stop

train: $(DEVELOPS) ## Train on MNIST and overwrite model/convnet.pth (other weights than the committed ones)
	$(BIN)/python -m training.train
evaluate: $(DEVELOPS) ## Measure the weights on the 10,000 test images, draw docs/*.png
	$(BIN)/python -m training.evaluate
evaluate-real: $(DEVELOPS) ## Measure them on images as people send them, write docs/real-images.md
	$(BIN)/python -m training.evaluate_real && $(BIN)/python -m training.contact_sheets
test: $(DEVELOPS) $(TENSORFLOW)/installed $(AUDIT)/installed lint types ready ## Lint, check types, run all tests
	$(BIN)/pytest -n 2 --dist loadfile
check: $(DEVELOPS) lint types ## Lint, check format and types, run the unit tests (no server, no network; a minute)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/pytest --quiet tests/unit
format: $(DEVELOPS) ## Format the code
	$(BIN)/ruff format .
lint: $(DEVELOPS) ## Lint
	$(BIN)/ruff check .
types: $(DEVELOPS) ## Check types
	$(BIN)/mypy
audit: ready $(AUDIT)/installed ## Check dependencies for known vulnerabilities, and our code; write exported/convnet.cdx.json
	@$(SAY_GIVEN) $(AUDIT)/bin/python -P -m marctl audit --environment=$(VENV)
lock: $(SERVES) ## Pin what pyproject.toml names, and everything it needs, in requirements/
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	setup/lock.sh $(BIN)/uv
clean: | $(SERVES) ## Remove what was built; the environment, MNIST and your own files stay
	@$(MARCTL) clean
	rm -rf model_store/.build-* model_store/.image .mypy_cache .pytest_cache .ruff_cache
FORCE:

# --- Environments ------------------------------------------------------------------------------------
$(SERVES): requirements/serve.txt
	@setup/venv.sh $(VENV) $<
	@touch $@
$(VENV)/explain.installed: $(TORCHES)
$(VENV)/own.installed: requirements/own.txt $(SERVES) $(TORCHES)
	@setup/venv.sh $(VENV) $<
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
