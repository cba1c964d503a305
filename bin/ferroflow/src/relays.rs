//! What moves events on: from each service's outbox to the log, from the log to Kafka, out of the log
//! when they are old. Of several replicas each of these works in one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ferroflow_bus::kafka::{KafkaConfig, KafkaError, KafkaRelay};
use ferroflow_bus::{Bus, Relay};
use ferroflow_db::lead::{Leadership, run_as_leader};
use ferroflow_db::{Db, DbError};
use ferroflow_service::runner::Runner;
use ferroflow_service::worker::{NextTick, Worker, run_until_stopped};
use tokio_util::sync::CancellationToken;

use crate::config::Events;
use crate::folder;
use crate::retention::{Retention, RetentionWorker};

/// The wait before a part that is away is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// How often a relay looks for events without being told of them.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The event log of a process that alone writes to it.
pub(crate) async fn open_log(config: &Events, data_dir: &Path) -> anyhow::Result<Bus> {
    let url = folder::database(data_dir, config.database.as_ref(), "events");
    Bus::embedded(&url).await.context("events.database")
}

/// The event log that other processes write as well.
pub(crate) async fn open_shared_log(config: &Events, data_dir: &Path) -> anyhow::Result<Bus> {
    let url = folder::database(data_dir, config.database.as_ref(), "events");
    Bus::shared(&url).await.context("events.database")
}

/// Starts the relay of a service, from its outbox to the log, under a lease of the service's own.
/// `instance` names this one of the service.
pub(crate) fn start_relay(
    domain: &str,
    source: Db,
    bus: &Bus,
    instance: &str,
    runner: &mut Runner,
) {
    let lease = format!("relay/{domain}");
    let (log, name) = (bus.clone(), lease.clone());
    let relay = move |lead: Leadership| {
        let (relay, stop) = (Relay::new(source.clone(), log.clone()), lead.stop.clone());
        let name = name.clone();
        run_worker(RelayWorker { name, relay, lead }, stop)
    };
    spawn(runner, lease.clone(), &lease, (bus, instance), relay);
}

/// Starts what is done once for a log, whatever the number of services that feed it.
pub(crate) async fn start_event_workers(
    config: &Events,
    bus: &Bus,
    instance: &str,
    runner: &mut Runner,
) -> anyhow::Result<()> {
    let retention = Retention {
        days: config.retention_days,
        kafka: config.kafka.brokers.is_some(),
    };
    let log = bus.clone();
    let retention_worker =
        move |lead: Leadership| run_worker(RetentionWorker::new(log.clone(), retention), lead.stop);
    let (name, lease) = ("event retention", "relay/retention");
    spawn(runner, name, lease, (bus, instance), retention_worker);
    if config.kafka.brokers.is_some() {
        // Wrong settings are told at the start, by every replica.
        KafkaRelay::open(&config.kafka, bus.clone())
            .await
            .context("events.kafka")?;
        let (settings, log) = (config.kafka.clone(), bus.clone());
        let kafka_relay =
            move |lead: Leadership| run_kafka_relay(settings.clone(), log.clone(), lead.stop);
        let lease = "relay/kafka";
        spawn(runner, "kafka", lease, (bus, instance), kafka_relay);
    }
    Ok(())
}

/// Does the work while this instance holds the lease in the log's database. A holder's name has the
/// duty in it, so no two tasks that ask for leases ever have the same.
fn spawn<F>(
    runner: &mut Runner,
    name: impl Into<String>,
    lease: &str,
    (bus, instance): (&Bus, &str),
    work: impl Fn(Leadership) -> F + Send + Sync + 'static,
) where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let (db, stop, work) = (bus.db().clone(), runner.stop_token(), Arc::new(work));
    let (holder, lease) = (format!("{instance}/{lease}"), lease.to_owned());
    runner.spawn_restarting(name, move || {
        let (db, stop, work) = (db.clone(), stop.clone(), Arc::clone(&work));
        let (holder, lease) = (holder.clone(), lease.clone());
        async move { run_as_leader(db, &lease, &holder, stop, |lead| work(lead)).await }
    });
}

async fn run_worker(worker: impl Worker, stop: CancellationToken) -> anyhow::Result<()> {
    run_until_stopped(worker, &stop).await;
    Ok(())
}

/// Relays events as they come.
struct RelayWorker {
    name: String,
    relay: Relay,
    lead: Leadership,
}

impl Worker for RelayWorker {
    type Error = DbError;

    fn name(&self) -> &str {
        &self.name
    }

    async fn tick(&mut self) -> Result<NextTick, DbError> {
        match self.relay.tick(&self.lead).await? {
            0 => Ok(NextTick::After(POLL_INTERVAL)),
            _ => Ok(NextTick::Now),
        }
    }

    async fn wake(&mut self) {
        self.relay.wait().await;
    }
}

/// Feeds Kafka; one that is away is tried again, and gets everything once it is back. It goes on
/// from where the last one that did this has come.
async fn run_kafka_relay(
    settings: KafkaConfig,
    log: Bus,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let kafka = loop {
        let open = KafkaRelay::open(&settings, log.clone());
        let opened = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            opened = open => opened,
        };
        match opened {
            Ok(kafka) => tokio::select! {
                () = stop.cancelled() => break kafka,
                // It returned after a fatal error: a new client is opened.
                () = relay_to_kafka(&kafka) => {}
            },
            Err(error) => warn_and_wait("events for Kafka cannot be read", error).await,
        }
    };
    // Stores how far it came; otherwise the next one sends the last events again.
    if let Err(error) = kafka.close().await {
        let error = format!("{:#}", anyhow::Error::new(error));
        tracing::warn!(error, "the last events will be sent to Kafka once more");
    }
    Ok(())
}

/// Moves events until the client fails for good.
async fn relay_to_kafka(kafka: &KafkaRelay) {
    loop {
        match kafka.tick().await {
            Ok(0) => kafka.wait().await,
            Ok(_) => {}
            Err(error) => {
                let is_fatal = error.is_fatal();
                warn_and_wait("Kafka does not take events", error).await;
                if is_fatal {
                    return;
                }
            }
        }
    }
}

/// Says what failed, and waits before it is tried again.
async fn warn_and_wait(what: &str, error: KafkaError) {
    let error = format!("{:#}", anyhow::Error::new(error));
    tracing::warn!(error, "{what}, trying again");
    tokio::time::sleep(RETRY_DELAY).await;
}
