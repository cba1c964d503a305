//! What is on the wire may grow, and may not change: older clients go on to work.
//!
//! `proto/wire.lock` lists every field, enum value, RPC, HTTP rule and rule of access that was ever
//! promised. A
//! line that is gone fails; new lines are added with
//! `FERROFLOW_BLESS=1 cargo test --workspace --test wire`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

use std::collections::BTreeSet;
use std::path::Path;

use prost_reflect::{EnumDescriptor, MessageDescriptor};

fn message_lines(message: &MessageDescriptor, lines: &mut BTreeSet<String>) {
    let name = message.full_name();
    for field in message.fields() {
        let (cardinality, kind) = (field.cardinality(), field.kind());
        let kind = match (kind.as_message(), kind.as_enum()) {
            (Some(message), _) => message.full_name().to_owned(),
            (_, Some(of)) => of.full_name().to_owned(),
            _ => format!("{kind:?}"),
        };
        let (number, field) = (field.number(), field.name());
        lines.insert(format!("{name}.{field} = {number} {cardinality:?} {kind}"));
    }
    for inner in message.child_messages() {
        message_lines(&inner, lines);
    }
    for inner in message.child_enums() {
        enum_lines(&inner, lines);
    }
}

fn enum_lines(of: &EnumDescriptor, lines: &mut BTreeSet<String>) {
    for value in of.values() {
        lines.insert(format!(
            "{}.{} = {}",
            of.full_name(),
            value.name(),
            value.number()
        ));
    }
}

fn current_lines() -> BTreeSet<String> {
    let pool = ferroflow_proto::pool();
    let extension = |name| pool.get_extension_by_name(name).unwrap();
    let http = extension("google.api.http");
    let access = extension("ferroflow.access.v1.rule");
    let mut lines = BTreeSet::new();
    for file in pool
        .files()
        .filter(|file| !file.package_name().starts_with("google"))
    {
        file.messages()
            .for_each(|message| message_lines(&message, &mut lines));
        file.enums().for_each(|of| enum_lines(&of, &mut lines));
        for method in file
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
        {
            let (name, input, output) = (method.full_name(), method.input(), method.output());
            let stream = if method.is_server_streaming() {
                "stream "
            } else {
                ""
            };
            let (input, output) = (input.full_name(), output.full_name());
            lines.insert(format!("rpc {name} ({input}) {stream}{output}"));
            let rule = method.options().get_extension(&http).to_string();
            lines.insert(format!("http {name} {rule}"));
            let rule = method.options().get_extension(&access).to_string();
            lines.insert(format!("access {name} {rule}"));
        }
    }
    lines
}

#[test]
fn nothing_that_was_promised_is_gone() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/wire.lock");
    let now = current_lines();
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let before: BTreeSet<String> = text.lines().map(str::to_owned).collect();

    let removed: Vec<_> = before.difference(&now).collect();
    assert!(
        removed.is_empty(),
        "older clients rely on these: {removed:#?}"
    );
    let added: Vec<_> = now.difference(&before).collect();
    if std::env::var_os("FERROFLOW_BLESS").is_some() {
        let lines: Vec<_> = now.iter().map(String::as_str).collect();
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    } else {
        assert!(
            added.is_empty(),
            "promise these with FERROFLOW_BLESS=1: {added:#?}"
        );
    }
}
