//! Several replicas of pipeline-svc and gateway as processes of their own, on PostgreSQL; skipped
//! where `DATABASE_URL` names none. Steps are local processes, so a run that changes its driver runs
//! its step again here: `tests/tests/cluster/replicas.rs` looks at that on a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferroflow_testkit::cluster::{database, owner, query};
use ferroflow_testkit::scene::eventually;
use ferroflow_testkit::services::{LoadBalancer, Process, free_port, identity, settings};
use ferroflow_testkit::{Platform, shell_pipeline};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_mins(1);

/// Databases, settings, and replicas of pipeline-svc at ports that they keep.
struct Deployment {
    folder: tempfile::TempDir,
    settings: String,
    pipelines: String,
    events: String,
    ports: Vec<u16>,
    services: Vec<Process>,
}

impl Deployment {
    fn open(name: &str, count: usize) -> Option<Self> {
        if std::env::var_os("DATABASE_URL").is_none() {
            println!("skipped: DATABASE_URL is not set");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let unique = format!("{name}_{}", std::process::id());
        let pipelines = database(&format!("pipelines_{unique}"));
        let events = database(&format!("events_{unique}"));
        let written = json!({
            "pipelines": {"database": pipelines},
            "events": {"database": events},
            "identity": identity(folder.path()),
        });
        let settings = settings(folder.path(), &written);
        let mut deployment = Self {
            folder,
            settings,
            pipelines,
            events,
            ports: Vec::new(),
            services: Vec::new(),
        };
        // All at once, as a new installation starts.
        let numbers: Vec<_> = (0..count).map(|number| (number, free_port())).collect();
        deployment.services = std::thread::scope(|scope| {
            let deployment = &deployment;
            let start = |(number, port)| scope.spawn(move || deployment.service(number, port));
            let starting: Vec<_> = numbers.iter().copied().map(start).collect();
            let started = starting.into_iter().map(|one| one.join().unwrap());
            started.collect()
        });
        deployment.ports = numbers.into_iter().map(|(_, port)| port).collect();
        Some(deployment)
    }

    fn service(&self, number: usize, port: u16) -> Process {
        let folder = self.folder.path().join(format!("svc-{number}"));
        let listen = format!("127.0.0.1:{port}");
        Process::start(
            &folder,
            &[
                "pipeline-svc",
                "--config",
                &self.settings,
                "--pipelines-listen",
                &listen,
            ],
        )
    }

    /// A gateway before these replicas.
    fn gateway(&self, name: &str, services: &[usize], more: &[&str]) -> Process {
        let upstream: Vec<_> = services
            .iter()
            .map(|&at| format!("http://127.0.0.1:{}", self.ports[at]))
            .collect();
        let upstream = upstream.join(",");
        let listen = format!("127.0.0.1:{}", free_port());
        let mut arguments = vec![
            "gateway",
            "--config",
            &self.settings,
            "--listen",
            &listen,
            "--pipeline-svc",
            &upstream,
        ];
        arguments.extend(more);
        Process::start(&self.folder.path().join(name), &arguments)
    }

    fn owner(&self, run: &str) -> String {
        owner(&self.pipelines, run)
    }
}

fn one_step(script: &str) -> Value {
    shell_pipeline("one", &[("t".to_owned(), script.to_owned(), Vec::new())])
}

fn post(platform: &Platform, path: &str) -> (u16, Value) {
    platform.request("POST", path, &[], "")
}

/// `kfp.Client`, which looks for the experiment by name, clients that name none, at both replicas.
#[test]
fn first_submissions_at_two_replicas_go_into_one_experiment() {
    let Some(deployment) = Deployment::open("first", 2) else {
        return;
    };
    let gateways = [
        deployment.gateway("gw-0", &[0], &[]),
        deployment.gateway("gw-1", &[1], &[]),
    ];
    let submit = |address: &str, named: bool| {
        let platform = Platform::at(address);
        let mut run = json!({"display_name": "first", "pipeline_spec": one_step("true")});
        if named {
            let (_, found) = platform.get("/apis/v2beta1/experiments");
            run["experiment_id"] = found["experiments"][0]["experiment_id"].clone();
        }
        let (status, made) = platform.post("/apis/v2beta1/runs", &run);
        assert_eq!(status, 200, "{made}");
        made["experiment_id"].as_str().unwrap().to_owned()
    };
    let experiments: BTreeSet<String> = std::thread::scope(|scope| {
        let submitting: Vec<_> = (0..8)
            .map(|at| {
                let address = gateways[at % 2].address();
                scope.spawn(move || submit(address, at % 4 < 2))
            })
            .collect();
        let joined = submitting.into_iter().map(|one| one.join().unwrap());
        joined.collect()
    });
    assert_eq!(experiments.len(), 1, "{experiments:?}");
    let defaults = "SELECT count(*) FROM experiments WHERE is_default = 1";
    assert_eq!(query(&deployment.pipelines, defaults), "1");
}

#[test]
fn a_run_is_stopped_retried_and_deleted_through_a_replica_that_does_not_drive_it() {
    let Some(deployment) = Deployment::open("others", 2) else {
        return;
    };
    let (first, second) = (
        deployment.gateway("gw-0", &[0], &[]),
        deployment.gateway("gw-1", &[1], &[]),
    );
    let (driver, other) = (
        Platform::at(first.address()),
        Platform::at(second.address()),
    );
    let run = driver.submit("others", &one_step("sleep 60"), &json!({}));
    let path = format!("/apis/v2beta1/runs/{run}");
    eventually(LIMIT, "the run begins", || {
        driver.get(&path).1["state"] == "RUNNING"
    });
    assert_eq!(deployment.owner(&run), deployment.services[0].replica());

    let (status, body) = post(&other, &format!("{path}:retry"));
    assert_eq!(status, 409, "a running run: {body}");
    let begun = Instant::now();
    let (status, body) = post(&other, &format!("{path}:terminate"));
    println!("stopped through another replica in {:?}", begun.elapsed());
    assert_eq!(status, 200, "{body}");
    driver.wait(&run, LIMIT);
    let (status, body) = post(&other, &format!("{path}:terminate"));
    assert_eq!(status, 400, "an ended run: {body}");

    let (status, body) = post(&other, &format!("{path}:retry"));
    assert_eq!(status, 200, "{body}");
    eventually(LIMIT, "the run begins again", || {
        other.get(&path).1["state"] == "RUNNING"
    });
    let (status, body) = other.request("DELETE", &path, &[], "");
    assert_eq!(status, 200, "{body}");
    assert_eq!(driver.get(&path).0, 404);
    let (status, _) = post(&other, &format!("{path}:terminate"));
    assert_eq!(status, 404);
    let left = query(&deployment.pipelines, "SELECT count(*) FROM run_requests");
    assert_eq!(left, "0", "answers are read and forgotten");
}

#[test]
fn runs_of_a_killed_replica_go_on_in_another() {
    let Some(mut deployment) = Deployment::open("kill", 2) else {
        return;
    };
    let gateway = deployment.gateway("gw-0", &[0, 1], &[]);
    let platform = Platform::at(gateway.address());
    let tasks: Vec<_> = (0..40)
        .map(|at| {
            let upstream = (at > 0).then(|| format!("t{}", at - 1));
            (
                format!("t{at}"),
                "sleep 0.5".to_owned(),
                upstream.into_iter().collect(),
            )
        })
        .collect();
    let spec = shell_pipeline("chain", &tasks);
    let runs: Vec<_> = (0..6)
        .map(|_| platform.submit("chain", &spec, &json!({})))
        .collect();
    let owners: Vec<_> = runs.iter().map(|run| deployment.owner(run)).collect();
    println!("drivers: {owners:?}");
    let killed = deployment.services[0].replica();
    assert!(owners.contains(&killed) && owners.iter().any(|owner| *owner != killed));

    deployment.services[0].kill();
    let begun = Instant::now();
    let orphaned: Vec<_> = runs
        .iter()
        .zip(&owners)
        .filter(|(_, owner)| **owner == killed)
        .map(|(run, _)| run)
        .collect();
    let sequence = |run: &str| {
        let text = format!("SELECT event_sequence FROM runs WHERE id = '{run}'");
        query(&deployment.pipelines, &text).parse::<i64>().unwrap()
    };
    let before: Vec<_> = orphaned.iter().map(|run| sequence(run)).collect();
    for (run, before) in orphaned.iter().zip(&before) {
        eventually(LIMIT, "the run goes on", || sequence(run) > *before);
        println!("run {run} went on {:?} after the kill", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    for run in &runs {
        assert_eq!(platform.wait(run, LIMIT)["state"], "SUCCEEDED");
    }
    println!(
        "{}",
        deployment.services[1]
            .log()
            .lines()
            .filter(|line| line.contains("took over"))
            .collect::<String>()
    );
}

/// What the load asks, and what came of it.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    counts: Mutex<BTreeMap<&'static str, u32>>,
    failures: Mutex<Vec<String>>,
}

impl Load {
    fn run(&self, balancer: &LoadBalancer) {
        let created = json!({"display_name": "load", "pipeline_spec": one_step("true")});
        let created = created.to_string();
        let requests = [
            ("CreateRun", "POST", "/apis/v2beta1/runs", created.as_str()),
            ("ListRuns", "GET", "/apis/v2beta1/runs?page_size=5", ""),
            ("ListPipelines", "GET", "/apis/v2beta1/pipelines", ""),
        ];
        while !self.stop.load(Ordering::Acquire) {
            for (name, method, path, body) in requests {
                let answer = balancer.ask(method, path, body);
                *self.counts.lock().unwrap().entry(name).or_default() += 1;
                if answer != Ok(200) {
                    self.failures
                        .lock()
                        .unwrap()
                        .push(format!("{name}: {answer:?}"));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

#[test]
fn a_rolling_restart_fails_no_request() {
    let Some(mut deployment) = Deployment::open("rolling", 2) else {
        return;
    };
    let drain = ["--drain-s", "2"];
    let mut gateways = [
        deployment.gateway("gw-0", &[0, 1], &drain),
        deployment.gateway("gw-1", &[0, 1], &drain),
    ];
    let balancer = LoadBalancer::start(&[gateways[0].address(), gateways[1].address()]);
    let load = Load::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| load.run(&balancer));
        }
        std::thread::sleep(Duration::from_secs(2));
        for service in &mut deployment.services {
            let begun = Instant::now();
            let status = service.stop(LIMIT);
            println!("pipeline-svc stopped in {:?}: {status}", begun.elapsed());
            assert!(status.success(), "{}", service.log());
            service.start_again();
            std::thread::sleep(Duration::from_secs(2));
        }
        for gateway in &mut gateways {
            let begun = Instant::now();
            let status = gateway.stop(LIMIT);
            println!("gateway stopped in {:?}: {status}", begun.elapsed());
            assert!(status.success(), "{}", gateway.log());
            gateway.start_again();
            std::thread::sleep(Duration::from_secs(1));
        }
        load.stop.store(true, Ordering::Release);
    });
    balancer.stop();
    let failures = load.failures.into_inner().unwrap();
    println!(
        "requests: {:?}, failed: {}",
        load.counts.into_inner().unwrap(),
        failures.len()
    );
    assert!(failures.is_empty(), "{failures:#?}");
    let unfinished = "SELECT count(*) FROM runs WHERE state <> 'SUCCEEDED'";
    eventually(LIMIT, "every run succeeds", || {
        query(&deployment.pipelines, unfinished) == "0"
    });
}

/// Schedules that fire each second, and for how many seconds.
const SCHEDULES: usize = 100;
const SECONDS: i64 = 15;

/// A run of this starts no process: its only task is left out.
fn nothing_to_do() -> Value {
    let mut spec = one_step("true");
    spec["root"]["dag"]["tasks"]["t"]["triggerPolicy"] = json!({"condition": "'a' == 'b'"});
    spec
}

/// `FERROFLOW_SCHEDULE_SECONDS` asks for another length of time, for example 60.
#[test]
fn schedules_miss_nothing_and_repeat_nothing_when_a_replica_is_killed() {
    let Some(mut deployment) = Deployment::open("schedules", 2) else {
        return;
    };
    let given = std::env::var("FERROFLOW_SCHEDULE_SECONDS").ok();
    let seconds = given.map_or(SECONDS, |text| text.parse().unwrap());
    let gateway = deployment.gateway("gw-0", &[0, 1], &[]);
    let platform = Platform::at(gateway.address());
    let moment = |after: i64| {
        let format = r#"YYYY-MM-DD"T"HH24:MI:SS"Z""#;
        format!("to_char(now() AT TIME ZONE 'utc' + interval '{after} seconds', '{format}')")
    };
    // Both of one clock: a second that passed between two questions would be one more due time.
    let frame = format!("SELECT {} || ' ' || {}", moment(5), moment(5 + seconds));
    let frame = query(&deployment.pipelines, &frame);
    let (start, end) = frame.split_once(' ').unwrap();
    let trigger = json!({"cron_schedule": {
        "cron": "* * * * * *", "start_time": start, "end_time": end}});
    for number in 0..SCHEDULES {
        let asked = json!({
            "display_name": format!("every second {number}"), "mode": "ENABLE",
            "max_concurrency": 10, "pipeline_spec": nothing_to_do(), "trigger": trigger,
        });
        let (status, made) = platform.post("/apis/v2beta1/recurringruns", &asked);
        assert_eq!(status, 200, "{made}");
    }
    let count = |condition: &str| {
        let text = format!("SELECT count(*) FROM runs WHERE {condition}");
        query(&deployment.pipelines, &text).parse::<i64>().unwrap()
    };
    let due = count("recurring_run_id = ''") + i64::try_from(SCHEDULES).unwrap() * seconds;
    let limit = Duration::from_mins(10);
    eventually(limit, "half of the runs", || count("true") >= due / 2);
    let holder = "SELECT holder FROM leases WHERE name = 'schedules'";
    let leader = query(&deployment.pipelines, holder);
    let at = usize::from(deployment.services[1].replica() == leader);
    assert_eq!(deployment.services[at].replica(), leader);
    deployment.services[at].kill();
    let (begun, then) = (Instant::now(), count("true"));
    eventually(limit, "the other replica goes on", || count("true") > then);
    println!(
        "killed the one that fires after {then} runs, the other went on in {:?}",
        begun.elapsed()
    );
    eventually(limit, "every run", || count("finished_at > 0") >= due);

    let table = |text: &str| query(&deployment.pipelines, text);
    let each = "SELECT min(n), max(n), count(*) FROM (SELECT count(*) AS n FROM runs \
        GROUP BY recurring_run_id) AS counted";
    assert_eq!(table(each), format!("{seconds}|{seconds}|{SCHEDULES}"));
    let distinct = "SELECT count(*) FROM (SELECT DISTINCT recurring_run_id, scheduled_at FROM runs) \
        AS due";
    assert_eq!(table(distinct), due.to_string());
    let span = "SELECT (max(scheduled_at) - min(scheduled_at)) / 1000 FROM runs";
    assert_eq!(table(span), (seconds - 1).to_string());
    let failed = count("state <> 'SUCCEEDED'");
    assert_eq!(failed, 0);
    let triggered = "SELECT count(*) FROM event_log WHERE event LIKE '%recurring-run.triggered%'";
    eventually(limit, "an event for each", || {
        query(&deployment.events, triggered) == due.to_string()
    });
    println!("{due} due times of {SCHEDULES} schedules, {due} runs, {due} events");
}
