#!/bin/sh
# Resolve pyproject.toml's extras and groups into requirements/*.txt, with hashes:  setup/lock.sh UV
# Locked packages keep their versions; UPGRADE=1 takes the newest that pyproject.toml allows.
set -eu
uv=$(realpath "$1")
cd requirements
part=$(mktemp)
known=$(mktemp)
trap 'rm -f "$part" "$known"' EXIT

# Resolve for Linux on x86_64, whatever machine this is; the hashes cover the wheels of all platforms.
resolve() {
    # shellcheck disable=SC2086 # an option or none
    "$uv" pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes \
        --annotation-style line --no-header ${UPGRADE:+--upgrade} "$@" --output-file "$part" >/dev/null
    sed -i -e '/^#/d' -e 's|\.\./pyproject|pyproject|' -e 's/, -c [^ ,]*//g; s/ -c [^ ,]*,//g; s/, --override [^ ,]*//g' "$part"
}

# torch's CUDA packages get a separate lock: its CPU build needs none of them.
of_cuda() {
    awk -v wanted="$1" '/^[^ ]/ { found = /^(triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/ } found == wanted' "$part"
}

# Print what is not in a lock.
beyond() {
    of_cuda 0 | awk 'NR == FNR { if (/^[^ ]/) known[$1]; next } /^[^ ]/ { found = $1 in known } !found' "$1" -
}

# dev has everything except the separate environments; the other locks use its versions.
cat dev.txt cuda.txt >"$part"
resolve ../pyproject.toml --all-extras --group ../pyproject.toml:dev
of_cuda 0 >dev.txt
of_cuda 1 >cuda.txt
resolve ../pyproject.toml --extra serve --constraints dev.txt --constraints cuda.txt
of_cuda 0 >serve.txt
# These are installed on top of serve.
for extra in archive torch flask client parquet; do
    resolve ../pyproject.toml --extra $extra --constraints dev.txt --constraints cuda.txt
    beyond serve.txt >$extra.txt
done
resolve ../pyproject.toml --extra explain --constraints dev.txt --constraints cuda.txt
cat serve.txt torch.txt >"$known"
beyond "$known" >explain.txt
resolve --group ../pyproject.toml:build --constraints dev.txt
cat "$part" >build.txt
for group in uv audit; do
    cat $group.txt >"$part"
    resolve --group ../pyproject.toml:$group
    cat "$part" >$group.txt
done
# The overrides file loosens onnx2tf's pins, which no resolver would accept.
cat tensorflow.txt >"$part"
resolve --group ../pyproject.toml:tensorflow --constraints dev.txt --overrides tensorflow.overrides.txt
cat "$part" >tensorflow.txt
