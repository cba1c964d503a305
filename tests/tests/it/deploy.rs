//! What is said of an installation in several places is the same in all, and lets nobody in.

use std::path::Path;

use serde_json::Value;

fn read(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn an_image_is_built_from_every_package() {
    let workspace: toml::Table = read("Cargo.toml").parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let ignored = read("deploy/container/Containerfile.dockerignore");
    for member in members {
        let member = member.as_str().unwrap();
        let folder = member.split('/').next().unwrap();
        let kept = ignored.lines().any(|line| line == format!("!{folder}"));
        assert!(kept, "{member} is not sent to the builder");
    }
}

#[test]
fn compose_publishes_on_loopback_only_and_pins_what_it_runs() {
    let compose = yaml("deploy/compose.yaml");

    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        for port in service["ports"].as_array().into_iter().flatten() {
            let port = port.as_str().unwrap();
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
        let image = service["image"].as_str().unwrap();
        let (_, tag) = image.rsplit_once(':').unwrap();
        assert_ne!(tag, "latest", "{name}");
        let probed = service["healthcheck"]["test"].is_array();
        assert!(probed, "{name} has no health check");
    }
    // Passwords are made by a script; there is none that somebody could know.
    let text = read("deploy/compose.yaml").to_ascii_lowercase();
    let given = |line: &&str| line.contains("password:") || line.contains("secret_access_key:");
    for line in text.lines().filter(given) {
        assert!(line.contains("${") || line.contains("s3-key"), "{line}");
    }
}

#[test]
fn the_chart_is_of_this_version() {
    let chart = yaml("deploy/helm/ferroflow/Chart.yaml");
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_containers_of_both_builds_are_the_same() {
    let (file, archive) = (
        read("deploy/container/Containerfile"),
        read("xtask/src/image.rs"),
    );
    for expected in [
        "/usr/bin/ferroflow",
        "65532",
        "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
        "PATH=/usr/bin",
    ] {
        assert!(
            file.contains(expected) && archive.contains(expected),
            "{expected}"
        );
    }
}
