//! Every combination that cannot work is refused by the name of its setting.

use super::*;

/// A folder with a password and PEM files, and settings that name none of them.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            ("password", "secret\n"),
            ("empty", "\n"),
            ("ca", "-----BEGIN CERTIFICATE-----\n"),
            ("key", "-----BEGIN PRIVATE KEY-----\n"),
        ];
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    /// What the settings (`name=value`, `@` for a file of the folder) are answered with.
    fn answer(&self, settings: &str) -> String {
        let mut config = KafkaConfig {
            brokers: Some("kafka:9092".to_owned()),
            ..KafkaConfig::default()
        };
        for pair in settings.split_whitespace() {
            let (name, value) = pair.split_once('=').unwrap();
            let value = match value.strip_prefix('@') {
                Some(file) => self.0.path().join(file).display().to_string(),
                None => value.to_owned(),
            };
            let place = match name {
                "brokers" => &mut config.brokers,
                "protocol" => &mut config.security_protocol,
                "mechanism" => &mut config.sasl_mechanism,
                "user" => &mut config.sasl_username,
                "password" => &mut config.sasl_password_file,
                "ca" => &mut config.tls_ca_file,
                "certificate" => &mut config.tls_certificate_file,
                "key" => &mut config.tls_key_file,
                other => panic!("{other}"),
            };
            *place = Some(value).filter(|value| !value.is_empty());
        }
        match config.client() {
            Ok(client) => client.get("security.protocol").unwrap().to_owned(),
            Err(error) => error.to_string(),
        }
    }
}

#[test]
fn plaintext_is_the_default_and_passwords_lose_their_newline() {
    let scene = Scene::new();
    assert_eq!(scene.answer(""), "plaintext");
    let sasl = "protocol=sasl_plaintext mechanism=PLAIN user=u password=@password";
    assert_eq!(scene.answer(sasl), "sasl_plaintext");
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    let scene = Scene::new();
    let sasl = "protocol=sasl_plaintext mechanism=PLAIN user=u password=@password";
    let cases = [
        ("brokers=", "events.kafka.brokers: is empty"),
        ("protocol=tls", "security_protocol: \"tls\" is none of"),
        (
            "mechanism=PLAIN",
            "sasl_mechanism: is set, and security_protocol is plaintext",
        ),
        ("user=u", "sasl_username: is set"),
        ("password=@password", "sasl_password_file: is set"),
        (
            "protocol=sasl_plaintext",
            "sasl_mechanism: is empty, and sasl_plaintext needs it",
        ),
        (&format!("{sasl} user="), "sasl_username: is empty"),
        (&format!("{sasl} password="), "sasl_password_file: is empty"),
        (
            &format!("{sasl} password=@none"),
            "sasl_password_file: cannot read",
        ),
        (&format!("{sasl} password=@empty"), "sasl_password_file: /"),
        (
            &format!("{sasl} mechanism=GSSAPI"),
            "sasl_mechanism: \"GSSAPI\" is none of",
        ),
        (
            "ca=@ca",
            "tls_ca_file: is set, and security_protocol is plaintext: use ssl",
        ),
        (&format!("{sasl} key=@key"), "tls_key_file: is set"),
    ];
    for (settings, expected) in cases {
        let answer = scene.answer(settings);
        assert!(answer.contains(expected), "{settings}: {answer}");
    }
}

#[cfg(not(feature = "kafka-tls"))]
#[test]
fn a_build_without_tls_names_the_feature() {
    let scene = Scene::new();
    for settings in [
        "protocol=ssl",
        "protocol=sasl_ssl mechanism=PLAIN user=u password=@password",
        "protocol=sasl_plaintext mechanism=SCRAM-SHA-512 user=u password=@password",
    ] {
        let answer = scene.answer(settings);
        assert!(
            answer.contains("--features kafka-tls"),
            "{settings}: {answer}"
        );
    }
}

#[cfg(feature = "kafka-tls")]
#[test]
fn a_build_with_tls_asks_for_certificate_and_key_together() {
    let scene = Scene::new();
    let cases = [
        ("protocol=ssl", "ssl"),
        ("protocol=ssl ca=@ca certificate=@ca key=@key", "ssl"),
        (
            "protocol=sasl_ssl mechanism=SCRAM-SHA-256 user=u password=@password ca=@ca",
            "sasl_ssl",
        ),
        (
            "protocol=ssl certificate=@ca",
            "tls_key_file: is empty, and tls_certificate_file",
        ),
        (
            "protocol=ssl key=@key",
            "tls_certificate_file: is empty, and tls_key_file",
        ),
        ("protocol=ssl ca=@none", "tls_ca_file: cannot read"),
        (
            "protocol=ssl ca=@password",
            "is not a PEM file with a `CERTIFICATE-----` block",
        ),
    ];
    for (settings, expected) in cases {
        let answer = scene.answer(settings);
        assert!(answer.contains(expected), "{settings}: {answer}");
    }
}
