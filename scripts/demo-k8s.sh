#!/usr/bin/env bash
# From programs to an answer out of a real Kubernetes cluster on this machine: images, cluster, then the commands of the
# README as they stand there. Prints the fleet, and how long it took from helm install to the first token, and stops
# everything. KEEP=1 leaves the cluster up.
set -euo pipefail
# shellcheck source=scripts/readme.sh
source "$(dirname "$0")/readme.sh"
cd "$root"

# Runs inside the cluster's network.
inside() {
    local began=$SECONDS
    run_readme Kubernetes
    say "$((SECONDS - began)) s from helm install to the last word of the answer"
    kubectl get servingclusters,pods,services,deployments --output wide
}

if [[ ${SHOAL_DEMO_INSIDE:-} ]]; then
    inside
    exit
fi
export SHOAL_CLUSTER=${SHOAL_CLUSTER:-demo}
model=$(scripts/model.sh)
stage "images" env MODEL="$model" scripts/images.sh
IMAGES=$(echo "$target"/images/*.tar) SHOAL_DEMO_INSIDE=1 scripts/e2e-k8s.sh "$0"
