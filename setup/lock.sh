#!/bin/sh
# Resolve pyproject.toml's groups into requirements/*.txt:  setup/lock.sh UV
set -eu
uv=$1

# torch pins its CUDA packages itself, and its CPU build needs none of them: they stay out of the locks.
cuda="triton cuda-toolkit cuda-bindings cuda-pathfinder
    nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft
    nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13
    nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx"
left_out=$(for package in $cuda; do echo "--no-emit-package $package"; done)

compile() {
    group=$1
    shift
    # shellcheck disable=SC2086 # the options are words
    "$uv" pip compile --quiet --group "$group" --python-version 3.11 --annotation-style line --no-header \
        $left_out "$@" --output-file "requirements/$group.txt" >/dev/null
    sed -i '/^#/d' "requirements/$group.txt"
}

# dev holds everything; what serves has the same versions.
compile dev
compile serve --constraints requirements/dev.txt
compile parquet --constraints requirements/dev.txt
compile onnx --constraints requirements/dev.txt
compile flask --constraints requirements/dev.txt
compile client --constraints requirements/dev.txt
compile explain --constraints requirements/dev.txt
compile uv
compile audit
# What onnx2tf pins, the overrides file loosens: no resolver would accept the result, so pip is not asked to.
compile tensorflow --constraints requirements/dev.txt --overrides requirements/tensorflow.overrides.txt
