# shellcheck shell=bash
# Whether this machine can run a cluster. What can be installed is installed; what cannot is said. Sourced.

# Exit status when the machine lacks what no package brings. A caller may skip then, and must say so.
cannot=77
cannot() {
    say "this machine cannot run the test cluster: $*"
    exit "$cannot"
}

check_machine() {
    [[ $(uname -s) == Linux ]] || cannot "it needs Linux, this is $(uname -s)"
    [[ $(uname -m) == x86_64 ]] || cannot "it needs x86_64, this is $(uname -m)"
    as_root true 2>/dev/null || cannot "it needs root, or sudo without a password"
    grep -qw overlay /proc/filesystems || as_root modprobe overlay 2>/dev/null ||
        cannot "the kernel has no overlay file system (CONFIG_OVERLAY_FS)"
    check_cgroups
    as_root unshare --net --pid --mount --ipc --uts --fork --mount-proc true 2>/dev/null ||
        cannot "root may not make namespaces here: $(as_root unshare --net --pid --mount --fork true 2>&1 || true)"
    check_packages
    check_network
}

check_cgroups() {
    local controller have
    if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
        have=" $(cat /sys/fs/cgroup/cgroup.controllers) "
    else
        have=" $(awk '$4 == 1 { print $1 }' /proc/cgroups | tr '\n' ' ') "
        [[ -d /sys/fs/cgroup/memory ]] || cannot "no cgroups are mounted at /sys/fs/cgroup"
    fi
    for controller in cpu cpuset memory pids; do
        [[ $have == *" $controller "* ]] || cannot "the cgroup controller $controller is missing"
    done
    as_root test -w /sys/fs/cgroup/cgroup.controllers -o -w /sys/fs/cgroup/memory ||
        cannot "/sys/fs/cgroup is mounted read-only"
}

# The folders below are where Debian's packages put these programs, on PATH or not.
check_packages() {
    local missing=() pair
    for pair in containerd:containerd ctr:containerd runc:runc ip:iproute2 nft:nftables iptables:iptables \
        openssl:openssl jq:jq curl:curl python3:python3 nsenter:util-linux flock:util-linux mount:mount; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    [[ -x /usr/lib/cni/ptp ]] || missing+=(containernetworking-plugins)
    ((${#missing[@]} == 0)) || need_packages "${missing[@]}"
}

check_network() {
    local probe='ip link add probe0 type veth peer name probe1 && ip link add probe2 type bridge && nft add table ip probe &&
        nft add chain ip probe nat "{ type nat hook prerouting priority 0; }"'
    as_root unshare --net sh -euc "PATH=\$PATH:/usr/sbin:/sbin; $probe" 2>/dev/null ||
        cannot "the kernel has no veth, bridge or nftables with NAT: $(as_root unshare --net sh -euc "$probe" 2>&1 || true)"
}
