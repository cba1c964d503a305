//! Due times of a recurring run, one after another.

use ferroflow_types::Timestamp;

use crate::cron::{self, Cron, CronError};
use crate::zone::Zone;
use crate::{Trigger, When};

/// A trigger that was read: what is due after a moment, and nothing else.
#[derive(Debug, Clone)]
pub struct Schedule {
    rule: Rule,
    /// Due times are after this; periods count from here.
    begin: Timestamp,
    /// The last moment that can be due.
    end: Option<Timestamp>,
}

#[derive(Debug, Clone)]
enum Rule {
    Cron(Cron),
    Every(i64),
    Once,
}

/// Why a trigger was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The cron expression.
    #[error(transparent)]
    Cron(#[from] CronError),
    /// The period.
    #[error("interval_second must be at least 1. Received {0}")]
    InvalidInterval(i64),
    /// The frame.
    #[error("end_time {end} is not after start_time {start}")]
    EndNotAfterStart {
        /// Where it begins.
        start: Timestamp,
        /// Where it ends.
        end: Timestamp,
    },
    /// No day matches.
    #[error("the schedule can never fire: no date up to the year 9999 matches it")]
    NeverFires,
    /// It ends too early.
    #[error(
        "the schedule can never fire: it ends at {end}, and would fire at {first} for the first \
         time"
    )]
    EndsBeforeFirst {
        /// The first time without an end.
        first: Timestamp,
        /// Its end.
        end: Timestamp,
    },
}

/// The last second that can be told, 9999-12-30T22:00:00Z: `google.protobuf.Timestamp` and texts of
/// RFC 3339 end with the year 9999, whatever the zone.
const MAX_TIME: Timestamp = Timestamp::from_millis(253_402_207_200_000);

impl Schedule {
    /// The schedule of a trigger that was stored at `created_at`; `zone` is that of cron expressions
    /// that name none.
    pub fn new(
        trigger: &Trigger,
        created_at: Timestamp,
        zone: &Zone,
    ) -> Result<Self, ScheduleError> {
        let rule = match &trigger.when {
            When::Cron(text) => Rule::Cron(Cron::parse(text, zone)?),
            When::Periodic(seconds @ 1..) => Rule::Every(*seconds),
            When::Periodic(seconds) => return Err(ScheduleError::InvalidInterval(*seconds)),
            When::Once => Rule::Once,
        };
        if let (Some(start), Some(end)) = (trigger.start, trigger.end)
            && end <= start
        {
            return Err(ScheduleError::EndNotAfterStart { start, end });
        }
        let begin = trigger.start.unwrap_or(created_at);
        Ok(Self {
            rule,
            // Whole seconds, as in KFP's API and in cron expressions.
            begin: Timestamp::from_millis(begin.seconds().saturating_mul(1000)),
            end: trigger.end,
        })
    }

    /// Refuses what will never be due.
    pub fn check_fires(&self) -> Result<(), ScheduleError> {
        let first = self
            .next_ignoring_end(self.cursor())
            .ok_or(ScheduleError::NeverFires)?;
        match self.end {
            Some(end) if first > end => Err(ScheduleError::EndsBeforeFirst { first, end }),
            _ => Ok(()),
        }
    }

    /// Where the cursor of a new recurring run stands: before the first due time.
    pub fn cursor(&self) -> Timestamp {
        match self.rule {
            // `begin` itself is due, and due times are after the cursor.
            Rule::Once => Timestamp::from_millis(self.begin.millis() - 1),
            _ => self.begin,
        }
    }

    /// The zone of its wall clock; none where no wall clock matters.
    pub fn zone(&self) -> Option<&Zone> {
        match &self.rule {
            Rule::Cron(Cron::Fields(_, zone)) => Some(zone),
            _ => None,
        }
    }

    /// The first due time after `after`.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let next = self.next_ignoring_end(after.max(self.cursor()))?;
        self.end.is_none_or(|end| next <= end).then_some(next)
    }

    fn next_ignoring_end(&self, after: Timestamp) -> Option<Timestamp> {
        let next = match &self.rule {
            Rule::Cron(cron) => cron.next_after(after, self.begin),
            Rule::Every(seconds) => cron::next_periodic(*seconds, after, self.begin),
            Rule::Once => (after < self.begin).then_some(self.begin),
        };
        next.filter(|next| *next <= MAX_TIME)
    }

    /// The newest due time after `after` and not after `until`.
    pub fn newest(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        last_until(after, until, |at| self.next_after(at))
    }
}

/// The last of some times that is after `after` and not after `until`. `next` tells the first one
/// after a moment; there may be millions, so they are not gone through: the later the moment, the
/// later its next one, and the last moment whose next one is not too late is found by halves.
pub(super) fn last_until(
    after: Timestamp,
    until: Timestamp,
    next: impl Fn(Timestamp) -> Option<Timestamp>,
) -> Option<Timestamp> {
    let in_time = |millis: i64| next(Timestamp::from_millis(millis)).filter(|at| *at <= until);
    let mut found = in_time(after.millis())?;
    // `early` has a next one in time, which is `found`; `late` has none.
    let (mut early, mut late) = (found.millis() - 1, until.millis());
    while late - early > 1 {
        let middle = early + (late - early) / 2;
        match in_time(middle) {
            Some(at) => (found, early) = (at, at.millis() - 1),
            None => late = middle,
        }
    }
    Some(found)
}
