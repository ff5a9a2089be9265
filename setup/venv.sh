#!/bin/sh
# Make the environment VENV, install a lock file and this checkout's tool into it:  setup/venv.sh VENV LOCK
# TORCH=cpu takes torch's CPU build, a fifth of the size, from PyTorch's own index.
set -eu
venv=$1
lock=$2
here=$(cd "$(dirname "$0")/.." && pwd)
locks=$here/requirements

fail() {
    echo "error: $*" >&2
    exit 1
}

is_python_3_11() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null
}

find_python() {
    # One that was named may have a space in its path.
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3.11 python3; fi
    for candidate in "$@"; do
        if is_python_3_11 "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    found=$("${PYTHON:-python3}" --version 2>&1 || true)
    fail "Python 3.11 is needed, found: ${found:-none}. Install it, or name it: make PYTHON=/path/to/python3.11"
}

# Debian and Ubuntu cut pip out of Python's venv into a package of its own. Its wheel can be had by
# any user, without installing the package.
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

# A lock names every package and the hashes of its files, so pip has nothing to resolve.
install_locked() {
    pip_install --require-hashes --no-deps "$@"
}

# uv knows where PyTorch keeps its CPU builds. It takes torch and torchvision alone from there, over TLS: the
# lock's hashes are those of PyPI's builds. The lock's versions are then met, and pip brings the rest.
install_cpu_torch() {
    install_locked -r "$locks/uv.txt"
    # shellcheck disable=SC2046,SC2086 # two words; an option or none
    "$venv/bin/uv" pip install $quiet --python "$venv/bin/python" --no-deps --torch-backend cpu \
        $(grep -oE '^torch(vision)?==[^ ]+' "$lock") ||
        fail "PyTorch's index of CPU builds could not be reached; without TORCH=cpu all comes from PyPI"
}

# A person who waits sees the progress; a log is spared it.
quiet=--quiet
[ -t 1 ] && quiet=

names_torch() {
    grep -qE '^torch(vision)?==' "$lock"
}

install_lock() {
    # What a model of your own needs is named as you like, and comes with what that needs.
    case $lock in
    */own.txt) install=pip_install ;;
    *) install=install_locked ;;
    esac
    if ! names_torch; then
        echo "installing $lock into $venv"
        $install -r "$lock"
        return
    fi
    # What was chosen when the environment was made holds for all that is added to it.
    build=$venv/torch-build
    [ -n "${TORCH:-}" ] || TORCH=$(cat "$build" 2>/dev/null || true)
    case $TORCH in
    "")
        echo "installing $lock into $venv (torch with CUDA on Linux, several GB; TORCH=cpu: without)"
        $install -r "$lock"
        # PyTorch builds torch with CUDA for Linux alone.
        [ "$(uname -s)" != Linux ] || install_locked -r "$locks/cuda.txt"
        ;;
    cpu)
        echo "installing $lock into $venv, with torch's CPU build"
        install_cpu_torch
        echo cpu >"$build"
        $install -r "$lock"
        ;;
    *) fail "TORCH=$TORCH is not known; leave it out, or say TORCH=cpu" ;;
    esac
}

# The tool itself, as it lies here: a change runs at once. It is installed again where pyproject.toml, so
# perhaps its commands, has changed, or the environment has the tool of another folder.
install_tool() {
    installed=$venv/tool-installed
    tool="$here $(cksum <"$here/pyproject.toml")"
    [ "$tool" = "$(cat "$installed" 2>/dev/null)" ] && return
    install_locked --quiet -r "$locks/build.txt"
    pip_install --quiet --no-deps --no-build-isolation --editable "$here"
    echo "$tool" >"$installed"
}

[ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv
install_lock
install_tool
