# shellcheck shell=bash
# Configuration of a node's daemons, in the folder that the node sees as /etc/cni. Sourced by node.sh.
# shellcheck disable=SC2154  # node.sh sets them

node_files() {
    cni_file >"$disk/etc/net.d/10-shoal.conflist"
    containerd_file >"$disk/etc/containerd.toml"
    kubelet_file >"$disk/etc/kubelet.yaml"
    proxy_file >"$disk/etc/proxy.yaml"
    # Pods that do not use the cluster's DNS have none: nothing outside is reachable.
    : >"$disk/etc/resolv.conf"
}

# Point to point: every packet is routed, also between two pods of one node, so that Services need no bridge filter.
cni_file() {
    cat <<JSON
{"cniVersion": "0.4.0", "name": "shoal", "plugins": [
  {"type": "ptp", "mtu": 1500, "ipam": {
    "type": "host-local", "ranges": [[{"subnet": "$pod_network.$node.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
}

containerd_file() {
    cat <<'TOML'
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt"]

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Containers as in CI have no CAP_SYS_RESOURCE, AppArmor or huge pages.
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
TOML
}

kubelet_file() {
    cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $address
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $pki/node$node.crt
tlsPrivateKeyFile: $pki/node$node.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup/node$node
kubeletCgroups: /$cgroup/node$node/daemons
failSwapOn: false
failCgroupV1: false
# Without CAP_SYS_RESOURCE some settings of the machine are refused; kubelet then goes on.
featureGates: {KubeletInUserNamespace: true}
oomScoreAdj: 0
clusterDNS: [$dns_service]
clusterDomain: cluster.local
resolvConf: /etc/cni/resolv.conf
# Images are imported and cannot be pulled again, so none is ever collected.
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1Gi, imagefs.available: 1Gi}
nodeStatusUpdateFrequency: 5s
# A changed ConfigMap is in its files after seconds, not after a minute.
syncFrequency: 10s
serializeImagePulls: false
healthzBindAddress: 127.0.0.1
YAML
}

proxy_file() {
    cat <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $state/proxy.kubeconfig}
clusterCIDR: $pod_network.0.0/16
detectLocalMode: ClusterCIDR
# The limits of connection tracking are of the whole machine and stay as they are.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
YAML
}
