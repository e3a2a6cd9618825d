#!/usr/bin/env bash
# Shows that the cluster is one: the product's own images, prefill and decode on two nodes, answers through a Service
# from outside and from a pod, DNS, volumes, logs, exec, admission, audit. Run it where the cluster can be reached:
#   make images && scripts/cluster.sh up && scripts/cluster.sh load target/images/*.tar
#   scripts/cluster.sh exec scripts/cluster/prove.sh
# shellcheck disable=SC2329  # functions are called through check
set -euo pipefail
# shellcheck source=scripts/cluster/settings.sh
source "$(dirname "$0")/settings.sh"
# shellcheck source=scripts/cluster/process.sh
source "$here/process.sh"

tag=${SHOAL_TAG:-$(awk -F '"' '/^version = / { print $2; exit }' "$root/Cargo.toml")}
model=$("$root/scripts/model.sh")
k() { kubectl --namespace prove "$@"; }
failed=0

# check WHAT COMMAND...: one line, with what the command said if it failed.
check() {
    local what=$1 output began=$EPOCHREALTIME result=ok
    shift
    if ! output=$("$@" 2>&1); then
        result=FAILED
        failed=1
    fi
    printf '%-6s %5.1f s  %s\n' "$result" "$(awk "BEGIN { print $EPOCHREALTIME - $began }")" "$what"
    [[ $result == ok ]] || printf '               | %s\n' "${output//$'\n'/$'\n'               | }"
}

# says PATTERN COMMAND...: the command prints a line that matches.
says() {
    local pattern=$1 output
    shift
    output=$("$@" 2>&1) || true
    grep -qE -- "$pattern" <<<"$output" || {
        printf 'wanted %s, got: %s\n' "$pattern" "$output"
        return 1
    }
}

cleanup() {
    kubectl delete namespace prove --ignore-not-found --wait=true --timeout=120s >/dev/null
    kubectl delete persistentvolume prove-models --ignore-not-found >/dev/null
}

manifest() {
    sed -e "s|MODELS|$(dirname "$model")|" -e "s|MODEL,|$(basename "$model"),|" -e "s|:TAG|:$tag|" "$here/prove.yaml"
}

apply() {
    kubectl create namespace prove
    k create secret generic fleet --from-literal=secret="$(openssl rand -hex 32)"
    manifest | kubectl apply -f -
}

# A pod on the decode node that asks the gateway, which runs anywhere, by its short name.
ask() {
    k run ask --image="localhost/shoal:$tag" --restart=Never --overrides='{"spec": {
        "nodeSelector": {"kubernetes.io/hostname": "node2"}, "automountServiceAccountToken": false,
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "ask", "image": "localhost/shoal:'"$tag"'", "imagePullPolicy": "Never",
          "command": ["shoal", "chat", "--endpoint", "http://gateway/v1", "--max-tokens", "16", "-t", "0",
            "--stats", "-m", "Count to five."],
          "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}}'
    k wait --for=jsonpath='{.status.phase}'=Succeeded --timeout=60s pod/ask || { k logs ask; return 1; }
}

again() {
    k delete pod ask --now >/dev/null
    ask
}

post() {
    curl -sS --max-time 30 "http://$1/v1/chat/completions" -H 'Content-Type: application/json' -d '{"model": "prove",
        "max_tokens": 16, "temperature": 0, "messages": [{"role": "user", "content": "'"$(printf 'Tell me about the sea. %.0s' {1..40})"'"}]}'
}

knows_both() {
    [[ $(curl -sS "http://$1/metrics" | grep -cE 'instances\{role="(prefill|decode)"\} [1-9]') == 2 ]]
}

# policy NAME SPEC
policy() {
    k create --filename - <<YAML
{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "$1"}, "spec": $2}
YAML
}

# A policy is in force a moment after it was made.
refused() { wait_until 10 silent "$1"; }
silent() { ! curl -sS --max-time 1 "http://$1/health"; }

trap cleanup EXIT
cleanup
check "rules are made of network policies" python3 "$here/test_policies.py"
check "both nodes are ready" kubectl wait --for=condition=Ready node/node1 node/node2 --timeout=60s
check "namespace, volume, fleet admitted" apply
check "a pod that is not restricted is refused" says 'violates PodSecurity' k run bad --image=localhost/shoal:1
check "the claim is bound" k wait --for=jsonpath='{.status.phase}'=Bound --timeout=30s persistentvolumeclaim/models
check "engines are ready, one on each node" k wait --for=condition=Ready --timeout=120s pod/prefill pod/decode
check "the gateway is ready: DNS found the engines" k rollout status deployment/gateway --timeout=60s
service=$(k get service gateway --output jsonpath='{.spec.clusterIP}')
check "it knows an instance of each role" wait_until 30 knows_both "$service"
# One answer: the second time the prompt would be in decode's cache.
check "an answer through the Service, from outside; KV pages went from node1 to node2" \
    says '"completion_tokens":[1-9].*"prefill_instance":"prefill","decode_instance":"decode".*"kv_bytes":[1-9]' \
    post "$service"
check "an answer through the Service, from a pod, by name" ask
check "kubectl logs" says '.' k logs ask
check "kubectl exec" says '^shoal-engine [0-9]' k exec prefill -- shoal-engine --version
check "the audit log names who did what" grep -q '"verb":"create".*"username":"admin".*"namespace":"prove"' "$state/log/audit.log"
check "a network policy keeps everybody out" policy nobody '{"podSelector": {"matchLabels": {"app": "gateway"}}}'
check "  so that there is no answer from outside" refused "$service"
check "another lets one pod in, by label and name of the port" policy ask '{
    "podSelector": {"matchLabels": {"app": "gateway"}},
    "ingress": [{"from": [{"podSelector": {"matchLabels": {"run": "ask"}}}], "ports": [{"port": "http"}]}]}'
check "  which gets its answer" again
check "  and nobody else does" refused "$service"
exit "$failed"
