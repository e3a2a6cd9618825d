#!/usr/bin/env bash
# What can be said about the chart without a cluster.
set -euo pipefail
# shellcheck source=scripts/cluster/settings.sh
source "$(dirname "$0")/cluster/settings.sh"
cd "$root"
chart=charts/shoal

"$here/build.sh" helm
PATH=$(program_folder clients):$PATH

render() { helm template shoal "$chart" --namespace shoal-system --kube-version 1.34 "$@"; }

say "-- the chart's CustomResourceDefinitions are those of crds/"
diff -r crds/yaml "$chart/files/crds" >&2 || fail "stale; run: cp crds/yaml/*.yaml $chart/files/crds/"

say "-- the chart has the workspace's version"
version=$(awk -F '"' '/^version = / { print $2; exit }' Cargo.toml)
[[ $(awk '/^(version|appVersion):/ { gsub("\"", "", $2); print $2 }' "$chart/Chart.yaml" | sort -u) == "$version" ]] ||
    fail "$chart/Chart.yaml does not have version and appVersion $version"

say "-- helm lint, in both modes"
helm lint --strict --quiet "$chart" >&2
helm lint --strict --quiet "$chart" --set clusterWide=false --set crds.install=false >&2

say "-- rendered twice, the same"
diff <(render) <(render) >&2 || fail "the chart renders differently each time"

say "-- in one namespace, nothing that belongs to the whole cluster"
! render --set clusterWide=false --set crds.install=false | grep -E '^kind: (Cluster|CustomResource)' >&2 ||
    fail "a release for one namespace makes objects of the whole cluster"

say "-- a value that does not exist is refused"
! render --set operator.replica=2 >/dev/null 2>&1 || fail "an unknown value is accepted"
