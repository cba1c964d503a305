//! Due times of a recurring run, one after another.

use ferroflow_types::Timestamp;

use super::cron::{self, Cron, CronError};
use super::zone::Zone;
use super::{Trigger, When};

/// A trigger that was read: what is due after a moment, and nothing else.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
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
pub(crate) enum ScheduleError {
    /// The cron expression.
    #[error(transparent)]
    Cron(#[from] CronError),
    /// The period.
    #[error("interval_second must be at least 1. Received {0}")]
    Interval(i64),
    /// The frame.
    #[error("end_time {end} is not after start_time {start}")]
    Ends {
        /// Where it begins.
        start: Timestamp,
        /// Where it ends.
        end: Timestamp,
    },
    /// No day matches.
    #[error("the schedule can never fire: no date matches its fields")]
    Never,
    /// It ends too early.
    #[error(
        "the schedule can never fire: it ends at {end}, and would fire at {first} for the first \
         time"
    )]
    EndsFirst {
        /// The first time without an end.
        first: Timestamp,
        /// Its end.
        end: Timestamp,
    },
}

/// Spans of time before now in which the newest due time is looked for, in seconds, each some sixty
/// times the one before: however old the cursor is, few due times are stepped through.
const SPANS_S: [i64; 6] = [60, 3_600, 172_800, 8_640_000, 432_000_000, i64::MAX / 2000];

impl Schedule {
    /// The schedule of a trigger that was stored at `created_at`; `zone` is that of cron expressions
    /// that name none.
    pub(crate) fn of(
        trigger: &Trigger,
        created_at: Timestamp,
        zone: &Zone,
    ) -> Result<Self, ScheduleError> {
        let rule = match &trigger.when {
            When::Cron(text) => Rule::Cron(Cron::parse(text, zone)?),
            When::Periodic(seconds @ 1..) => Rule::Every(*seconds),
            When::Periodic(seconds) => return Err(ScheduleError::Interval(*seconds)),
            When::Once => Rule::Once,
        };
        if let (Some(start), Some(end)) = (trigger.start, trigger.end)
            && end <= start
        {
            return Err(ScheduleError::Ends { start, end });
        }
        let begin = trigger.start.unwrap_or(created_at);
        Ok(Self {
            rule,
            begin: Timestamp::from_millis(begin.seconds().saturating_mul(1000)),
            end: trigger.end,
        })
    }

    /// Refuses what will never be due.
    pub(crate) fn check_fires(&self) -> Result<(), ScheduleError> {
        let first = self.unbounded(self.cursor()).ok_or(ScheduleError::Never)?;
        match self.end {
            Some(end) if first > end => Err(ScheduleError::EndsFirst { first, end }),
            _ => Ok(()),
        }
    }

    /// Where the cursor of a new recurring run stands: before the first due time.
    pub(crate) fn cursor(&self) -> Timestamp {
        match self.rule {
            // Due at its creation.
            Rule::Once => Timestamp::from_millis(self.begin.millis() - 1),
            _ => self.begin,
        }
    }

    /// The zone of its wall clock; none where no wall clock matters.
    pub(crate) fn zone(&self) -> Option<&Zone> {
        match &self.rule {
            Rule::Cron(Cron::Fields(_, zone)) => Some(zone),
            _ => None,
        }
    }

    /// The first due time after `after`.
    pub(crate) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let next = self.unbounded(after.max(self.cursor()))?;
        self.end.is_none_or(|end| next <= end).then_some(next)
    }

    fn unbounded(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Cron(cron) => cron.next_after(after, self.begin),
            Rule::Every(seconds) => cron::every(*seconds, after, self.begin),
            Rule::Once => (after < self.begin).then_some(self.begin),
        }
    }

    /// The newest due time after `after` and not after `until`.
    pub(crate) fn newest(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        SPANS_S.into_iter().find_map(|seconds| {
            let earliest = until.millis().saturating_sub(seconds * 1000);
            let from = after.max(Timestamp::from_millis(earliest));
            let due = |at: Timestamp| self.next_after(at).filter(|next| *next <= until);
            std::iter::successors(due(from), |at| due(*at)).last()
        })
    }
}
