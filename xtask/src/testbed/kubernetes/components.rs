//! The processes of a cluster, in the order in which they start.

use std::process::Command;

use super::{Cluster, ctr, kubeconfig, kubectl};
use crate::testbed::tools::bin;
use crate::testbed::{answers, is_healthy};

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Component {
    Etcd,
    Apiserver,
    Controllers,
    Scheduler,
    Containerd,
    Kubelet,
    Proxy,
    Dns,
}

impl Component {
    pub(super) const ALL: [Self; 8] = [
        Self::Etcd,
        Self::Apiserver,
        Self::Controllers,
        Self::Scheduler,
        Self::Containerd,
        Self::Kubelet,
        Self::Proxy,
        Self::Dns,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Apiserver => "kube-apiserver",
            Self::Controllers => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
            Self::Dns => "coredns",
        }
    }

    /// Whether it does its work.
    pub(super) fn answers(self, cluster: &Cluster) -> bool {
        match self {
            Self::Etcd => is_healthy(12379, "/health"),
            Self::Apiserver => kubectl(&["get", "--raw", "/readyz"]).is_ok(),
            Self::Controllers => answers("127.0.0.1", 10257),
            Self::Scheduler => answers("127.0.0.1", 10259),
            Self::Containerd => ctr(&["version"]).is_ok(),
            Self::Kubelet => is_healthy(10248, "/healthz"),
            Self::Proxy => answers("127.0.0.1", 10256),
            Self::Dns => answers(&cluster.node, 53),
        }
    }

    pub(super) fn command(self, cluster: &Cluster) -> anyhow::Result<Command> {
        if self == Self::Containerd {
            let mut containerd = Command::new("containerd");
            containerd
                .arg("--config")
                .arg(cluster.folder.join("containerd.toml"));
            return Ok(containerd);
        }
        let mut command = Command::new(bin(self.name())?);
        command.args(self.flags(cluster)?);
        if matches!(self, Self::Kubelet | Self::Proxy | Self::Dns) {
            command.env("PATH", std::env::var("PATH").unwrap_or_default());
        }
        Ok(command)
    }

    fn flags(self, cluster: &Cluster) -> anyhow::Result<Vec<String>> {
        let file = |name: &str| cluster.folder.join(name).display().to_string();
        let pki = |name: &str| cluster.pki.file(name).display().to_string();
        let kubeconfig = kubeconfig()?.display().to_string();
        let flag = |name: &str, value: &str| format!("--{name}={value}");
        Ok(match self {
            Self::Containerd => Vec::new(),
            Self::Etcd => vec![
                flag("data-dir", &file("etcd")),
                "--unsafe-no-fsync".to_owned(),
                flag("listen-client-urls", "http://127.0.0.1:12379"),
                flag("advertise-client-urls", "http://127.0.0.1:12379"),
                flag("listen-peer-urls", "http://127.0.0.1:12380"),
            ],
            Self::Apiserver => vec![
                flag("etcd-servers", "http://127.0.0.1:12379"),
                flag("bind-address", "0.0.0.0"),
                flag("advertise-address", &cluster.node),
                flag("secure-port", "16443"),
                flag("service-cluster-ip-range", "10.96.0.0/16"),
                flag("authorization-mode", "Node,RBAC"),
                flag("token-auth-file", &file("tokens.csv")),
                flag("client-ca-file", &pki("ca.crt")),
                flag("tls-cert-file", &pki("apiserver.crt")),
                flag("tls-private-key-file", &pki("apiserver.key")),
                flag("kubelet-client-certificate", &pki("apiserver-kubelet.crt")),
                flag("kubelet-client-key", &pki("apiserver-kubelet.key")),
                flag("kubelet-preferred-address-types", "InternalIP"),
                flag("service-account-issuer", "https://kubernetes.default.svc"),
                // So that pods with images as volumes can be tried on it, without being run.
                flag("feature-gates", "ImageVolume=true"),
                flag("service-account-key-file", &pki("service-accounts.pub")),
                flag(
                    "service-account-signing-key-file",
                    &pki("service-accounts.key"),
                ),
            ],
            Self::Controllers => vec![
                flag("kubeconfig", &kubeconfig),
                flag("root-ca-file", &pki("ca.crt")),
                flag(
                    "service-account-private-key-file",
                    &pki("service-accounts.key"),
                ),
                "--use-service-account-credentials=true".to_owned(),
                "--enable-hostpath-provisioner=true".to_owned(),
                "--leader-elect=false".to_owned(),
            ],
            Self::Scheduler => vec![
                flag("kubeconfig", &kubeconfig),
                "--leader-elect=false".to_owned(),
            ],
            Self::Kubelet => vec![
                flag("kubeconfig", &kubeconfig),
                flag("config", &file("kubelet.json")),
                flag("root-dir", &file("kubelet")),
                flag("node-ip", &cluster.node),
                flag("hostname-override", "testbed"),
            ],
            Self::Proxy => vec![flag("config", &file("kube-proxy.json"))],
            Self::Dns => vec![
                "-conf".to_owned(),
                file("Corefile"),
                "-dns.port=53".to_owned(),
            ],
        })
    }
}
