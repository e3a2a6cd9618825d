#!/usr/bin/env bash
# A real Kubernetes cluster on this machine, for tests: real API server, scheduler and kubelets, two nodes, no Docker,
# no systemd. All of it is in one network namespace that leads nowhere, and in one folder.
#
#   cluster.sh up              builds what is not in the cache, starts the cluster, waits until the nodes are ready
#   cluster.sh down            stops it; nothing is left
#   cluster.sh status          what runs; fails unless all of it does
#   cluster.sh exec CMD...     runs a command where the cluster can be reached, with KUBECONFIG set
#   cluster.sh load TAR...     imports images on every node
#   cluster.sh logs FOLDER     copies the logs of daemons and pods, and the audit log
#   cluster.sh node up|cut I   boots node I, or takes its power away; also: restart I DAEMON, exec I CMD...
#   cluster.sh apiserver stop|start   ends the API server, as a crash does, or starts it again
#   cluster.sh fake-nodes N    adds N nodes whose pods do not run, for questions of scale; 0 removes them
#
# SHOAL_CLUSTER names the cluster (default test), SHOAL_CLUSTER_NODES says how many nodes it has (default 2).
# Exit status 77: this machine cannot run a cluster, and the message says why.
set -euo pipefail
# shellcheck source=scripts/cluster/settings.sh
source "$(dirname "$0")/cluster/settings.sh"
# shellcheck source=scripts/cluster/process.sh
source "$here/process.sh"
# shellcheck source=scripts/cluster/check.sh
source "$here/check.sh"

PATH=$(program_path):$PATH:/usr/sbin:/sbin
# kubectl keeps what it learnt of this cluster with the cluster, and follows nobody's preferences.
export PATH KUBECONFIG=$kubeconfig KUBECACHEDIR=$state/kubectl KUBERC=off SHOAL_CLUSTER=$cluster
holder=$state/pid/holder

# Runs a command as root, in this environment.
as_root() {
    if [[ $(id -u) -eq 0 ]]; then
        "$@"
    else
        sudo --non-interactive --preserve-env env "HOME=$HOME" "PATH=$PATH" "$@"
    fi
}

running() { living "$holder" >/dev/null; }
need_running() { running || fail "cluster $cluster is not up; start it with: scripts/cluster.sh up"; }

# In the cluster's network, on this machine's files, as the calling user.
enter() {
    local as_user=()
    [[ $(id -u) -eq 0 ]] || as_user=(setpriv --reuid "$(id -u)" --regid "$(id -g)" --init-groups)
    as_root nsenter --net="/proc/$(living "$holder")/ns/net" -- "${as_user[@]}" "$@"
}

up() {
    check_machine
    if running; then
        say "cluster $cluster is up already"
        return
    fi
    stage "programs" "$here/build.sh"
    stage "images" make_images
    trap 'stopped_early' EXIT
    trap 'exit 130' INT TERM
    stage "cluster" machine start
    trap - EXIT INT TERM
    say "<== up after $SECONDS s; next: scripts/cluster.sh exec kubectl get nodes"
}

# Starts or stops; two at a time would meet in folders of the whole machine. What they start does not hold the lock.
machine() {
    as_root flock --close "$programs" "$here/machine.sh" "$1"
}

make_images() {
    local program folder
    for program in pause coredns; do
        folder=$(program_folder "$program")
        [[ -e $folder/image.tar ]] ||
            "$root/scripts/image.sh" "$folder/image.tar" "localhost/$program:1" "$folder/$program" >/dev/null
    done
}

stopped_early() {
    local status=$?
    trap - EXIT
    say "cluster $cluster did not start"
    logs "$target/cluster-log" || true
    machine stop
    exit "$status"
}

status() {
    need_running
    local daemons
    daemons=$(as_root "$here/machine.sh" daemons)
    printf '%s\n' "$daemons"
    enter kubectl get nodes
    ! grep dead <<<"$daemons" >/dev/null || fail "some daemons are dead; their logs are in $state/log"
}

# Copies the logs of the daemons and pods into folder $1.
logs() {
    mkdir -p "$1"
    as_root "$here/machine.sh" logs "$1"
    [[ $(id -u) -eq 0 ]] || as_root chown -R "$(id -u):$(id -g)" "$1"
    say "logs are in $1"
}

load() {
    local tar
    need_running
    for tar in "$@"; do as_root "$here/machine.sh" load "$tar"; done
}

verb=${1:-}
[[ -z $verb ]] || shift
case $verb in
up | status) "$verb" ;;
down) [[ ! -e $state ]] || machine stop ;;
exec) need_running && enter "$@" ;;
load | logs) "$verb" "$@" ;;
fake-nodes) need_running && "$here/build.sh" kwok && as_root "$here/machine.sh" fake-nodes "$@" ;;
apiserver) need_running && as_root "$here/machine.sh" apiserver "$@" ;;
node) need_running && as_root "$here/machine.sh" node "$@" ;;
*)
    sed -n '5,16p' "$0" | cut -c3- >&2
    exit 2
    ;;
esac
