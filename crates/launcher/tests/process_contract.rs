//! The process runtime with the real launcher, against the contract of all runtimes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferroflow_artifacts::stores::Stores;
use ferroflow_launcher::{AttemptResult, Domain, OwnerKey};
use ferroflow_python_env::{PythonConfig, PythonEnvs};
use ferroflow_runtime::contract::{Subject, all, inputs_are_not_changed, outcome};
use ferroflow_runtime::{InputAccess, ProcessConfig, ProcessRuntime};
use ferroflow_types::Namespace;

fn launcher() -> Vec<OsString> {
    vec![env!("CARGO_BIN_EXE_ferroflow-launcher").into()]
}

fn subject(data: &Path, inputs: InputAccess) -> Subject {
    let folder = data.join("folder");
    let artifacts = data.join("artifacts");
    std::fs::create_dir(&folder).unwrap();
    let root = data.to_path_buf();
    let kept = artifacts.clone();
    let reopen = move || {
        let python = PythonConfig::new(root.join("envs"), "python3".to_owned(), std::env::vars());
        let config = ProcessConfig {
            data_dir: root.clone(),
            launcher: launcher(),
            path: std::env::var("PATH").unwrap(),
            inputs,
            artifacts: Some(kept.clone()),
        };
        let runtime = ProcessRuntime::new(config, PythonEnvs::new(python), Stores::default());
        Arc::new(runtime) as Arc<dyn ferroflow_runtime::Runtime>
    };
    let owner = OwnerKey {
        domain: Domain::PIPELINES,
        namespace: Namespace::single_user(),
        id: "7d444840-9dc0-11d1-b245-5ffdce74fad2".parse().unwrap(),
    };
    Subject {
        reopen: Box::new(reopen),
        inside: folder.clone(),
        artifacts: (artifacts.display().to_string(), artifacts),
        missing_hints: ["busybox", "--runtime docker"],
        image: "busybox".to_owned(),
        adapt: Box::new(|_| {}),
        folder,
        owner,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_runtime_keeps_the_contract() {
    let data = tempfile::tempdir().unwrap();
    let inputs = InputAccess::detect(&launcher(), &[data.path()]).await;
    println!("inputs: {inputs:?}");
    let subject = subject(data.path(), inputs);
    all(&subject).await;
    limits_hold(&subject).await;
    what_a_killed_launcher_left_is_ended(&subject).await;
    if inputs == InputAccess::Mounted {
        what_others_keep_cannot_be_changed(&subject).await;
    }
}

/// The variable that names the folder for [`an_ordinary_user_ends_what_a_killed_launcher_left`].
const FOLDER_OF_USER: &str = "FERROFLOW_TEST_FOLDER_OF_USER";

/// An ordinary user's launchers are in user namespaces of their own. Root becomes one for this.
#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_ends_what_a_killed_launcher_left() {
    let temp = tempfile::tempdir().unwrap();
    if rustix::process::geteuid().is_root() {
        const NOBODY: u32 = 65534;
        let folder = temp.path();
        std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
        let test = std::env::current_exe().unwrap();
        let mut command = Command::new(test);
        command.args([
            "--exact",
            "--nocapture",
            "an_ordinary_user_ends_what_a_killed_launcher_left",
        ]);
        command.env(FOLDER_OF_USER, folder).current_dir(folder);
        match command.uid(NOBODY).gid(NOBODY).status() {
            Ok(status) => assert!(status.success(), "{status}"),
            Err(error) => println!("left out: another user cannot run this program: {error}"),
        }
        return;
    }
    let given = std::env::var_os(FOLDER_OF_USER).map(PathBuf::from);
    let data = given.unwrap_or_else(|| temp.path().to_owned());
    let inputs = InputAccess::detect(&launcher(), &[&data]).await;
    println!("inputs of an ordinary user: {inputs:?}");
    what_a_killed_launcher_left_is_ended(&subject(&data, inputs)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_of_another_domain_keep_the_contract() {
    let data = tempfile::tempdir().unwrap();
    let mut subject = subject(data.path(), InputAccess::Copied);
    subject.owner.domain = "tuning".parse().unwrap();
    all(&subject).await;
    let attempts = data.path().join("attempts");
    let entries = std::fs::read_dir(attempts).unwrap();
    let found: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(found, ["tuning"]);

    (subject.reopen)().delete(&subject.owner).await.unwrap();
    assert!(walk(data.path(), &subject.owner.id.to_string()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_inputs_are_the_attempts_own() {
    let data = tempfile::tempdir().unwrap();
    let subject = subject(data.path(), InputAccess::Copied);
    inputs_are_not_changed(&subject).await;
    let left = walk(&data.path().join("attempts"), "inputs");
    assert!(left.is_empty(), "copies are left: {left:?}");
}

fn walk(folder: &Path, name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    folders
        .flat_map(|path| {
            let mut found = walk(&path, name);
            found.extend(path.ends_with(name).then_some(path));
            found
        })
        .collect()
}

/// Also before anything was kept there.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_step_of_all_cannot_change_what_others_keep() {
    let data = tempfile::tempdir().unwrap();
    if InputAccess::detect(&launcher(), &[data.path()]).await == InputAccess::Copied {
        println!("left out: nothing can be mounted read-only here");
        return;
    }
    let subject = subject(data.path(), InputAccess::Mounted);
    let runtime = (subject.reopen)();
    let artifacts = subject.artifacts.1.display();
    let script = format!("printf mine > \"$MODEL\"; mkdir -p {artifacts}/other && exit 3; exit 0");
    let mut spec = subject.spec(&*runtime, "first", &script);
    let ended = outcome(&*runtime, spec.clone()).await;
    assert!(
        matches!(ended.result, AttemptResult::Succeeded(_)),
        "{ended:?}"
    );
    // One without outputs there, too, when the folder was removed meanwhile.
    std::fs::remove_dir_all(&subject.artifacts.1).unwrap();
    spec.key.attempt = 2;
    spec.files.clear();
    spec.argv[2] = format!("mkdir -p {artifacts}/other && exit 3; exit 0");
    let ended = outcome(&*runtime, spec).await;
    assert!(
        matches!(ended.result, AttemptResult::Succeeded(_)),
        "{ended:?}"
    );
}

/// A command reaches more than its inputs by their paths.
async fn what_others_keep_cannot_be_changed(subject: &Subject) {
    let runtime = (subject.reopen)();
    let other = subject.artifacts.1.join("other/model");
    std::fs::create_dir(other.parent().unwrap()).unwrap();
    std::fs::write(&other, "kept").unwrap();
    let script = format!(
        "printf mine > \"$MODEL\"; echo x > {other} && exit 3; rm {other} && exit 4; \
         rm -r {folder} && exit 5; exit 0",
        other = other.display(),
        folder = subject.artifacts.1.display(),
    );
    let spec = subject.spec(&*runtime, "reaches", &script);
    let ended = outcome(&*runtime, spec).await;
    assert!(
        matches!(ended.result, AttemptResult::Succeeded(_)),
        "{ended:?}"
    );
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "kept");
}

/// Limits as local processes keep them: whole cores, memory that a program allocates.
async fn limits_hold(subject: &Subject) {
    let runtime = (subject.reopen)();
    let script = "[ \"$(nproc)\" = 1 ] || { echo \"$(nproc) cores\"; exit 3; }";
    let mut spec = subject.spec(&*runtime, "cores", script);
    spec.limits.cpu_millis = Some(500);
    let ended = outcome(&*runtime, spec).await;
    assert!(
        matches!(ended.result, AttemptResult::Succeeded(_)),
        "{ended:?}"
    );

    let mut spec = subject.spec(&*runtime, "memory", "");
    spec.argv = ["python3", "-c", "bytes(200_000_000)"]
        .map(str::to_owned)
        .to_vec();
    spec.limits.memory_bytes = Some(100_000_000);
    let ended = outcome(&*runtime, spec).await;
    assert!(
        matches!(ended.result, AttemptResult::Failed(_)),
        "{ended:?}"
    );
}

/// The number of the process that has a file open and is a launcher.
fn launcher_of(dir: &Path) -> i32 {
    let noted = std::fs::read_to_string(dir.join("lock")).unwrap();
    noted.split(' ').next().unwrap().parse().unwrap()
}

/// The next attempt must not meet what an earlier one left, in a session of its own, or without the
/// environment that it was given.
async fn what_a_killed_launcher_left_is_ended(subject: &Subject) {
    for (name, observed) in [("observed", true), ("asked again", false)] {
        let runtime = (subject.reopen)();
        let script = "beat() { while [ -d \"$FOLDER\" ]; do echo beat >> \"$FOLDER/$1\"; sleep 0.05; done; }; \
            export FOLDER; trap '' TERM; \
            setsid sh -c \"$(typeset -f beat); beat $NAME-session.txt\" & \
            (env -i FOLDER=\"$FOLDER\" PATH=\"$PATH\" \
                setsid bash -c \"$(typeset -f beat); beat $NAME-orphan.txt\" &); \
            env -i FOLDER=\"$FOLDER\" PATH=\"$PATH\" bash -c \"$(typeset -f beat); beat $NAME-bare.txt\"; wait";
        let mut spec = subject.spec(&*runtime, name, script);
        spec.argv[0] = "bash".to_owned();
        let short = name.replace(' ', "-");
        spec.env.push(("NAME".to_owned(), short.clone()));
        let key = spec.key.clone();
        runtime.ensure(spec.clone()).await.unwrap();
        let mut beats = ["session", "bare", "orphan"]
            .map(|kind| subject.folder.join(format!("{short}-{kind}.txt")))
            .to_vec();
        wait_until("it beats", || beats.iter().all(|beat| beat.exists())).await;
        // Longer than a command runs before it is put into a control group.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let work = runtime.layout(&key).working_dir;
        let dir = work.parent().unwrap();
        if !dir.join("cgroup").exists() {
            println!("no control groups here: an orphan without its environment is not found");
            beats.pop();
        }

        let launcher = rustix::process::Pid::from_raw(launcher_of(dir)).unwrap();
        rustix::process::kill_process(launcher, rustix::process::Signal::KILL).unwrap();
        let runtime = if observed {
            runtime
        } else {
            // A server that comes back asks for it again.
            drop(runtime);
            let next = (subject.reopen)();
            next.ensure(spec).await.unwrap();
            next
        };
        let ended = runtime.observe(&key).await.unwrap();

        let AttemptResult::Failed(failure) = ended.result else {
            panic!("{name}: it succeeded");
        };
        assert!(failure.reason.is_lost(), "{name}: {failure:?}");
        let length = |beat: &PathBuf| std::fs::metadata(beat).unwrap().len();
        let lengths = || beats.iter().map(length).collect::<Vec<_>>();
        let before = lengths();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(before, lengths(), "{name}: something went on");
    }
}

async fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "not in time: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
