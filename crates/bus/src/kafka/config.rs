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
    /// `host:port` of some brokers, with commas between; empty for no Kafka.
    pub brokers: String,
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`; empty for `plaintext`.
    pub security_protocol: String,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`, where the protocol has SASL.
    pub sasl_mechanism: String,
    /// The user's name for SASL.
    pub sasl_username: String,
    /// A file with the user's password for SASL.
    pub sasl_password_file: String,
    /// A PEM file with the authorities that sign the brokers' certificates; empty for the system's.
    pub tls_ca_file: String,
    /// A PEM file with this client's certificate, where brokers ask for one.
    pub tls_certificate_file: String,
    /// A PEM file with the key of that certificate.
    pub tls_key_file: String,
    /// Partitions of a topic that is made because it is not there.
    pub partitions: u16,
    /// Copies of such a topic; 0 for what the brokers are set to.
    pub replication: u16,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            security_protocol: String::new(),
            sasl_mechanism: String::new(),
            sasl_username: String::new(),
            sasl_password_file: String::new(),
            tls_ca_file: String::new(),
            tls_certificate_file: String::new(),
            tls_key_file: String::new(),
            // More partitions later would move keys and break their order, so there is room from
            // the start; 12 is shared evenly by 1, 2, 3, 4, 6 and 12 consumers.
            partitions: 12,
            replication: 0,
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

fn wrong(setting: &'static str, problem: impl Into<String>) -> KafkaError {
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
        if self.brokers.trim().is_empty() {
            return Err(wrong("brokers", "is empty: name a broker as host:port"));
        }
        if self.partitions == 0 {
            return Err(wrong("partitions", "is 0, and a topic has at least one"));
        }
        let protocol = self.protocol()?;
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "ferroflow")
            .set("security.protocol", protocol.name);
        self.sasl(protocol, &mut client)?;
        self.tls(protocol, &mut client)?;
        Ok(client)
    }

    fn protocol(&self) -> Result<Protocol, KafkaError> {
        let given = match self.security_protocol.as_str() {
            "" => "plaintext",
            given => given,
        };
        let known = PROTOCOLS.into_iter().find(|known| known.name == given);
        let protocol = known.ok_or_else(|| {
            let problem =
                format!("{given:?} is none of plaintext, ssl, sasl_plaintext and sasl_ssl");
            wrong("security_protocol", problem)
        })?;
        if protocol.tls && !TLS {
            let problem = format!(
                "{given} needs TLS, which this build of ferroflow leaves out: build it with \
                 `--features kafka-tls`"
            );
            return Err(wrong("security_protocol", problem));
        }
        Ok(protocol)
    }

    fn sasl(&self, protocol: Protocol, client: &mut ClientConfig) -> Result<(), KafkaError> {
        let given = [
            ("sasl_mechanism", &self.sasl_mechanism),
            ("sasl_username", &self.sasl_username),
            ("sasl_password_file", &self.sasl_password_file),
        ];
        for (setting, value) in given {
            match (protocol.sasl, value.is_empty()) {
                (true, true) => {
                    let problem = format!("is empty, and {} needs it", protocol.name);
                    return Err(wrong(setting, problem));
                }
                (false, false) => {
                    let problem = format!(
                        "is set, and security_protocol is {}: use sasl_ssl or sasl_plaintext",
                        protocol.name
                    );
                    return Err(wrong(setting, problem));
                }
                _ => {}
            }
        }
        if !protocol.sasl {
            return Ok(());
        }
        let mechanism = self.sasl_mechanism.as_str();
        if !MECHANISMS.contains(&mechanism) {
            let problem = format!("{mechanism:?} is none of {}", MECHANISMS.join(", "));
            return Err(wrong("sasl_mechanism", problem));
        }
        if mechanism != "PLAIN" && !TLS {
            let problem = format!(
                "{mechanism} needs OpenSSL, which this build of ferroflow leaves out: build it \
                 with `--features kafka-tls`"
            );
            return Err(wrong("sasl_mechanism", problem));
        }
        let password = read("sasl_password_file", &self.sasl_password_file)?;
        let password = password.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            let problem = format!("{} is empty", self.sasl_password_file);
            return Err(wrong("sasl_password_file", problem));
        }
        client
            .set("sasl.mechanism", mechanism)
            .set("sasl.username", &self.sasl_username)
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
            if path.is_empty() {
                continue;
            }
            if !protocol.tls {
                let problem = format!(
                    "is set, and security_protocol is {}: use ssl or sasl_ssl",
                    protocol.name
                );
                return Err(wrong(setting, problem));
            }
            if !read(setting, path)?.contains(mark) {
                let problem = format!("{path} is not a PEM file with a `{mark}` block");
                return Err(wrong(setting, problem));
            }
        }
        match (certificate.is_empty(), key.is_empty()) {
            (false, true) => {
                let problem =
                    "is empty, and tls_certificate_file is not: a certificate needs its key";
                return Err(wrong("tls_key_file", problem));
            }
            (true, false) => {
                let problem = "is empty, and tls_key_file is not: a key needs its certificate";
                return Err(wrong("tls_certificate_file", problem));
            }
            (false, false) => {
                client
                    .set("ssl.certificate.location", certificate)
                    .set("ssl.key.location", key);
            }
            (true, true) => {}
        }
        if protocol.tls {
            // Our OpenSSL is not the system's: where authorities are kept must be looked for.
            let authorities = match self.tls_ca_file.as_str() {
                "" => "probe",
                given => given,
            };
            client.set("ssl.ca.location", authorities);
        }
        Ok(())
    }
}

fn read(setting: &'static str, path: &str) -> Result<String, KafkaError> {
    std::fs::read_to_string(Path::new(path))
        .map_err(|error| wrong(setting, format!("cannot read {path}: {error}")))
}

#[cfg(test)]
mod tests;
