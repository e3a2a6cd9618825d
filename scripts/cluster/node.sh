#!/usr/bin/env bash
# node.sh up I          starts node I, or boots it again after a cut
# node.sh cut I         takes its power away: everything in it dies at once, its disk stays
# node.sh restart I D   restarts one of its daemons: containerd, kubelet or proxy
# node.sh exec I CMD... runs a command in it
# A node is one process that owns mount, pid, network, host name and IPC namespaces; the daemons live in those. Runs
# inside the cluster's namespaces, as root.
set -euo pipefail
# shellcheck source=scripts/cluster/settings.sh
source "$(dirname "$0")/settings.sh"
# shellcheck source=scripts/cluster/process.sh
source "$here/process.sh"
# shellcheck source=scripts/cluster/cgroups.sh
source "$here/cgroups.sh"
# shellcheck source=scripts/cluster/pki.sh
source "$here/pki.sh"
# shellcheck source=scripts/cluster/node-files.sh
source "$here/node-files.sh"

verb=$1 node=$2
disk=$state/node$node address=$node_network.1$node pid=$state/pid/node$node
socket=$disk/run/containerd/containerd.sock

in_node() {
    nsenter --target "$(living "$pid")" --mount --pid --net --uts --ipc -- "$@"
}

up() {
    ((node <= nodes)) || fail "the cluster was started with $nodes nodes"
    ! living "$pid" >/dev/null || fail "node$node is up already"
    mkdir -p "$disk"/{run,kubelet,containerd,cni,etc/net.d,log/pods,log/containers,etc/proc}
    [[ -e $state/node$node.kubeconfig ]] || node_pki "$node"
    node_files
    make_cgroup "$cgroup/node$node"
    make_cgroup "$cgroup/node$node/daemons"
    enter_cgroup "$cgroup/node$node/daemons"
    hold
    in_node bash -euc "$(declare -f prepare); prepare $disk node$node"
    connect
    daemon containerd containerd --config /etc/cni/containerd.toml
    # A kubelet that is started before containerd listens exits.
    wait_until 60 ctr --address "$socket" version || fail "containerd does not start; see $state/log/node$node-containerd.log"
    local group
    for group in pause coredns; do
        ctr --address "$socket" --namespace k8s.io images import "$(program_folder "$group")/image.tar" >/dev/null
    done
    kubelet
    proxy
}

# The process that is the node.
hold() {
    setsid unshare --mount --propagation private --pid --net --uts --ipc --fork --kill-child --mount-proc pause \
        </dev/null >/dev/null 2>&1 &
    remember "$pid" "$(child_of $!)"
    wait_until 10 grep -q pause "/proc/$(living "$pid")/comm" || fail "node$node does not start"
}

# Inside the node: folders of its own where all software expects them, so that nodes share default paths.
prepare() {
    local disk=$1 setting
    mount --make-rshared /
    hostname "$2"
    mount --bind "$disk/run" /run
    mount --bind "$disk/kubelet" /var/lib/kubelet
    mount --bind "$disk/containerd" /var/lib/containerd
    mount --bind "$disk/cni" /var/lib/cni
    mount --bind "$disk/log" /var/log
    mount --bind "$disk/etc" /etc/cni
    mkdir -p /run/netns
    # Settings of the whole machine that kubelet would change. It finds them as it wants them instead.
    for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
        kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
        echo "${setting#*=}" >"$disk/etc/proc/$(basename "${setting%=*}")"
        mount --bind "$disk/etc/proc/$(basename "${setting%=*}")" "/proc/sys/${setting%=*}"
    done
    ip link set lo up
    echo 1 >/proc/sys/net/ipv4/ip_forward
}

# A cable to the bridge, and routes: every node and the control plane reach every pod; nothing else is reachable.
connect() {
    local other
    ip link add "node$node" type veth peer name eth0 netns "$(living "$pid")"
    ip link set "node$node" master shoal0 up
    in_node ip addr add "$address/24" dev eth0
    in_node ip link set eth0 up
    in_node ip route add default via "$control_plane"
    ip route replace "$pod_network.$node.0/24" via "$address"
    # kube-proxy of the first node serves the control plane and the test driver.
    [[ $node != 1 ]] || ip route replace "$service_range" via "$address"
    for ((other = 1; other <= nodes; other++)); do
        ((other == node)) || in_node ip route replace "$pod_network.$other.0/24" via "$node_network.1$other"
    done
}

# daemon NAME COMMAND...: in the node's namespaces, and in the cgroup that this script has entered.
daemon() {
    local name=$1 holder
    shift
    holder=$(living "$pid")
    setsid nsenter --target "$holder" --mount --pid --net --uts --ipc -- "$@" \
        </dev/null >>"$state/log/node$node-$name.log" 2>&1 &
    remember "$pid-$name" "$(child_of $!)"
}

kubelet() {
    daemon kubelet kubelet --config /etc/cni/kubelet.yaml --kubeconfig "$state/node$node.kubeconfig" \
        --hostname-override "node$node" --node-ip "$address"
}

proxy() {
    daemon proxy kube-proxy --config /etc/cni/proxy.yaml --hostname-override "node$node"
}

cut_power() {
    end "$pid" KILL
    rm -rf "$pid"-* "$disk/run"
    ip link del "node$node" 2>/dev/null || true
}

restart() {
    enter_cgroup "$cgroup/node$node/daemons"
    end "$pid-$1"
    case $1 in
    containerd) daemon containerd containerd --config /etc/cni/containerd.toml ;;
    kubelet | proxy) "$1" ;;
    *) fail "no such daemon: $1" ;;
    esac
}

case $verb in
up) up ;;
cut) cut_power ;;
restart) restart "$3" ;;
exec) shift 2 && in_node "$@" ;;
*) fail "usage: node.sh up|cut I, restart I DAEMON, exec I COMMAND..." ;;
esac
