#!/usr/bin/env bash
# Mixed load for DURATION seconds (1800) at the highest rate that this machine sustains.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
cd "$root"
need_rust
need_python

SHOAL_TEST_MODEL=$(scripts/model.sh)
export SHOAL_TEST_MODEL
stage "build" build_programs soak
stage "soak" "$target/release/examples/soak"
