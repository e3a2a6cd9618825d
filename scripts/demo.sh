#!/usr/bin/env bash
# From sources to an answer: builds, fetches the model, starts prefill, decode and gateway, asks one question,
# prints what it cost and stops everything. KEEP=1 leaves the fleet serving.
set -euo pipefail
# shellcheck source=scripts/fleet.sh
source "$(dirname "$0")/fleet.sh"
cd "$root"
need_rust
need_python

stage "build" build_programs answer
model=$(scripts/model.sh)

trap fleet_stop EXIT
stage "start" fleet_start "$model"
# The status says so once the next look at the fleet is over.
export SHOAL_STATE_DIR=$fleet_state
for _ in {1..100}; do
    "$target/release/shoal" get chat | grep -q Serving && break
    sleep 0.1
done
"$target/release/shoal" get
stage "answer" "$target/release/examples/answer" "$fleet_url" "$fleet_folder"

if [[ -n ${KEEP:-} ]]; then
    trap - EXIT
    disown "$fleet_pid"
    echo
    echo "serving on $fleet_url/v1; stop it with: kill -INT $fleet_pid"
else
    stage "stop" fleet_stop
    trap - EXIT
    echo
    echo "stopped; no process is left"
fi
