//! Apache Kafka from Maven Central: one broker, which is its own controller.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{answers, cache, daemon, node, state, tools, wait};
use crate::shell::run;

const VERSION: &str = "4.1.1";
pub(super) const PORT: u16 = 19092;
const CONTROLLER_PORT: u16 = 19093;
/// A cluster's identity, fixed because the state is ours alone.
const CLUSTER: &str = "ZmVycm9mbG93LXRlc3RiZQ";

/// The jars; fetched once.
fn jars() -> anyhow::Result<PathBuf> {
    let folder = cache()?.join(format!("kafka-{VERSION}"));
    if folder.join("done").exists() {
        return Ok(folder);
    }
    tools::packages("mvn", &["maven"])?;
    println!("fetching Kafka {VERSION} (54 MB, once)");
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

fn java(jars: &Path, heap: &str, class: &str) -> Command {
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
    fs::write(
        &settings,
        format!(
            "process.roles=broker,controller\nnode.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{CONTROLLER_PORT}\n\
             listeners=PLAINTEXT://0.0.0.0:{PORT},CONTROLLER://127.0.0.1:{CONTROLLER_PORT}\n\
             advertised.listeners=PLAINTEXT://{node}:{PORT}\n\
             controller.listener.names=CONTROLLER\n\
             offsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\nnum.partitions=4\nlog.dirs={}\n",
            logs.display()
        ),
    )?;
    if !logs.join("meta.properties").exists() {
        let mut format = java(&jars, "256m", "kafka.tools.StorageTool");
        format.args(["format", "-t", CLUSTER, "-c"]).arg(&settings);
        run(format.stdout(Stdio::null()))?;
    }
    let mut broker = java(&jars, "512m", "kafka.Kafka");
    daemon::start("kafka", broker.arg(&settings))?;
    wait("Kafka does not answer", Duration::from_mins(1), || {
        answers("127.0.0.1", PORT)
    })
}

pub(super) fn down() -> anyhow::Result<()> {
    daemon::stop("kafka")
}
