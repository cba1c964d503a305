//! When a recurring run is due, as flags say it.

use anyhow::{anyhow, bail};
use ferroflow_proto::kfp::v2beta1 as pb;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo};
use prost_types::Timestamp;

/// How an expression begins that names its time zone.
const ZONES: [&str; 2] = ["CRON_TZ=", "TZ="];

#[derive(Debug, Default, clap::Args)]
pub(super) struct Flags {
    /// When it is due: five cron fields, six with seconds first, or @daily and the like; without
    /// this and --every it runs once.
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "every")]
    cron: Option<String>,
    /// The zone whose clock the expression follows, for example Europe/Berlin [default: the
    /// platform's].
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// The time between two, for example 30s, 15m, 1h30m or 1d (24 hours).
    #[arg(long, value_name = "TIME")]
    every: Option<String>,
    /// Due times are after this: 2026-12-01T09:00:00+01:00, or a date, or a date and time by the
    /// clock of the time zone that is given, else of this machine [default: now].
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// No due time is after this, written like --start; a date is its first moment.
    #[arg(long, value_name = "TIME")]
    end: Option<String>,
}

impl Flags {
    /// The trigger; none of what runs once.
    ///
    /// # Errors
    /// What is wrong, by the flag that says it.
    pub(super) fn read(&self) -> anyhow::Result<Option<pb::Trigger>> {
        let zone = self.zone()?;
        let clock = clock(zone)?;
        let start_time = parse_time("--start", self.start.as_deref(), &clock)?;
        let end_time = parse_time("--end", self.end.as_deref(), &clock)?;
        let trigger = match (&self.cron, &self.every) {
            (Some(cron), _) => pb::trigger::Trigger::CronSchedule(pb::CronSchedule {
                start_time,
                end_time,
                cron: match &self.time_zone {
                    Some(zone) => format!("CRON_TZ={zone} {cron}"),
                    None => cron.clone(),
                },
            }),
            (None, Some(every)) => pb::trigger::Trigger::PeriodicSchedule(pb::PeriodicSchedule {
                start_time,
                end_time,
                interval_second: interval(every)?,
            }),
            (None, None) if start_time.is_some() || end_time.is_some() => {
                bail!("--start and --end are for --cron and --every");
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(pb::Trigger {
            trigger: Some(trigger),
        }))
    }

    /// The time zone that is named, by the flag or in the expression.
    fn zone(&self) -> anyhow::Result<Option<&str>> {
        let cron = self.cron.as_deref().unwrap_or_default().trim_start();
        let in_cron = ZONES.iter().find_map(|prefix| cron.strip_prefix(prefix));
        let in_cron = in_cron.map(|rest| rest.split_whitespace().next().unwrap_or_default());
        match (self.time_zone.as_deref(), in_cron) {
            (Some(given), Some(in_cron)) => bail!(
                "the time zone is given twice, {in_cron} in --cron and {given} by --time-zone: leave one out"
            ),
            (Some(_), None) if self.every.is_some() => {
                bail!(
                    "--time-zone is for --cron: the time between two (--every) is the same everywhere"
                )
            }
            (Some(_), None) if cron.starts_with("@every") => {
                bail!(
                    "--time-zone is for times of a clock: that between two (@every) is the same everywhere"
                )
            }
            (Some(_), None) if self.cron.is_none() => {
                bail!("--time-zone is for --cron, which is not given")
            }
            (given, in_cron) => Ok(given.or(in_cron)),
        }
    }
}

/// The clock by which times without an offset are read.
fn clock(zone: Option<&str>) -> anyhow::Result<TimeZone> {
    match zone {
        None => Ok(TimeZone::system()),
        Some(zone) => TimeZone::get(zone).map_err(|_| {
            anyhow!("there is no time zone {zone}: write one such as Europe/Berlin or UTC")
        }),
    }
}

/// A time of the command line.
fn parse_time(
    flag: &str,
    text: Option<&str>,
    clock: &TimeZone,
) -> anyhow::Result<Option<Timestamp>> {
    let Some(text) = text else {
        return Ok(None);
    };
    let exact = text.parse::<jiff::Timestamp>();
    let at = exact.or_else(|_| {
        let local: DateTime = text.parse()?;
        Ok::<_, jiff::Error>(local.to_zoned(clock.clone())?.timestamp())
    });
    let at = at.map_err(|_| {
        anyhow!(
            "{flag} {text}: write a time such as 2026-12-01T09:00:00+01:00, or a date such as 2026-12-01"
        )
    })?;
    Ok(Some(Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    }))
}

/// The seconds of `--every`.
fn interval(every: &str) -> anyhow::Result<i64> {
    // Days are no part of an exact duration, since clocks change: an interval counts 24 hours for
    // each.
    let days_of_24_hours = || {
        let span: Span = every.parse()?;
        span.to_duration(SpanRelativeTo::days_are_24_hours())
    };
    let length = every
        .parse::<SignedDuration>()
        .or_else(|_| days_of_24_hours());
    let Ok(length) = length else {
        bail!("--every {every}: write a time such as 30s, 15m, 1h30m or 1d");
    };
    if length.subsec_nanos() != 0 || length.as_secs() < 1 {
        bail!("--every {every}: it must be whole seconds, one at least");
    }
    Ok(length.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(given: &[(&str, &str)]) -> Flags {
        let value = |name: &str| {
            let found = given.iter().find(|(one, _)| *one == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Flags {
            cron: value("cron"),
            time_zone: value("zone"),
            every: value("every"),
            start: value("start"),
            end: value("end"),
        }
    }

    #[test]
    fn days_are_24_hours() {
        assert_eq!(interval("1d").unwrap(), 86_400);
        assert_eq!(interval("1h30m").unwrap(), 5_400);
        for wrong in ["1 month", "often", "0s", "-1h", "1.5s"] {
            let message = interval(wrong).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("--every {wrong}: ")),
                "{message}"
            );
        }
    }

    #[test]
    fn times_without_an_offset_follow_the_clock_of_the_schedule() {
        let start = |cron, start| {
            let flags = flags(&[("cron", cron), ("start", start)]);
            let trigger = flags.read().unwrap().unwrap().trigger.unwrap();
            let pb::trigger::Trigger::CronSchedule(cron) = trigger else {
                panic!("{trigger:?}");
            };
            cron.start_time.unwrap().seconds
        };
        let tokyo = "CRON_TZ=Asia/Tokyo 0 9 * * *";

        let midnight = start(tokyo, "2027-03-25T15:00:00Z");
        assert_eq!(start(tokyo, "2027-03-26"), midnight);
        assert_eq!(start(tokyo, "2027-03-26T00:00:00"), midnight);
        assert_eq!(start(tokyo, "2027-03-26 00:00"), midnight);
        assert_eq!(start(tokyo, "2027-03-26T00:00:00+09:00"), midnight);
        let wrong = flags(&[("every", "1h"), ("start", "soon")]);
        let message = wrong.read().unwrap_err().to_string();
        assert!(
            message.starts_with("--start soon: write a time"),
            "{message}"
        );
    }

    #[test]
    fn a_zone_is_given_once_and_for_times_of_a_clock() {
        let message = |given: &[(&str, &str)]| flags(given).read().unwrap_err().to_string();
        let tokyo = ("zone", "Asia/Tokyo");

        let twice = message(&[("cron", "CRON_TZ=Europe/Berlin 0 9 * * *"), tokyo]);
        assert!(twice.starts_with("the time zone is given twice"), "{twice}");
        assert!(message(&[("every", "1h"), tokyo]).contains("--every"));
        assert!(message(&[("cron", "@every 1h"), tokyo]).contains("@every"));
        assert!(message(&[tokyo]).contains("--cron"));
        let unknown = message(&[("cron", "0 9 * * *"), ("zone", "Berlin")]);
        assert!(unknown.contains("no time zone Berlin"), "{unknown}");
    }
}
