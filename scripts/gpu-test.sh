#!/usr/bin/env bash
# The kernels against their f64 references, the decoder against the CPU's oracle, and whole instances, on this machine's GPU.
# Without one it says so and fails: what it is asked to show cannot be shown here.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
cd "$root"
need_rust
need_gpu

stage "build" cargo test --release --locked -p shoal-kernels -p shoal-cuda -p shoal-engine --no-run
export SHOAL_REQUIRE_GPU=1
stage "kernels" cargo test --release --locked -p shoal-kernels -- --nocapture
SHOAL_TEST_MODEL=$(scripts/model.sh)
export SHOAL_TEST_MODEL
stage "decoder" cargo test --release --locked -p shoal-cuda -- --nocapture --test-threads=2
stage "instances" cargo test --release --locked -p shoal-engine --test instances gpu -- --nocapture --test-threads=1
