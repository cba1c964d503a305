//! What every runtime promises, as checks that panic: for the tests of backends.
//!
//! A backend's test makes a [`Subject`] and calls [`all`]. `reopen` stands for a server that was
//! killed and started again on the same data.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a check that fails is a panic"
)]

mod ends;
mod values;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferroflow_artifacts::digest;
use ferroflow_launcher::kfp::{Kfp, OutputParameter, OutputSpec, ParameterKind};
use ferroflow_launcher::{
    AttemptKey, AttemptResult, AttemptSpec, FailureReason, InputArtifact, Outcome, OutputArtifact,
    Outputs, OwnerKey, Workspace,
};
use ferroflow_types::{RunId, TaskId};
use futures::TryStreamExt as _;

use crate::{LogRequest, Runtime};

/// A backend under test.
pub struct Subject {
    /// Makes a runtime over the same data each time it is called.
    pub reopen: Box<dyn Fn() -> Arc<dyn Runtime>>,
    /// A folder that commands can write to, as it is seen from here.
    pub folder: PathBuf,
    /// The same folder, as commands see it.
    pub inside: PathBuf,
    /// Where artifacts go: a URI, and the path that stands for it where commands run.
    pub artifacts: (String, PathBuf),
    /// What the error says when a program is missing.
    pub missing_hints: [&'static str; 2],
    /// An image with a shell.
    pub image: String,
    /// What the backend needs beside, for the folder to be there.
    pub adapt: Box<dyn Fn(&mut AttemptSpec)>,
    /// What all attempts belong to.
    pub owner: OwnerKey,
}

const TIMEOUT: Duration = Duration::from_mins(1);

impl Subject {
    fn key(&self, name: &str) -> AttemptKey {
        AttemptKey {
            owner: self.owner.clone(),
            item: TaskId::derive(RunId::new(self.owner.id), name).uuid(),
            attempt: 1,
        }
    }

    /// An attempt of a shell script that gives nothing but the artifact `model`.
    pub fn spec(&self, runtime: &dyn Runtime, name: &str, script: &str) -> AttemptSpec {
        let key = self.key(name);
        let layout = runtime.layout(&key);
        let file = |name: &str| layout.outputs_dir.join(name);
        let (root, place) = &self.artifacts;
        let mut spec = AttemptSpec {
            name: name.to_owned(),
            image: self.image.clone(),
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec![
                ("SUM".to_owned(), file("sum").display().to_string()),
                (
                    "MODEL".to_owned(),
                    place.join(name).join("model").display().to_string(),
                ),
                ("FOLDER".to_owned(), self.inside.display().to_string()),
            ],
            files: vec![OutputArtifact {
                name: "model".to_owned(),
                list: false,
                uri: format!("{root}/{name}/model"),
                path: place.join(name).join("model"),
            }],
            ..AttemptSpec::new(key.clone(), layout.working_dir.clone())
        };
        (self.adapt)(&mut spec);
        spec
    }

    /// An attempt that brings `uri` to `path` in the workspace.
    pub fn fetch_attempt(
        &self,
        runtime: &dyn Runtime,
        name: &str,
        uri: String,
        path: &Path,
    ) -> AttemptSpec {
        let mut spec = self.spec(runtime, name, "");
        spec.fetch_into = Some(runtime.workspace(&self.owner).path);
        spec.argv.clear();
        spec.files.clear();
        spec.workspace = Some(workspace());
        let (path, digest) = (path.to_owned(), None);
        spec.inputs = vec![InputArtifact {
            uri,
            path,
            digest,
            stamp: None,
        }];
        spec
    }

    /// What commands wrote into a file of the folder; nothing when there is none.
    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    async fn wait_for(&self, name: &str) {
        let begun = Instant::now();
        while self.read(name).is_empty() {
            assert!(begun.elapsed() < TIMEOUT, "{name} is not written in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// An attempt of a shell script that finds an artifact at `$INPUT`.
    pub fn attempt_with_input(
        &self,
        runtime: &dyn Runtime,
        name: &str,
        artifact: &OutputArtifact,
        script: &str,
    ) -> AttemptSpec {
        let mut spec = self.spec(runtime, name, script);
        let here = digest::local_path(&artifact.uri);
        let copies = runtime.layout(&spec.key).copies_dir;
        let path = match copies.filter(|_| here.is_some()) {
            Some(copies) => copies.join(name),
            None => artifact.path.clone(),
        };
        spec.env
            .push(("INPUT".to_owned(), path.display().to_string()));
        if here.as_ref() == Some(&path) {
            spec.local_inputs.push(path);
        } else {
            let (uri, digest) = (artifact.uri.clone(), None);
            spec.inputs.push(InputArtifact {
                uri,
                path,
                digest,
                stamp: None,
            });
        }
        spec
    }

    fn with_sum(runtime: &dyn Runtime, mut spec: AttemptSpec) -> AttemptSpec {
        let outputs_dir = runtime.layout(&spec.key).outputs_dir;
        let path = outputs_dir.join("sum");
        let kind = ParameterKind::Integer;
        let kfp = kfp_of(&mut spec, &outputs_dir);
        kfp.outputs.parameters.push(OutputParameter {
            name: "sum".to_owned(),
            kind,
            path,
        });
        spec
    }
}

/// What is KFP's of an attempt, which is a component's from now on.
pub fn kfp_of<'a>(spec: &'a mut AttemptSpec, outputs_dir: &Path) -> &'a mut Kfp {
    spec.kfp.get_or_insert_with(|| Kfp {
        outputs: OutputSpec::new(outputs_dir),
        platform: serde_json::Map::new(),
        arguments: serde_json::Map::new(),
    })
}

/// The smallest folder that tasks of a run share.
pub fn workspace() -> Workspace {
    Workspace {
        size: "1Mi".to_owned(),
        access_modes: Vec::new(),
        storage_class: None,
    }
}

/// Runs an attempt to its end.
pub async fn outcome(runtime: &dyn Runtime, spec: AttemptSpec) -> Outcome {
    let key = spec.key.clone();
    runtime.ensure(spec).await.expect("it is ensured");
    observe(runtime, &key).await
}

async fn observe(runtime: &dyn Runtime, key: &AttemptKey) -> Outcome {
    let ended = tokio::time::timeout(TIMEOUT, runtime.observe(key)).await;
    ended.expect("it ends").expect("it is observed")
}

fn outputs(outcome: Outcome) -> Outputs {
    match outcome.result {
        AttemptResult::Succeeded(outputs) => outputs,
        AttemptResult::Failed(failure) => panic!("it failed: {failure:?}"),
    }
}

fn failure(outcome: Outcome) -> ferroflow_launcher::Failure {
    match outcome.result {
        AttemptResult::Failed(failure) => failure,
        AttemptResult::Succeeded(outputs) => panic!("it succeeded: {outputs:?}"),
    }
}

/// Every promise, one after the other.
pub async fn all(subject: &Subject) {
    outputs_are_collected(subject).await;
    a_failed_command_reports_its_code_and_last_lines(subject).await;
    a_failed_python_program_reports_its_exception(subject).await;
    a_missing_program_is_named_with_a_hint(subject).await;
    ensured_twice_runs_once(subject).await;
    a_running_attempt_outlives_the_runtime(subject).await;
    ends::all(subject).await;
    too_long_is_a_timeout(subject).await;
    logs_are_followed_and_kept(subject).await;
    content_is_brought_to_the_workspace(subject).await;
    inputs_are_not_changed(subject).await;
    values::all(subject).await;
}

async fn outputs_are_collected(subject: &Subject) {
    let runtime = (subject.reopen)();
    let script = "printf 42 > \"$SUM\"; printf weights > \"$MODEL\"";
    let mut spec = Subject::with_sum(&*runtime, subject.spec(&*runtime, "outputs", script));
    // As a component gives it; files are what attempts of every domain can have.
    let outputs_dir = runtime.layout(&spec.key).outputs_dir;
    let file = spec.files.remove(0);
    let artifacts = &mut kfp_of(&mut spec, &outputs_dir).outputs.artifacts;
    artifacts.push(file);

    let found = outputs(outcome(&*runtime, spec).await);

    assert_eq!(found.parameters["sum"], 42);
    let model = &found.artifacts["model"][0];
    assert_eq!(model.size_bytes, Some(7));
    assert!(
        model
            .digest
            .as_ref()
            .is_some_and(|digest| digest.starts_with("sha256:"))
    );
}

async fn a_failed_command_reports_its_code_and_last_lines(subject: &Subject) {
    let runtime = (subject.reopen)();
    let spec = subject.spec(&*runtime, "fails", "echo first; echo last >&2; exit 3");

    let found = failure(outcome(&*runtime, spec).await);

    assert_eq!(
        (found.reason, found.exit_code),
        (FailureReason::ExitCode, Some(3))
    );
    assert_eq!(found.message, "exit code 3, last line: last");
    assert_eq!(found.log_tail, "first\nlast");
}

async fn a_failed_python_program_reports_its_exception(subject: &Subject) {
    let runtime = (subject.reopen)();
    let script = "python3 -c 'assert 4 == 9, \"only 4 words, wanted 9\"'";
    let spec = subject.spec(&*runtime, "raises", script);

    let found = failure(outcome(&*runtime, spec).await);

    assert_eq!(found.message, "AssertionError: only 4 words, wanted 9");
    assert_eq!(found.exit_code, Some(1));
    assert!(
        found.log_tail.starts_with("Traceback"),
        "{}",
        found.log_tail
    );
    assert!(
        found.log_tail.ends_with(&found.message),
        "{}",
        found.log_tail
    );
}

async fn a_missing_program_is_named_with_a_hint(subject: &Subject) {
    let runtime = (subject.reopen)();
    let mut spec = subject.spec(&*runtime, "missing", "");
    spec.argv = vec!["no-such-program".to_owned()];

    let found = failure(outcome(&*runtime, spec).await);

    assert_eq!(found.reason, FailureReason::StartFailed);
    for word in subject.missing_hints.into_iter().chain(["no-such-program"]) {
        assert!(found.message.contains(word), "{}", found.message);
    }
}

async fn ensured_twice_runs_once(subject: &Subject) {
    let runtime = (subject.reopen)();
    let spec = subject.spec(
        &*runtime,
        "once",
        "echo ran >> \"$FOLDER/once.txt\"; sleep 0.2",
    );
    let other = (subject.reopen)();

    runtime.ensure(spec.clone()).await.expect("the first time");
    runtime.ensure(spec.clone()).await.expect("the second time");
    other.ensure(spec.clone()).await.expect("by another server");
    outputs(observe(&*runtime, &spec.key).await);
    outputs(observe(&*other, &spec.key).await);
    outputs(outcome(&*runtime, spec).await);

    let text = std::fs::read_to_string(subject.folder.join("once.txt")).unwrap();
    assert_eq!(text, "ran\n");
}

async fn a_running_attempt_outlives_the_runtime(subject: &Subject) {
    let first = (subject.reopen)();
    let spec = subject.spec(
        &*first,
        "outlives",
        "echo begun > \"$FOLDER/outlives-begun.txt\"; sleep 1; \
            echo ran >> \"$FOLDER/outlives.txt\"",
    );
    first.ensure(spec.clone()).await.expect("it is ensured");
    // What is only prepared ends with the runtime.
    subject.wait_for("outlives-begun.txt").await;
    drop(first);

    let second = (subject.reopen)();
    outputs(outcome(&*second, spec).await);

    let text = std::fs::read_to_string(subject.folder.join("outlives.txt")).unwrap();
    assert_eq!(text, "ran\n");
}

async fn too_long_is_a_timeout(subject: &Subject) {
    let runtime = (subject.reopen)();
    let mut spec = subject.spec(&*runtime, "slow", "sleep 60");
    spec.limits.timeout_ms = Some(200);

    let found = failure(outcome(&*runtime, spec).await);

    assert_eq!(found.reason, FailureReason::Timeout);
    assert!(found.message.contains("0.2 s"), "{}", found.message);
}

async fn logs_are_followed_and_kept(subject: &Subject) {
    let runtime = (subject.reopen)();
    let spec = subject.spec(&*runtime, "logs", "echo one; sleep 0.5; echo two");
    let key = spec.key.clone();
    runtime.ensure(spec).await.expect("it is ensured");

    let request = LogRequest {
        offset: 0,
        follow: true,
    };
    let stream = runtime.logs(&key, request).await.expect("there is a log");
    let followed: Vec<_> = tokio::time::timeout(TIMEOUT, stream.try_collect())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(followed.concat(), b"one\ntwo\n");

    let request = LogRequest {
        offset: 4,
        follow: false,
    };
    let stream = (subject.reopen)()
        .logs(&key, request)
        .await
        .expect("the log is kept");
    let kept: Vec<_> = stream.try_collect().await.unwrap();
    assert_eq!(kept.concat(), b"two\n");
}

async fn content_is_brought_to_the_workspace(subject: &Subject) {
    let runtime = (subject.reopen)();
    let gives = subject.spec(&*runtime, "gives", "printf weights > \"$MODEL\"");
    let uri = gives.files[0].uri.clone();
    outputs(outcome(&*runtime, gives).await);
    let place = runtime
        .workspace(&subject.owner)
        .path
        .join(".artifacts/model");
    let fetch = |name: &str, uri: String| subject.fetch_attempt(&*runtime, name, uri, &place);

    let none = fetch("brings nothing", format!("{uri}-none"));
    let found = failure(outcome(&*runtime, none).await);
    assert_eq!(found.reason, FailureReason::Transfer);
    assert!(found.message.contains("does not exist"), "{found:?}");
    // Two of them at once, as in a loop.
    let two = ["brings", "brings too"].map(|name| fetch(name, uri.clone()));
    for ended in futures::future::join_all(two.map(|spec| outcome(&*runtime, spec))).await {
        outputs(ended);
    }

    let script = format!("cat {} > \"$FOLDER/read.txt\"", place.display());
    let mut reads = subject.spec(&*runtime, "reads", &script);
    reads.workspace = Some(workspace());
    outputs(outcome(&*runtime, reads).await);
    let text = std::fs::read_to_string(subject.folder.join("read.txt")).unwrap();
    assert_eq!(text, "weights");
}

/// Nothing that a command does to its input, as root or not, is seen by who reads it next.
pub async fn inputs_are_not_changed(subject: &Subject) {
    let runtime = (subject.reopen)();
    let script = "mkdir \"$MODEL\"; printf weights > \"$MODEL/file\"";
    let gives = subject.spec(&*runtime, "input", script);
    let artifact = gives.files[0].clone();
    let given = outputs(outcome(&*runtime, gives).await);

    let script = "chmod -R 777 \"$INPUT\"; printf other > \"$INPUT/file\"; \
        printf more > \"$INPUT/more\"; rm -rf \"$INPUT\"; mv \"$INPUT\" \"$INPUT-moved\"; \
        printf done > \"$MODEL\"";
    let scribbles = subject.attempt_with_input(&*runtime, "scribbles", &artifact, script);
    outputs(outcome(&*runtime, scribbles).await);
    let reads = subject.attempt_with_input(
        &*runtime,
        "reader",
        &artifact,
        "cp -r \"$INPUT\" \"$MODEL\"",
    );
    let read = outputs(outcome(&*runtime, reads).await);

    let digest = |outputs: &Outputs| outputs.artifacts["model"][0].digest.clone();
    assert!(digest(&given).is_some());
    assert_eq!(digest(&read), digest(&given));
}
