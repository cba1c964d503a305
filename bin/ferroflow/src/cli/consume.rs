//! `ferroflow events consume` and `redrive`: events from Kafka, for scripts, and dead letters back.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use ferroflow_bus::kafka::{self, Consumer, ConsumerOptions, Delivery, Failure, Handler};
use ferroflow_service::{runner, telemetry};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::output::note;
use crate::config::{Config, without_nulls};
use crate::service::ServiceEntry;
use crate::settings::Settings;

/// The exit code by which a command says that no attempt will help (EX_DATAERR of sysexits.h).
const DATA_ERROR: i32 = 65;

/// Read events from Kafka as a member of a consumer group
///
/// Each event is one line of JSON (CloudEvents' JSON format), printed or given to a command. An
/// event is done when the command ends with 0, and only what is done is committed: after a crash
/// the last events come again, with the ids that they had. The events of one partition come one
/// after the other, those of several at the same time; start several consumers with one --group
/// to share the partitions.
///
/// A command that fails is tried again, --attempts times in all; then the event goes to the topic
/// `<topic>.dlq` with the reason in its headers (dlq-reason, dlq-attempts, dlq-topic,
/// dlq-partition, dlq-offset, dlq-group, dlq-time), and the partition goes on. Exit code 65 sends
/// it there at once, and so does a message that is no CloudEvent.
///
/// The way to Kafka is that of `ferroflow up`: the section [events.kafka] of --config, variables
/// FERROFLOW_EVENTS__KAFKA__<SETTING>, or the flags here. TLS and SCRAM need a build with the
/// feature kafka-tls.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Consume {
    /// The consumer group; it remembers what is done.
    #[arg(long, value_name = "NAME")]
    group: String,
    /// A topic to read; repeat for several.
    #[arg(long, value_name = "NAME", default_value = "ferroflow.pipelines.v1")]
    topic: Vec<String>,
    /// A shell command that is run for each event, with the event's line on its standard input and
    /// its trace in TRACEPARENT; without it events are printed.
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Where a group begins that has done nothing yet.
    #[arg(long, value_enum, default_value = "beginning")]
    from: From,
    /// Attempts at an event before it is a dead letter.
    #[arg(long, value_name = "COUNT", default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    attempts: u32,
    /// Seconds between the first two attempts; each later pause is twice as long, a minute at most.
    #[arg(long, value_name = "SECONDS", default_value = "1")]
    backoff: u32,
    #[command(flatten)]
    connection: Connection,
}

// How Kafka is reached. Not a doc comment: it would become the commands' description.
#[derive(Debug, clap::Args)]
struct Connection {
    /// Brokers as host:port, with commas between [FERROFLOW_EVENTS__KAFKA__BROKERS].
    #[arg(long, value_name = "HOST:PORT,...")]
    brokers: Option<String>,
    /// plaintext, ssl, sasl_plaintext or sasl_ssl [FERROFLOW_EVENTS__KAFKA__SECURITY_PROTOCOL;
    /// default plaintext].
    #[arg(long, value_name = "PROTOCOL")]
    security_protocol: Option<String>,
    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 [FERROFLOW_EVENTS__KAFKA__SASL_MECHANISM].
    #[arg(long, value_name = "MECHANISM")]
    sasl_mechanism: Option<String>,
    /// The user [FERROFLOW_EVENTS__KAFKA__SASL_USERNAME].
    #[arg(long, value_name = "NAME")]
    sasl_username: Option<String>,
    /// A file with the user's password [FERROFLOW_EVENTS__KAFKA__SASL_PASSWORD_FILE].
    #[arg(long, value_name = "FILE")]
    sasl_password_file: Option<PathBuf>,
    /// A PEM file with the authorities of the brokers' certificates
    /// [FERROFLOW_EVENTS__KAFKA__TLS_CA_FILE; default the system's].
    #[arg(long, value_name = "FILE")]
    tls_ca_file: Option<PathBuf>,
    /// A PEM file with this client's certificate [FERROFLOW_EVENTS__KAFKA__TLS_CERTIFICATE_FILE].
    #[arg(long, value_name = "FILE")]
    tls_certificate_file: Option<PathBuf>,
    /// A PEM file with the certificate's key [FERROFLOW_EVENTS__KAFKA__TLS_KEY_FILE].
    #[arg(long, value_name = "FILE")]
    tls_key_file: Option<PathBuf>,
    /// A TOML file with the section [events.kafka].
    #[arg(long, value_name = "FILE", env = "FERROFLOW_CONFIG")]
    config: Option<PathBuf>,
    /// What is logged to standard error.
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log_filter: String,
}

/// Send dead letters back to the topics that they came from.
///
/// What is in the topic now is sent back, oldest first, as it was, without the headers that told of
/// its death. A second call sends back only what died since.
#[derive(Debug, clap::Args)]
pub(crate) struct Redrive {
    /// The topic of dead letters, for example ferroflow.pipelines.v1.dlq.
    #[arg(long, value_name = "NAME")]
    topic: String,
    #[command(flatten)]
    connection: Connection,
}

/// Where a new group begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum From {
    /// With the oldest event that is there.
    Beginning,
    /// With what comes from now on.
    Now,
}

impl Connection {
    fn settings(&self, services: &[ServiceEntry]) -> anyhow::Result<Config> {
        Ok(Settings::load(services, self.config.as_deref(), &self.to_settings())?.platform)
    }

    /// The flags that were given, in the shape of the settings.
    fn to_settings(&self) -> Value {
        without_nulls(json!({
            "events": {"kafka": {
                "brokers": self.brokers,
                "security_protocol": self.security_protocol,
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_username": self.sasl_username,
                "sasl_password_file": self.sasl_password_file,
                "tls_ca_file": self.tls_ca_file,
                "tls_certificate_file": self.tls_certificate_file,
                "tls_key_file": self.tls_key_file,
            }},
            "telemetry": {"log_filter": self.log_filter},
        }))
    }
}

pub(super) async fn run(consume: Consume, services: &[ServiceEntry]) -> anyhow::Result<ExitCode> {
    let config = consume.connection.settings(services)?;
    let _telemetry = telemetry::init("ferroflow-consume", &config.telemetry)?;
    let options = ConsumerOptions {
        from_beginning: consume.from == From::Beginning,
        attempts: consume.attempts,
        backoff: Duration::from_secs(consume.backoff.into()),
        ..ConsumerOptions::new(consume.group, consume.topic)
    };
    let stop = CancellationToken::new();
    let handler = EventHandler {
        command: consume.exec,
        stop: stop.clone(),
    };
    let consumer = Consumer::new(config.events.kafka, options, handler);
    let consuming = consumer.run(stop.clone());
    tokio::pin!(consuming);
    let result = tokio::select! {
        result = &mut consuming => result,
        signal = runner::shutdown_signal() => {
            // Not dropped at once: it commits what is done and leaves the group.
            signal.context("signals cannot be waited for")?;
            stop.cancel();
            consuming.await
        }
    };
    result?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn run_redrive(
    redrive: Redrive,
    services: &[ServiceEntry],
) -> anyhow::Result<ExitCode> {
    let config = redrive.connection.settings(services)?;
    let _telemetry = telemetry::init("ferroflow-redrive", &config.telemetry)?;
    let moved = kafka::redrive(&config.events.kafka, &redrive.topic).await?;
    note(&format!("{moved} sent back from {}", redrive.topic));
    Ok(ExitCode::SUCCESS)
}

/// Gives each event to the user as a line.
struct EventHandler {
    command: Option<String>,
    stop: CancellationToken,
}

impl Handler for EventHandler {
    async fn handle(&self, delivery: &Delivery) -> Result<(), Failure> {
        let line = format!("{}\n", delivery.event.to_json());
        match &self.command {
            Some(command) => execute(command, &line, delivery).await,
            None => self.print(&line),
        }
    }
}

impl EventHandler {
    fn print(&self, line: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let printed = out.write_all(line.as_bytes()).and_then(|()| out.flush());
        printed.map_err(|error| {
            // Nobody reads any more: what was not printed stays for the next consumer.
            self.stop.cancel();
            Failure::Unavailable(format!("cannot print: {error}"))
        })
    }
}

async fn execute(command: &str, line: &str, delivery: &Delivery) -> Result<(), Failure> {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .stdin(Stdio::piped())
        // An event whose partition is lost comes again elsewhere: its command must not go on here.
        .kill_on_drop(true);
    if let Some(trace) = delivery.event.attribute("traceparent") {
        shell.env("TRACEPARENT", trace);
    }
    let mut child = shell
        .spawn()
        .map_err(|error| Failure::Unavailable(format!("cannot start a shell: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command may end without reading all; its exit code says whether that was enough.
        let _unread = stdin.write_all(line.as_bytes()).await.is_err();
    }
    let exit_status = child
        .wait()
        .await
        .map_err(|error| Failure::Retry(format!("cannot wait for the command: {error}")))?;
    match exit_status.code() {
        Some(0) => Ok(()),
        Some(DATA_ERROR) => Err(Failure::Poison(format!(
            "the command ended with {exit_status}"
        ))),
        _ => Err(Failure::Retry(format!(
            "the command ended with {exit_status}"
        ))),
    }
}
