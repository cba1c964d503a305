//! Times written by a layout of Go's `time` package: the reference time Mon Jan 2 15:04:05 MST 2006
//! in the shape that is wanted.

use jiff::Zoned;

/// Parts of a layout and what `strftime` calls them, longer ones before those that they begin with.
/// All times are in UTC, so offsets are known.
const PARTS: &[(&str, &str)] = &[
    ("January", "%B"),
    ("Jan", "%b"),
    ("Monday", "%A"),
    ("Mon", "%a"),
    ("MST", "UTC"),
    ("2006", "%Y"),
    ("__2", "%_3j"),
    ("_2006", "_%Y"),
    ("_2", "%e"),
    ("002", "%j"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("15", "%H"),
    ("1", "%-m"),
    ("2", "%-d"),
    ("3", "%-I"),
    ("4", "%-M"),
    ("5", "%-S"),
    ("PM", "%p"),
    ("pm", "%P"),
    ("-07:00:00", "+00:00:00"),
    ("-070000", "+000000"),
    ("-07:00", "+00:00"),
    ("-0700", "+0000"),
    ("-07", "+00"),
    ("Z07:00:00", "Z"),
    ("Z070000", "Z"),
    ("Z07:00", "Z"),
    ("Z0700", "Z"),
    ("Z07", "Z"),
];

/// A time of whole seconds in UTC by a layout; what is no part of the reference time is kept.
pub(crate) fn format(layout: &str, time: &Zoned) -> String {
    let mut result = String::new();
    let mut rest = layout;
    while let Some(first) = rest.chars().next() {
        if let Some(length) = fraction(rest) {
            // Zeros are asked for and stay, nines leave out what is zero.
            if rest[1..].starts_with('0') {
                result.push_str(&rest[..length]);
            }
            rest = &rest[length..];
            continue;
        }
        if let Some((part, directive)) = PARTS.iter().find(|(part, _)| begins(rest, part)) {
            let text = jiff::fmt::strtime::format(directive, time);
            result.push_str(text.as_deref().unwrap_or(part));
            rest = &rest[part.len()..];
            continue;
        }
        result.push(first);
        rest = &rest[first.len_utf8()..];
    }
    result
}

/// Whether a layout begins with this part; `Jan` of `Janet` is none.
fn begins(layout: &str, part: &str) -> bool {
    let Some(rest) = layout.strip_prefix(part) else {
        return false;
    };
    let is_short_name = matches!(part, "Jan" | "Mon");
    !(is_short_name && rest.starts_with(|next: char| next.is_ascii_lowercase()))
}

/// The length of a fraction of a second, `.000` or `,999`, which no digit follows.
fn fraction(layout: &str) -> Option<usize> {
    let digits = layout.strip_prefix(['.', ','])?;
    let digit = digits
        .chars()
        .next()
        .filter(|one| matches!(one, '0' | '9'))?;
    let rest = digits.trim_start_matches(digit);
    let followed = rest.starts_with(|next: char| next.is_ascii_digit());
    (!followed).then_some(layout.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts are what Go 1.26 prints for this time.
    #[test]
    fn layouts_are_written_as_go_writes_them() {
        let time: jiff::Timestamp = "2026-02-03T14:05:09Z".parse().unwrap();
        let time = time.to_zoned(jiff::tz::TimeZone::UTC);
        for (layout, expected) in [
            ("20060102150405", "20260203140509"),
            ("2006-01-02T15:04:05Z07:00", "2026-02-03T14:05:09Z"),
            (
                "Mon, 02 Jan 2006 15:04:05 MST",
                "Tue, 03 Feb 2026 14:05:09 UTC",
            ),
            (
                "Mon, 02 Jan 2006 15:04:05 -0700",
                "Tue, 03 Feb 2026 14:05:09 +0000",
            ),
            (
                "Monday, 02-Jan-06 15:04:05 MST",
                "Tuesday, 03-Feb-26 14:05:09 UTC",
            ),
            ("Mon Jan _2 15:04:05 2006", "Tue Feb  3 14:05:09 2026"),
            ("3:04PM", "2:05PM"),
            ("03:4:5 pm", "02:5:9 pm"),
            ("1/2/06", "2/3/26"),
            ("January 2, day 002 __2", "February 3, day 034  34"),
            ("15:04:05.000 05.999 05,00", "14:05:09.000 09 09,00"),
            ("_2006 Janet Month", "_2026 Janet Month"),
            ("año %Y", "año %Y"),
            ("-07 -07:00:00 Z070000", "+00 +00:00:00 Z"),
            ("2006.01.02 .0001 x.09", "2026.02.03 .0002 x.09"),
            ("__2006 12 10 100", " 34026 23 20 200"),
            ("", ""),
        ] {
            assert_eq!(format(layout, &time), expected, "{layout}");
        }
    }
}
