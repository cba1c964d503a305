//! Due times by brute force, for tests: every minute of a span is looked at. Knows nothing of the
//! cron library; expressions are made together with what they mean.

use std::collections::BTreeSet;

use ferroflow_types::Timestamp;
use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;
use proptest::prelude::*;

/// One field of an expression and the values that it means.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) text: String,
    values: BTreeSet<i8>,
    star: bool,
    /// One value, written as a number.
    single: bool,
}

impl Field {
    fn of(text: String, values: impl IntoIterator<Item = i8>) -> Self {
        Self {
            text,
            values: values.into_iter().collect(),
            star: false,
            single: false,
        }
    }

    fn contains(&self, value: i8) -> bool {
        self.values.contains(&value)
    }
}

/// Any field whose values are `min..=max`.
pub(super) fn field(min: i8, max: i8) -> impl Strategy<Value = Field> {
    let step = 1..=max.max(2);
    let numbers = prop::collection::btree_set(min..=max, 1..4);
    prop_oneof![
        4 => any::<bool>().prop_map(move |question| Field {
            star: true,
            ..Field::of(if question { "?" } else { "*" }.to_owned(), min..=max)
        }),
        2 => (min..=max).prop_map(|value| Field {
            single: true,
            ..Field::of(value.to_string(), [value])
        }),
        2 => step.clone().prop_map(move |step| Field {
            star: true,
            ..Field::of(format!("*/{step}"), (min..=max).step_by(usize::try_from(step).unwrap()))
        }),
        1 => (min..=max, 2..=max.max(2)).prop_map(move |(from, step)| Field::of(
            format!("{from}/{step}"),
            (from..=max).step_by(usize::try_from(step).unwrap()),
        )),
        1 => (min..max, step).prop_map(move |(from, step)| {
            let to = from + (max - from + 1) / 2;
            let values = (from..=to).step_by(usize::try_from(step).unwrap());
            Field::of(format!("{from}-{to}/{step}"), values)
        }),
        1 => (min..max, min..max).prop_map(move |(a, b)| {
            let (from, to) = (a.min(b), a.max(b) + 1);
            Field::of(format!("{from}-{to}"), from..=to)
        }),
        1 => numbers.prop_map(|values| {
            let texts: Vec<_> = values.iter().map(ToString::to_string).collect();
            Field {
                single: values.len() == 1,
                ..Field::of(texts.join(","), values)
            }
        }),
    ]
}

/// An expression and what it means.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    second: Field,
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
    with_seconds: bool,
}

/// Any expression, of five or six fields.
pub(super) fn expression() -> impl Strategy<Value = Expression> {
    let days = (field(1, 31), field(1, 12), field(0, 6));
    (
        field(0, 59),
        field(0, 59),
        field(0, 23),
        days,
        any::<bool>(),
    )
        .prop_map(
            |(second, minute, hour, (day, month, weekday), with_seconds)| {
                let zero = Field {
                    single: true,
                    ..Field::of("0".to_owned(), [0])
                };
                Expression {
                    second: if with_seconds { second } else { zero },
                    minute,
                    hour,
                    day,
                    month,
                    weekday,
                    with_seconds,
                }
            },
        )
}

impl Expression {
    pub(super) fn text(&self) -> String {
        let fields = [
            &self.minute,
            &self.hour,
            &self.day,
            &self.month,
            &self.weekday,
        ];
        let mut texts: Vec<_> = fields.iter().map(|field| field.text.as_str()).collect();
        if self.with_seconds {
            texts.insert(0, &self.second.text);
        }
        texts.join(" ")
    }

    fn is_fixed(&self) -> bool {
        self.second.single && self.minute.single && self.hour.single
    }

    fn matches_day(&self, at: DateTime) -> bool {
        let weekday = match at.weekday() {
            Weekday::Sunday => 0,
            other => other.to_monday_one_offset(),
        };
        let (day, weekday) = (self.day.contains(at.day()), self.weekday.contains(weekday));
        let days = if self.day.star || self.weekday.star {
            day && weekday
        } else {
            day || weekday
        };
        days && self.month.contains(at.month())
    }

    fn matches_minute(&self, at: DateTime) -> bool {
        self.minute.contains(at.minute()) && self.hour.contains(at.hour()) && self.matches_day(at)
    }

    /// The only time of day of a fixed expression.
    fn time_on(&self, day: DateTime) -> DateTime {
        let first = |field: &Field| *field.values.first().unwrap();
        day.with()
            .hour(first(&self.hour))
            .minute(first(&self.minute))
            .second(first(&self.second))
            .build()
            .unwrap()
    }

    /// At most `count` due times after `after` and not after `until`.
    pub(super) fn due(
        &self,
        zone: &TimeZone,
        after: Timestamp,
        until: Timestamp,
        count: usize,
    ) -> Vec<Timestamp> {
        let mut found = Vec::new();
        let mut minute = after.seconds().div_euclid(60) * 60;
        while minute <= until.seconds() && found.len() < count {
            let due = self.due_in_minute(zone, minute).into_iter();
            found.extend(due.filter(|at| *at > after && *at <= until));
            minute += 60;
        }
        found.truncate(count);
        found
    }

    fn due_in_minute(&self, zone: &TimeZone, minute: i64) -> Vec<Timestamp> {
        let mut found = Vec::new();
        let instant = |seconds: i64| jiff::Timestamp::from_second(seconds).unwrap();
        let civil = zone.to_datetime(instant(minute));
        if self.is_fixed() {
            // The clock was put forward here: what was skipped is due now.
            let expected = zone
                .to_datetime(instant(minute - 60))
                .checked_add(jiff::SignedDuration::from_secs(60))
                .unwrap();
            let skipped = self.time_on(expected);
            if expected <= skipped && skipped < civil && self.matches_day(skipped) {
                found.push(Timestamp::from_millis(minute * 1000));
            }
        }
        if !self.matches_minute(civil) {
            return found;
        }
        for second in &self.second.values {
            let at = minute + i64::from(*second);
            let wall = civil.with().second(*second).build().unwrap();
            let earliest = zone.to_ambiguous_timestamp(wall).earlier().unwrap();
            // What comes twice is due once when its time of day is fixed.
            if !self.is_fixed() || earliest.as_second() == at {
                found.push(Timestamp::from_millis(at * 1000));
            }
        }
        found
    }
}
