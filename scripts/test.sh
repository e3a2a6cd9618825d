#!/usr/bin/env bash
# Lint, unit tests, end-to-end tests with the real model, the conformance suites and, with SHOAL_REQUIRE_CLUSTER=1, the
# operator in a real Kubernetes.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
cd "$root"
need_rust
need_python

# Many minutes in a cluster, and more the first time, when its programs are built: only for who asks.
kubernetes() {
    if [[ ${SHOAL_REQUIRE_CLUSTER:-} == 1 ]]; then
        scripts/e2e.sh && scripts/faults.sh
        return
    fi
    say ""
    say "!!! NOT TESTED: the operator in a Kubernetes cluster. SHOAL_REQUIRE_CLUSTER=1 tests it here; so do make e2e and"
    say "!!! make faults."
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
