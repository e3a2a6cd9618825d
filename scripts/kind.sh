#!/usr/bin/env bash
# A kind cluster with this checkout's images loaded, for machines that have Docker, kind and kubectl. The tests do not
# use it: they run on scripts/cluster.sh, which needs none of these.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
cd "$root"

for program in docker kind kubectl; do
    command -v "$program" >/dev/null || fail "$program is missing; scripts/cluster.sh up needs none of docker and kind"
done
name=$(awk '$1 == "name:" { print $2 }' kind-config.yaml)
kind get clusters 2>/dev/null | grep -qx "$name" || stage "kind" kind create cluster --config kind-config.yaml --wait 5m
for image in "$target"/images/*.tar; do
    stage "load $(basename "$image")" kind load image-archive --name "$name" "$image"
done
kubectl --context "kind-$name" get nodes
