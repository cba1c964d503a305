//! Forgets old events, and watches what Kafka has not had.
//!
//! Where Kafka is configured, an event stays until Kafka has it, however old it is: the log is the
//! queue while Kafka is away. So it may grow, and says so in time.

use std::time::Duration;

use ferroflow_bus::kafka::CURSOR;
use ferroflow_bus::{Backlog, Bus};
use ferroflow_db::DbError;
use ferroflow_service::worker::{Next, Worker};
use ferroflow_types::Timestamp;
use ferroflow_types::time::{Clock as _, SystemClock};

/// How often it is looked.
const PERIOD: Duration = Duration::from_mins(1);

/// Old events are forgotten, and warnings repeated, every so many periods.
const SELDOM: u32 = 10;

/// Kafka is away for no passing reason when it has not had events of that age.
const OLD: Duration = Duration::from_mins(10);

/// How long events are kept, and whether Kafka must have had them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    pub(crate) days: u32,
    pub(crate) kafka: bool,
}

/// Forgets old events, and tells the backlog, once in a while.
pub(crate) struct Forgetting {
    bus: Bus,
    retention: Retention,
    period: u32,
}

impl Forgetting {
    pub(crate) fn new(bus: Bus, retention: Retention) -> Self {
        Self {
            bus,
            retention,
            period: 0,
        }
    }
}

impl Worker for Forgetting {
    type Error = DbError;

    fn name(&self) -> &'static str {
        "event retention"
    }

    async fn tick(&mut self) -> Result<Next, DbError> {
        let is_seldom = self.period.is_multiple_of(SELDOM);
        look(&self.bus, self.retention, is_seldom).await?;
        self.period = self.period.wrapping_add(1);
        Ok(Next::After(PERIOD))
    }
}

async fn look(bus: &Bus, retention: Retention, seldom: bool) -> Result<(), DbError> {
    let kept = Duration::from_hours(24) * retention.days;
    let relay = retention.kafka.then_some(CURSOR);
    let now = SystemClock.now();
    if seldom {
        let before = i64::try_from(kept.as_millis()).map_or(0, |kept| now.millis() - kept);
        // Some at a time: each is a short transaction.
        while bus.prune(before, relay).await? > 0 {}
    }
    if let Some(relay) = relay {
        tell(bus.backlog(relay).await?, now, kept, seldom);
    }
    Ok(())
}

fn tell(backlog: Backlog, now: Timestamp, kept: Duration, aloud: bool) {
    let age = backlog.oldest.map_or(Duration::ZERO, |at| now.since(at));
    let events = u32::try_from(backlog.events).unwrap_or(u32::MAX);
    // Set in every period, while warnings are repeated seldom.
    metrics::gauge!("ferroflow_events_kafka_backlog_events").set(events);
    metrics::gauge!("ferroflow_events_kafka_backlog_seconds").set(age.as_secs_f64());
    if aloud && age > OLD {
        let (events, minutes) = (backlog.events, age.as_secs() / 60);
        if age > kept {
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
