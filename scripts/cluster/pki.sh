# shellcheck shell=bash
# Certificate authorities, certificates and kubeconfigs, all below $state/pki. Elliptic keys: made in well under a
# second. Sourced.
# shellcheck disable=SC2154  # settings.sh, which the sourcing script reads first, sets them

pki=$state/pki

new_key() {
    openssl ecparam -name prime256v1 -genkey -noout -out "$pki/$1.key"
}

# authority NAME COMMON_NAME
authority() {
    new_key "$1"
    openssl req -x509 -new -key "$pki/$1.key" -days 3650 -subj "/CN=$2" -out "$pki/$1.crt" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature
}

# certificate NAME AUTHORITY SUBJECT USAGE [ALTERNATIVE_NAMES]
certificate() {
    local names=${5:+subjectAltName=$5}
    new_key "$1"
    openssl req -new -key "$pki/$1.key" -subj "$3" |
        openssl x509 -req -CA "$pki/$2.crt" -CAkey "$pki/$2.key" -set_serial "0x$(openssl rand -hex 8)" -days 3650 \
            -out "$pki/$1.crt" -extfile <(
                printf '%s\n' keyUsage=critical,digitalSignature "extendedKeyUsage=$4" basicConstraints=CA:FALSE "$names"
            ) 2>/dev/null
}

# client NAME SUBJECT [USAGE ALTERNATIVE_NAMES]: a certificate and the kubeconfig that presents it.
client() {
    certificate "$1" ca "$2" "${3:-clientAuth}" "${4:-}"
    touch "$state/$1.kubeconfig"
    chmod 600 "$state/$1.kubeconfig"
    cat >"$state/$1.kubeconfig" <<JSON
{"apiVersion": "v1", "kind": "Config", "current-context": "shoal",
 "contexts": [{"name": "shoal", "context": {"cluster": "shoal", "user": "$1"}}],
 "clusters": [{"name": "shoal", "cluster": {"server": "$api", "certificate-authority-data": "$(base64 -w0 "$pki/ca.crt")"}}],
 "users": [{"name": "$1", "user": {
   "client-certificate-data": "$(base64 -w0 "$pki/$1.crt")", "client-key-data": "$(base64 -w0 "$pki/$1.key")"}}]}
JSON
}

control_plane_pki() {
    local service=kubernetes.default.svc
    authority ca shoal-test-ca
    authority front shoal-test-front-proxy-ca
    certificate apiserver ca /CN=kube-apiserver serverAuth "DNS:kubernetes,DNS:kubernetes.default,DNS:$service,\
DNS:$service.cluster.local,DNS:localhost,IP:$control_plane,IP:$api_service,IP:127.0.0.1"
    certificate front-client front /CN=front-proxy-client clientAuth
    certificate apiserver-kubelet ca /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
    client admin /O=system:masters/CN=admin
    client controller-manager /CN=system:kube-controller-manager
    client scheduler /CN=system:kube-scheduler
    client proxy /CN=system:kube-proxy
    client policies /CN=shoal-test-policies
    openssl genrsa -out "$pki/accounts.key" 2048 2>/dev/null
    openssl rsa -in "$pki/accounts.key" -pubout -out "$pki/accounts.pub" 2>/dev/null
}

# node_pki I: one certificate for both directions, node to API server and back.
node_pki() {
    client "node$1" "/O=system:nodes/CN=system:node:node$1" clientAuth,serverAuth \
        "DNS:node$1,IP:$node_network.1$1"
}
