//! Tables, JSON, errors.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what this is for"
)]

use std::process::ExitCode;

use comfy_table::{Table, presets};
use ferroflow_proto::pool;
use prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions};
use prost_types::Timestamp;
use serde_json::Value;
use tonic::Status;

use super::Format;

/// Prints a table.
pub(crate) fn table(head: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head);
    table.add_rows(rows);
    println!("{}", table.trim_fmt());
}

/// Prints a line.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// Prints a note beside the result.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// A message as the REST API shows it.
pub(crate) fn json_of(name: &str, message: &impl Message) -> anyhow::Result<Value> {
    let descriptor = pool()
        .get_message_by_name(name)
        .ok_or_else(|| anyhow::anyhow!("there is no message {name}"))?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
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
        Format::Json => println!(
            "{}",
            serde_json::to_string_pretty(&json_of(name, message)?)?
        ),
        Format::Table => table(),
    }
    Ok(())
}

/// A time for people, in UTC.
pub(crate) fn time(at: Option<&Timestamp>) -> String {
    match at {
        Some(at) if at.seconds > 0 => jiff::Timestamp::new(at.seconds, at.nanos).map_or_else(
            |_| "?".to_owned(),
            |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
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
                _ => format!("{}m {:02}s", millis / 60_000, millis / 1000 % 60),
            }
        }
        _ => String::new(),
    }
}

/// A failed call as an error that reads well.
pub(crate) fn refused(status: Status) -> anyhow::Error {
    match status.code() {
        tonic::Code::Unavailable => {
            anyhow::anyhow!("the platform is not available: {}", status.message())
        }
        _ => anyhow::anyhow!("{}", status.message().replace("; ", "\n  ")),
    }
}

/// Prints an error with its causes; the exit code of a command that failed.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    let mut said = error.to_string();
    eprintln!("error: {said}");
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        // Transports repeat what they wrap.
        if !said.contains(&text) {
            eprintln!("  because: {text}");
            said.push_str(&text);
        }
    }
    ExitCode::FAILURE
}
