#!/usr/bin/env bash
# What Argo CD (by docs/argocd, run as Argo CD runs it) and kstatus (the library of Flux and Helm 4) say of objects as the
# operator writes them.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
cd "$root/e2e/gitops"
need_go
go vet ./...
go test -count=1 ./...
