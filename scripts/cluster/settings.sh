# shellcheck shell=bash
# Names, addresses and paths of the test cluster. Sourced; does nothing by itself.

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"

here=$root/scripts/cluster
# Clusters of different names run beside each other: each has its own network namespace, so they share addresses.
cluster=${SHOAL_CLUSTER:-test}
nodes=${SHOAL_CLUSTER_NODES:-2}
[[ $cluster =~ ^[a-z][a-z0-9-]{0,20}$ ]] || fail "SHOAL_CLUSTER: '$cluster' is not a name of a-z, 0-9 and '-'"
[[ $nodes =~ ^[0-9]$ ]] || fail "SHOAL_CLUSTER_NODES: '$nodes' is not a number from 0 to 9"

programs=$cache/cluster/programs
# Everything that a running cluster writes. Not in /tmp, which may be a small file system in memory.
state=${SHOAL_CLUSTER_STATE:-$cache/cluster/state}/$cluster
cgroup=shoal-$cluster
# A running cluster keeps the number of nodes that it was started with.
[[ ! -e $state/nodes ]] || nodes=$(<"$state/nodes")

# The bridge's network: the control plane is .1, node I is .1I, and the pods of node I are 10.244.I.0/24.
control_plane=10.250.0.1
api=https://$control_plane:6443
node_network=10.250.0
pod_network=10.244
service_range=10.96.0.0/16
api_service=10.96.0.1
dns_service=10.96.0.10
kubeconfig=$state/admin.kubeconfig
export here nodes state cgroup control_plane api node_network pod_network service_range api_service dns_service
export kubeconfig

# Folder of the programs that are made from scripts/cluster/$1. Its name has a hash of the pins and sources there, so
# a changed one makes new programs.
program_folder() {
    printf '%s/%s-%s\n' "$programs" "$1" "$(cat "$here/$1"/* | sha256sum | cut -c1-12)"
}

# All of them, as a PATH.
program_path() {
    local group path=''
    for group in kubernetes etcd coredns pause clients kwok; do path+=$(program_folder "$group"):; done
    printf '%s\n' "${path%:}"
}
