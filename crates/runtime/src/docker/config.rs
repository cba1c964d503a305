//! Settings of containers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::image_map;

/// Settings of [`DockerRuntime`](super::DockerRuntime).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DockerConfig {
    /// The engine's socket, for example `unix:///var/run/docker.sock`. Unless given, the one of
    /// DOCKER_HOST, or where engines usually listen. It must run on this machine.
    #[serde(with = "ferroflow_types::unset::text")]
    pub host: Option<String>,
    /// The file of a `ferroflow-launcher` that is linked statically; the one beside this program
    /// unless given.
    #[serde(with = "ferroflow_types::unset::text")]
    pub launcher: Option<PathBuf>,
    /// The network of containers; the engine's default unless given.
    #[serde(with = "ferroflow_types::unset::text")]
    pub network: Option<String>,
    /// When images are pulled: Always, IfNotPresent or Never; IfNotPresent unless given.
    #[serde(with = "ferroflow_types::unset::text")]
    pub pull_policy: Option<String>,
    /// Images that stand for others; the one for `*` stands for all that are not named.
    pub images: BTreeMap<String, String>,
    /// Seconds that a registry which does not answer is tried.
    pub image_patience_s: u64,
    /// `uid` or `uid:gid` of commands; the server's own unless given. Use 0 for images that need root.
    #[serde(with = "ferroflow_types::unset::text")]
    pub user: Option<String>,
    /// Folders of this machine that every container sees, as `/outside:/inside` or with `:ro` behind.
    pub mounts: Vec<String>,
    /// Attempts and workspaces live here: set from the server's settings.
    #[serde(skip)]
    pub data_dir: PathBuf,
    /// Artifacts live here, if they are files: set from the server's settings.
    #[serde(skip)]
    pub artifacts: Option<PathBuf>,
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self {
            host: None,
            launcher: None,
            network: None,
            pull_policy: None,
            images: BTreeMap::new(),
            image_patience_s: 60,
            user: None,
            mounts: Vec::new(),
            data_dir: PathBuf::new(),
            artifacts: None,
        }
    }
}

impl DockerConfig {
    /// The image that runs where `image` was asked for.
    pub(super) fn image(&self, image: &str) -> String {
        image_map::resolve(&self.images, image)
    }
}
