//! Schedules against the oracle: due times, and a scheduler that is killed while clocks jump.

use std::collections::BTreeSet;

use ferroflow_types::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::due::{Advance, Limits, Progress, advance};
use super::oracle::{Expression, expression};
use super::schedule::{Schedule, ScheduleError};
use super::zone::Zone;
use super::{Trigger, When};

/// Zones whose clocks change by an hour, by half an hour, by two, at midnight, to the wrong side, or
/// not at all.
const ZONES: [&str; 12] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "America/Santiago",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Pacific/Chatham",
    "Asia/Tokyo",
];

const HOUR_S: i64 = 3600;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

pub(super) fn trigger(cron: &str, zone: &str) -> Trigger {
    Trigger {
        when: When::Cron(format!("CRON_TZ={zone} {cron}")),
        start: None,
        end: None,
    }
}

pub(super) fn utc() -> Zone {
    Zone::named("UTC").unwrap()
}

/// A moment near a change of the zone's clock, or any.
fn moment(zone: &TimeZone, seconds: i64, before: i64, near: bool) -> Timestamp {
    let from = jiff::Timestamp::from_second(seconds).unwrap();
    match zone.following(from).next().filter(|_| near) {
        Some(change) => at(change.timestamp().as_second() - before),
        None => at(seconds),
    }
}

fn any_moment() -> impl Strategy<Value = (i64, i64, bool)> {
    // 2020 to 2036; from some minutes to some days before a change.
    let before = prop_oneof![0..600_i64, 0..4 * HOUR_S, 0..60 * HOUR_S];
    (
        1_577_836_800..2_082_758_400_i64,
        before,
        prop::bool::weighted(0.7),
    )
}

proptest! {
    #[test]
    fn due_times_are_those_of_the_oracle(
        expression in expression(),
        zone in prop::sample::select(&ZONES),
        (seconds, before, near) in any_moment(),
    ) {
        let rules = Zone::named(zone).unwrap();
        let after = moment(rules.rules(), seconds, before, near);
        let until = at(after.seconds() + 4 * 24 * HOUR_S);
        let expected = expression.due(rules.rules(), after, until, 300);

        let schedule = Schedule::new(&trigger(&expression.text(), zone), after, &utc()).unwrap();
        let mut found = Vec::new();
        let mut cursor = after;
        while found.len() < 300 && let Some(next) = schedule.next_after(cursor).filter(|next| *next <= until) {
            found.push(next);
            cursor = next;
        }
        prop_assert_eq!(&found, &expected, "{}", expression.text());

        let last = expected.last().copied();
        let end = last.map_or(until, |last| at(last.seconds() + 7)).min(until);
        let newest = expression.due(rules.rules(), after, end, usize::MAX).last().copied();
        prop_assert_eq!(schedule.newest(after, end), newest, "{}", expression.text());
    }
}

/// What happens to two replicas and their clock.
#[derive(Debug, Clone)]
enum Step {
    /// The clock goes on, or jumps either way.
    Clock(i64),
    /// A replica reads and decides.
    Read(usize),
    /// It stores what it decided, if nobody was faster.
    Store(usize),
    /// It is killed.
    Kill(usize),
    /// A run ends.
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..90_i64).prop_map(Step::Clock),
        1 => (-2 * HOUR_S..2 * HOUR_S).prop_map(Step::Clock),
        6 => (0..2_usize).prop_map(Step::Read),
        6 => (0..2_usize).prop_map(Step::Store),
        1 => (0..2_usize).prop_map(Step::Kill),
        4 => Just(Step::End),
    ]
}

/// A database with one recurring run, and the replicas that work on it.
struct Simulation {
    schedule: Schedule,
    limits: Limits,
    progress: Progress,
    now: Timestamp,
    latest: Timestamp,
    active: i64,
    fired: Vec<(Timestamp, i64)>,
    decided: [Option<(Timestamp, Advance)>; 2],
}

impl Simulation {
    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Clock(seconds) => {
                self.now = Timestamp::from_millis(self.now.millis() + seconds * 1000);
                self.latest = self.latest.max(self.now);
            }
            Step::Read(replica) => {
                let decided = advance(
                    &self.schedule,
                    self.limits,
                    self.progress,
                    self.now,
                    self.active,
                );
                self.decided[replica] = Some((self.progress.cursor, decided));
            }
            Step::Store(replica) => {
                if let Some((read, decided)) = self.decided[replica].take()
                    && read == self.progress.cursor
                {
                    self.progress = decided.progress;
                    self.active += i64::try_from(decided.due.len()).unwrap();
                    let runs = decided.due.iter().map(|due| (due.at, due.index));
                    self.fired.extend(runs);
                }
            }
            Step::Kill(replica) => self.decided[replica] = None,
            Step::End => self.active = (self.active - 1).max(0),
        }
        assert!(self.active <= self.limits.max_concurrency);
    }

    /// Lets everything happen that is due, with the clock at its latest.
    fn settle(&mut self) {
        self.now = self.latest;
        loop {
            let before = self.fired.len();
            self.active = 0;
            self.apply(&Step::Read(0));
            self.apply(&Step::Store(0));
            if self.fired.len() == before {
                return;
            }
        }
    }
}

/// What a trigger means: by the oracle, or by counting.
#[derive(Debug, Clone)]
enum ExpectedTrigger {
    Cron(Box<Expression>, &'static str),
    Periodic(i64),
    Once,
}

fn expected_trigger() -> impl Strategy<Value = ExpectedTrigger> {
    prop_oneof![
        4 => (expression(), prop::sample::select(&ZONES))
            .prop_map(|(expression, zone)| ExpectedTrigger::Cron(Box::new(expression), zone)),
        2 => (1..500_i64).prop_map(ExpectedTrigger::Periodic),
        1 => Just(ExpectedTrigger::Once),
    ]
}

impl ExpectedTrigger {
    fn trigger(&self) -> Trigger {
        match self {
            Self::Cron(expression, zone) => trigger(&expression.text(), zone),
            Self::Periodic(seconds) => Trigger {
                when: When::Periodic(*seconds),
                start: None,
                end: None,
            },
            Self::Once => Trigger {
                when: When::Once,
                start: None,
                end: None,
            },
        }
    }

    fn due(&self, begin: Timestamp, until: Timestamp) -> Vec<Timestamp> {
        match self {
            Self::Cron(expression, zone) => {
                let zone = Zone::named(zone).unwrap();
                expression.due(zone.rules(), begin, until, usize::MAX)
            }
            Self::Periodic(seconds) => {
                let count = (until.seconds() - begin.seconds()).div_euclid(*seconds);
                (1..=count)
                    .map(|n| at(begin.seconds() + n * seconds))
                    .collect()
            }
            Self::Once => vec![begin],
        }
    }
}

proptest! {
    #[test]
    fn kills_and_jumping_clocks_lose_nothing_and_repeat_nothing(
        expected_trigger in expected_trigger(),
        (seconds, before, near) in any_moment(),
        no_catchup in any::<bool>(),
        max_concurrency in 1..=10_i64,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let zone = match &expected_trigger {
            ExpectedTrigger::Cron(_, zone) => zone,
            _ => "UTC",
        };
        let begin = moment(Zone::named(zone).unwrap().rules(), seconds, before, near);
        let schedule = Schedule::new(&expected_trigger.trigger(), begin, &utc()).unwrap();
        let progress = Progress { cursor: schedule.cursor(), fired: 0 };
        let mut simulation = Simulation {
            schedule,
            limits: Limits { max_concurrency, no_catchup },
            progress,
            now: begin,
            latest: begin,
            active: 0,
            fired: Vec::new(),
            decided: [None, None],
        };
        for step in &steps {
            simulation.apply(step);
        }
        simulation.settle();

        let due = expected_trigger.due(begin, simulation.latest);
        let fired: Vec<_> = simulation.fired.iter().map(|(at, _)| *at).collect();
        let numbers: Vec<_> = simulation.fired.iter().map(|(_, index)| *index).collect();
        let count = i64::try_from(fired.len()).unwrap();
        prop_assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
        if no_catchup {
            prop_assert!(fired.is_sorted_by(|a, b| a < b));
            let due: BTreeSet<_> = due.into_iter().collect();
            prop_assert!(fired.iter().all(|at| due.contains(at)));
            prop_assert_eq!(fired.last(), due.last());
        } else {
            prop_assert_eq!(fired, due);
        }
    }
}

pub(super) fn schedule(trigger: &Trigger, created: &str) -> Result<Schedule, ScheduleError> {
    let schedule = Schedule::new(trigger, created.parse().unwrap(), &utc())?;
    schedule.check_fires().map(|()| schedule)
}

fn next(cron: &str, after: &str, count: usize) -> Vec<String> {
    let trigger = Trigger {
        when: When::Cron(cron.to_owned()),
        start: None,
        end: None,
    };
    let schedule = schedule(&trigger, after).unwrap();
    let due = |at: &Timestamp| schedule.next_after(*at);
    std::iter::successors(due(&after.parse().unwrap()), due)
        .take(count)
        .map(|at| at.to_string())
        .collect()
}

#[test]
fn expressions_fire_when_their_fields_match() {
    let after = "2026-11-27T10:00:30Z";
    for (cron, first, second) in [
        // Five fields begin with minutes, six with seconds.
        (
            "*/5 * * * *",
            "2026-11-27T10:05:00Z",
            "2026-11-27T10:10:00Z",
        ),
        (
            "*/5 * * * * *",
            "2026-11-27T10:00:35Z",
            "2026-11-27T10:00:40Z",
        ),
        (
            "0 0 9 ? * 2-6",
            "2026-11-28T09:00:00Z",
            "2026-12-01T09:00:00Z",
        ),
        (
            "0 9 * jan mon-tue",
            "2027-01-04T09:00:00Z",
            "2027-01-05T09:00:00Z",
        ),
        (
            "0 0/20 10 * * *",
            "2026-11-27T10:20:00Z",
            "2026-11-27T10:40:00Z",
        ),
        (
            "0 0 * * 4/2",
            "2026-11-28T00:00:00Z",
            "2026-12-03T00:00:00Z",
        ),
        // Either kind of day, unless one of them begins with a star.
        (
            "0 0 13 * fri",
            "2026-12-04T00:00:00Z",
            "2026-12-11T00:00:00Z",
        ),
        (
            "0 0 */2 * fri",
            "2026-12-11T00:00:00Z",
            "2026-12-25T00:00:00Z",
        ),
        ("0 0 L * *", "2026-11-30T00:00:00Z", "2026-12-31T00:00:00Z"),
        ("@hourly", "2026-11-27T11:00:00Z", "2026-11-27T12:00:00Z"),
        ("@midnight", "2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z"),
        ("@weekly", "2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z"),
        (
            "@every 1h30m",
            "2026-11-27T11:30:30Z",
            "2026-11-27T13:00:30Z",
        ),
        (
            "CRON_TZ=Asia/Tokyo 0 9 * * *",
            "2026-11-28T00:00:00Z",
            "2026-11-29T00:00:00Z",
        ),
        (
            "TZ=America/New_York @daily",
            "2026-11-28T05:00:00Z",
            "2026-11-29T05:00:00Z",
        ),
        ("0 0 29 2 *", "2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"),
    ] {
        assert_eq!(next(cron, after, 2), [first, second], "{cron}");
    }
}

#[test]
fn a_fixed_time_of_day_is_run_once_where_the_clock_changes() {
    let berlin = |cron: &str, after: &str| next(&format!("CRON_TZ=Europe/Berlin {cron}"), after, 3);
    // 2027-03-28: from 02:00 +01:00 to 03:00 +02:00.
    let spring = "2027-03-27T02:00:00Z";
    assert_eq!(
        berlin("30 2 * * *", spring),
        [
            "2027-03-28T01:00:00Z",
            "2027-03-29T00:30:00Z",
            "2027-03-30T00:30:00Z"
        ]
    );
    assert_eq!(
        berlin("30 1-3 * * *", "2027-03-28T00:00:00Z"),
        [
            "2027-03-28T00:30:00Z",
            "2027-03-28T01:30:00Z",
            "2027-03-28T23:30:00Z"
        ]
    );
    // 2026-10-25: from 03:00 +02:00 back to 02:00 +01:00.
    let autumn = "2026-10-24T20:00:00Z";
    assert_eq!(
        berlin("30 2 * * *", autumn),
        [
            "2026-10-25T00:30:00Z",
            "2026-10-26T01:30:00Z",
            "2026-10-27T01:30:00Z"
        ]
    );
    assert_eq!(
        berlin("30 2-3 * * *", autumn),
        [
            "2026-10-25T00:30:00Z",
            "2026-10-25T01:30:00Z",
            "2026-10-25T02:30:00Z"
        ]
    );
}

#[test]
fn invalid_schedules_are_refused_with_the_reason() {
    let created = "2026-11-27T10:00:00Z";
    let problem = |cron: &str, start: Option<&str>, end: Option<&str>| {
        let trigger = Trigger {
            when: When::Cron(cron.to_owned()),
            start: start.map(|at| at.parse().unwrap()),
            end: end.map(|at| at.parse().unwrap()),
        };
        schedule(&trigger, created).unwrap_err().to_string()
    };
    for (cron, part) in [
        ("", "it has 0 fields"),
        ("* * * *", "it has 4 fields"),
        ("* * * * * * *", "it has 7 fields"),
        ("60 * * * *", "minute \"60\""),
        ("0 24 * * *", "hour \"24\""),
        ("61 * * * * *", "second \"61\""),
        ("0 0 32 * *", "day-of-month \"32\""),
        ("0 0 * foo *", "month \"foo\""),
        ("0 0 * * 8", "day-of-week \"8\""),
        ("1,,2 * * * *", "a value is missing"),
        ("*/0 * * * *", "step cannot be zero"),
        ("@fortnightly", "@fortnightly is not known"),
        ("@every soon", "\"soon\" is not a length of time"),
        ("@every 0s", "one second or more"),
        (
            "CRON_TZ=Mars/Olympus 0 9 * * *",
            "no time zone \"Mars/Olympus\"",
        ),
        ("CRON_TZ=UTC", "it has 0 fields"),
        ("0 0 30 2 *", "can never fire: no date"),
        ("0 0 31 4,6,9,11 *", "can never fire: no date"),
    ] {
        let text = problem(cron, None, None);
        assert!(text.contains(part), "{cron}: {text}");
    }
    let (nine, ten) = ("2026-11-28T09:00:00Z", "2026-11-28T10:00:00Z");
    let text = problem("0 12 * * *", Some(nine), Some(ten));
    assert!(text.contains("it ends at 2026-11-28T10:00:00Z"), "{text}");
    let text = problem("* * * * *", Some(ten), Some(nine));
    assert!(text.contains("is not after start_time"), "{text}");
    let text = problem("* * * * *", None, Some("2026-11-01T00:00:00Z"));
    assert!(text.contains("can never fire"), "{text}");
}

#[test]
fn a_frame_begins_after_its_start_and_holds_its_end() {
    let trigger = Trigger {
        when: When::Periodic(60),
        start: Some("2026-11-27T10:00:00Z".parse().unwrap()),
        end: Some("2026-11-27T10:02:00Z".parse().unwrap()),
    };
    let schedule = schedule(&trigger, "2026-11-27T11:00:00Z").unwrap();
    let due = |at: &Timestamp| schedule.next_after(*at);
    let all: Vec<_> = std::iter::successors(due(&Timestamp::EPOCH), due).collect();
    let texts: Vec<_> = all.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["2026-11-27T10:01:00Z", "2026-11-27T10:02:00Z"]);
}
