//! A platform on the cluster whose steps leave a line each in a folder that the test sees, so that a
//! step which ran twice, or never, is seen; with proxies in the way where a test wants faults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{ApiProxy, Cluster, database, unique, with_shared_volume};
use crate::fault_proxy::FaultProxy;
use crate::parts::TestbedGuard;
use crate::services::merge;
use crate::{Platform, binary, is_transition, shell_pipeline, transitions};

/// How long a run of a few steps may take, faults included.
pub const LIMIT: Duration = Duration::from_mins(3);

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What is between the platform and its parts.
struct Proxies {
    store: FaultProxy,
    api: FaultProxy,
    _kubectl: ApiProxy,
    kubeconfig: PathBuf,
}

/// A platform's parts and folder; the platform itself is started and killed by the test.
pub struct Scene {
    cluster: Cluster,
    data: tempfile::TempDir,
    settings: String,
    claim: String,
    proxies: Option<Proxies>,
    _guard: TestbedGuard,
}

impl Scene {
    /// A scene of this name, or nothing where there is no cluster.
    pub fn open(name: &str) -> Option<Self> {
        Self::with(name, false, &json!({}))
    }

    /// The same with proxies before the store, for us and for pods, and before the API server, for
    /// us; `kubernetes` is merged into the settings of pods.
    pub fn behind_proxies(name: &str, kubernetes: &Value) -> Option<Self> {
        Self::with(name, true, kubernetes)
    }

    fn with(name: &str, proxies: bool, kubernetes: &Value) -> Option<Self> {
        let guard = TestbedGuard::ensure();
        let mut cluster = match Cluster::open() {
            Ok(cluster) => cluster,
            Err(reason) => {
                println!("skipped: {reason}");
                return None;
            }
        };
        let data = tempfile::tempdir().unwrap();
        let unique = unique(data.path());
        let claim = format!("faults-{name}-{unique}");
        cluster.share(&data.path().join("shared"), &claim);
        let proxies = proxies.then(|| Proxies::start(&cluster, &data.path().join("kubeconfig")));
        if let Some(proxies) = &proxies {
            cluster = cluster.with_store(proxies.store.url());
        }
        let mut pods = cluster.kubernetes();
        merge(&mut pods, kubernetes);
        let more = json!({
            "kubernetes": pods,
            "pipelines": {"database": database(&format!("pipelines_{name}_{unique}"))},
            "events": {"database": database(&format!("events_{name}_{unique}"))},
        });
        let settings = cluster.settings(data.path(), &more);
        Some(Self {
            cluster,
            data,
            settings,
            claim,
            proxies,
            _guard: guard,
        })
    }

    /// Starts a platform on what is there.
    pub fn platform(&self) -> Platform {
        self.platform_with(&binary())
    }

    /// The same by another program than the one that is tested.
    pub fn platform_with(&self, program: &Path) -> Platform {
        let kubeconfig = self
            .proxies
            .as_ref()
            .map(|proxies| ("KUBECONFIG", proxies.kubeconfig.display().to_string()));
        let more = ["--config", &self.settings];
        Platform::start_program(program, self.data.path(), &more, kubeconfig.as_slice())
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The proxy before the store.
    pub fn store(&self) -> &FaultProxy {
        &self.proxies.as_ref().expect("it has proxies").store
    }

    /// The proxy before the API server.
    pub fn api(&self) -> &FaultProxy {
        &self.proxies.as_ref().expect("it has proxies").api
    }

    /// Submits a chain of steps: each says that it ran, takes some seconds, and leaves an artifact
    /// `result`.
    pub fn submit(&self, platform: &Platform, steps: &[&str], seconds: u32) -> String {
        let tasks: Vec<_> = steps
            .iter()
            .enumerate()
            .map(|(at, step)| {
                let script = format!(
                    "echo ran >> /shared/{step}; sleep {seconds}; \
                     echo {step} > {{{{$.outputs.artifacts['result'].path}}}}"
                );
                let upstream = at.checked_sub(1).map(|at| steps[at].to_owned());
                ((*step).to_owned(), script, upstream.into_iter().collect())
            })
            .collect();
        let mut spec = shell_pipeline("faults", &tasks);
        for step in steps {
            let result = json!({"artifactType": {"schemaTitle": "system.Artifact"}});
            spec["components"][format!("comp-{step}")]["outputDefinitions"] =
                json!({"artifacts": {"result": result}});
        }
        let spec = with_shared_volume(spec, &self.claim);
        platform.submit("faults", &spec, &json!({}))
    }

    /// How often a step's command ran.
    pub fn times_run(&self, step: &str) -> usize {
        let file = self.data.path().join("shared").join(step);
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.matches("ran\n").count()
    }

    /// Waits until a step's command has begun, for the `times`th time.
    pub fn wait_for_step(&self, step: &str, times: usize) {
        eventually(
            LIMIT,
            &format!("step {step} has begun {times} times"),
            || self.times_run(step) >= times,
        );
    }

    /// Waits until the pods of a run have ended or are gone, as the cluster itself says.
    pub fn wait_for_pods(&self, run: &str) {
        let selector = format!("pipelines.ferroflow.ai/run={run}");
        let phases = ["get", "pods", "-l", &selector, "-o"];
        eventually(LIMIT, "the run's pods have ended", || {
            let phases = [&phases[..], &["jsonpath={.items[*].status.phase}"]].concat();
            let found = self.cluster.kubectl(&phases);
            let mut found = found.split_whitespace();
            found.all(|phase| matches!(phase, "Succeeded" | "Failed"))
        });
    }

    /// Waits for the run's success; then every step ran once, and every transition was told once.
    pub fn assert_succeeds_with_steps_run_once(
        &self,
        platform: &Platform,
        run: &str,
        steps: &[&str],
    ) {
        let ended = platform.wait(run, LIMIT);
        assert_eq!(ended["state"], "SUCCEEDED", "{ended:#}");
        for step in steps {
            assert_eq!(self.times_run(step), 1, "step {step}");
        }
        self.assert_transitions_published_once(platform, run);
    }

    /// The event log has each transition of a run that succeeded once: how often (type, path,
    /// attempt) is in it.
    pub fn assert_transitions_published_once(
        &self,
        platform: &Platform,
        run: &str,
    ) -> BTreeMap<(String, String, String), usize> {
        let mut transition_counts = BTreeMap::new();
        // The relay tells of the run's end a moment after it is stored.
        eventually(LIMIT, "the run's end is told", || {
            transition_counts = transitions(platform.events(run).iter().filter(is_transition));
            let mut kinds = transition_counts.keys();
            kinds.any(|(kind, ..)| kind == "ai.ferroflow.run.succeeded")
        });
        let duplicates: Vec<_> = transition_counts
            .iter()
            .filter(|(_, count)| **count != 1)
            .collect();
        assert!(duplicates.is_empty(), "{duplicates:#?}");
        transition_counts
    }

    /// The attempts of a step that the log tells of, with why they were given up.
    pub fn retries(&self, platform: &Platform, run: &str) -> Vec<String> {
        let events = platform.events(run);
        events
            .iter()
            .filter(|event| event["type"] == "ai.ferroflow.task.retrying")
            .map(|event| {
                event["data"]["error"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect()
    }
}

impl Proxies {
    fn start(cluster: &Cluster, kubeconfig: &Path) -> Self {
        let kubectl = ApiProxy::start();
        let api = FaultProxy::start(kubectl.url());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": api.url()}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        });
        std::fs::write(kubeconfig, config.to_string()).unwrap();
        Self {
            store: FaultProxy::start(cluster.store()),
            api,
            _kubectl: kubectl,
            kubeconfig: kubeconfig.to_path_buf(),
        }
    }
}

/// Waits until something holds.
pub fn eventually(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}
