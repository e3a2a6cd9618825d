# shellcheck shell=bash
# A local fleet in a temporary state directory: fleet_start FILE, fleet_stop. Sourced by other scripts.

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# Prints a free TCP port, $1 itself if that is free.
free_port() {
    python3 - "${1:-0}" <<'PYTHON'
import socket, sys
for port in (int(sys.argv[1]), 0):
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
        print(s.getsockname()[1])
        break
PYTHON
}

# Sets fleet_state, fleet_folder, fleet_url and fleet_pid; returns once the gateway serves and knows an instance
# of each role.
# The manifest is examples/cluster.yaml with the model's path and a free port in place.
fleet_start() {
    local model=$1 port
    fleet_state=$(mktemp -d "${TMPDIR:-/tmp}/shoal-XXXXXX")
    fleet_folder=$fleet_state/clusters/chat
    port=$(free_port 8000)
    fleet_url=http://127.0.0.1:$port
    sed -e "s|path: .*|path: $model|" -e "s|port: .*|port: $port|" \
        "$root/examples/cluster.yaml" >"$fleet_state/cluster.yaml"
    SHOAL_STATE_DIR=$fleet_state "$target/release/shoal" up -f "$fleet_state/cluster.yaml" \
        >"$fleet_state/up.log" 2>&1 &
    fleet_pid=$!
    { wait_for "$fleet_url/ready" 120 &&
        wait_for "$fleet_url/metrics" 30 'instances{role="decode"} [1-9]' &&
        wait_for "$fleet_url/metrics" 30 'instances{role="prefill"} [1-9]'; } || {
        cat "$fleet_state/up.log" "$fleet_folder"/logs/*.log >&2
        fail "the fleet did not become ready"
    }
}

# Waits until $1 answers 200 with a body that matches $3 (anything), for at most $2 seconds, while process $4
# (the fleet) lives.
wait_for() {
    python3 - "$1" "$2" "${3:-}" "${4:-$fleet_pid}" <<'PYTHON'
import os, re, sys, time, urllib.request
url, seconds, pattern, pid = sys.argv[1], float(sys.argv[2]), sys.argv[3], int(sys.argv[4])
end = time.monotonic() + seconds
while time.monotonic() < end:
    try:
        os.kill(pid, 0)
        with urllib.request.urlopen(url, timeout=2) as reply:
            if re.search(pattern, reply.read().decode()):
                sys.exit(0)
        time.sleep(0.02)
    except ProcessLookupError:
        break
    except OSError:
        time.sleep(0.02)
sys.exit(1)
PYTHON
}

# Processes whose command line names the fleet's state directory.
fleet_processes() {
    local file
    for file in /proc/[0-9]*/cmdline; do
        { tr '\0' ' ' <"$file" | grep -q -- "$fleet_state"; } 2>/dev/null && basename "$(dirname "$file")"
    done || true
}

# Stops the fleet and fails if anything of it is left. Does nothing if there is none.
fleet_stop() {
    [[ -n ${fleet_state:-} ]] || return 0
    local left
    kill -INT "$fleet_pid" 2>/dev/null || true
    wait "$fleet_pid" 2>/dev/null || true
    left=$(fleet_processes)
    if [[ -n $left ]]; then
        # shellcheck disable=SC2086  # one word per process
        kill -KILL $left 2>/dev/null || true
        fail "left behind by the fleet: processes $left"
    fi
    rm -rf "$fleet_state"
    fleet_state=''
}
