//! Settings of the gateway.

use serde::{Deserialize, Serialize};

/// Settings of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port. Without authentication only loopback addresses are allowed.
    pub listen: String,
    /// The largest JSON body in bytes; runs may carry whole specifications.
    pub body_max: usize,
    /// Host names beside loopback's own that requests may name.
    pub allowed_hosts: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            body_max: 8 * 1024 * 1024,
            allowed_hosts: Vec::new(),
        }
    }
}
