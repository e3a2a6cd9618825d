#!/usr/bin/env bash
# e2e.sh [TEST...]: a cluster of its own, the chart in it by the README's own commands, then the tests of the operator
# (all of them, or those whose names contain one of the words), and its rights beside what it did.
# KEEP=1 leaves the cluster up. SHOAL_OUTAGE_SECONDS says for how long one test stops the API server (default 45).
# Exit status 77: this machine cannot run a cluster, and the message says why.
set -euo pipefail
# shellcheck source=scripts/readme.sh
source "$(dirname "$0")/readme.sh"
cd "$root"

# What runs inside the cluster's network, which leads nowhere: everything is built before.
suites() {
    export SHOAL_REQUIRE_CLUSTER=1
    stage "README" run_readme Kubernetes
    stage "helm test" helm test shoal --namespace shoal-system --logs
    kubectl delete servingcluster chat --wait=false
    if (($#)); then
        stage "chosen tests" tests --test-threads=1 "$@"
        return
    fi
    stage "tests side by side" tests --test-threads=3 --skip alone:: --skip faults::
    stage "tests that hurt the cluster" tests --test-threads=1 alone::
    # The audit log beside the kubeconfig has every request of the operator.
    stage "rights" scripts/cluster/rights.py shoal-system/shoal-operator "$(dirname "$KUBECONFIG")/log/audit.log"
}

# Of the whole workspace, as it was built: alone, the package would enable fewer features and be compiled anew.
tests() {
    RUST_LIB_BACKTRACE=0 cargo test --release --locked --offline --workspace --test kubernetes -- "$@"
}

if [[ ${SHOAL_E2E_INSIDE:-} ]]; then
    suites "$@"
    exit
fi

model=$(scripts/model.sh)
# The same file is what pods fetch.
export SHOAL_TEST_MODEL=$model SHOAL_REQUIRE_MODEL=1
[[ -n ${SHOAL_BUILT:-} ]] || stage "build" cargo build --release --locked --workspace --all-targets
stage "images" env MODEL="$model" scripts/images.sh
images=$(echo "$target"/images/*.tar)
stage "cluster and tests" env SHOAL_E2E_INSIDE=1 IMAGES="$images" scripts/e2e-k8s.sh "$0" "$@"
