#!/usr/bin/env bash
# control-plane.sh                        starts etcd, API server, controller manager and scheduler
# control-plane.sh apiserver stop|start   ends the API server alone, as a crash does, or starts it again
# Runs inside the cluster's namespaces, as root.
set -euo pipefail
# shellcheck source=scripts/cluster/settings.sh
source "$(dirname "$0")/settings.sh"
# shellcheck source=scripts/cluster/process.sh
source "$here/process.sh"
# shellcheck source=scripts/cluster/cgroups.sh
source "$here/cgroups.sh"
# shellcheck source=scripts/cluster/pki.sh
source "$here/pki.sh"

# daemon NAME COMMAND...
daemon() {
    local name=$1
    shift
    setsid "$@" </dev/null >"$state/log/$name.log" 2>&1 &
    remember "$state/pid/$name" "$!"
}

apiserver() {
    daemon apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 \
        --bind-address "$control_plane" --advertise-address "$control_plane" --secure-port 6443 \
        --service-cluster-ip-range "$service_range" --allow-privileged \
        --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
        --client-ca-file "$pki/ca.crt" --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
        --kubelet-client-certificate "$pki/apiserver-kubelet.crt" --kubelet-client-key "$pki/apiserver-kubelet.key" \
        --kubelet-certificate-authority "$pki/ca.crt" --kubelet-preferred-address-types InternalIP \
        --service-account-issuer https://kubernetes.default.svc.cluster.local \
        --service-account-key-file "$pki/accounts.pub" --service-account-signing-key-file "$pki/accounts.key" \
        --requestheader-client-ca-file "$pki/front.crt" --requestheader-allowed-names front-proxy-client \
        --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
        --requestheader-extra-headers-prefix X-Remote-Extra- --enable-aggregator-routing \
        --proxy-client-cert-file "$pki/front-client.crt" --proxy-client-key-file "$pki/front-client.key" \
        --audit-policy-file "$here/audit.yaml" --audit-log-path "$state/log/audit.log" --audit-log-maxsize 200
    # Minutes, not seconds: on an overloaded machine half a minute was seen.
    wait_until 180 kubectl get --raw /readyz || fail "the API server does not get ready; see $state/log/apiserver.log"
}

case $* in
"") ;;
"apiserver stop")
    end "$state/pid/apiserver" KILL
    exit
    ;;
"apiserver start")
    enter_cgroup "$cgroup/control-plane"
    apiserver
    exit
    ;;
*) fail "usage: control-plane.sh [apiserver stop|start]" ;;
esac

# network: a bridge that leads nowhere else. The API server is bound to its address and not to loopback, because
# pods reach the API through a Service, and an endpoint on loopback is refused.
ip link set lo up
ip link add shoal0 type bridge
ip addr add "$control_plane/24" dev shoal0
ip link set shoal0 up

enter_cgroup "$cgroup/control-plane"
control_plane_pki

daemon etcd etcd --name shoal --data-dir "$state/etcd" \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster shoal=http://127.0.0.1:2380 \
    --unsafe-no-fsync --quota-backend-bytes 4294967296 --auto-compaction-retention 5m

apiserver

daemon controller-manager kube-controller-manager --kubeconfig "$state/controller-manager.kubeconfig" \
    --authentication-kubeconfig "$state/controller-manager.kubeconfig" \
    --authorization-kubeconfig "$state/controller-manager.kubeconfig" \
    --bind-address 127.0.0.1 --leader-elect=false --use-service-account-credentials \
    --client-ca-file "$pki/ca.crt" --root-ca-file "$pki/ca.crt" --requestheader-client-ca-file "$pki/front.crt" \
    --service-account-private-key-file "$pki/accounts.key" \
    --cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" \
    --service-cluster-ip-range "$service_range" --cluster-cidr "$pod_network.0.0/16" --allocate-node-cidrs=false \
    --kube-api-qps 200 --kube-api-burst 400 --pvclaimbinder-sync-period 1s
daemon scheduler kube-scheduler --kubeconfig "$state/scheduler.kubeconfig" \
    --authentication-kubeconfig "$state/scheduler.kubeconfig" \
    --authorization-kubeconfig "$state/scheduler.kubeconfig" \
    --bind-address 127.0.0.1 --leader-elect=false --kube-api-qps 200 --kube-api-burst 400
kubectl create clusterrolebinding shoal-test-node-proxier \
    --clusterrole system:node-proxier --user system:kube-proxy >/dev/null

# The network plugin of the nodes knows no policies.
kubectl create clusterrole shoal-test-policies --verb list,watch \
    --resource pods,namespaces,networkpolicies.networking.k8s.io >/dev/null
kubectl create clusterrolebinding shoal-test-policies \
    --clusterrole shoal-test-policies --user shoal-test-policies >/dev/null
daemon policies python3 "$here/policies.py" "$state" "$control_plane:6443"
