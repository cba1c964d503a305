//! Forgets old events, and watches what Kafka has not had.
//!
//! Where Kafka is configured, an event stays until Kafka has it, however old it is: the log is the
//! queue while Kafka is away. So it may grow, and says so in time.

use std::time::Duration;

use ferroflow_bus::kafka::CURSOR;
use ferroflow_bus::{Backlog, Bus};
use ferroflow_db::DbError;
use ferroflow_service::worker::{NextTick, Worker};
use ferroflow_types::Timestamp;
use ferroflow_types::time::{Clock as _, SystemClock};

/// How often the worker runs.
const PERIOD: Duration = Duration::from_mins(1);

/// Old events are forgotten, and warnings repeated, every so many periods.
const PRUNE_EVERY_TICKS: u32 = 10;

/// Kafka is away for no passing reason when it has not had events of that age.
const BACKLOG_WARNING_AGE: Duration = Duration::from_mins(10);

/// How long events are kept, and whether Kafka must have had them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    pub(crate) days: u32,
    pub(crate) kafka: bool,
}

/// Forgets old events, and tells the backlog, once in a while.
pub(crate) struct RetentionWorker {
    bus: Bus,
    retention: Retention,
    tick_count: u32,
}

impl RetentionWorker {
    pub(crate) fn new(bus: Bus, retention: Retention) -> Self {
        Self {
            bus,
            retention,
            tick_count: 0,
        }
    }
}

impl Worker for RetentionWorker {
    type Error = DbError;

    fn name(&self) -> &'static str {
        "event retention"
    }

    async fn tick(&mut self) -> Result<NextTick, DbError> {
        let is_prune_tick = self.tick_count.is_multiple_of(PRUNE_EVERY_TICKS);
        prune_and_report(&self.bus, self.retention, is_prune_tick).await?;
        self.tick_count = self.tick_count.wrapping_add(1);
        Ok(NextTick::After(PERIOD))
    }
}

async fn prune_and_report(
    bus: &Bus,
    retention: Retention,
    is_prune_tick: bool,
) -> Result<(), DbError> {
    let max_age = Duration::from_hours(24) * retention.days;
    let relay = retention.kafka.then_some(CURSOR);
    let now = SystemClock.now();
    if is_prune_tick {
        let before = i64::try_from(max_age.as_millis()).map_or(0, |max_age| now.millis() - max_age);
        // Some at a time: each is a short transaction.
        while bus.prune(before, relay).await? > 0 {}
    }
    if let Some(relay) = relay {
        report_backlog(bus.backlog(relay).await?, now, max_age, is_prune_tick);
    }
    Ok(())
}

fn report_backlog(backlog: Backlog, now: Timestamp, max_age: Duration, should_warn: bool) {
    let age = backlog.oldest.map_or(Duration::ZERO, |at| now.since(at));
    let events = u32::try_from(backlog.events).unwrap_or(u32::MAX);
    // Set in every period, while warnings are repeated seldom.
    metrics::gauge!("ferroflow_events_kafka_backlog_events").set(events);
    metrics::gauge!("ferroflow_events_kafka_backlog_seconds").set(age.as_secs_f64());
    if should_warn && age > BACKLOG_WARNING_AGE {
        let (events, minutes) = (backlog.events, age.as_secs() / 60);
        if age > max_age {
            tracing::error!(
                events,
                minutes,
                "Kafka has not had events that are older than events.retention_days: they are \
                 kept, and the log grows until Kafka takes them"
            );
        } else {
            tracing::warn!(
                events,
                minutes,
                "Kafka has not had events for a while: they are kept until it has"
            );
        }
    }
}
