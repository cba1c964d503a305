//! What is printed: lines, JSON, notes, errors; colours and times for people.
//!
//! A reader that has seen enough closes its pipe: then the command ends, and nothing is wrong.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use anstyle::{AnsiColor, Color, Style};
use ferroflow_proto::pool;
use jiff::tz::TimeZone;
use prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions};
use prost_types::Timestamp;
use serde_json::Value;
use tonic::Status;

use super::{Format, controls};

/// Characters of an id that a table shows, unless two of its rows begin alike.
const SHORT_ID_LENGTH: usize = 8;

/// Ends the command when nobody reads it any more.
fn exit_on_broken_pipe(error: &io::Error) {
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
}

/// Prints bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let printed = out.write_all(bytes).and_then(|()| out.flush());
    printed.map_err(|error| {
        exit_on_broken_pipe(&error);
        anyhow::Error::new(error).context("cannot print")
    })
}

/// Prints a line.
pub(crate) fn line(text: &str) {
    // What cannot be printed (a full disk behind `>`) cannot be said there either.
    if let Err(error) = bytes(format!("{text}\n").as_bytes()) {
        note(&format!("error: {error:#}"));
        std::process::exit(1);
    }
}

/// Prints a note beside the result.
pub(crate) fn note(text: &str) {
    // Nobody is left to be told when this fails.
    let _unread = writeln!(io::stderr().lock(), "{text}").is_err();
}

/// A text without what would steer the terminal that shows it: the titles, cursor moves and answers
/// that a step's output may ask for.
pub(crate) fn printable(text: &str) -> String {
    controls::strip_controls(text, false)
}

/// Whether what goes to standard output is coloured: a terminal, without `NO_COLOR`.
pub(crate) fn coloured() -> bool {
    anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
}

/// A text in a colour, where colours are wanted.
pub(crate) fn paint(text: &str, style: Style) -> String {
    if coloured() && !text.is_empty() {
        format!("{style}{text}{style:#}")
    } else {
        text.to_owned()
    }
}

/// Titles.
pub(crate) fn bold(text: &str) -> String {
    paint(text, Style::new().bold())
}

/// The colour of a state.
pub(crate) fn style_of(state: &str) -> Style {
    let colour = match state {
        "succeeded" | "enabled" => AnsiColor::Green,
        "cached" => AnsiColor::Cyan,
        "running" => AnsiColor::Blue,
        "failed" => AnsiColor::Red,
        "canceled" | "canceling" => AnsiColor::Yellow,
        "pending" | "skipped" | "archived" | "disabled" => AnsiColor::BrightBlack,
        _ => return Style::new(),
    };
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

/// Columns of the terminal; one that does not know its size says 0.
pub(crate) fn width() -> Option<usize> {
    let width = comfy_table::Table::new().width();
    width.filter(|width| *width > 0).map(usize::from)
}

/// Ids as a table shows them: as many first characters as tell its rows apart.
pub(crate) fn short_ids<'a>(format: Format, ids: impl Iterator<Item = &'a str>) -> Vec<String> {
    let ids: Vec<&str> = ids.collect();
    if format != Format::Table {
        return ids.into_iter().map(str::to_owned).collect();
    }
    let mut distinct = ids.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let common_prefix_length = |pair: &[&str]| {
        let pairs = pair[0].chars().zip(pair[1].chars());
        pairs.take_while(|(one, other)| one == other).count()
    };
    let longest_common_prefix = distinct
        .windows(2)
        .map(common_prefix_length)
        .max()
        .unwrap_or(0);
    let length = SHORT_ID_LENGTH.max(longest_common_prefix + 1);
    let short = |id: &str| id.chars().take(length).collect();
    ids.into_iter().map(short).collect()
}

/// A message as the REST API shows it.
pub(crate) fn json_of(name: &str, message: &impl Message) -> anyhow::Result<Value> {
    let descriptor = pool()
        .get_message_by_name(name)
        .ok_or_else(|| anyhow::anyhow!("there is no message {name}"))?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
    // KFP's REST API writes names of fields as they are in the contracts, with underscores.
    let options = SerializeOptions::new().use_proto_field_name(true);
    Ok(dynamic.serialize_with_options(serde_json::value::Serializer, &options)?)
}

/// Prints a message as JSON, or what `table` prints.
pub(crate) fn show(
    format: Format,
    name: &str,
    message: &impl Message,
    table: impl FnOnce(),
) -> anyhow::Result<()> {
    match format {
        Format::Json => json(&json_of(name, message)?)?,
        Format::Table | Format::Wide => table(),
    }
    Ok(())
}

/// Prints JSON.
pub(crate) fn json(value: &Value) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A time for people, where they are.
pub(crate) fn time(at: Option<&Timestamp>) -> String {
    stamp(at, "%Y-%m-%d %H:%M:%S")
}

/// The same with the offset from UTC.
pub(crate) fn time_with_zone(at: Option<&Timestamp>) -> String {
    stamp(at, "%Y-%m-%d %H:%M:%S %:z")
}

fn stamp(at: Option<&Timestamp>, format: &str) -> String {
    match at {
        Some(at) if at.seconds > 0 => jiff::Timestamp::new(at.seconds, at.nanos).map_or_else(
            |_| "?".to_owned(),
            |at| at.to_zoned(TimeZone::system()).strftime(format).to_string(),
        ),
        _ => String::new(),
    }
}

/// The time between two, for people.
pub(crate) fn duration(from: Option<&Timestamp>, to: Option<&Timestamp>) -> String {
    let millis = |at: &Timestamp| at.seconds * 1000 + i64::from(at.nanos) / 1_000_000;
    match (from, to) {
        (Some(from), Some(to)) if to.seconds > 0 => {
            let millis = (millis(to) - millis(from)).max(0);
            match millis {
                0..10_000 => format!("{}.{:01}s", millis / 1000, millis % 1000 / 100),
                10_000..120_000 => format!("{}s", millis / 1000),
                120_000..7_200_000 => format!("{}m {:02}s", millis / 60_000, millis / 1000 % 60),
                _ => format!("{}h {:02}m", millis / 3_600_000, millis / 60_000 % 60),
            }
        }
        _ => String::new(),
    }
}

/// The time since `from` for what has not ended.
pub(crate) fn elapsed(from: Option<&Timestamp>, to: Option<&Timestamp>) -> String {
    let now = jiff::Timestamp::now();
    let now = Timestamp {
        seconds: now.as_second(),
        nanos: now.subsec_nanosecond(),
    };
    let ended = to.filter(|to| to.seconds > 0);
    duration(from, Some(ended.unwrap_or(&now)))
}

/// How long a run took, or has taken until now, by times of whole seconds.
pub(crate) fn whole_seconds(from: Option<&Timestamp>, to: Option<&Timestamp>) -> String {
    let now = jiff::Timestamp::now().as_second();
    let ended = to.map_or(0, |to| to.seconds);
    let ended = if ended > 0 { ended } else { now };
    match from {
        Some(from) => match (ended - from.seconds).max(0) {
            0 => "<1s".to_owned(),
            seconds @ 1..10 => format!("{seconds}s"),
            _ => {
                let whole = |seconds| Timestamp { seconds, nanos: 0 };
                duration(Some(&whole(from.seconds)), Some(&whole(ended)))
            }
        },
        None => String::new(),
    }
}

/// Bytes for people.
pub(crate) fn size(bytes: i64) -> String {
    let (mut value, mut tenths, mut unit) = (bytes.max(0), 0, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000 {
            break;
        }
        (tenths, value, unit) = (value % 1000 / 100, value / 1000, next);
    }
    match unit {
        "B" => format!("{value} B"),
        unit => format!("{value}.{tenths} {unit}"),
    }
}

/// A failed call as an error that reads well.
pub(crate) fn status_error(status: Status) -> anyhow::Error {
    match status.code() {
        tonic::Code::Unavailable => {
            anyhow::anyhow!("the platform is not available: {}", status.message())
        }
        _ => anyhow::anyhow!("{}", status.message().replace("; ", "\n  ")),
    }
}

/// Prints an error with its causes; the exit code of a command that failed.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    let mut reported = error.to_string();
    let mut text = format!("error: {reported}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Transports repeat what they wrap.
        if !reported.contains(&cause) {
            // Writing to a text does not fail.
            let _never = write!(text, "\n  because: {cause}").is_err();
            reported.push_str(&cause);
        }
    }
    note(&text);
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids_tell_their_rows_apart() {
        let short = |ids: [&str; 2]| short_ids(Format::Table, ids.into_iter());

        assert_eq!(short(["0123456789-a", "9"]), ["01234567", "9"]);
        assert_eq!(short(["0123456789-a", "0123456789-b"])[0], "0123456789-a");
        assert_eq!(short(["0123456789-a", "0123456789-a"])[1], "01234567");
        let wide = short_ids(Format::Wide, ["0123456789-a"].into_iter());
        assert_eq!(wide, ["0123456789-a"]);
    }

    #[test]
    fn durations_and_sizes_are_for_people() {
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let took = |seconds: i64| duration(Some(&at(1)), Some(&at(1 + seconds)));

        assert_eq!(took(5), "5.0s");
        assert_eq!(took(75), "75s");
        assert_eq!(took(125), "2m 05s");
        assert_eq!(took(7_260), "2h 01m");
        let whole = |seconds: i64| whole_seconds(Some(&at(1)), Some(&at(1 + seconds)));
        assert_eq!([whole(0), whole(9), whole(75)], ["<1s", "9s", "75s"]);
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1_250_000), "1.2 MB");
    }
}
