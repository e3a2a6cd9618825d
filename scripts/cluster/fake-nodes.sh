#!/usr/bin/env bash
# fake-nodes.sh COUNT: that many nodes which kwok pretends to be, beside the real ones; 0 removes them. Their pods become
# ready and never run: for questions of scale. Each claims 96 CPUs, 1 TiB and 8 GPUs, and has the taint
# shoal.test/fake, so that only pods which tolerate it and select the label shoal.test/fake=yes go there. Runs inside the
# cluster's namespaces, as root.
set -euo pipefail
# shellcheck source=scripts/cluster/settings.sh
source "$(dirname "$0")/settings.sh"
# shellcheck source=scripts/cluster/process.sh
source "$here/process.sh"
# shellcheck source=scripts/cluster/cgroups.sh
source "$here/cgroups.sh"

count=$1 pid=$state/pid/kwok
[[ $count =~ ^[0-9]{1,4}$ ]] || fail "'$count' is not a number of nodes"

start_kwok() {
    local stages=() stage
    # Without stages kwok exits at once.
    for stage in "$(program_folder kwok)"/stages/*.yaml; do stages+=(--config "$stage"); done
    enter_cgroup "$cgroup/control-plane"
    setsid kwok "${stages[@]}" --kubeconfig "$kubeconfig" --manage-all-nodes=false \
        --manage-nodes-with-annotation-selector kwok.x-k8s.io/node=fake --node-lease-duration-seconds 40 \
        --cidr 10.245.0.0/16 --node-ip "$control_plane" --server-address 127.0.0.1:10247 \
        </dev/null >"$state/log/kwok.log" 2>&1 &
    remember "$pid" "$!"
}

nodes() {
    local resources='{"cpu": "96", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": "8"}' i
    for ((i = 0; i < count; i++)); do
        cat <<JSON
{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "fake$i", "annotations": {"kwok.x-k8s.io/node": "fake"},
 "labels": {"shoal.test/fake": "yes", "kubernetes.io/hostname": "fake$i", "kubernetes.io/os": "linux",
   "kubernetes.io/arch": "amd64", "topology.kubernetes.io/zone": "zone$((i % 4))"}},
 "spec": {"taints": [{"key": "shoal.test/fake", "effect": "NoSchedule"}]},
 "status": {"allocatable": $resources, "capacity": $resources}}
JSON
    done
}

all_ready() {
    [[ $(kubectl get nodes --selector shoal.test/fake --no-headers | grep -c ' Ready') == "$count" ]]
}

if ((count == 0)); then
    kubectl delete nodes --selector shoal.test/fake --wait=false >/dev/null
    end "$pid"
else
    living "$pid" >/dev/null || start_kwok
    # The controller manager owns taints of nodes that are there already.
    nodes | kubectl apply --server-side --force-conflicts --filename - >/dev/null
    wait_until 180 all_ready || fail "the fake nodes do not get ready; see $state/log/kwok.log"
fi
