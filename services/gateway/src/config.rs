//! Settings of the gateway.

use serde::{Deserialize, Serialize};

/// Settings of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port. Without API keys only loopback addresses are allowed.
    pub listen: String,
    /// The largest JSON body in bytes; 0 for what a run with the largest value needs.
    pub body_max: usize,
    /// Host names beside loopback's own that requests may name.
    pub allowed_hosts: Vec<String>,
    /// Where pipeline-svc is, for a gateway of its own: `http://<host>:<port>`. The host may have
    /// several addresses. Empty for its socket in the data folder.
    pub pipeline_svc: String,
    /// A file with a line `principal:<SHA-256 of a key, hexadecimal>` for each key, behind which
    /// `namespaces=a,b` may limit it; empty for none.
    pub api_keys_file: String,
    /// Seconds between saying at `/readyz` that it stops and taking no further connections; 5 for a
    /// gateway of its own and 0 in one process with all, unless given.
    pub drain_s: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            body_max: 0,
            allowed_hosts: Vec::new(),
            pipeline_svc: String::new(),
            api_keys_file: String::new(),
            drain_s: None,
        }
    }
}
