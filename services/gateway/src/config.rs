//! Settings of the gateway.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Settings of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port. Without API keys only loopback addresses are allowed.
    pub listen: String,
    /// The largest JSON body in bytes; what a run with the largest value needs, unless given.
    #[serde(with = "ferroflow_types::unset::count")]
    pub body_max: Option<usize>,
    /// Host names beside loopback's own that requests may name.
    pub allowed_hosts: Vec<String>,
    /// Where services are, by their names, for a gateway of its own: `http://<host>:<port>`. The host
    /// may have several addresses. A service that is not named has a socket in the data folder.
    pub upstreams: BTreeMap<String, String>,
    /// The former name of `upstreams.pipeline-svc`.
    #[serde(with = "ferroflow_types::unset::text")]
    pub pipeline_svc: Option<String>,
    /// A file with a line `principal:<SHA-256 of a key, hexadecimal>` for each key, behind which
    /// `namespaces=a,b` may limit it. Unless given, there are no keys.
    #[serde(with = "ferroflow_types::unset::text")]
    pub api_keys_file: Option<String>,
    /// Seconds between saying at `/readyz` that it stops and taking no further connections; 5 for a
    /// gateway of its own and 0 in one process with all, unless given.
    pub drain_s: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            body_max: None,
            allowed_hosts: Vec::new(),
            upstreams: BTreeMap::new(),
            pipeline_svc: None,
            api_keys_file: None,
            drain_s: None,
        }
    }
}

impl Config {
    /// Where services are that have no sockets here, by their names.
    pub fn upstreams(&self) -> BTreeMap<String, String> {
        let mut given = BTreeMap::new();
        if let Some(uri) = &self.pipeline_svc {
            given.insert("pipeline-svc".to_owned(), uri.clone());
        }
        // Environment variables and flags spell the hyphen of a name as `_`, which the map has
        // after `-`: so they win over the file.
        let named = self.upstreams.iter();
        let named = named.map(|(name, uri)| (name.replace('_', "-"), uri.clone()));
        given.extend(named.filter(|(_, uri)| !uri.is_empty()));
        given
    }

    /// Forgets where services are: in one process with all, each has a socket.
    pub fn forget_upstreams(&mut self) {
        self.upstreams.clear();
        self.pipeline_svc = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_named_with_hyphens_or_as_variables_are_and_by_the_former_setting() {
        let config = Config {
            pipeline_svc: Some("http://former:1".to_owned()),
            upstreams: BTreeMap::from([
                ("katib_svc".to_owned(), "http://k:1".to_owned()),
                ("serving-svc".to_owned(), String::new()),
            ]),
            ..Config::default()
        };
        let found = config.upstreams();
        assert_eq!(found.get("pipeline-svc").unwrap(), "http://former:1");
        assert_eq!(found.get("katib-svc").unwrap(), "http://k:1");
        assert_eq!(found.len(), 2);

        let newer = BTreeMap::from([("pipeline_svc".to_owned(), "http://new:1".to_owned())]);
        let config = Config {
            upstreams: newer,
            ..config
        };
        assert_eq!(
            config.upstreams().get("pipeline-svc").unwrap(),
            "http://new:1"
        );

        let both = ["pipeline-svc", "pipeline_svc"].map(|name| {
            let uri = format!("http://{}:1", name.len() + usize::from(name.contains('_')));
            (name.to_owned(), uri)
        });
        let config = Config {
            upstreams: BTreeMap::from(both),
            ..config
        };
        let reason = "what was given later wins over the file";
        assert_eq!(
            config.upstreams().get("pipeline-svc").unwrap(),
            "http://13:1",
            "{reason}"
        );
    }
}
