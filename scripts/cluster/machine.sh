#!/usr/bin/env bash
# What needs root: start, stop, daemons, load TAR, logs FOLDER, node VERB..., apiserver VERB, fake-nodes COUNT.
# cluster.sh calls it.
#
# One process holds the namespaces of the whole cluster. It is the first of its pid namespace, so when it is killed
# the kernel ends everything in it, and mounts and network disappear with it.
set -euo pipefail
# shellcheck source=scripts/cluster/settings.sh
source "$(dirname "$0")/settings.sh"
# shellcheck source=scripts/cluster/process.sh
source "$here/process.sh"
# shellcheck source=scripts/cluster/cgroups.sh
source "$here/cgroups.sh"
holder=$state/pid/holder

inside() {
    nsenter --target "$(living "$holder")" --net --pid --mount --ipc --uts -- "$@"
}

start() {
    local node
    living "$holder" >/dev/null && fail "cluster $cluster is up already"
    stop
    mkdir -p "$state"/{pid,log,pki,etcd,kubectl}
    touch "$state/log/audit.log" "$kubeconfig"
    [[ -z ${SUDO_UID:-} ]] || chown "$SUDO_UID:${SUDO_GID:-}" "$state"/{kubectl,log/audit.log} "$kubeconfig"
    echo "$nodes" >"$state/nodes"
    # Keys are here. The folder can be entered, so that the caller of sudo finds the kubeconfig.
    chmod 711 "$state"
    chmod 700 "$state"/{pki,etcd}
    inherit
    more_watches
    make_mount_points
    make_cgroup "$cgroup"
    make_cgroup "$cgroup/control-plane"
    # Not to be interrupted before it is known which process must be stopped.
    trap '' INT TERM
    setsid unshare --net --pid --mount --propagation private --ipc --uts --fork --kill-child --mount-proc pause \
        </dev/null >/dev/null 2>&1 &
    remember "$holder" "$(child_of $!)"
    trap - INT TERM
    wait_until 10 grep -q pause "/proc/$(living "$holder")/comm" || fail "the cluster's namespaces cannot be made"

    inside "$here/control-plane.sh"
    say "    API server ready ($SECONDS s)"
    for ((node = 1; node <= nodes; node++)); do
        inside "$here/node.sh" up "$node"
    done
    for ((node = 1; node <= nodes; node++)); do
        inside kubectl wait --for=create --timeout=180s "node/node$node" >/dev/null
        inside kubectl wait --for=condition=Ready --timeout=180s "node/node$node" >/dev/null
        say "    node$node ready ($SECONDS s)"
    done
    ((nodes == 0)) || dns
}

dns() {
    inside kubectl apply -f "$here/dns.yaml" >/dev/null
    inside kubectl --namespace kube-system rollout status deployment/coredns --timeout=120s >/dev/null
    say "    DNS ready ($SECONDS s)"
}

# What another running cluster has changed on the machine is this one's to undo, if it ends last.
inherit() {
    local file
    for file in "$(dirname "$state")"/*/{watches,mount-points}; do
        [[ ! -e $file ]] || cp -n "$file" "$state/"
    done
}

# Only this many processes can watch files otherwise (128 by default), for all users of the machine together. The one
# setting outside the cluster that is changed; stop puts it back.
more_watches() {
    local limit=/proc/sys/fs/inotify/max_user_instances
    (($(<"$limit") < 1024)) || return 0
    cat "$limit" >"$state/watches"
    echo 1024 >"$limit"
}

# Folders that each node covers with its own. They are empty, and removed at the end if they were not there before.
make_mount_points() {
    local folder
    for folder in /var/lib/kubelet /var/lib/containerd /var/lib/cni /etc/cni; do
        [[ -d $folder ]] || echo "$folder" >>"$state/mount-points"
        mkdir -p "$folder"
    done
}

stop() {
    [[ -e $state ]] || return 0
    end "$holder" KILL
    remove_cgroup "$cgroup"
    if ! other_clusters; then
        [[ ! -e $state/watches ]] || cat "$state/watches" >/proc/sys/fs/inotify/max_user_instances
        [[ ! -e $state/mount-points ]] || xargs rmdir --ignore-fail-on-non-empty <"$state/mount-points"
    fi
    rm -rf --one-file-system "$state"
    rmdir --ignore-fail-on-non-empty "$(dirname "$state")"
}

# They need the setting, and to remove a folder is to unmount what their nodes have mounted on it.
other_clusters() {
    local patterns
    mapfile -t patterns < <(cgroup_folders 'shoal-*')
    compgen -G "${patterns[0]}" >/dev/null
}

# One line for each process that should run, with the word "dead" if it does not. As seen inside.
daemons() {
    inside bash -euc "source '$here/process.sh'
        for file in '$state'/pid/*; do
            [[ \$file == */holder ]] || printf '%-20s %s\\n' \"\${file##*/}\" \"\$(living \"\$file\" || echo dead)\"
        done"
}

# Every name that the archive holds is imported, and also each repository's name with its digest.
load() {
    local repository socket
    while read -r repository; do
        for socket in "$state"/node*/run/containerd/containerd.sock; do
            ctr --address "$socket" --namespace k8s.io images import --digests --base-name "$repository" "$1" >/dev/null
        done
    done < <(tar -xOf "$1" ./manifest.json | jq -r '.[].RepoTags[] | sub(":[^:/]*$"; "")' | sort -u)
}

logs() {
    local folder
    [[ -d $state/log ]] || fail "cluster $cluster has no logs"
    cp -r "$state/log/." "$1"
    for folder in "$state"/node*/log/pods; do
        [[ ! -d $folder ]] || cp -r "$folder" "$1/$(basename "${folder%/log/pods}")-pods"
    done
}

verb=$1
shift
case $verb in
start | stop | daemons) "$verb" ;;
load | logs) "$verb" "$@" ;;
node) inside "$here/node.sh" "$@" ;;
apiserver) inside "$here/control-plane.sh" apiserver "$@" ;;
fake-nodes) inside "$here/fake-nodes.sh" "$@" ;;
*) fail "no such verb: $verb" ;;
esac
