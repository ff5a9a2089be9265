#!/usr/bin/env bash
# Compile the C++ program against the installed torch: cpp/build.sh PYTHON OUTPUT
set -euo pipefail
python=$1 output=$2
here=$(dirname "$0")

missing=()
command -v g++ >/dev/null || missing+=(g++)
[[ -e /usr/include/stb/stb_image.h ]] || missing+=(libstb-dev)
[[ -e /usr/include/nlohmann/json.hpp ]] || missing+=(nlohmann-json3-dev)
if ((${#missing[@]})); then
    echo "error: the C++ program needs ${missing[*]}; install it: apt-get install ${missing[*]}" >&2
    exit 1
fi

read -r torch abi < <("$python" -c \
    'import pathlib, torch; print(pathlib.Path(torch.__file__).parent, int(torch.compiled_with_cxx11_abi()))')

# find_package(Torch) needs the CUDA toolkit if torch is a CUDA build. The program needs only two libraries,
# which find theirs beside them. The old kind of rpath also works for a package's own library.
echo "compiling $output, about a minute"
# Python multiplies and adds in two steps; so does the program, even if the processor could do both in one.
g++ -std=c++20 -O2 -ffp-contract=off -Wall -Wextra -D_GLIBCXX_USE_CXX11_ABI="$abi" \
    -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include" \
    "$here"/*.cpp -o "$output" \
    -L"$torch/lib" -ltorch_cpu -lc10 -Wl,--allow-shlib-undefined -Wl,-rpath,"$torch/lib" -Wl,--disable-new-dtags
