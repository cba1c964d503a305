//! The newest due time of a schedule, and the last one that there can be.

use ferroflow_types::Timestamp;
use proptest::prelude::*;

use super::schedule::{Schedule, ScheduleError, last_until};
use super::schedule_tests::{schedule, trigger, utc};
use super::{Trigger, When};

#[test]
fn the_newest_due_time_takes_few_steps_however_old_the_cursor_is() {
    let now: Timestamp = "2026-11-27T10:59:30Z".parse().unwrap();
    for (cron, newest) in [
        ("* * * * * *", "2026-11-27T10:59:30Z"),
        ("* * * * *", "2026-11-27T10:59:00Z"),
        ("* 0 * * * *", "2026-11-27T10:00:59Z"),
        ("* * * 10 *", "2026-10-31T22:59:00Z"),
        ("* * * * 10 *", "2026-10-31T22:59:59Z"),
        ("0 0 1 1 *", "2025-12-31T23:00:00Z"),
    ] {
        let trigger = trigger(cron, "Europe/Berlin");
        let schedule = Schedule::new(&trigger, Timestamp::EPOCH, &utc()).unwrap();
        let steps = std::cell::Cell::new(0);
        let found = last_until(Timestamp::EPOCH, now, |at| {
            steps.set(steps.get() + 1);
            assert!(steps.get() <= 50, "{cron}");
            schedule.next_after(at)
        });
        assert_eq!(found.unwrap().to_string(), newest, "{cron}");
        assert_eq!(schedule.newest(Timestamp::EPOCH, now), found, "{cron}");
    }
}

proptest! {
    #[test]
    fn the_last_time_in_a_span_is_found(
        times in prop::collection::btree_set(-50..50_i64, 0..20),
        after in -60..60_i64,
        until in -60..60_i64,
    ) {
        let last = times.iter().copied().rfind(|time| *time > after && *time <= until);
        let next = |after: Timestamp| {
            let next = times.range(after.millis() + 1..).next();
            next.copied().map(Timestamp::from_millis)
        };
        let (after, until) = (Timestamp::from_millis(after), Timestamp::from_millis(until));
        prop_assert_eq!(last_until(after, until, next).map(Timestamp::millis), last);
    }
}

#[test]
fn nothing_is_due_after_the_last_time_of_the_api() {
    let created = "2026-11-27T10:00:00Z";
    let started = |when: When, start: &str| Trigger {
        when,
        start: Some(start.parse().unwrap()),
        end: None,
    };
    let late = "9999-12-30T21:00:00Z";
    for (when, start) in [
        (When::Periodic(200_000_000_000_000), created),
        (When::Periodic(252_000_000_000), created),
        (When::Periodic(251_000_000_000_000_000), created),
        (When::Cron("@every 70000000h".to_owned()), created),
        (When::Cron("0 12 1 1 *".to_owned()), late),
    ] {
        let error = schedule(&started(when.clone(), start), created).unwrap_err();
        assert_eq!(error, ScheduleError::NeverFires, "{when:?}");
    }
    let longest = started(When::Periodic(251_000_000_000), "2000-01-01T00:00:00Z");
    let schedule = schedule(&longest, created).unwrap();
    let first = schedule.next_after(Timestamp::EPOCH).unwrap();
    assert!(first.to_string().starts_with("9953-"), "{first}");
    assert_eq!(schedule.next_after(first), None);
}
