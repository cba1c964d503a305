//! `ferroflow artifact open`.

use std::process::Stdio;
use std::time::Duration;

use anyhow::bail;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::process::Command;

use crate::cli::Global;
use crate::cli::connect::target;
use crate::cli::output::{line, note};

/// What opens an address on a desktop, unless `BROWSER` says otherwise.
const OPENERS: [&str; 2] = ["xdg-open", "open"];

/// A browser that has not ended by then is one that was started.
const START_TIMEOUT: Duration = Duration::from_secs(2);

/// Files of a folder that are listed.
const FILES_SHOWN_MAX: usize = 20;

/// What a file's path may have in a query.
const QUERY_ENCODE_SET: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'.')
    .remove(b'-')
    .remove(b'_');

/// Refuses what no page can show: a folder, or a file that is not in it. `files` are those of the
/// folder, none of an artifact that is a file.
pub(super) fn check(artifact_id: i64, files: &[&str], path: &str) -> anyhow::Result<()> {
    if path.is_empty() && files.is_empty() || files.contains(&path) {
        return Ok(());
    }
    if files.is_empty() {
        bail!("artifact {artifact_id} is a file, --path is for folders");
    }
    let problem = if path.is_empty() {
        format!("artifact {artifact_id} is a folder: say which file with --path")
    } else {
        format!("artifact {artifact_id} has no file {path}")
    };
    let mut lines = vec![problem];
    lines.extend(
        files
            .iter()
            .take(FILES_SHOWN_MAX)
            .map(|file| format!("  {file}")),
    );
    if files.len() > FILES_SHOWN_MAX {
        lines.push(format!("  and {} more", files.len() - FILES_SHOWN_MAX));
    }
    bail!("{}", lines.join("\n"))
}

fn address(endpoint: &str, artifact_id: i64, path: &str) -> String {
    let content = format!("{endpoint}/apis/ferroflow/v1/artifacts/{artifact_id}/content");
    if path.is_empty() {
        return content;
    }
    format!(
        "{content}?path={}",
        utf8_percent_encode(path, QUERY_ENCODE_SET)
    )
}

pub(super) async fn run(
    artifact_id: i64,
    path: &str,
    print: bool,
    global: &Global,
) -> anyhow::Result<()> {
    let target = target(global)?;
    let address = address(&target.endpoint, artifact_id, path);
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
    let given = std::env::var("BROWSER").unwrap_or_default();
    let named: Vec<&str> = given.split(':').filter(|name| !name.is_empty()).collect();
    let openers = if named.is_empty() {
        OPENERS.to_vec()
    } else {
        named
    };
    let mut problems = Vec::new();
    for opener in openers {
        match start(opener, &address).await {
            Ok(()) => return Ok(()),
            Err(problem) => problems.push(format!("{opener}: {problem}")),
        }
    }
    bail!(
        "no browser can be started here ($BROWSER, else xdg-open): open the address above\n  {}",
        problems.join("\n  ")
    )
}

/// Starts a browser, or what hands the address to one; both go on by themselves.
async fn start(opener: &str, address: &str) -> Result<(), String> {
    let started = Command::new(opener)
        .arg(address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut browser = started.map_err(|error| error.to_string())?;
    // `xdg-open` and its like hand the address on and end; a browser itself may stay for hours.
    match tokio::time::timeout(START_TIMEOUT, browser.wait()).await {
        Ok(Ok(status)) if !status.success() => Err(format!("it ended with {status}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_opened_file_by_file() {
        let files = ["index.html", "a b/ä.png"];

        check(7, &files, "a b/ä.png").unwrap();
        check(7, &[], "").unwrap();
        let message = check(7, &files, "").unwrap_err().to_string();
        assert!(
            message.contains("--path\n  index.html\n  a b/ä.png"),
            "{message}"
        );
        assert!(
            check(7, &files, "other")
                .unwrap_err()
                .to_string()
                .contains("no file other")
        );
        assert!(check(7, &[], "other").is_err());
        assert_eq!(
            address("http://h", 7, "a b/ä.png"),
            "http://h/apis/ferroflow/v1/artifacts/7/content?path=a%20b/%C3%A4.png"
        );
        assert!(address("http://h", 7, "").ends_with("/7/content"));
    }

    #[tokio::test]
    async fn a_browser_that_cannot_be_started_is_told() {
        assert!(start("/nowhere/browser", "http://h").await.is_err());
        assert!(
            start("false", "http://h")
                .await
                .unwrap_err()
                .contains("exit status")
        );
        start("true", "http://h").await.unwrap();
    }
}
