//! Settings of pods.

use std::collections::BTreeMap;

use ferroflow_types::Namespace;
use serde::{Deserialize, Serialize};

use crate::image_map;

/// Settings of [`KubernetesRuntime`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesConfig {
    /// Where pods are made, those of all tenants.
    pub namespace: String,
    /// The image that holds `ferroflow-launcher`.
    pub launcher_image: String,
    /// Whether pods mount images as volumes, that one and those of `oci://` artifacts, which saves the
    /// init containers that copy. Needs a cluster with image volumes (Kubernetes 1.35, or the gate
    /// `ImageVolume` from 1.33 on, with containerd 2.1 or CRI-O).
    pub image_volume: bool,
    /// The service account of tasks; without one a task cannot talk to the API.
    #[serde(with = "ferroflow_types::unset::text")]
    pub service_account: Option<String>,
    /// The secret with `access-key-id` and `secret-access-key` for the object store; not given
    /// where pods have an identity of their own.
    #[serde(with = "ferroflow_types::unset::text")]
    pub store_secret: Option<String>,
    /// The user that brings content to the folder which the tasks of a run share; root by default,
    /// as most tasks are. A negative number is no user: that of the launcher's image (65532), where
    /// policies refuse root, or the one that the cluster chooses.
    #[serde(with = "ferroflow_types::unset::id")]
    pub workspace_user: Option<i64>,
    /// The group (fsGroup) that may write there, whichever user a task runs as. A negative number is
    /// no group: the cluster chooses.
    #[serde(with = "ferroflow_types::unset::id")]
    pub workspace_group: Option<i64>,
    /// Secrets of the namespace by which pods pull images, that of the launcher first of all.
    pub image_pull_secrets: Vec<String>,
    /// When images are pulled: Always, IfNotPresent or Never; Kubernetes' own rule unless given.
    #[serde(with = "ferroflow_types::unset::text")]
    pub image_pull_policy: Option<String>,
    /// Images that stand for others, for clusters without a way to the registries of pipelines; the
    /// one for `*` stands for all that are not named.
    pub images: BTreeMap<String, String>,
    /// Resources that stand for types of accelerators, for example `nvidia.com/gpu` for
    /// `NVIDIA_TESLA_P4`; without one the type has to be a resource's name.
    pub accelerators: BTreeMap<String, String>,
    /// Seconds that a pod may wait for its image before its attempt fails.
    pub image_patience_s: u64,
    /// Seconds that a pod may wait for a node before its attempt fails; for ever unless given.
    #[serde(with = "ferroflow_types::unset::count")]
    pub schedule_patience_s: Option<u64>,
    /// Seconds that a pod waits for an object store that is away before its attempt is lost.
    pub store_patience_s: u64,
    /// Address and port where launchers in pods say that their attempt has ended, so that nobody
    /// waits for the pod's end; nowhere unless given.
    #[serde(with = "ferroflow_types::unset::text")]
    pub report_listen: Option<String>,
    /// How pods reach that, for example `http://10.0.0.7:9001`; by the address itself unless given.
    #[serde(with = "ferroflow_types::unset::text")]
    pub report_url: Option<String>,
    /// Pods that wait for steps.
    pub warm: WarmConfig,
    /// Where the files of attempts are: set from the artifacts' settings.
    #[serde(skip)]
    pub root: String,
    /// The store's endpoint as pods reach it: set from the artifacts' settings.
    #[serde(skip)]
    pub endpoint: Option<String>,
    /// The store's region: set from the artifacts' settings.
    #[serde(skip)]
    pub region: Option<String>,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self {
            namespace: "ferroflow".to_owned(),
            launcher_image: String::new(),
            image_volume: false,
            service_account: None,
            store_secret: None,
            workspace_user: Some(0),
            workspace_group: Some(65532),
            image_pull_secrets: Vec::new(),
            image_pull_policy: None,
            images: BTreeMap::new(),
            accelerators: BTreeMap::new(),
            image_patience_s: 120,
            schedule_patience_s: None,
            store_patience_s: 600,
            report_listen: None,
            report_url: None,
            warm: WarmConfig::default(),
            root: String::new(),
            endpoint: None,
            region: None,
        }
    }
}

/// Settings of warm pods (ADR 8): started before they are needed, each for one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WarmConfig {
    /// Pods that wait, for each image with its requests and limits; 0 for none. They hold what they
    /// request while they wait. Needs `report_listen`.
    pub size: usize,
    /// Images with their requests and limits that are kept warm at once; the one that was used
    /// longest ago gives way.
    pub classes_max: usize,
    /// Seconds without a step after which a class has no more waiting pods.
    pub idle_s: u64,
}

impl Default for WarmConfig {
    fn default() -> Self {
        Self {
            size: 0,
            classes_max: 4,
            idle_s: 600,
        }
    }
}

impl KubernetesConfig {
    /// The cluster's namespace in which the attempts of a tenant run: one for all of them (ADR 12).
    /// Should it ever depend on the tenant, the watch, warm pods and the reconciler need one each.
    pub(super) fn namespace_of(&self, _tenant: &Namespace) -> &str {
        &self.namespace
    }

    /// The resource that a type of accelerator, or a resource, is.
    pub(super) fn resource<'a>(&'a self, name: &'a str) -> &'a str {
        self.accelerators.get(name).map_or(name, String::as_str)
    }

    /// The image that runs where `image` was asked for.
    pub(super) fn image(&self, image: &str) -> String {
        image_map::resolve(&self.images, image)
    }
}
