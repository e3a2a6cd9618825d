#!/usr/bin/env bash
# Every figure as a ratio of two numbers of the same run; a table, and target/bench.json.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
cd "$root"
need_rust
need_python

SHOAL_TEST_MODEL=$(scripts/model.sh)
export SHOAL_TEST_MODEL
llama=$(scripts/llama.sh)
stage "build" build_programs throughput transfer_throughput detokenize_throughput gateway_latency tls_latency
stage "bench" python3 bench/run.py "$SHOAL_TEST_MODEL" "$target/release" "$llama" "$target/bench.json"
