#!/usr/bin/env bash
# fake-nodes.sh COUNT: that many nodes which kwok pretends to be, beside the real ones; 0 removes them. Their pods become
# ready and never run: for questions of scale. Each claims 96 CPUs, 1 TiB and 8 GPUs. Beside real nodes each has the
# taint shoal.test/fake, so that only pods which tolerate it and select the label shoal.test/fake=yes go there. The
# addresses of their pods lead to this machine, so that one process can answer at all of them. Runs inside the cluster's
# namespaces, as root.
set -euo pipefail
# shellcheck source=scripts/cluster/settings.sh
source "$(dirname "$0")/settings.sh"
# shellcheck source=scripts/cluster/process.sh
source "$here/process.sh"
# shellcheck source=scripts/cluster/cgroups.sh
source "$here/cgroups.sh"

count=$1 pid=$state/pid/kwok pods=10.245.0.0/16
[[ $count =~ ^[0-9]{1,4}$ ]] || fail "'$count' is not a number of nodes"

start_kwok() {
    local stages=(--config "$here/fake-pods.yaml") stage
    # Without stages kwok exits at once.
    for stage in "$(program_folder kwok)"/stages/*.yaml; do
        [[ $stage == */pod-ready.yaml ]] || stages+=(--config "$stage")
    done
    ip route replace local "$pods" dev lo
    enter_cgroup "$cgroup/control-plane"
    setsid kwok "${stages[@]}" --kubeconfig "$kubeconfig" --manage-all-nodes=false \
        --manage-nodes-with-annotation-selector kwok.x-k8s.io/node=fake --node-lease-duration-seconds 40 \
        --cidr "$pods" --node-ip "$control_plane" --server-address 127.0.0.1:10247 \
        </dev/null >"$state/log/kwok.log" 2>&1 &
    remember "$pid" "$!"
}

fake_nodes() {
    local resources='{"cpu": "96", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": "8"}' taints='[]' i
    ((nodes == 0)) || taints='[{"key": "shoal.test/fake", "effect": "NoSchedule"}]'
    for ((i = 0; i < count; i++)); do
        cat <<JSON
{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "fake$i", "annotations": {"kwok.x-k8s.io/node": "fake"},
 "labels": {"shoal.test/fake": "yes", "kubernetes.io/hostname": "fake$i", "kubernetes.io/os": "linux",
   "kubernetes.io/arch": "amd64", "topology.kubernetes.io/zone": "zone$((i % 4))"}},
 "spec": {"taints": $taints},
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
    fake_nodes | kubectl apply --server-side --force-conflicts --filename - >/dev/null
    wait_until 180 all_ready || fail "the fake nodes do not get ready; see $state/log/kwok.log"
fi
