#!/usr/bin/env bash
# The operator, disturbed at each of its writes: killed, cut off, refused, late, with a view of the past. Every life of a
# ServingCluster has to come to the same end as an undisturbed one. A cluster of its own, whose nodes are fake and whose
# engines only keep their state; the operator is the real program, as are API server, scheduler and controllers.
# ALL=1 disturbs every write by every fault. PLAN="TEXT" runs only the plans whose text contains it.
# KEEP=1 leaves the cluster up. Exit status 77: this machine cannot run a cluster, and the message says why.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
cd "$root"

if [[ ${SHOAL_FAULTS_INSIDE:-} ]]; then
    kubectl apply --server-side --filename crds/yaml >/dev/null
    kubectl wait --for=condition=Established crd/servingclusters.shoal.dev >/dev/null
    SHOAL_REQUIRE_CLUSTER=1 cargo test --release --locked --offline --workspace --test kubernetes -- \
        --nocapture faults::
    exit
fi

[[ -n ${SHOAL_BUILT:-} ]] || stage "build" cargo build --release --locked --workspace --all-targets
export SHOAL_CLUSTER=${SHOAL_CLUSTER:-faults} SHOAL_CLUSTER_NODES=0
export SHOAL_FAULTS=${PLAN:-${ALL:+all}}
FAKE_NODES=8 SHOAL_FAULTS_INSIDE=1 scripts/e2e-k8s.sh "$0"
