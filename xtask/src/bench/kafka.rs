//! The relay against the brokers' own producer benchmark: records of the same size, as many, into
//! topics of the same shape, acks from all, on the same broker in the same minutes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::Figure;
use crate::shell::{cargo, target};
use crate::testbed::{self, Part};

/// Enough that the peer's virtual machine is warm for most of them.
const RECORDS: u32 = 500_000;
/// What is in an event beside its attributes, about as much as a task's has.
const DATA: usize = 320;
const ROUNDS: usize = 3;
/// As the relay makes topics.
const PARTITIONS: u32 = 12;

/// Events from a log in a database to Kafka.
pub(super) fn figures(folder: &Path) -> anyhow::Result<Vec<Figure>> {
    testbed::up(&[Part::Kafka])?;
    let brokers = match std::env::var(Part::Kafka.variable()) {
        Ok(given) => given,
        Err(_) => Part::Kafka.address()?,
    };
    let program = build()?;
    let (mut ours, mut peers, mut size) = (Vec::new(), Vec::new(), 0);
    for round in 0..ROUNDS {
        let topic = format!("ferroflow-bench-{}-{round}", std::process::id());
        let database = format!("sqlite:{}", folder.join(format!("{round}.db")).display());
        let relayed = relay(&program, &database, &brokers, &format!("{topic}-ours"))?;
        size = relayed.bytes;
        ours.push(f64::from(RECORDS) / relayed.seconds);
        peers.push(peer(&brokers, &format!("{topic}-peer"), size)?);
        // Gigabytes that nobody reads.
        let topic_pattern = format!("{topic}-(ours|peer)");
        topic_command(&brokers, &["--delete", "--topic", &topic_pattern])?;
        std::fs::remove_file(folder.join(format!("{round}.db")))?;
    }
    let best = |rates: Vec<f64>| rates.into_iter().fold(0.0, f64::max);
    let (ours, peer) = (best(ours), best(peers));
    let shown = |rate: f64| {
        let bytes = u32::try_from(size).map_or(0.0, f64::from);
        format!("{rate:.0}/s, {:.1} MB/s", rate * bytes / 1e6)
    };
    Ok(vec![Figure {
        what: "events from a log to Kafka, acks=all, best of three",
        ours: shown(ours),
        peer: format!("{} ProducerPerformance of {size} B", shown(peer)),
        ratio: format!("{:.2}", ours / peer),
        target: "near 1",
    }])
}

struct Relayed {
    seconds: f64,
    bytes: usize,
}

fn build() -> anyhow::Result<PathBuf> {
    cargo(&[
        "build",
        "--quiet",
        "--profile",
        "quick",
        "--package",
        "ferroflow-bus",
        "--features",
        "kafka",
        "--example",
        "relay_throughput",
    ])?;
    Ok(target().join("quick/examples/relay_throughput"))
}

fn relay(program: &Path, database: &str, brokers: &str, topic: &str) -> anyhow::Result<Relayed> {
    let output = Command::new(program)
        .args([database, brokers, topic, &RECORDS.to_string()])
        .arg(DATA.to_string())
        .output()?;
    if !output.status.success() {
        bail!("the relay: {}", String::from_utf8_lossy(&output.stderr));
    }
    let relay_output: Value =
        serde_json::from_slice(&output.stdout).context("the relay's figures")?;
    let bytes = relay_output["bytes"].as_u64().context("no size")?;
    Ok(Relayed {
        seconds: relay_output["seconds"].as_f64().context("no time")?,
        bytes: usize::try_from(bytes)?,
    })
}

fn topic_command(brokers: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let mut topics = testbed::kafka_tool("org.apache.kafka.tools.TopicCommand")?;
    topics.args(["--bootstrap-server", brokers]).args(arguments);
    let output = topics.output()?;
    if !output.status.success() {
        let stdout = String::from_utf8_lossy(&output.stdout);
        bail!("topics, {}: {stdout}", arguments.join(" "));
    }
    Ok(())
}

/// Records per second of the brokers' own benchmark.
fn peer(brokers: &str, topic: &str, size: usize) -> anyhow::Result<f64> {
    let partitions = PARTITIONS.to_string();
    topic_command(
        brokers,
        &["--create", "--topic", topic, "--partitions", &partitions],
    )?;
    let mut bench = testbed::kafka_tool("org.apache.kafka.tools.ProducerPerformance")?;
    bench
        .args(["--topic", topic, "--num-records", &RECORDS.to_string()])
        .args(["--record-size", &size.to_string(), "--throughput", "-1"])
        .arg("--producer-props")
        .arg(format!("bootstrap.servers={brokers}"))
        .args([
            "acks=all",
            "compression.type=lz4",
            "enable.idempotence=true",
        ]);
    let output = bench.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // "300000 records sent, 123456.7 records/sec (…), …": the last line is the whole.
    let line = text.lines().rfind(|line| line.contains("records/sec"));
    let rate = line
        .and_then(|line| line.split(", ").nth(1))
        .and_then(|part| part.split(' ').next())
        .and_then(|rate| rate.parse().ok());
    rate.with_context(|| {
        format!(
            "the brokers' benchmark said: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}
