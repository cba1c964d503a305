//! A canary value in every setting that may be a secret: it is shown nowhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ferroflow_testkit::{Platform, shell_pipeline};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_mins(2);

/// In the settings of the platform.
const SETTING: &str = "canary-of-settings";

/// In what the user's pipeline says.
const SPEC: &str = "canary-of-spec";

/// A lightweight component, as the SDK writes one that installs from an index of its own.
fn component() -> Value {
    let index = format!("http://me:{SPEC}@127.0.0.1:1/simple");
    let install = format!(
        "python3 -m pip install --quiet --no-warn-script-location --index-url {index} \
         --trusted-host {index} 'x @ git+http://{SPEC}@127.0.0.1:1/x.git' && \"$0\" \"$@\"\n"
    );
    let run = "_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main \"$@\"";
    let task = vec![("installs".to_owned(), String::new(), Vec::new())];
    let mut spec = shell_pipeline("secrets", &task);
    spec["deploymentSpec"]["executors"]["exec-installs"]["container"]["command"] =
        json!(["sh", "-c", install, "sh", "-ec", run, "source"]);
    spec
}

/// Files below a folder with a text in them.
fn with_text(folder: &Path, text: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let found = paths.filter(|path| !path.is_symlink()).flat_map(|path| {
        if path.is_dir() {
            return with_text(&path, text);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        let mut windows = bytes.windows(text.len());
        let found = windows.any(|part| part == text.as_bytes());
        found.then_some(path).into_iter().collect()
    });
    found.collect()
}

#[test]
fn secrets_show_nowhere_but_in_the_users_own_spec() {
    let data = tempfile::tempdir().unwrap();
    let url = |rest: &str| format!("http://me:{SETTING}@127.0.0.1:1{rest}");
    let variables = [
        ("PIP_INDEX_URL", url("/simple")),
        ("PIP_EXTRA_INDEX_URL", url("/more")),
        ("PIP_FIND_LINKS", url("/links")),
        ("PIP_RETRIES", "0".to_owned()),
        ("HTTP_PROXY", url("")),
        (
            "FERROFLOW_ARTIFACTS__S3__SECRET_ACCESS_KEY",
            SETTING.to_owned(),
        ),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            format!("authorization={SETTING}"),
        ),
        ("FERROFLOW_TELEMETRY__LOG_FILTER", "debug".to_owned()),
    ];
    let platform = Platform::start_with(data.path(), &[], &variables);

    let run = platform.submit("secrets", &component(), &json!({}));
    let ended = platform.wait(&run, LIMIT);
    assert_eq!(ended["state"], "FAILED", "{ended:#}");
    let (_, tasks) = platform.get(&format!("/apis/ferroflow/v1/runs/{run}/tasks"));
    let events = platform.events(&run);
    let text = json!([ended["error"], ended["state_history"], tasks, events]).to_string();
    let log = platform.server_log();
    for canary in [SETTING, SPEC] {
        assert!(!text.contains(canary), "{canary} is in an answer: {text}");
        assert!(!log.contains(canary), "{canary} is in the log: {log}");
    }
    let found = with_text(data.path(), SETTING);
    assert!(found.is_empty(), "the settings' secrets are in {found:?}");
    let events = data.path().join("events.db");
    let found = with_text(data.path(), SPEC);
    assert!(
        !found.contains(&events),
        "the pipeline's secrets are in {found:?}"
    );
}
