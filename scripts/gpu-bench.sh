#!/usr/bin/env bash
# Decode steps and prefill of a model's shape with random weights, beside the machine's own floor, through
# the project's kernels and through the matrix library alone. Rows go to kernels/results/.
# MODEL= llama-3.1-8b (default) or qwen3-8b.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
cd "$root"
need_rust
need_gpu

SHOAL_COMMIT=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
export SHOAL_COMMIT
bench() { cargo run --release --locked -p shoal-cuda --example step_time -- "${MODEL:-llama-3.1-8b}" kernels/results "$@"; }
stage "through the library" bench library
stage "through the kernels" bench
