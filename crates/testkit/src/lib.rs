//! What tests start and ask: a platform of their own, over HTTP, as its users do.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on panics, and says what it skips"
)]

pub mod bare_pods;
pub mod cluster;
pub mod conformance;
pub mod docker;
pub mod fault_proxy;
pub mod parts;
pub mod scene;
pub mod services;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long the platform may take to be ready, on a machine that does other things as well.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// The `ferroflow` under test, which `FERROFLOW_BIN` names. Nothing is searched for: what lies in
/// `target` may have been built from other sources.
pub fn binary() -> PathBuf {
    program_path(std::env::var_os("FERROFLOW_BIN")).unwrap_or_else(|reason| panic!("{reason}"))
}

fn program_path(given: Option<OsString>) -> Result<PathBuf, String> {
    const HINT: &str = "`cargo xtask test -- --test it NAME` builds the program and gives it to \
        one test, `cargo xtask test` to all; or FERROFLOW_BIN=/path/to/ferroflow cargo test";
    let Some(given) = given.filter(|given| !given.is_empty()) else {
        return Err(format!(
            "FERROFLOW_BIN is not set, and names the ferroflow to test. {HINT}"
        ));
    };
    let program = PathBuf::from(given);
    // Tests run in the folders of their packages, so a relative path would mean one of many.
    if !program.is_absolute() || !program.is_file() {
        let shown = program.display();
        return Err(format!(
            "FERROFLOW_BIN is {shown}, which is not the absolute path of a program. {HINT}"
        ));
    }
    Ok(program)
}

/// `ferroflow` of the version before, whose data this one has to take over: `FERROFLOW_FORMER_BIN`,
/// or why there is none.
pub fn former_binary() -> Result<PathBuf, String> {
    let given = std::env::var_os("FERROFLOW_FORMER_BIN");
    given
        .map(PathBuf::from)
        .ok_or_else(|| "FERROFLOW_FORMER_BIN is not set (cargo xtask former builds it)".to_owned())
}

/// A running platform, killed when it is dropped.
pub struct Platform {
    /// None when somebody else started it.
    child: Option<Child>,
    url: String,
    data_dir: PathBuf,
}

impl Platform {
    /// Starts a platform over `data_dir` and waits until it is ready.
    pub fn start(data_dir: &Path, more: &[&str]) -> Self {
        Self::start_with(data_dir, more, &[])
    }

    /// The same with variables of its own.
    pub fn start_with(data_dir: &Path, more: &[&str], variables: &[(&str, String)]) -> Self {
        Self::start_program(&binary(), data_dir, more, variables)
    }

    /// The same by another program than the one that is tested.
    pub fn start_program(
        program: &Path,
        data_dir: &Path,
        more: &[&str],
        variables: &[(&str, String)],
    ) -> Self {
        let port_file = data_dir.join("port");
        match std::fs::remove_file(&port_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
        std::fs::create_dir_all(data_dir).unwrap();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(data_dir.join("server.log"))
            .unwrap();
        let child = Command::new(program)
            .arg("up")
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .arg("--port-file")
            .arg(&port_file)
            .args(more)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the platform starts");
        let mut platform = Self {
            child: Some(child),
            url: String::new(),
            data_dir: data_dir.to_path_buf(),
        };
        let begun = Instant::now();
        while platform.url.is_empty() {
            let address = std::fs::read_to_string(&port_file).unwrap_or_default();
            if !address.is_empty() {
                platform.url = format!("http://{address}");
            }
            assert!(
                begun.elapsed() < READY_TIMEOUT,
                "not ready: {}",
                platform.server_log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        platform
    }

    /// The platform at an address, which somebody else started.
    pub fn at(address: &str) -> Self {
        Self {
            child: None,
            url: format!("http://{address}"),
            data_dir: PathBuf::new(),
        }
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it was started here").id()
    }

    /// What it logged.
    pub fn server_log(&self) -> String {
        std::fs::read_to_string(self.data_dir.join("server.log")).unwrap_or_default()
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself, which is as good.
            let _ended = child.kill().is_err();
            child.wait().unwrap();
        }
    }

    /// A GET: status and JSON.
    pub fn get(&self, path: &str) -> (u16, Value) {
        self.get_by(&agent(), path)
    }

    /// The same by a client that keeps its connection, as whoever measures wants.
    pub fn get_by(&self, agent: &ureq::Agent, path: &str) -> (u16, Value) {
        answer(agent.get(format!("{}{path}", self.url)).call())
    }

    /// A POST of JSON: status and JSON.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        answer(agent().post(format!("{}{path}", self.url)).send_json(body))
    }

    /// Any request with headers and a body: status and JSON.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, Value) {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(agent().run(request.body(body.to_owned()).unwrap()))
    }

    /// Any request; its status, or why there is no answer.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<u16, String> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(body.to_owned())
            .unwrap();
        let mut answer = agent().run(request).map_err(|error| error.to_string())?;
        let text = answer.body_mut().read_to_string();
        text.map_err(|error| error.to_string())?;
        Ok(answer.status().as_u16())
    }

    /// A GET of text.
    pub fn text(&self, path: &str, accept: &str) -> String {
        let request = agent()
            .get(format!("{}{path}", self.url))
            .header("accept", accept);
        request.call().unwrap().body_mut().read_to_string().unwrap()
    }

    /// Uploads a file as a pipeline: status and JSON.
    pub fn upload(&self, name: &str, filename: &str, bytes: &[u8]) -> (u16, Value) {
        let boundary = "ferroflow-boundary";
        let mut body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"uploadfile\"; \
             filename=\"{filename}\"\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(bytes);
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let url = format!("{}/apis/v2beta1/pipelines/upload?name={name}", self.url);
        let kind = format!("multipart/form-data; boundary={boundary}");
        answer(
            agent()
                .post(url)
                .header("content-type", kind)
                .send(&body[..]),
        )
    }

    /// Creates a run of a specification and gives its id.
    pub fn submit(&self, name: &str, spec: &Value, parameters: &Value) -> String {
        let run = json!({"display_name": name, "pipeline_spec": spec,
            "runtime_config": {"parameters": parameters}});
        let (status, made) = self.post("/apis/v2beta1/runs", &run);
        assert_eq!(status, 200, "{made}");
        made["run_id"].as_str().unwrap().to_owned()
    }

    /// What the event log has of a run so far.
    pub fn events(&self, run: &str) -> Vec<Value> {
        let path = format!(
            "/apis/ferroflow/v1/events?follow=false&subject_prefix=namespaces/default/runs/{run}"
        );
        let text = self.text(&path, "application/x-ndjson");
        let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap()["event"].clone();
        text.lines().map(parse).collect()
    }

    /// Waits until a run has ended and gives it.
    pub fn wait(&self, run: &str, limit: Duration) -> Value {
        self.wait_until(run, limit)
            .unwrap_or_else(|| panic!("run {run} has not ended after {limit:?}"))
    }

    /// Waits until a run has ended and gives it; `None` after the limit.
    pub fn wait_until(&self, run: &str, limit: Duration) -> Option<Value> {
        let begun = Instant::now();
        loop {
            let (status, found) = self.get(&format!("/apis/v2beta1/runs/{run}"));
            assert_eq!(status, 200, "{found}");
            if matches!(
                found["state"].as_str(),
                Some("SUCCEEDED" | "FAILED" | "CANCELED")
            ) {
                return Some(found);
            }
            if begun.elapsed() > limit {
                return None;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An HTTP client; no status is an error to it.
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into()
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    let mut response = response.expect("the platform answers");
    let status = response.status().as_u16();
    let text = response
        .body_mut()
        .with_config()
        .limit(u64::MAX)
        .read_to_string()
        .unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

/// The folder of the ecosystem's compiled pipelines, or why it is not there.
pub fn conformance_dir() -> Result<PathBuf, String> {
    let given = std::env::var_os("FERROFLOW_CONFORMANCE").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance");
    let folder = given.unwrap_or(beside).join("kfp");
    if folder.join("cases.tsv").exists() {
        Ok(folder)
    } else {
        Err(format!(
            "{} is not there (FERROFLOW_CONFORMANCE names it)",
            folder.display()
        ))
    }
}

/// How often each (type, task, attempt) is among events.
pub fn transitions<'a>(
    events: impl IntoIterator<Item = &'a Value>,
) -> BTreeMap<(String, String, String), usize> {
    let mut counts = BTreeMap::new();
    for event in events {
        let of = |name: &str| event["data"][name].to_string();
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        *counts.entry((kind, of("path"), of("attempt"))).or_insert(0) += 1;
    }
    counts
}

/// Whether an event is of a transition: what a task waits for is none, and may change.
pub fn is_transition(event: &&Value) -> bool {
    event["type"] != "ai.ferroflow.task.waiting"
}

/// A pipeline of shell commands: task key, script, the tasks that it waits for.
pub fn shell_pipeline(name: &str, tasks: &[(String, String, Vec<String>)]) -> Value {
    let mut spec = json!({
        "pipelineInfo": {"name": name}, "schemaVersion": "2.1.0", "sdkVersion": "test",
        "components": {}, "deploymentSpec": {"executors": {}}, "root": {"dag": {"tasks": {}}},
    });
    for (key, script, upstream) in tasks {
        spec["components"][format!("comp-{key}")] = json!({"executorLabel": format!("exec-{key}")});
        spec["deploymentSpec"]["executors"][format!("exec-{key}")] =
            json!({"container": {"image": "busybox", "command": ["sh", "-c", script]}});
        spec["root"]["dag"]["tasks"][key] = json!({
            "componentRef": {"name": format!("comp-{key}")},
            "taskInfo": {"name": key},
            "dependentTasks": upstream,
        });
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_one_that_is_named() {
        let us = std::env::current_exe().unwrap();
        assert_eq!(program_path(Some(us.clone().into())), Ok(us));
    }

    #[test]
    fn no_other_program_stands_in_for_the_one_that_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("ferroflow");
        for (given, expected) in [
            (None, "FERROFLOW_BIN is not set"),
            (Some(OsString::new()), "FERROFLOW_BIN is not set"),
            (Some(missing.clone().into()), "not the absolute path"),
            (Some(folder.path().into()), "not the absolute path"),
            // It is there, seen from the folder of this package.
            (Some("src/lib.rs".into()), "not the absolute path"),
        ] {
            let reason = program_path(given.clone()).unwrap_err();
            assert!(reason.contains(expected), "{given:?}: {reason}");
            assert!(reason.contains("cargo xtask test -- --test it"), "{reason}");
        }
    }
}
