//! Cron expressions: five fields, six with seconds first, `@daily` and the like, `CRON_TZ=`.
//!
//! The fields are those of robfig/cron, which Kubeflow uses, but that five of them begin with
//! minutes as everywhere else. Matching is croner's. Where the clock of a zone is put forward or
//! back, a fixed time of day is run once: after the gap, or at the first of two. Everything else
//! follows the wall clock, so what falls into a gap is left out and what comes twice is run twice.

use croner::parser::{CronParser, Seconds, Year};
use ferroflow_types::Timestamp;
use jiff::SignedDuration;

use crate::zone::{UnknownZone, Zone};

/// A cron expression in its time zone.
#[derive(Debug, Clone)]
pub enum Cron {
    /// Fields that the wall clock of a zone must match.
    Fields(Box<croner::Cron>, Zone),
    /// `@every`: seconds between two.
    Every(i64),
}

/// Why an expression was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Its time zone.
    #[error(transparent)]
    Zone(#[from] UnknownZone),
    /// Its fields.
    #[error(
        "Schedule cron is not a supported format: {0}. Write five fields (minute hour \
         day-of-month month day-of-week), six with seconds first, or @yearly, @monthly, @weekly, \
         @daily, @hourly or @every 1h30m; a time zone goes in front as CRON_TZ=Europe/Berlin"
    )]
    Fields(String),
}

/// The fields in their order, without seconds.
const FIELD_NAMES: [&str; 5] = ["minute", "hour", "day-of-month", "month", "day-of-week"];

impl Cron {
    /// Reads an expression; `zone` is for one that names none.
    pub fn parse(text: &str, zone: &Zone) -> Result<Self, CronError> {
        let text = text.trim();
        let prefixed = ["CRON_TZ=", "TZ="]
            .into_iter()
            .find_map(|prefix| text.strip_prefix(prefix));
        let (zone, text) = match prefixed {
            None => (zone.clone(), text),
            Some(rest) => {
                let (name, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                (Zone::named(name)?, rest.trim())
            }
        };
        if let Some(name) = text.strip_prefix('@') {
            return parse_descriptor(name, zone);
        }
        let fields: Vec<_> = text.split_whitespace().map(normalize_field).collect();
        let pattern = parse_fields(&fields).map_err(|problem| {
            let place = invalid_field(&fields);
            CronError::Fields(place.map_or(problem.clone(), |place| format!("{place}: {problem}")))
        })?;
        Ok(Self::Fields(Box::new(pattern), zone))
    }

    /// The first time after `after`; `begin` is where `@every` begins to count.
    pub fn next_after(&self, after: Timestamp, begin: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(seconds) => next_periodic(*seconds, after, begin),
            Self::Fields(pattern, zone) => {
                let after = after.to_jiff().to_zoned(zone.rules().clone());
                // A search that fails has come to the end of the calendar.
                let found = pattern.find_next_occurrence(&after, false).ok()?;
                Some(Timestamp::from_millis(found.timestamp().as_millisecond()))
            }
        }
    }
}

/// The first of `begin + n * seconds`, n from 1, after `after`.
pub fn next_periodic(seconds: i64, after: Timestamp, begin: Timestamp) -> Option<Timestamp> {
    let step = seconds.checked_mul(1000).filter(|step| *step > 0)?;
    // Before `begin` no period has passed, so the first time is one period after it.
    let passed = after.millis().saturating_sub(begin.millis()).max(0) / step;
    let next = step.checked_mul(passed + 1)?.checked_add(begin.millis())?;
    Some(Timestamp::from_millis(next))
}

fn parse_descriptor(name: &str, zone: Zone) -> Result<Cron, CronError> {
    let unknown = |problem: String| CronError::Fields(problem);
    let fields = match name.to_lowercase().as_str() {
        "yearly" | "annually" => "0 0 1 1 *",
        "monthly" => "0 0 1 * *",
        "weekly" => "0 0 * * 0",
        "daily" | "midnight" => "0 0 * * *",
        "hourly" => "0 * * * *",
        other => {
            let Some(length) = other.strip_prefix("every ") else {
                return Err(unknown(format!("@{name} is not known")));
            };
            let duration = length.trim().parse::<SignedDuration>();
            // As robfig/cron, without parts of a second.
            let seconds = duration.map_or(0, |length| length.as_secs());
            if seconds < 1 {
                let problem = format!("{length:?} is not a length of time of one second or more");
                return Err(unknown(problem));
            }
            return Ok(Cron::Every(seconds));
        }
    };
    let fields: Vec<_> = fields.split(' ').map(str::to_owned).collect();
    let pattern = parse_fields(&fields).map_err(unknown)?;
    Ok(Cron::Fields(Box::new(pattern), zone))
}

/// A field with `?` for `*`, which robfig/cron takes anywhere.
fn normalize_field(field: &str) -> String {
    field.replace('?', "*")
}

/// Any day will do; with a step it is no restriction either, as far as the other field of days goes.
fn has_star(field: &str) -> bool {
    field.split(',').any(|part| part.starts_with('*'))
}

/// `1/2` ends with Saturday; the library would go on to 7, which is Sunday once more.
fn end_steps_on_saturday(weekdays: &str) -> String {
    let parts = weekdays.split(',').map(|part| match part.split_once('/') {
        Some((from, step)) if !from.contains(['*', '-']) => format!("{from}-6/{step}"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join(",")
}

fn parse_fields(fields: &[String]) -> Result<croner::Cron, String> {
    let [.., days, _, weekdays] = fields else {
        return Err(format!("it has {} fields", fields.len()));
    };
    if !(5..=6).contains(&fields.len()) {
        return Err(format!("it has {} fields", fields.len()));
    }
    // With sloppy ranges the library takes `/10` for `*/10`, which robfig/cron refuses.
    let parts = fields.iter().flat_map(|field| field.split(','));
    if parts
        .into_iter()
        .any(|part| part.is_empty() || part.starts_with('/'))
    {
        return Err("a value is missing".to_owned());
    }
    let parser = CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Disallowed)
        // Else the library refuses `10/20`, every twentieth from the tenth on.
        .sloppy_ranges(true)
        // Days of month and week: either matches, unless one of them begins with a star.
        .dom_and_dow(has_star(days) || has_star(weekdays))
        .build();
    let mut fields = fields.to_vec();
    if let Some(weekdays) = fields.last_mut() {
        *weekdays = end_steps_on_saturday(weekdays);
    }
    parser.parse(&fields.join(" ")).map_err(|error| {
        let text = error.to_string();
        let text = text.trim_start_matches("Component error: ");
        text.trim_end_matches('.').to_lowercase()
    })
}

/// The field that is wrong by itself.
fn invalid_field(fields: &[String]) -> Option<String> {
    // 1 where the fields begin with seconds.
    let seconds = fields
        .len()
        .checked_sub(FIELD_NAMES.len())
        .filter(|extra| *extra <= 1)?;
    let is_invalid = |at: usize| {
        let mut probe = vec!["*".to_owned(); fields.len()];
        probe[at] = fields[at].clone();
        parse_fields(&probe).is_err()
    };
    let at = (0..fields.len()).find(|at| is_invalid(*at))?;
    let name = match at.checked_sub(seconds) {
        None => "second",
        Some(at) => FIELD_NAMES.get(at)?,
    };
    Some(format!("{name} {:?}", fields[at]))
}
