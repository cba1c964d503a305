//! Configuration of the cluster's processes, and the objects that it needs from the start.

use std::fs;

use serde_json::{Value, json};

use super::{Cluster, TOKEN, kubeconfig};
use crate::testbed::images;

/// The address of the cluster's DNS service.
const DNS: &str = "10.96.0.10";
/// The addresses of pods.
pub(in crate::testbed) const PODS: &str = "10.244.0.0/24";

/// Writes the configuration of every process.
pub(super) fn write(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.write(
        "tokens.csv",
        &format!("{TOKEN},admin,admin,\"system:masters\"\n"),
    )?;
    let authority = cluster.pki.file("ca.crt").display().to_string();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "testbed", "cluster": {
            "server": format!("https://{}:16443", cluster.node),
            "certificate-authority": authority,
        }}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "admin"}}],
        "current-context": "testbed",
    });
    fs::write(kubeconfig()?, config.to_string())?;
    cluster.write_json("kubelet.json", &kubelet(cluster))?;
    cluster.write_json(
        "kube-proxy.json",
        &json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": PODS,
            "conntrack": {"maxPerCore": 0},
            "hostnameOverride": "testbed",
            "clientConnection": {"kubeconfig": kubeconfig()?},
        }),
    )?;
    network(cluster)?;
    containerd(cluster)?;
    corefile(cluster)
}

fn kubelet(cluster: &Cluster) -> Value {
    let socket = cluster.folder.join("run/containerd.sock");
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", socket.display()),
        "cgroupDriver": "cgroupfs",
        "failSwapOn": false,
        "failCgroupV1": false,
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": cluster.pki.file("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        // A developer's disk is often nearly full, and that is no reason to evict.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 110,
        "registerWithTaints": [],
    })
}

/// A bridge with an address for every pod.
fn network(cluster: &Cluster) -> anyhow::Result<()> {
    let folder = cluster.folder.join("cni");
    fs::create_dir_all(&folder)?;
    let list = json!({
        "cniVersion": "1.0.0",
        "name": "ferroflow-testbed",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "ferroflow0",
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": PODS}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    fs::write(folder.join("10-ferroflow.conflist"), list.to_string())?;
    Ok(())
}

fn containerd(cluster: &Cluster) -> anyhow::Result<()> {
    let at = |name: &str| cluster.folder.join(name).display().to_string();
    let pause = images::PAUSE;
    let (root, state, socket, cni) = (
        at("containerd"),
        at("run/containerd"),
        at("run/containerd.sock"),
        at("cni"),
    );
    let config = format!(
        "version = 2\nroot = {root:?}\nstate = {state:?}\n\
         [grpc]\naddress = {socket:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = {pause:?}\n\
         restrict_oom_score_adj = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\n\
         conf_dir = {cni:?}\n"
    );
    cluster.write("containerd.toml", &config).map(drop)
}

fn corefile(cluster: &Cluster) -> anyhow::Result<()> {
    let config = format!(
        ".:53 {{\n    bind {}\n    kubernetes cluster.local in-addr.arpa {{\n        \
         kubeconfig {} testbed\n    }}\n    forward . /etc/resolv.conf\n    cache 5\n}}\n",
        cluster.node,
        kubeconfig()?.display()
    );
    cluster.write("Corefile", &config).map(drop)
}

/// DNS under its usual address, and volumes on this machine's disk.
pub(super) fn objects(cluster: &Cluster) -> Value {
    let ports = json!([
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]);
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {"clusterIP": DNS, "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns",
                "namespace": "kube-system",
                "labels": {"kubernetes.io/service-name": "kube-dns"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [cluster.node], "conditions": {"ready": true}}],
            "ports": ports,
        },
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": "standard",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "kubernetes.io/host-path",
        },
    ]})
}
