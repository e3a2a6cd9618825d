#!/usr/bin/env bash
# What can be said about the chart without a cluster, with Helm 3 and 4.
set -euo pipefail
# shellcheck source=scripts/cluster/settings.sh
source "$(dirname "$0")/cluster/settings.sh"
cd "$root"
chart=charts/shoal

"$here/build.sh" helm helm3
PATH=$(program_folder clients):$(program_folder helm3):$PATH

render() { "$helm" template shoal "$chart" --namespace shoal-system --kube-version 1.34 "$@"; }

say "-- the chart's CustomResourceDefinitions are those of crds/"
diff -r crds/yaml "$chart/files/crds" >&2 || fail "stale; run: cp crds/yaml/*.yaml $chart/files/crds/"

say "-- the chart has the workspace's version"
version=$(awk -F '"' '/^version = / { print $2; exit }' Cargo.toml)
[[ $(awk '/^(version|appVersion):/ { gsub("\"", "", $2); print $2 }' "$chart/Chart.yaml" | sort -u) == "$version" ]] ||
    fail "$chart/Chart.yaml does not have version and appVersion $version"

values=("" "$chart"/ci/*.yaml)
folder=$(mktemp -d "${TMPDIR:-/tmp}/shoal-XXXXXX")
trap 'rm -rf "$folder"' EXIT
for helm in helm3 helm; do
    say "-- $("$helm" version --short): lint; rendered twice, the same; one namespace; what is refused"
    for file in "${values[@]}"; do
        options=()
        [[ -z $file ]] || options=(--values "$file")
        "$helm" lint --strict --quiet "$chart" "${options[@]}" >&2
        render "${options[@]}" >"$folder/$helm-$(basename "$file" .yaml)"
        diff "$folder/$helm-$(basename "$file" .yaml)" <(render "${options[@]}") >&2 ||
            fail "the chart renders differently each time"
    done
    # A release for one namespace has nothing that belongs to the whole cluster.
    ! grep -E '^kind: (Cluster|CustomResource)|any: true' "$folder/$helm-namespaced" >&2 ||
        fail "a release for one namespace makes objects of the whole cluster"
    # By default nothing that needs more than Kubernetes has.
    ! grep -E '^apiVersion: monitoring' "$folder/$helm-" >&2 || fail "monitoring is on by default"
    for refused in operator.replica=2 operator.replicas=0 images.engine.digest=sha256:1 monitoring.alerts.on=true \
        networkPolicy=false 'operator.extraArgs={log}'; do
        ! render --set "$refused" >/dev/null 2>&1 || fail "$refused is accepted"
    done
done

say "-- both render the same"
for file in "${values[@]}"; do
    diff "$folder/helm3-$(basename "$file" .yaml)" "$folder/helm-$(basename "$file" .yaml)" >&2 || fail "Helm 3 and 4 differ"
done

say "-- what is rendered is what it should be"
tools=$(venv monitoring scripts/requirements/monitoring.txt)
"$tools/bin/python" scripts/monitoring/rendered.py "$folder/helm-" "$folder/helm-everything" "$folder/helm-namespaced"
