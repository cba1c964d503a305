//! `ferroflow artifact open`.

use std::process::{Command, Stdio};

use anyhow::bail;

use crate::cli::Global;
use crate::cli::connect::target;
use crate::cli::output::{line, note};

/// What opens an address on a desktop, unless `BROWSER` says otherwise.
const OPENERS: [&str; 2] = ["xdg-open", "open"];

pub(super) fn run(artifact_id: i64, print: bool, global: &Global) -> anyhow::Result<()> {
    let target = target(global)?;
    let address = format!(
        "{}/apis/ferroflow/v1/artifacts/{artifact_id}/content",
        target.endpoint
    );
    if print {
        line(&address);
        return Ok(());
    }
    if target.api_key.is_some() {
        bail!(
            "a browser does not send the key that {} asks for: ferroflow artifact download {artifact_id}",
            target.endpoint
        );
    }
    note(&address);
    let given = std::env::var("BROWSER")
        .ok()
        .filter(|given| !given.is_empty());
    let openers = given.iter().map(String::as_str).chain(OPENERS);
    for opener in openers {
        let started = Command::new(opener)
            .arg(&address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if started.is_ok() {
            return Ok(());
        }
    }
    bail!("no browser can be started here ($BROWSER, xdg-open): open the address above")
}
