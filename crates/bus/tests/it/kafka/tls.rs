//! TLS, SCRAM and client certificates against listeners that insist on them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ferroflow_bus::kafka::{KafkaConfig, KafkaRelay};

use super::scene::{Received, RecordingHandler, Scene, distinct_sequences, eventually};

/// The listeners of the test bed, and the folder with their authority and the test's user.
struct Secure {
    sasl_ssl: String,
    ssl: String,
    folder: String,
}

impl Secure {
    fn open() -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let found = (
            variable("FERROFLOW_TEST_KAFKA_SASL_SSL"),
            variable("FERROFLOW_TEST_KAFKA_SSL"),
            variable("FERROFLOW_TEST_KAFKA_FILES"),
        );
        let (Some(sasl_ssl), Some(ssl), Some(folder)) = found else {
            println!("skipped: FERROFLOW_TEST_KAFKA_SASL_SSL, _SSL and _FILES are not set");
            return None;
        };
        Some(Self {
            sasl_ssl,
            ssl,
            folder,
        })
    }

    fn file(&self, name: &str) -> String {
        Path::new(&self.folder).join(name).display().to_string()
    }

    fn scram(&self, mechanism: &str) -> KafkaConfig {
        KafkaConfig {
            brokers: Some(self.sasl_ssl.clone()),
            security_protocol: Some("sasl_ssl".to_owned()),
            sasl_mechanism: Some(mechanism.to_owned()),
            sasl_username: Some("ferroflow".to_owned()),
            sasl_password_file: Some(self.file("password")),
            tls_ca_file: Some(self.file("ca.crt")),
            partitions: 4,
            ..KafkaConfig::default()
        }
    }

    fn certificate(&self) -> KafkaConfig {
        KafkaConfig {
            brokers: Some(self.ssl.clone()),
            security_protocol: Some("ssl".to_owned()),
            tls_ca_file: Some(self.file("ca.crt")),
            tls_certificate_file: Some(self.file("client.crt")),
            tls_key_file: Some(self.file("client.key")),
            partitions: 4,
            ..KafkaConfig::default()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_and_come_over_tls_with_scram_and_with_a_certificate() {
    let Some(secure) = Secure::open() else { return };
    let configs = [
        secure.scram("SCRAM-SHA-512"),
        secure.scram("SCRAM-SHA-256"),
        secure.scram("PLAIN"),
        secure.certificate(),
    ];
    for config in configs {
        let scene = Scene::with(config);
        scene.relay(&scene.events(&["a"], 20)).await;
        let received = Received::default();
        let handler = RecordingHandler {
            received: Arc::clone(&received),
            time: Duration::ZERO,
        };
        let running = scene.start("tls", handler);
        eventually("not all came", || received.lock().unwrap().len() >= 20).await;
        running.end().await;

        assert_eq!(
            distinct_sequences(&received.lock().unwrap(), "a"),
            (1..=20).collect::<Vec<_>>()
        );
        let config = &scene.config;
        println!(
            "{:?} {:?}: 20 events",
            config.security_protocol, config.sasl_mechanism
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_an_unknown_authority_are_not_let_in() {
    let Some(secure) = Secure::open() else { return };
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("password");
    std::fs::write(&wrong, "guessed").unwrap();
    let mut wrong_password = secure.scram("SCRAM-SHA-512");
    wrong_password.sasl_password_file = Some(wrong.display().to_string());
    let mut unknown_authority = secure.scram("SCRAM-SHA-512");
    unknown_authority.tls_ca_file = Some(secure.file("other-ca.crt"));
    let mut no_certificate = secure.certificate();
    no_certificate.tls_certificate_file = None;
    no_certificate.tls_key_file = None;

    for config in [wrong_password, unknown_authority, no_certificate] {
        let scene = Scene::with(config);
        let bus = scene.bus().await;
        bus.publish(&scene.events(&["a"], 1)).await.unwrap();
        let relay = KafkaRelay::open(&scene.config, bus).await.unwrap();

        let refused = tokio::time::timeout(Duration::from_secs(20), relay.tick()).await;

        assert!(refused.is_ok_and(|moved| moved.is_err()));
    }
}
