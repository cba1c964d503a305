//! What moves events on: from the outbox to the log, from the log to Kafka, out of the log when they
//! are old. Of several replicas each of these works in one.

use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use ferroflow_bus::kafka::{KafkaConfig, KafkaRelay, KafkaRelayError};
use ferroflow_bus::{Bus, Relay};
use ferroflow_db::Db;
use ferroflow_db::lead::{Lead, lead};
use ferroflow_service::runner::{Runner, TaskKind};
use ferroflow_types::Clock as _;
use ferroflow_types::time::SystemClock;
use tokio_util::sync::CancellationToken;

use crate::config::Events;

/// The wait before a part that is away is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Starts them; `replica` is who holds their leases.
pub(crate) async fn start(
    config: &Events,
    source: Db,
    bus: &Bus,
    replica: &str,
    runner: &mut Runner,
) -> anyhow::Result<()> {
    let spawn = |runner: &mut Runner, name, lease, work: Work| {
        let (db, holder, stop) = (bus.db().clone(), replica.to_owned(), runner.stopping());
        runner.spawn(TaskKind::Critical, name, async move {
            lead(db, lease, &holder, stop, work).await
        });
    };
    let log = bus.clone();
    let relay = move |lead| {
        let relay = Relay::new(source.clone(), log.clone());
        Box::pin(relay_until(relay, lead)) as Working
    };
    spawn(runner, "relay", "relay/pipelines", Box::new(relay));
    let (log, days) = (bus.clone(), config.retention_days);
    let prune = move |lead: Lead| Box::pin(prune_until(log.clone(), days, lead.stop)) as Working;
    spawn(
        runner,
        "event retention",
        "relay/retention",
        Box::new(prune),
    );
    if !config.kafka.brokers.is_empty() {
        // Wrong settings are told at the start, by every replica.
        KafkaRelay::open(&config.kafka, bus.clone())
            .await
            .context("events.kafka")?;
        let (settings, log) = (config.kafka.clone(), bus.clone());
        let feed = move |lead: Lead| {
            Box::pin(feed_until(settings.clone(), log.clone(), lead.stop)) as Working
        };
        spawn(runner, "kafka", "relay/kafka", Box::new(feed));
    }
    Ok(())
}

type Working = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;
type Work = Box<dyn FnMut(Lead) -> Working + Send>;

/// Relays events as they come; a database that is away is tried again.
async fn relay_until(mut relay: Relay, lead: Lead) -> anyhow::Result<()> {
    loop {
        let moved = match relay.tick(&lead).await {
            Ok(moved) => moved,
            Err(error) => {
                tracing::error!(%error, "events cannot be relayed, trying again");
                tokio::time::sleep(RETRY).await;
                0
            }
        };
        if moved > 0 {
            continue;
        }
        tokio::select! {
            () = lead.stop.cancelled() => return Ok(()),
            () = relay.wait() => {}
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Feeds Kafka; one that is away is tried again, and gets everything once it is back. It goes on
/// from where the last one that did this has come.
async fn feed_until(
    settings: KafkaConfig,
    log: Bus,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut kafka = None;
    loop {
        let moved = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            moved = feed(&mut kafka, &settings, &log) => moved,
        };
        match moved {
            Ok(0) => {}
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(error = %anyhow::Error::new(error), "Kafka does not take events, trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        let Some(kafka) = &kafka else { continue };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = kafka.wait() => {}
        }
    }
}

/// Moves one batch.
async fn feed(
    kafka: &mut Option<KafkaRelay>,
    settings: &KafkaConfig,
    log: &Bus,
) -> Result<usize, KafkaRelayError> {
    let open = match kafka.take() {
        Some(open) => open,
        None => KafkaRelay::open(settings, log.clone()).await?,
    };
    kafka.insert(open).tick().await
}

/// Forgets old events, some at a time.
async fn prune_until(bus: Bus, days: u32, stop: CancellationToken) -> anyhow::Result<()> {
    const PERIOD: Duration = Duration::from_mins(10);
    let kept = i64::from(days) * 24 * 60 * 60 * 1000;
    loop {
        match bus.prune(SystemClock.now().millis() - kept).await {
            Ok(0) => {}
            Ok(_) => continue,
            Err(error) => tracing::warn!(%error, "old events cannot be forgotten, trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}
