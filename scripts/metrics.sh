#!/usr/bin/env bash
# What running programs expose, beside the table of metrics in docs/observability.md.
set -euo pipefail
# shellcheck source=scripts/fleet.sh
source "$(dirname "$0")/fleet.sh"
cd "$root"
need_python
# SHOAL_PROGRAMS: a folder of programs that are built already.
programs=${SHOAL_PROGRAMS:-$target/release}
# shellcheck disable=SC2119  # no examples
[[ -n ${SHOAL_PROGRAMS:-} ]] || build_programs
model=$(scripts/model.sh)

folder=$(mktemp -d "${TMPDIR:-/tmp}/shoal-XXXXXX")
pids=()
stop() {
    kill "${pids[@]}" 2>/dev/null || true
    wait "${pids[@]}" 2>/dev/null || true
    rm -rf "$folder"
}
trap stop EXIT
start() {
    "$programs/$1" "${@:2}" >>"$folder/log" 2>&1 &
    pids+=("$!")
}
field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1" "$2"; }

head -c 32 /dev/urandom >"$folder/secret"
chmod 600 "$folder/secret"
instances=''
for role in prefill decode; do
    start shoal-engine --model "$model" --model-name smollm2 --instance "$role" --role "$role" --threads 1 \
        --kv-memory 67108864 --listen 127.0.0.1:0 --data-listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 \
        --secret-file "$folder/secret" --ready-file "$folder/$role.json"
done
for role in prefill decode; do
    for _ in {1..600}; do [[ ! -s $folder/$role.json ]] || break; sleep 0.1; done
    [[ -s $folder/$role.json ]] || fail "the $role engine did not start: $(cat "$folder/log")"
    instances+=",{\"name\":\"$role\",\"grpc\":\"$(field "$folder/$role.json" grpc)\"}"
done
echo "{\"instances\":[${instances#,}]}" >"$folder/instances.json"
port=$(free_port)
start shoal-gateway --listen "127.0.0.1:$port" --model "$model" --model-name smollm2 \
    --secret-file "$folder/secret" --instances "$folder/instances.json"
gateway=http://127.0.0.1:$port
wait_for "$gateway/ready" 60 "" "${pids[-1]}" || fail "the gateway does not serve: $(cat "$folder/log")"

# Its page needs no API server.
cat >"$folder/kubeconfig" <<'YAML'
apiVersion: v1
kind: Config
current-context: none
contexts: [{ name: none, context: { cluster: none, user: none } }]
clusters: [{ name: none, cluster: { server: "http://127.0.0.1:1" } }]
users: [{ name: none, user: {} }]
YAML
operator=127.0.0.1:$(free_port)
KUBECONFIG=$folder/kubeconfig start shoal-operator --engine-image none --listen "$operator"
wait_for "http://$operator/metrics" 30 "" "${pids[-1]}" || fail "the operator does not start: $(cat "$folder/log")"

# A prompt of more than one page, so that a prefill instance is asked.
python3 - "$gateway" <<'PYTHON'
import json, sys, urllib.request
body = {"model": "smollm2", "prompt": "The sea is wide. " * 60, "max_tokens": 4, "stream": True}
request = urllib.request.Request(sys.argv[1] + "/v1/completions", json.dumps(body).encode(),
                                 {"Content-Type": "application/json"})
with urllib.request.urlopen(request, timeout=60) as reply:
    assert b"[DONE]" in reply.read()
PYTHON

python3 scripts/monitoring/metrics.py live "gateway=$gateway/metrics" "operator=http://$operator/metrics" \
    "engine=http://$(field "$folder/prefill.json" metrics)/metrics" \
    "engine=http://$(field "$folder/decode.json" metrics)/metrics"
