//! Apache Kafka from Maven Central: one broker, which is its own controller.
//!
//! It listens three times: plain, with TLS and SASL, and with TLS that asks for a certificate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::pki::Pki;
use super::{cache, daemon, node, state, tools};
use crate::shell::run;

const VERSION: &str = "4.1.1";
pub(super) const PORT: u16 = 19092;
const CONTROLLER_PORT: u16 = 19093;
const SASL_SSL_PORT: u16 = 19094;
const SSL_PORT: u16 = 19095;
/// A cluster's identity, fixed because the state is ours alone.
const CLUSTER: &str = "ZmVycm9mbG93LXRlc3RiZQ";

/// The one user of the listener with SASL.
const USER: &str = "ferroflow";
const PASSWORD: &str = "testbed-secret";

/// How tests find the secure listeners, and the folder with certificates and the user's password.
pub(super) fn secure() -> anyhow::Result<[(&'static str, String); 3]> {
    let node = node::address()?;
    let folder = state("kafka")?.join("pki");
    Ok([
        (
            "FERROFLOW_TEST_KAFKA_SASL_SSL",
            format!("{node}:{SASL_SSL_PORT}"),
        ),
        ("FERROFLOW_TEST_KAFKA_SSL", format!("{node}:{SSL_PORT}")),
        ("FERROFLOW_TEST_KAFKA_FILES", folder.display().to_string()),
    ])
}

/// The jars; fetched once.
pub(super) fn jars() -> anyhow::Result<PathBuf> {
    let folder = cache()?.join(format!("kafka-{VERSION}"));
    if folder.join("done").exists() {
        return Ok(folder);
    }
    tools::packages("mvn", &["maven"])?;
    eprintln!("fetching Kafka {VERSION} (54 MB, once)");
    let project = tempfile::tempdir()?;
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        )
    };
    let dependencies = [
        dependency("org.apache.kafka", "kafka_2.13", VERSION),
        dependency("org.apache.kafka", "kafka-tools", VERSION),
        dependency("org.slf4j", "slf4j-simple", "1.7.36"),
    ];
    fs::write(
        project.path().join("pom.xml"),
        format!(
            "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
             <groupId>test</groupId><artifactId>kafka</artifactId><version>1</version>\
             <dependencies>{}</dependencies></project>",
            dependencies.concat()
        ),
    )?;
    let mut maven = Command::new("mvn");
    maven
        .args(["-q", "-B", "dependency:copy-dependencies"])
        .arg(format!("-DoutputDirectory={}", folder.display()))
        .current_dir(project.path())
        .stdout(Stdio::null());
    run(&mut maven)?;
    fs::write(folder.join("done"), "")?;
    Ok(folder)
}

pub(super) fn java(jars: &Path, heap: &str, class: &str) -> Command {
    let mut java = Command::new("java");
    java.arg(format!("-Xmx{heap}"))
        .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"])
        .arg(jars.join("*"))
        .arg(class);
    java
}

pub(super) fn up() -> anyhow::Result<()> {
    let jars = jars()?;
    let folder = state("kafka")?;
    let (logs, settings) = (folder.join("logs"), folder.join("server.properties"));
    let node = node::address()?;
    let pki = Pki::ensure_kafka(&folder.join("pki"), &node)?;
    fs::write(pki.file("password"), format!("{PASSWORD}\n"))?;
    let wanted = properties(&node, &logs, &pki);
    if fs::read_to_string(&settings).unwrap_or_default() != wanted {
        // One that was started by an earlier version of this file listens elsewhere.
        daemon::stop("kafka")?;
        fs::write(&settings, wanted)?;
    }
    if !logs.join("meta.properties").exists() {
        let mut format = java(&jars, "256m", "kafka.tools.StorageTool");
        format.args(["format", "-t", CLUSTER, "-c"]).arg(&settings);
        run(format.stdout(Stdio::null()))?;
    }
    let mut broker = java(&jars, "512m", "kafka.Kafka");
    let ready_timeout = Duration::from_mins(1);
    daemon::ensure("kafka", broker.arg(&settings), ready_timeout, answers)?;
    user(&jars, &folder)
}

pub(super) fn answers() -> bool {
    [PORT, SASL_SSL_PORT, SSL_PORT]
        .into_iter()
        .all(|port| super::answers("127.0.0.1", port))
}

fn properties(node: &str, logs: &Path, pki: &Pki) -> String {
    let (logs, keys, authority) = (
        logs.display(),
        pki.file("broker.pem").display().to_string(),
        pki.file("ca.crt").display().to_string(),
    );
    let sasl = "listener.name.sasl_ssl";
    let security = "org.apache.kafka.common.security";
    format!(
        "process.roles=broker,controller\nnode.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{CONTROLLER_PORT}\n\
         listeners=PLAINTEXT://0.0.0.0:{PORT},CONTROLLER://127.0.0.1:{CONTROLLER_PORT},\
         SASL_SSL://0.0.0.0:{SASL_SSL_PORT},SSL://0.0.0.0:{SSL_PORT}\n\
         advertised.listeners=PLAINTEXT://{node}:{PORT},SASL_SSL://{node}:{SASL_SSL_PORT},\
         SSL://{node}:{SSL_PORT}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,\
         SASL_SSL:SASL_SSL,SSL:SSL\n\
         inter.broker.listener.name=PLAINTEXT\ncontroller.listener.names=CONTROLLER\n\
         ssl.keystore.type=PEM\nssl.keystore.location={keys}\n\
         ssl.truststore.type=PEM\nssl.truststore.location={authority}\n\
         listener.name.ssl.ssl.client.auth=required\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
         {sasl}.plain.sasl.jaas.config={security}.plain.PlainLoginModule required \
         user_{USER}=\"{PASSWORD}\";\n\
         {sasl}.scram-sha-256.sasl.jaas.config={security}.scram.ScramLoginModule required;\n\
         {sasl}.scram-sha-512.sasl.jaas.config={security}.scram.ScramLoginModule required;\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\nnum.partitions=4\nlog.dirs={logs}\n"
    )
}

/// Makes the user, once: the broker keeps it.
fn user(jars: &Path, folder: &Path) -> anyhow::Result<()> {
    let made = folder.join("user");
    if made.exists() {
        return Ok(());
    }
    // Two credentials of one user in one request are refused.
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let mut command = java(jars, "256m", "kafka.admin.ConfigCommand");
        command
            .arg("--bootstrap-server")
            .arg(format!("127.0.0.1:{PORT}"))
            .args(["--alter", "--entity-type", "users", "--entity-name", USER])
            .arg("--add-config")
            .arg(format!("{mechanism}=[password={PASSWORD}]"));
        run(command.stdout(Stdio::null()))?;
    }
    fs::write(made, "")?;
    Ok(())
}

pub(super) fn down() -> anyhow::Result<()> {
    daemon::stop("kafka")
}
