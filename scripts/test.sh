#!/usr/bin/env bash
# Lint, unit tests, end-to-end tests with the real model, the operator in a real Kubernetes, and the conformance suites.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
cd "$root"
need_rust
need_python

# A machine that cannot run a cluster says why, and loudly that this was not tested; with SHOAL_REQUIRE_CLUSTER=1 it fails.
kubernetes() {
    local status=0
    { scripts/e2e.sh && scripts/faults.sh; } || status=$?
    if ((status != 77)) || [[ ${SHOAL_REQUIRE_CLUSTER:-} == 1 ]]; then
        return "$status"
    fi
    say ""
    say "!!! NOT TESTED: the operator in a Kubernetes cluster, because this machine cannot run one; the reason is above."
    say ""
}

SHOAL_TEST_MODEL=$(scripts/model.sh)
export SHOAL_TEST_MODEL SHOAL_REQUIRE_MODEL=1

stage "lint" scripts/lint.sh
stage "build" cargo build --release --locked --workspace --all-targets
# Programs alone would be built with fewer features of some dependencies: a second time.
export SHOAL_BUILT=1
stage "unit tests" cargo test --release --locked --workspace --exclude shoal-e2e
stage "unit tests of the tests" cargo test --release --locked --workspace --lib -- kubernetes::
# One after the other: each test starts whole fleets and judges their timing.
stage "end-to-end tests" cargo test --release --locked --workspace --test fleet -- --test-threads=1
stage "health in GitOps" scripts/gitops.sh
stage "metrics" scripts/metrics.sh
stage "Kubernetes" kubernetes
stage "conformance" scripts/conformance.sh
