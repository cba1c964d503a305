//! How brokers are reached. Relay, consumers and administration share these settings.
//!
//! Every combination that cannot work is refused before anything is tried, by the name of the
//! setting: librdkafka would take some of them silently and tell others by its own names.

use std::path::Path;

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

use super::KafkaError;

/// Settings of the way to Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port` of some brokers, with commas between; there is no Kafka unless given.
    #[serde(with = "ferroflow_types::unset::text")]
    pub brokers: Option<String>,
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`; `plaintext` unless given.
    #[serde(with = "ferroflow_types::unset::text")]
    pub security_protocol: Option<String>,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`, where the protocol has SASL.
    #[serde(with = "ferroflow_types::unset::text")]
    pub sasl_mechanism: Option<String>,
    /// The user's name for SASL.
    #[serde(with = "ferroflow_types::unset::text")]
    pub sasl_username: Option<String>,
    /// A file with the user's password for SASL.
    #[serde(with = "ferroflow_types::unset::text")]
    pub sasl_password_file: Option<String>,
    /// A PEM file with the authorities that sign the brokers' certificates; the system's unless given.
    #[serde(with = "ferroflow_types::unset::text")]
    pub tls_ca_file: Option<String>,
    /// A PEM file with this client's certificate, where brokers ask for one.
    #[serde(with = "ferroflow_types::unset::text")]
    pub tls_certificate_file: Option<String>,
    /// A PEM file with the key of that certificate.
    #[serde(with = "ferroflow_types::unset::text")]
    pub tls_key_file: Option<String>,
    /// Partitions of a topic that is made because it is not there.
    pub partitions: u16,
    /// Copies of such a topic; as many as the brokers are set to, unless given.
    #[serde(with = "ferroflow_types::unset::count")]
    pub replication: Option<u16>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: None,
            security_protocol: None,
            sasl_mechanism: None,
            sasl_username: None,
            sasl_password_file: None,
            tls_ca_file: None,
            tls_certificate_file: None,
            tls_key_file: None,
            // More partitions later would move keys and break their order, so there is room from
            // the start; 12 is shared evenly by 1, 2, 3, 4, 6 and 12 consumers.
            partitions: 12,
            replication: None,
        }
    }
}

/// What a protocol is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Protocol {
    name: &'static str,
    tls: bool,
    sasl: bool,
}

const PROTOCOLS: [Protocol; 4] = [
    Protocol {
        name: "plaintext",
        tls: false,
        sasl: false,
    },
    Protocol {
        name: "ssl",
        tls: true,
        sasl: false,
    },
    Protocol {
        name: "sasl_plaintext",
        tls: false,
        sasl: true,
    },
    Protocol {
        name: "sasl_ssl",
        tls: true,
        sasl: true,
    },
];

const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// Whether this build has OpenSSL in it (ADR 11).
const TLS: bool = cfg!(feature = "kafka-tls");

fn invalid_setting(setting: &'static str, problem: impl Into<String>) -> KafkaError {
    KafkaError::Setting {
        setting,
        problem: problem.into(),
    }
}

impl KafkaConfig {
    /// What every client starts from.
    ///
    /// # Errors
    /// Settings that cannot work together, files that cannot be read, and what this build lacks.
    pub(crate) fn client(&self) -> Result<ClientConfig, KafkaError> {
        let brokers = self.brokers.as_deref().unwrap_or_default();
        if brokers.trim().is_empty() {
            return Err(invalid_setting(
                "brokers",
                "is empty: name a broker as host:port",
            ));
        }
        if self.partitions == 0 {
            return Err(invalid_setting(
                "partitions",
                "is 0, and a topic has at least one",
            ));
        }
        let protocol = self.protocol()?;
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", brokers)
            .set("client.id", "ferroflow")
            .set("security.protocol", protocol.name);
        self.sasl(protocol, &mut client)?;
        self.tls(protocol, &mut client)?;
        Ok(client)
    }

    /// What every producer starts from: messages are stored in order, each once, by all in-sync replicas.
    ///
    /// # Errors
    /// As [`KafkaConfig::client`].
    pub(crate) fn producer(&self) -> Result<ClientConfig, KafkaError> {
        let mut client = self.client()?;
        client
            // Keeps the order of a partition when a request is sent again, with several under way.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // The client's own limit is 1 MB. What is too large is for the brokers to say: what a topic took
            // must be taken by that of its dead letters and back, and their limit can be raised meanwhile.
            .set("message.max.bytes", "100000000");
        Ok(client)
    }

    fn protocol(&self) -> Result<Protocol, KafkaError> {
        let given = self.security_protocol.as_deref().unwrap_or("plaintext");
        let known = PROTOCOLS.into_iter().find(|known| known.name == given);
        let protocol = known.ok_or_else(|| {
            let problem =
                format!("{given:?} is none of plaintext, ssl, sasl_plaintext and sasl_ssl");
            invalid_setting("security_protocol", problem)
        })?;
        if protocol.tls && !TLS {
            let problem = format!(
                "{given} needs TLS, which this build of ferroflow leaves out: build it with \
                 `--features kafka-tls`"
            );
            return Err(invalid_setting("security_protocol", problem));
        }
        Ok(protocol)
    }

    fn sasl(&self, protocol: Protocol, client: &mut ClientConfig) -> Result<(), KafkaError> {
        let given = [
            ("sasl_mechanism", &self.sasl_mechanism),
            ("sasl_username", &self.sasl_username),
            ("sasl_password_file", &self.sasl_password_file),
        ];
        if !protocol.sasl {
            let set = given.into_iter().find(|(_, value)| value.is_some());
            return set.map_or(Ok(()), |(setting, _)| {
                let problem = format!(
                    "is set, and security_protocol is {}: use sasl_ssl or sasl_plaintext",
                    protocol.name
                );
                Err(invalid_setting(setting, problem))
            });
        }
        let needed = given.map(|(setting, value)| {
            let problem = || format!("is empty, and {} needs it", protocol.name);
            value
                .as_deref()
                .ok_or_else(|| invalid_setting(setting, problem()))
        });
        let [mechanism, username, password_file] = needed;
        let (mechanism, username, password_file) = (mechanism?, username?, password_file?);
        if !MECHANISMS.contains(&mechanism) {
            let problem = format!("{mechanism:?} is none of {}", MECHANISMS.join(", "));
            return Err(invalid_setting("sasl_mechanism", problem));
        }
        // librdkafka does PLAIN by itself, and the hashes of SCRAM with OpenSSL.
        if mechanism != "PLAIN" && !TLS {
            let problem = format!(
                "{mechanism} needs OpenSSL, which this build of ferroflow leaves out: build it \
                 with `--features kafka-tls`"
            );
            return Err(invalid_setting("sasl_mechanism", problem));
        }
        let password = read("sasl_password_file", password_file)?;
        // Editors and `echo` end a file with a newline, which is no part of the password.
        let password = password.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            let problem = format!("{password_file} is empty");
            return Err(invalid_setting("sasl_password_file", problem));
        }
        client
            .set("sasl.mechanism", mechanism)
            .set("sasl.username", username)
            .set("sasl.password", password);
        Ok(())
    }

    fn tls(&self, protocol: Protocol, client: &mut ClientConfig) -> Result<(), KafkaError> {
        let (certificate, key) = (&self.tls_certificate_file, &self.tls_key_file);
        let files = [
            ("tls_ca_file", &self.tls_ca_file, "CERTIFICATE-----"),
            ("tls_certificate_file", certificate, "CERTIFICATE-----"),
            ("tls_key_file", key, "PRIVATE KEY-----"),
        ];
        for (setting, path, mark) in files {
            let Some(path) = path else {
                continue;
            };
            if !protocol.tls {
                let problem = format!(
                    "is set, and security_protocol is {}: use ssl or sasl_ssl",
                    protocol.name
                );
                return Err(invalid_setting(setting, problem));
            }
            if !read(setting, path)?.contains(mark) {
                let problem = format!("{path} is not a PEM file with a `{mark}` block");
                return Err(invalid_setting(setting, problem));
            }
        }
        match (certificate, key) {
            (Some(_), None) => {
                let problem =
                    "is empty, and tls_certificate_file is not: a certificate needs its key";
                return Err(invalid_setting("tls_key_file", problem));
            }
            (None, Some(_)) => {
                let problem = "is empty, and tls_key_file is not: a key needs its certificate";
                return Err(invalid_setting("tls_certificate_file", problem));
            }
            (Some(certificate), Some(key)) => {
                client
                    .set("ssl.certificate.location", certificate)
                    .set("ssl.key.location", key);
            }
            (None, None) => {}
        }
        if protocol.tls {
            // OpenSSL is linked statically and does not know where the system keeps its authorities:
            // `probe` has librdkafka look in the usual places.
            let authorities = self.tls_ca_file.as_deref().unwrap_or("probe");
            client.set("ssl.ca.location", authorities);
        }
        Ok(())
    }
}

fn read(setting: &'static str, path: &str) -> Result<String, KafkaError> {
    std::fs::read_to_string(Path::new(path))
        .map_err(|error| invalid_setting(setting, format!("cannot read {path}: {error}")))
}

#[cfg(test)]
mod tests;
