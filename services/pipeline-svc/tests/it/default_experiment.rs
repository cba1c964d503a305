//! Runs that name no experiment: the first submission succeeds, whichever client it comes from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;

use ferroflow_testkit::{Platform, binary, shell_pipeline};
use serde_json::{Value, json};

/// A way in which a first run is created.
#[derive(Debug, Clone, Copy)]
enum Client {
    /// `kfp.Client`: it looks for the experiment by name, then creates it.
    Sdk,
    /// A client that names no experiment.
    Rest,
    /// `ferroflow run submit`.
    Command,
}

const CLIENTS: [Client; 3] = [Client::Sdk, Client::Rest, Client::Command];

fn spec() -> Value {
    shell_pipeline("first", &[("t".to_owned(), "true".to_owned(), Vec::new())])
}

fn file(folder: &Path) -> PathBuf {
    let file = folder.join("first.json");
    std::fs::write(&file, spec().to_string()).unwrap();
    file
}

/// `kfp.Client.create_experiment("Default")`.
fn experiment_of_the_sdk(platform: &Platform) -> String {
    let filter = "%7B%22predicates%22%3A%5B%7B%22operation%22%3A1%2C%22key%22%3A%22display_name%22\
                  %2C%22stringValue%22%3A%22Default%22%7D%5D%7D";
    let (status, found) = platform.get(&format!(
        "/apis/v2beta1/experiments?filter={filter}&namespace="
    ));
    assert_eq!(status, 200, "{found}");
    let found = if let Some(all) = found["experiments"].as_array() {
        all[0].clone()
    } else {
        let asked = json!({"display_name": "Default", "namespace": ""});
        let (status, made) = platform.post("/apis/v2beta1/experiments", &asked);
        assert_eq!(status, 200, "{made}");
        made
    };
    found["experiment_id"].as_str().unwrap().to_owned()
}

impl Client {
    /// Creates a run and gives its experiment.
    fn submit(self, platform: &Platform, file: &Path) -> String {
        let mut run = json!({"display_name": "first", "pipeline_spec": spec()});
        let made = match self {
            Self::Command => {
                let output = Command::new(binary())
                    .args(["run", "submit", "--output", "json", "--endpoint"])
                    .arg(platform.url())
                    .arg(file)
                    .output()
                    .unwrap();
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success(), "{text}");
                serde_json::from_slice(&output.stdout).unwrap()
            }
            Self::Sdk | Self::Rest => {
                if matches!(self, Self::Sdk) {
                    run["experiment_id"] = experiment_of_the_sdk(platform).into();
                }
                let (status, made) = platform.post("/apis/v2beta1/runs", &run);
                assert_eq!(status, 200, "{self:?}: {made}");
                made
            }
        };
        made["experiment_id"].as_str().unwrap().to_owned()
    }
}

#[test]
fn the_default_experiment_is_there_from_the_first_start() {
    let data = tempfile::tempdir().unwrap();
    let mut platform = Platform::start(data.path(), &[]);
    let list = |platform: &Platform| platform.get("/apis/v2beta1/experiments").1;
    let first = list(&platform);
    assert_eq!(first["total_size"], 1, "{first}");
    assert_eq!(first["experiments"][0]["display_name"], "Default");

    let id = first["experiments"][0]["experiment_id"].as_str().unwrap();
    let path = format!("/apis/v2beta1/experiments/{id}");
    let (status, refused) = platform.request("DELETE", &path, &[], "");
    assert_eq!(status, 409, "{refused}");
    platform.kill();

    let again = Platform::start(data.path(), &[]);
    assert_eq!(list(&again), first);
}

#[test]
fn every_order_of_first_submissions_succeeds() {
    for shift in 0..CLIENTS.len() {
        let data = tempfile::tempdir().unwrap();
        let platform = Platform::start(data.path(), &[]);
        let file = file(data.path());
        let mut order = CLIENTS;
        order.rotate_left(shift);

        let experiments: BTreeSet<_> = order
            .into_iter()
            .chain(order.into_iter().rev())
            .map(|client| client.submit(&platform, &file))
            .collect();

        assert_eq!(experiments.len(), 1, "{order:?}");
    }
}

#[test]
fn first_submissions_at_the_same_moment_all_succeed() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);
    let file = file(data.path());
    let clients: Vec<_> = CLIENTS.into_iter().cycle().take(9).collect();
    let begin = Barrier::new(clients.len());

    let experiments: BTreeSet<String> = std::thread::scope(|scope| {
        let (begin, platform, file) = (&begin, &platform, &file);
        let submit = |client: Client| {
            scope.spawn(move || {
                begin.wait();
                client.submit(platform, file)
            })
        };
        let submitted: Vec<_> = clients.into_iter().map(submit).collect();
        let joined = submitted.into_iter().map(|one| one.join().unwrap());
        joined.collect()
    });

    assert_eq!(experiments.len(), 1, "{experiments:?}");
}
