#!/bin/sh
# Create the environment VENV, and install a lock file and this checkout's tool into it:  setup/venv.sh VENV LOCK
# A lock that names torch: TORCH=cpu takes torch's CPU build, a fifth of the size, from PyTorch's own index,
# TORCH=cuda PyPI's build, and TORCH=auto, the default, the CPU build where there is no NVIDIA driver.
# own.txt, a user's own packages, comes after torch: they may need it, and of the same build.
set -eu
venv=$1
lock=$2
here=$(cd "$(dirname "$0")/.." && pwd)
locks=$here/requirements
cpu_index=https://download.pytorch.org/whl/cpu

fail() {
    echo "error: $*" >&2
    exit 1
}

# The locks of the tests and of TensorFlow are for one version alone.
case $lock in
*/dev.txt | */tensorflow.txt | */audit.txt) newest=11 wanted="Python 3.11" ;;
*) newest=13 wanted="Python 3.11, 3.12 or 3.13" ;;
esac

is_fit() {
    "$1" -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $newest))" 2>/dev/null
}

find_python() {
    # The path in PYTHON may contain spaces.
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3.11 python3.12 python3.13 python3; fi
    for candidate in "$@"; do
        if is_fit "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    found=$("${PYTHON:-python3}" --version 2>&1 || true)
    fail "$wanted is needed, found: ${found:-none}. Install it, or give its path: make PYTHON=/path/to/python3.11"
}

# Debian and Ubuntu move pip from Python's venv module to a separate package. Any user can get the wheel from it
# without installing the package.
borrow_pip() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    (cd "$scratch" && apt-get download -q python3-pip-whl >/dev/null 2>&1 && dpkg -x ./*.deb .) ||
        fail "this Python cannot make environments: install its venv module (Debian, Ubuntu: apt-get install python3-venv)"
    "$1" -m venv --without-pip "$venv"
    wheel=$(echo "$scratch"/usr/share/python-wheels/pip-*.whl)
    "$venv/bin/python" "$wheel/pip" install --quiet --no-index "$wheel"
}

make_venv() {
    python=$(find_python)
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv "$venv"
    else
        borrow_pip "$python"
    fi
}

pip_install() {
    # shellcheck disable=SC2086 # an option or none
    "$venv/bin/python" -m pip install $quiet --disable-pip-version-check "$@"
}

# A lock has every package with the hashes of its files, so pip has nothing to resolve.
install_locked() {
    pip_install --require-hashes --no-deps "$@"
}

# uv knows PyTorch's index of CPU builds. Only torch and torchvision come from there, over TLS and without hashes,
# because the lock's hashes are those of PyPI's builds. pip then finds their versions installed, and adds the rest.
install_cpu_torch() {
    install_locked -r "$locks/uv.txt"
    # shellcheck disable=SC2046,SC2086 # two words; an option or none
    "$venv/bin/uv" pip install $quiet --python "$venv/bin/python" --no-deps --torch-backend cpu \
        $(grep -oE '^torch(vision)?==[^ ]+' "$lock") ||
        fail "cannot reach PyTorch's index of CPU builds; TORCH=cuda takes everything from PyPI"
}

install_cuda_torch() {
    install_locked -r "$lock"
    # PyTorch builds torch with CUDA only for Linux.
    [ "$(uname -s)" != Linux ] || install_locked -r "$locks/cuda.txt"
}

index_answers() {
    "$venv/bin/python" -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=5)' "$cpu_index/" 2>/dev/null
}

# Print a build and the reason for it.
choose_torch() {
    if [ -e /proc/driver/nvidia ]; then
        echo "cuda: there is an NVIDIA driver"
    elif index_answers; then
        echo "cpu: there is no NVIDIA driver"
    else
        echo "cuda: PyTorch's index of CPU builds does not answer, so it comes from PyPI with CUDA, several GB"
    fi
}

# Show progress on a terminal, but not in a log.
quiet=--quiet
[ -t 1 ] && quiet=

names_torch() {
    grep -qE '^torch(vision)?==' "$lock"
}

# own.txt needs no hashes, and what its packages need is resolved.
install_own() {
    echo "installing $lock into $venv"
    if [ "$(cat "$build" 2>/dev/null)" = cpu ]; then
        # A version with +cpu sorts above the same one without.
        pip_install --extra-index-url "$cpu_index" -r "$lock"
    else
        pip_install -r "$lock"
    fi
}

install_lock() {
    build=$venv/torch-build
    case $lock in
    */own.txt)
        install_own
        return
        ;;
    esac
    if ! names_torch; then
        echo "installing $lock into $venv"
        install_locked -r "$lock"
        return
    fi
    # The choice made first also applies to everything added later.
    [ -n "${TORCH:-}" ] || TORCH=$(cat "$build" 2>/dev/null || echo auto)
    why="TORCH=$TORCH"
    if [ "$TORCH" = auto ]; then
        why=$(choose_torch)
        TORCH=${why%%:*}
        why=${why#*: }
    fi
    case $TORCH in
    cpu | cuda) echo "installing $lock into $venv, with torch's $TORCH build ($why)" ;;
    *) fail "TORCH=$TORCH is not known; use cpu, cuda or auto" ;;
    esac
    [ "$TORCH" = cuda ] || install_cpu_torch
    [ "$TORCH" = cpu ] || install_cuda_torch
    install_locked -r "$lock"
    echo "$TORCH" >"$build"
}

# Install the tool in editable mode, so that changes apply at once. It is installed again if pyproject.toml has
# changed (perhaps its commands), or if the environment has the tool of another folder.
install_tool() {
    installed=$venv/tool-installed
    tool="$here $(cksum <"$here/pyproject.toml")"
    [ "$tool" = "$(cat "$installed" 2>/dev/null)" ] && return
    install_locked --quiet -r "$locks/build.txt"
    pip_install --quiet --no-deps --no-build-isolation --editable "$here"
    echo "$tool" >"$installed"
}

[ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv
is_fit "$venv/bin/python" || fail "$wanted is needed for $lock, but $venv has $("$venv/bin/python" --version)." \
    "Delete that folder, and give the path of the other: make PYTHON=/path/to/python3.11"
install_lock
install_tool
