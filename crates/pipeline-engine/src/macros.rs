//! Macros in the text parameters of a run: `[[RunUUID]]`, `[[CurrentTime]]`, `[[ScheduledTime]]`,
//! `[[Index]]`, times also as `[[CurrentTime.<Go layout>]]` and
//! `{{$.currentTime.strftime('<format>')}}`, all in UTC.

use ferroflow_types::Timestamp;
use jiff::Zoned;
use jiff::tz::TimeZone;

use crate::go_layout;

/// What macros stand for in one run; those without a value are left as they are.
#[derive(Debug, Clone, Copy)]
pub struct Macros<'a> {
    /// The run's id.
    pub run: &'a str,
    /// When it is created.
    pub now: Timestamp,
    /// When it was due.
    pub scheduled: Option<Timestamp>,
    /// Its number among the runs of its schedule.
    pub index: Option<i64>,
}

/// How a time looks that asks for no layout.
const LAYOUT: &str = "20060102150405";

impl Macros<'_> {
    /// A text with its macros expanded, once: what they expand to is not looked at again.
    pub(crate) fn expand(&self, text: &str) -> String {
        // A macro does not go over the end of its line.
        text.split_inclusive('\n')
            .map(|line| self.line(line))
            .collect()
    }

    /// Takes time in proportion to the line, whatever is in it.
    fn line(&self, line: &str) -> String {
        // Where the last macro of each kind can end, counted from the end of the line. Behind it no end
        // is searched for: a line of openings alone would take quadratic time.
        let last = |end: &str| line.rfind(end).map_or(usize::MAX, |at| line.len() - at);
        let (brackets, braces) = (last("]]"), last("')}}"));
        let mut result = String::with_capacity(line.len());
        let mut rest = line;
        while let Some(at) = rest.find(['[', '{']) {
            result.push_str(&rest[..at]);
            rest = &rest[at..];
            let mut found = None;
            if rest.len() > brackets {
                found = self.bracketed(rest);
            }
            if rest.len() > braces {
                found = found.or_else(|| self.braced(rest));
            }
            let (whole, value) = found.unwrap_or((&rest[..1], None));
            result.push_str(value.as_deref().unwrap_or(whole));
            rest = &rest[whole.len()..];
        }
        result.push_str(rest);
        result
    }

    /// A pair of brackets at the beginning of `text`, and its value if it is a macro.
    fn bracketed<'t>(&self, text: &'t str) -> Option<(&'t str, Option<String>)> {
        let inner = text.strip_prefix("[[")?;
        let end = inner.find("]]")?;
        let inner = &inner[..end];
        let value = match inner.split_once('.') {
            None if inner == "RunUUID" => Some(self.run.to_owned()),
            None if inner == "Index" => self.index.map(|index| index.to_string()),
            None => self
                .time(inner)
                .map(|time| go_layout::format(LAYOUT, &time)),
            Some((name, layout)) => self.time(name).map(|time| go_layout::format(layout, &time)),
        };
        Some((&text[..end + 4], value))
    }

    fn time(&self, name: &str) -> Option<Zoned> {
        let at = match name {
            "CurrentTime" => Some(self.now),
            "ScheduledTime" => self.scheduled,
            _ => None,
        };
        at.map(in_utc)
    }

    /// The same with a `strftime` call.
    fn braced<'t>(&self, text: &'t str) -> Option<(&'t str, Option<String>)> {
        let calls = [
            ("{{$.currentTime.strftime('", Some(self.now)),
            ("{{$.scheduledTime.strftime('", self.scheduled),
        ];
        let (arguments, at) = calls
            .into_iter()
            .find_map(|(call, at)| Some((text.strip_prefix(call)?, at)))?;
        let end = arguments.find("')}}")?;
        let format = &arguments[..end];
        let whole = text.len() - arguments.len() + end + 4;
        let value = at.and_then(|at| jiff::fmt::strtime::format(format, &in_utc(at)).ok());
        Some((&text[..whole], value))
    }
}

/// Whole seconds, as schedules count them.
fn in_utc(at: Timestamp) -> Zoned {
    Timestamp::from_millis(at.seconds().saturating_mul(1000))
        .to_jiff()
        .to_zoned(TimeZone::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn macros() -> Macros<'static> {
        Macros {
            run: "some-run",
            now: Timestamp::from_millis(26_500),
            scheduled: Some(Timestamp::from_millis(25_000)),
            index: Some(27),
        }
    }

    #[test]
    fn macros_are_expanded_as_upstream_expands_them() {
        for (text, expected) in [
            ("FOO [[RunUUID]] FOO", "FOO some-run FOO"),
            ("[[ScheduledTime]]", "19700101000025"),
            ("[[CurrentTime]]", "19700101000026"),
            ("[[Index]]", "27"),
            ("[[ScheduledTime.15-04-05]]", "00-00-25"),
            (
                "[[CurrentTime.2006-01-02T15:04:05Z07:00]]",
                "1970-01-01T00:00:26Z",
            ),
            (
                "[[ScheduledTime]] [[RunUUID]] [[Index]]",
                "19700101000025 some-run 27",
            ),
            (
                "at {{$.scheduledTime.strftime('%Y-%m-%d %H:%M:%S')}}.",
                "at 1970-01-01 00:00:25.",
            ),
            ("{{$.currentTime.strftime('%s')}}", "26"),
            ("FOO", "FOO"),
            ("", ""),
        ] {
            assert_eq!(macros().expand(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_macro_stays() {
        for text in [
            "[[",
            "[[Index",
            "[[Indexes]]",
            "[[Index.2006]]",
            "[[[[RunUUID]]",
            "[[Run\nUUID]]",
            "{{$.",
            "{{$.currentTime}}",
            "{{$.inputs.parameters['x']}}",
            "{{$.currentTime.strftime('%Y'}}",
        ] {
            assert_eq!(macros().expand(text), text);
        }
        assert_eq!(macros().expand("[[a\n[[Index]]"), "[[a\n27");
    }

    #[test]
    fn a_run_without_a_schedule_keeps_the_macros_of_schedules() {
        let macros = Macros {
            scheduled: None,
            index: None,
            ..macros()
        };
        let text = "[[ScheduledTime]] [[ScheduledTime.2006]] [[Index]] \
                    {{$.scheduledTime.strftime('%Y')}}";
        assert_eq!(macros.expand(text), text);
        assert_eq!(macros.expand("[[CurrentTime.2006]]"), "1970");
    }

    #[test]
    fn the_time_it_takes_grows_with_the_text_only() {
        for part in [
            "[",
            "[[",
            "[[x]",
            "{{$.currentTime.strftime('",
            "{{$.",
            "[[Index]]",
        ] {
            let text = part.repeat(1_000_000 / part.len());
            let expanded = macros().expand(&text);
            assert_eq!(expanded == text, part != "[[Index]]", "{part}");
        }
    }

    #[test]
    fn what_a_macro_expands_to_is_no_macro() {
        let macros = Macros {
            run: "[[Index]]",
            ..macros()
        };
        assert_eq!(macros.expand("[[RunUUID]]"), "[[Index]]");
    }
}
