//! The Docker runtime on a real engine, against the contract of all runtimes, and what only an
//! engine can do to an attempt.
#![cfg(feature = "pod")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferroflow_artifacts::stores::{S3Config, Stores};
use ferroflow_launcher::{
    AttemptKey, AttemptResult, AttemptSpec, Domain, Failure, FailureReason, InputArtifact, Outcome,
    OwnerKey,
};
use ferroflow_runtime::contract::{Subject, all, kfp_of, outcome, workspace};
use ferroflow_runtime::{DockerConfig, DockerRuntime, Runtime};
use ferroflow_testkit::cluster::Cluster;
use ferroflow_testkit::docker::Engine;
use ferroflow_testkit::parts::restart;
use ferroflow_types::Namespace;
use ferroflow_types::id::{IdSource as _, RandomIds};
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Tests share the engine; the one that kills it is alone.
static ENGINE: RwLock<()> = RwLock::const_new(());

/// The lock of the engine, for as long as it is held.
enum EngineLock {
    Shared(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Exclusive(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

/// One folder of data, and runtimes over it.
struct Scene {
    _lock: EngineLock,
    engine: Engine,
    data: tempfile::TempDir,
    stores: Stores,
}

impl Scene {
    async fn open() -> Option<Self> {
        Self::with(EngineLock::Shared(ENGINE.read().await))
    }

    async fn open_exclusive() -> Option<Self> {
        Self::with(EngineLock::Exclusive(ENGINE.write().await))
    }

    fn with(lock: EngineLock) -> Option<Self> {
        let engine = match Engine::open() {
            Ok(engine) => engine,
            Err(reason) => {
                println!("skipped: {reason}");
                return None;
            }
        };
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir(data.path().join("folder")).unwrap();
        Some(Self {
            _lock: lock,
            engine,
            data,
            stores: Stores::default(),
        })
    }

    fn data_dir(&self) -> PathBuf {
        self.data.path().join("data")
    }

    fn folder(&self) -> PathBuf {
        self.data.path().join("folder")
    }

    fn subject(&self) -> Subject {
        let folder = self.folder();
        let config: DockerConfig = serde_json::from_value(self.engine.docker(&folder)).unwrap();
        let config = DockerConfig {
            data_dir: self.data_dir(),
            ..config
        };
        let stores = self.stores.clone();
        let reopen = move || {
            let connect = DockerRuntime::connect(config.clone(), stores.clone());
            let connected =
                tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(connect));
            Arc::new(connected.unwrap()) as Arc<dyn Runtime>
        };
        Subject {
            reopen: Box::new(reopen),
            inside: folder.clone(),
            artifacts: (folder.display().to_string(), folder.clone()),
            folder,
            missing_hints: ["in the image", "use another image"],
            image: self.engine.task_image().to_owned(),
            adapt: Box::new(|_| {}),
            owner: OwnerKey {
                domain: Domain::PIPELINES,
                namespace: Namespace::single_user(),
                id: RandomIds.uuid(),
            },
        }
    }

    fn effect(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder().join(name)).unwrap_or_default()
    }

    async fn wait_for_effect(&self, name: &str) {
        wait_until(&format!("{name} is written"), || {
            !self.effect(name).is_empty()
        })
        .await;
    }

    /// Containers of a run.
    fn containers(&self, owner: &OwnerKey) -> String {
        let filter = format!("label=ai.ferroflow.run={}", owner.id);
        self.engine.cli(&["ps", "-aq", "--filter", &filter])
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

fn failure(outcome: Outcome) -> Failure {
    match outcome.result {
        AttemptResult::Failed(failure) => failure,
        AttemptResult::Succeeded(outputs) => panic!("it succeeded: {outputs:?}"),
    }
}

fn succeeded(outcome: &Outcome) -> bool {
    matches!(outcome.result, AttemptResult::Succeeded(_))
}

fn container(key: &AttemptKey) -> String {
    format!("ff-{}-{}", key.item, key.attempt)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_docker_runtime_keeps_the_contract() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let subject = scene.subject();

    all(&subject).await;

    let owner = &subject.owner;
    wait_until("containers are removed", || {
        scene.containers(owner).is_empty()
    })
    .await;
    (subject.reopen)().delete(owner).await.unwrap();
    let folder = scene.data_dir().join(format!("attempts/{}", owner.id));
    assert!(!folder.exists(), "the run's folder is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_are_distinguished() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let subject = scene.subject();
    let runtime = (subject.reopen)();
    let spec = |name: &str, change: &dyn Fn(&mut AttemptSpec)| {
        let mut spec = subject.spec(&*runtime, name, "tail /dev/zero");
        change(&mut spec);
        spec
    };
    let limited = |name: &'static str, amount: &'static str| {
        move |spec: &mut AttemptSpec| {
            let limits = &mut spec.resources.limits;
            limits.insert(name.to_owned(), amount.to_owned());
        }
    };
    let asks = |feature: &'static str, value: Value| {
        let runtime = &runtime;
        move |spec: &mut AttemptSpec| {
            let outputs_dir = runtime.layout(&spec.key).outputs_dir;
            let kfp = kfp_of(spec, &outputs_dir);
            kfp.platform.insert(feature.to_owned(), value.clone());
        }
    };
    let of_image =
        |image: &'static str| move |spec: &mut AttemptSpec| spec.image = image.to_owned();
    for (spec, reason, named) in [
        (
            spec("memory", &limited("memory", "64Mi")),
            FailureReason::OutOfMemory,
            "64Mi",
        ),
        (
            spec("image", &of_image("gcr.io/my-image")),
            FailureReason::ImagePull,
            "gcr.io/my-image",
        ),
        (
            spec("accelerator", &limited("amd.com/gpu", "1")),
            FailureReason::StartFailed,
            "resources.limits.amd.com/gpu",
        ),
        (
            spec("gpu", &limited("nvidia.com/gpu", "1")),
            FailureReason::StartFailed,
            "gpu",
        ),
        (
            spec("policy", &asks("imagePullPolicy", json!("Sometimes"))),
            FailureReason::StartFailed,
            "imagePullPolicy",
        ),
    ] {
        let found = failure(outcome(&*runtime, spec).await);
        assert_eq!(found.reason, reason, "{found:?}");
        assert!(found.message.contains(named), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_removed_by_hand_is_lost() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let subject = scene.subject();
    let runtime = (subject.reopen)();
    let spec = subject.spec(
        &*runtime,
        "removed",
        "echo ran >> \"$FOLDER/removed.txt\"; sleep 60",
    );
    let key = spec.key.clone();
    runtime.ensure(spec.clone()).await.unwrap();
    scene.wait_for_effect("removed.txt").await;

    scene.engine.cli(&["rm", "--force", &container(&key)]);

    let found = failure(runtime.observe(&key).await.unwrap());
    assert!(found.reason.is_lost(), "{found:?}");
    // Asked again, it is not run again.
    let again = failure(outcome(&*(subject.reopen)(), spec).await);
    assert!(again.reason.is_lost(), "{again:?}");
    assert_eq!(scene.effect("removed.txt"), "ran\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_under_a_command_is_waited_for() {
    let Some(scene) = Scene::open_exclusive().await else {
        return;
    };
    let subject = scene.subject();
    let runtime = (subject.reopen)();
    let spec = subject.spec(
        &*runtime,
        "restart",
        "echo ran >> \"$FOLDER/restart.txt\"; sleep 20",
    );
    let key = spec.key.clone();
    runtime.ensure(spec).await.unwrap();
    scene.wait_for_effect("restart.txt").await;
    let observed = tokio::spawn({
        let runtime = Arc::clone(&runtime);
        async move { runtime.observe(&key).await }
    });

    let restarted = tokio::task::spawn_blocking(|| restart("docker"))
        .await
        .unwrap();
    if let Err(reason) = restarted {
        return println!("skipped: {reason}");
    }

    // An engine without live restore ends the containers that it finds; with it, they go on.
    let ended = tokio::time::timeout(Duration::from_mins(1), observed).await;
    let ended = ended.expect("it ends").unwrap().unwrap();
    assert!(
        succeeded(&ended) || failure(ended.clone()).reason.is_lost(),
        "{ended:?}"
    );
    assert_eq!(scene.effect("restart.txt"), "ran\n");
    let next = subject.spec(&*runtime, "after", "true");
    assert!(succeeded(&outcome(&*runtime, next).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_that_ask_at_once_run_it_once() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let subject = scene.subject();
    let (one, two) = ((subject.reopen)(), (subject.reopen)());
    let spec = subject.spec(&*one, "both", "echo ran >> \"$FOLDER/both.txt\"");

    let (first, second) = tokio::join!(outcome(&*one, spec.clone()), outcome(&*two, spec));

    assert!(
        succeeded(&first) && succeeded(&second),
        "{first:?} {second:?}"
    );
    assert_eq!(scene.effect("both.txt"), "ran\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_server_left_is_swept() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let subject = scene.subject();
    let runtime = (subject.reopen)();
    // Nobody observes it, as when the server died.
    let spec = subject.spec(&*runtime, "left", "true");
    let report = runtime
        .layout(&spec.key)
        .working_dir
        .with_file_name("outcome.json");
    runtime.ensure(spec).await.unwrap();
    wait_until("it has reported", || report.exists()).await;
    assert!(!scene.containers(&subject.owner).is_empty());

    drop((subject.reopen)());

    assert_eq!(scene.containers(&subject.owner), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_who_they_should_be_and_little_more() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let subject = scene.subject();
    let runtime = (subject.reopen)();
    let script = "id -u > \"$FOLDER/who.txt\"; touch \"$HOME/mine\" \"$MODEL\" && \
        ! chroot / true 2>/dev/null && [ ! -e /var/run/docker.sock ]";
    let mut spec = subject.spec(&*runtime, "who", script);
    let outputs_dir = runtime.layout(&spec.key).outputs_dir;
    kfp_of(&mut spec, &outputs_dir).platform.insert(
        "securityContext".to_owned(),
        json!({"runAsUser": "65534", "runAsGroup": "65534", "runAsNonRoot": true}),
    );
    std::fs::write(scene.folder().join("who.txt"), "").unwrap();
    std::os::unix::fs::chown(scene.folder().join("who.txt"), Some(65534), None).unwrap();

    let ended = outcome(&*runtime, spec).await;

    assert!(succeeded(&ended), "{ended:?}");
    assert_eq!(scene.effect("who.txt"), "65534\n");
    runtime.delete(&subject.owner).await.unwrap();

    // The image's own words, with arguments of ours.
    let mut spec = subject.spec(&*runtime, "entry", "");
    spec.argv = Vec::new();
    spec.entry_point = true;
    let ended = outcome(&*runtime, spec).await;
    assert!(succeeded(&ended), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_of_a_store_come_and_go_without_keys_in_the_container() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let Ok(address) = std::env::var("FERROFLOW_TEST_S3") else {
        return println!("skipped: FERROFLOW_TEST_S3 is not set");
    };
    let s3: S3Config = serde_json::from_value(Cluster::s3_of(&address).unwrap()).unwrap();
    scene.stores = Stores::new(s3);
    let subject = scene.subject();
    let runtime = (subject.reopen)();
    let at = |name: &str| {
        let uri = format!("s3://ferroflow/contract/{}/{name}", subject.owner.id);
        let path = PathBuf::from(uri.replace("s3://", "/s3/"));
        (uri, path)
    };
    let ((rows, rows_path), (model, model_path)) = (at("rows"), at("model"));
    let spec_with_output = |name: &str, script: &str, uri: &str, path: &Path| {
        let mut spec = subject.spec(&*runtime, name, script);
        let output = &mut spec.files[0];
        output.uri = uri.to_owned();
        output.path = path.to_path_buf();
        spec
    };
    let script = format!("echo 1 > {}", rows_path.display());
    let ended = outcome(
        &*runtime,
        spec_with_output("give", &script, &rows, &rows_path),
    )
    .await;
    assert!(succeeded(&ended), "{ended:?}");

    let script = format!(
        "! env | grep -i secret && cat {} > {1} && echo 2 >> {1}",
        rows_path.display(),
        model_path.display()
    );
    let mut spec = spec_with_output("take", &script, &model, &model_path);
    spec.inputs = vec![InputArtifact {
        uri: rows,
        path: rows_path,
        digest: None,
        stamp: None,
    }];
    let ended = outcome(&*runtime, spec).await;

    assert!(succeeded(&ended), "{ended:?}");
    let place = scene.stores.open(&model).unwrap();
    let found = scene.data.path().join("found");
    let fetched = ferroflow_artifacts::transfer::download(&place, &found, None).await;
    fetched.unwrap();
    assert_eq!(std::fs::read_to_string(found).unwrap(), "1\n2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_in_images_are_files() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let subject = scene.subject();
    let runtime = (subject.reopen)();
    let with_model = |name: &str, image: &str| {
        let path = "/oci/model/models";
        let script = format!("test -s {path}/config.json");
        let mut spec = subject.spec(&*runtime, name, &script);
        spec.inputs = vec![InputArtifact {
            uri: format!("oci://{image}"),
            path: path.into(),
            stamp: None,
            digest: None,
        }];
        spec
    };

    let spec = with_model("model", "registry.domain.local/modelcar:test");
    let ended = outcome(&*runtime, spec).await;
    assert!(succeeded(&ended), "{ended:?}");

    let other = with_model("no model", subject.image.as_str());
    let failure = failure(outcome(&*runtime, other).await);
    assert!(failure.message.contains("has no /models"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_importer_follows_no_link_that_a_command_made() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let subject = scene.subject();
    let runtime = (subject.reopen)();
    let shared = runtime.workspace(&subject.owner).path;
    let secrets = scene.data.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("key"), "secret").unwrap();
    let links = format!(
        "mkdir -p {0}/.artifacts $FOLDER/made && ln -s {1} {0}/.artifacts/out \
         && echo 1 > $FOLDER/made/rows && ln -s rows $FOLDER/made/same",
        shared.display(),
        secrets.display()
    );
    let mut makes = subject.spec(&*runtime, "makes", &links);
    makes.workspace = Some(workspace());
    let ended = outcome(&*runtime, makes).await;
    assert!(succeeded(&ended), "{ended:?}");
    let made = scene.folder().join("made").display().to_string();
    let brings = |name: &str, to: &str| {
        let place = shared.join(".artifacts").join(to);
        subject.fetch_attempt(&*runtime, name, made.clone(), &place)
    };

    let refused = outcome(&*runtime, brings("out", "out/made")).await;
    assert!(!succeeded(&refused), "{refused:?}");
    assert_eq!(std::fs::read_dir(&secrets).unwrap().count(), 1);
    let ended = outcome(&*runtime, brings("in", "in")).await;
    assert!(succeeded(&ended), "{ended:?}");
    let brought = shared.join(".artifacts/in");
    assert_eq!(
        std::fs::read_to_string(brought.join("rows")).unwrap(),
        "1\n"
    );
    assert!(brought.join("same").is_symlink());
    std::os::unix::fs::symlink(secrets.join("key"), scene.folder().join("made/key")).unwrap();
    let refused = failure(outcome(&*runtime, brings("leak", "in")).await);
    assert!(refused.message.contains("is a link"), "{refused:?}");
    assert!(!brought.join("key").exists());
}
