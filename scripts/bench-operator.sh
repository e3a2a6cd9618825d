#!/usr/bin/env bash
# The operator at scale: a control plane and 100 fake nodes of its own, one large ServingCluster beside a bare client, and
# many small ones. Prints each figure beside its goal, and leaves nothing.
# INSTANCES=1000 of the large one (4: leave it out), CLUSTERS=2000 small ones (0: leave them out), QUIET=600 seconds at rest.
# KEEP=1 leaves the cluster up. Exit status 77: this machine cannot run a cluster, and the message says why.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
cd "$root"

if [[ ${SHOAL_BENCH_INSIDE:-} ]]; then
    # shellcheck source=scripts/cluster/settings.sh
    source "$root/scripts/cluster/settings.sh"
    # shellcheck source=scripts/cluster/cgroups.sh
    source "$root/scripts/cluster/cgroups.sh"
    stage "100 fake nodes" scripts/cluster.sh fake-nodes 100
    kubectl apply --server-side --filename charts/shoal/files/crds >/dev/null
    kubectl wait --for=condition=Established --timeout=60s crd --all >/dev/null
    mapfile -t groups < <(cgroup_folders "$cgroup/control-plane")
    stage "figures" env SHOAL_CONTROL_PLANE="${groups[0]}" "$target/release/examples/operator_scale"
    exit
fi

need_rust
stage "build" build_programs operator_scale engines
export SHOAL_CLUSTER=${SHOAL_CLUSTER:-bench} SHOAL_CLUSTER_NODES=0 SHOAL_BENCH_INSIDE=1
scripts/e2e-k8s.sh scripts/bench-operator.sh
