#!/usr/bin/env bash
# e2e-k8s.sh COMMAND...: starts a cluster of its own, runs the command in its network with KUBECONFIG set, and takes
# the cluster down, also when the command fails or is interrupted. The command's exit status is returned.
# IMAGES="TAR..." loads images first, FAKE_NODES=N adds fake nodes. KEEP=1 leaves the cluster up. Logs of a failed run are
# kept in target/.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
(($#)) || fail "usage: e2e-k8s.sh COMMAND..."

export SHOAL_CLUSTER=${SHOAL_CLUSTER:-e2e}
cluster=$root/scripts/cluster.sh

down() {
    local status=$?
    trap - EXIT
    ((status == 0)) || "$cluster" logs "$target/e2e-k8s-log" || true
    if [[ -n ${KEEP:-} ]]; then
        say "the cluster is left up; stop it with: SHOAL_CLUSTER=$SHOAL_CLUSTER scripts/cluster.sh down"
    else
        "$cluster" down
    fi
    exit "$status"
}

trap down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
stage "cluster" "$cluster" up
# shellcheck disable=SC2086  # one word per archive
[[ -z ${IMAGES:-} ]] || stage "load images" "$cluster" load $IMAGES
[[ -z ${FAKE_NODES:-} ]] || stage "fake nodes" "$cluster" fake-nodes "$FAKE_NODES"
stage "run" "$cluster" exec "$@"
