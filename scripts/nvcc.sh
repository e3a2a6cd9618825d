#!/usr/bin/env bash
# Prints the path of nvcc, from pinned wheels in the cache (100 MiB, once). No GPU and no CUDA installation
# are needed. `scripts/nvcc.sh check` compiles every kernel with it and compares registers and spills with
# kernels/budget.txt.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
cd "$root"

[[ $(uname -m) == x86_64 ]] || fail "the pinned nvcc wheels are for x86-64; on $(uname -m) set SHOAL_NVCC to an nvcc"
tools=$(venv nvcc scripts/requirements/nvcc.txt)
nvcc=$(find "$tools/lib" -path '*/nvidia/cu13/bin/nvcc' -print -quit)
[[ -x $nvcc ]] || fail "no nvcc in $tools"
case ${1:-} in
    '') printf '%s\n' "$nvcc" ;;
    check) SHOAL_NVCC=$nvcc cargo test --release --locked -p shoal-kernels --test budget ;;
    *) fail "nvcc.sh takes no argument or \`check\`, not $1" ;;
esac
