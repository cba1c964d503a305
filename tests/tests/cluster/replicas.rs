//! Two replicas of pipeline-svc and two gateways on a real cluster, with PostgreSQL; one is killed.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ferroflow_testkit::cluster::{Cluster, database, owner, query, unique, with_shared_volume};
use ferroflow_testkit::services::{Process, free_port, identity};
use ferroflow_testkit::{Platform, is_transition, shell_pipeline, transitions};
use serde_json::{Value, json};

const RUNS: usize = 4;
const TASKS: usize = 4;
const LIMIT: Duration = Duration::from_mins(4);

/// Everything that is started, and a folder that steps share with the test.
struct Scene {
    data: tempfile::TempDir,
    claim: String,
    pipelines: String,
    services: Vec<Process>,
    gateways: Vec<Process>,
}

impl Scene {
    fn open() -> Option<Self> {
        let cluster = match Cluster::open() {
            Ok(cluster) if std::env::var_os("DATABASE_URL").is_some() => cluster,
            Ok(_) => {
                println!("skipped: DATABASE_URL is not set");
                return None;
            }
            Err(reason) => {
                println!("skipped: {reason}");
                return None;
            }
        };
        let data = tempfile::tempdir().unwrap();
        let unique = unique(data.path());
        let claim = format!("replicas-{unique}");
        cluster.share(&data.path().join("shared"), &claim);
        let pipelines = database(&format!("pipelines_replicas_{unique}"));
        let ports = [free_port(), free_port()];
        let upstream = ports
            .map(|port| format!("http://127.0.0.1:{port}"))
            .join(",");
        let more = json!({
            "pipelines": {"database": pipelines},
            "events": {"database": database(&format!("events_replicas_{unique}"))},
            "identity": identity(data.path()),
            "gateway": {"listen": "127.0.0.1:0", "upstreams": {"pipeline-svc": upstream}, "drain_s": 1},
        });
        let settings = cluster.settings(data.path(), &more);
        let start = |name: String, arguments: &[&str]| {
            let arguments = [arguments, &["--config", &settings]].concat();
            Process::start(&data.path().join(name), &arguments)
        };
        let services = ports.map(|port| {
            let listen = format!("127.0.0.1:{port}");
            let arguments = ["pipeline-svc", "--pipelines-listen", &listen];
            start(format!("svc-{port}"), &arguments)
        });
        let gateways = [0, 1].map(|at| start(format!("gw-{at}"), &["gateway"]));
        Some(Self {
            services: services.into(),
            gateways: gateways.into(),
            data,
            claim,
            pipelines,
        })
    }

    fn platform(&self, at: usize) -> Platform {
        Platform::at(self.gateways[at].address())
    }

    /// A chain of steps; each says that it ran, then takes a while.
    fn submit(&self, platform: &Platform, number: usize) -> String {
        let tasks: Vec<_> = (0..TASKS)
            .map(|at| {
                let upstream = (at > 0).then(|| format!("t{}", at - 1));
                let script = format!("echo ran >> /shared/r{number}t{at}; sleep 2");
                (format!("t{at}"), script, upstream.into_iter().collect())
            })
            .collect();
        let spec = with_shared_volume(shell_pipeline("replicas", &tasks), &self.claim);
        platform.submit("replicas", &spec, &json!({}))
    }

    fn owner(&self, run: &str) -> String {
        owner(&self.pipelines, run)
    }
}

fn effect(folder: &Path, run: usize, task: usize) -> String {
    let file = folder.join(format!("shared/r{run}t{task}"));
    std::fs::read_to_string(file).unwrap_or_default()
}

/// Every transition once, in the order of its sequence.
fn check_events(events: &[Value]) {
    let transition_counts = transitions(events.iter().filter(is_transition));
    let duplicates: Vec<_> = transition_counts
        .iter()
        .filter(|(_, count)| **count != 1)
        .collect();
    assert!(duplicates.is_empty(), "{duplicates:#?}");
    let number = |event: &Value| match &event["sequence"] {
        Value::String(text) => text.parse::<usize>().unwrap(),
        number => usize::try_from(number.as_u64().unwrap()).unwrap(),
    };
    let sequence: Vec<_> = events.iter().map(number).collect();
    let expected: Vec<_> = (1..=events.len()).collect();
    assert_eq!(sequence, expected, "the order of a run's events");
}

#[test]
fn runs_of_a_killed_replica_go_on_within_ten_seconds_and_nothing_happens_twice() {
    let Some(mut scene) = Scene::open() else {
        return;
    };
    let platforms = [scene.platform(0), scene.platform(1)];
    let runs: Vec<_> = (0..RUNS)
        .map(|number| scene.submit(&platforms[number % 2], number))
        .collect();
    let begun = Instant::now();
    while effect(scene.data.path(), 0, 0).is_empty() {
        assert!(begun.elapsed() < LIMIT, "the first step has not begun");
        std::thread::sleep(Duration::from_millis(50));
    }

    let owner = scene.owner(&runs[0]);
    let at = scene.services.iter().position(|one| one.replica() == owner);
    let at = at.expect("a replica drives the run");
    let runs_of_owner: Vec<_> = runs
        .iter()
        .filter(|run| scene.owner(run) == owner)
        .collect();
    let killed_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    scene.services[at].kill();
    let killed = Instant::now();
    println!(
        "killed the driver of {} of {RUNS} runs",
        runs_of_owner.len()
    );
    let changed = format!(
        "SELECT count(*) FROM tasks WHERE run_id = '{}' AND \
         GREATEST(created_at, COALESCE(started_at, 0), COALESCE(finished_at, 0)) > {}",
        runs[0],
        killed_at.as_millis()
    );
    while query(&scene.pipelines, &changed) == "0" {
        assert!(killed.elapsed() < LIMIT, "the run does not go on");
        std::thread::sleep(Duration::from_millis(50));
    }
    let after = killed.elapsed();
    println!("from the kill to the next transition: {after:?}");
    assert!(after <= Duration::from_secs(10), "{after:?}");

    for (number, run) in runs.iter().enumerate() {
        let ended = platforms[1].wait(run, LIMIT);
        assert_eq!(ended["state"], "SUCCEEDED", "{ended:#}");
        for task in 0..TASKS {
            let effect = effect(scene.data.path(), number, task);
            assert_eq!(effect, "ran\n", "run {number}, step {task}");
        }
        let begun = Instant::now();
        let events = loop {
            let events = platforms[0].events(run);
            let last = events.last().map(|event| event["type"].clone());
            if last == Some(json!("ai.ferroflow.run.succeeded")) {
                break events;
            }
            assert!(begun.elapsed() < LIMIT, "the log ends with {last:?}");
            std::thread::sleep(Duration::from_millis(100));
        };
        check_events(&events);
    }
    println!(
        "{RUNS} runs of {TASKS} steps: every step ran once, every transition is once in the log"
    );
}
