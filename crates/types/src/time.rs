//! Wall time in whole milliseconds, and the clock that tells it.
//!
//! Domain code takes a [`Timestamp`] as an argument; only a constructor picks the [`Clock`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The epoch: what KFP's API shows for a time that has not come yet.
    pub const EPOCH: Self = Self(0);

    /// Wraps milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// The moment `seconds` and `nanos` after the epoch, as `google.protobuf.Timestamp` tells it, in
    /// whole milliseconds; none for what no calendar has.
    pub fn from_parts(seconds: i64, nanos: i32) -> Option<Self> {
        let at = jiff::Timestamp::new(seconds, nanos).ok()?;
        Some(Self(at.as_millisecond()))
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The moment `by` later, at most the largest one that can be told.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// The time from `earlier` to here, zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same moment as jiff's, for printing in other formats.
    pub fn to_jiff(self) -> jiff::Timestamp {
        // What no calendar has is shown as the end of the year 9999.
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::MAX)
    }
}

/// RFC 3339 in UTC, for example `2026-01-31T12:00:00.250Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_jiff().fmt(f)
    }
}

/// Text that is not an RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 time")]
pub struct InvalidTimestamp(String);

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        text.parse::<jiff::Timestamp>()
            .map(|at| Self(at.as_millisecond()))
            .map_err(|_| InvalidTimestamp(text.to_owned()))
    }
}

/// Tells the wall time.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now().as_millisecond())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let at: Timestamp = "2026-01-31T12:00:00.25Z".parse().unwrap();

        assert_eq!(at.millis(), 1_769_860_800_250);
        assert_eq!(at.to_string(), "2026-01-31T12:00:00.25Z");
        assert_eq!(at.seconds(), 1_769_860_800);
    }

    #[test]
    fn differences_do_not_go_below_zero() {
        let early = Timestamp::from_millis(5);
        let late = early.plus(Duration::from_millis(10));

        assert_eq!(late.since(early), Duration::from_millis(10));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
