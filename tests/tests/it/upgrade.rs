//! What a former version left is taken over with its runs under way: nothing lost, nothing run
//! twice.
//!
//! `former.json` is a recording of what it left, so the test needs nothing but this version; where
//! `FERROFLOW_FORMER_BIN` names the former program, that leaves it anew.

mod recording;
mod runs;
mod scene;

use std::path::Path;
use std::time::Duration;

use ferroflow_testkit::cluster::database;
use ferroflow_testkit::scene::Scene as Cluster;
use ferroflow_testkit::{binary, former_binary};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use recording::Recording;
use runs::RunsUnderWay;
use scene::{Scene, assert_contains};

/// How long runs may take once nothing holds them up.
const LIMIT: Duration = Duration::from_mins(1);

/// What a version left behind.
#[derive(Serialize, Deserialize)]
struct FormerState {
    /// Runs that had ended.
    ended: Vec<String>,
    under_way: RunsUnderWay,
    /// What it told of each run, and of what runs are made from.
    told: Map<String, Value>,
}

#[test]
fn a_recorded_data_folder_is_taken_over() {
    let scene = Scene::open("", "");
    let recording = Recording::read(&scene);
    let launchers = recording.restore(&scene);
    take_over(&scene, &recording.left);
    launchers.end();
}

#[test]
fn a_recorded_postgresql_is_taken_over() {
    let Some((pipelines, events)) = databases("recorded") else {
        return println!("skipped: DATABASE_URL is not set");
    };
    let scene = Scene::open(&pipelines, &events);
    let recording = Recording::read(&scene);
    let launchers = recording.restore(&scene);
    take_over(&scene, &recording.left);
    launchers.end();
}

#[test]
fn a_data_folder_is_taken_over() {
    match former_binary() {
        Ok(former) => {
            let scene = Scene::open("", "");
            let left = run_former_version(&scene, &former);
            take_over(&scene, &left);
        }
        Err(reason) => println!("skipped: {reason}"),
    }
}

#[test]
fn a_postgresql_is_taken_over() {
    let former = match former_binary() {
        Ok(former) => former,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let Some((pipelines, events)) = databases("running") else {
        return println!("skipped: DATABASE_URL is not set");
    };
    let scene = Scene::open(&pipelines, &events);
    let left = run_former_version(&scene, &former);
    take_over(&scene, &left);
}

#[test]
#[ignore = "writes former.json anew: FERROFLOW_FORMER_BIN=… cargo xtask test -- --test it upgrade::record -- --ignored"]
fn record() {
    let former = former_binary().unwrap();
    let scene = Scene::open("", "");
    let left = run_former_version(&scene, &former);
    Recording::of(&scene, left).write(&scene);
}

/// New databases, where there is a PostgreSQL.
fn databases(name: &str) -> Option<(String, String)> {
    std::env::var_os("DATABASE_URL")?;
    let database = |what: &str| database(&format!("{what}_{name}_{}", std::process::id()));
    Some((database("pipelines"), database("events")))
}

/// Runs the former version until it is killed, with runs in every state.
fn run_former_version(scene: &Scene, former: &Path) -> FormerState {
    let mut platform = scene.platform(former);
    let ended = runs::create_ended_runs(scene, &platform);
    let under_way = runs::start_runs_under_way(scene, &platform);
    let snapshot = scene::snapshot(&platform);
    platform.kill();
    // Launchers outlive the server: some commands end while there is none.
    scene.end_commands_without_a_server();
    FormerState {
        ended,
        under_way,
        told: snapshot,
    }
}

fn take_over(scene: &Scene, left: &FormerState) {
    let platform = scene.platform(&binary());
    let after = scene::snapshot(&platform);
    for run in &left.ended {
        assert_contains(&after[run], &left.told[run]);
    }
    assert_contains(&after["definitions"], &left.told["definitions"]);
    left.under_way.assert_end_well(scene, &platform);
    for run in left.ended.iter().chain(left.under_way.ids()) {
        scene::events_go_on(&platform, run, &left.told[run]["events"]);
    }
    runs::check_new_runs(scene, &platform);
    println!(
        "{} runs that had ended are as they were, {} went on, every step ran once",
        left.ended.len(),
        left.under_way.ids().count()
    );
}

#[test]
fn pods_are_taken_over() {
    const STEPS: [&str; 2] = ["t0", "t1"];
    let former = match former_binary() {
        Ok(former) => former,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let Some(scene) = Cluster::open("upgrade") else {
        return;
    };
    let mut platform = scene.platform_with(&former);
    let under_way = scene.submit(&platform, &STEPS, 6);
    let other = scene.submit(&platform, &["alone"], 1);
    scene.wait_for_step("t0", 1);
    scene.wait_for_step("alone", 1);
    platform.kill();
    // This pod ends without a server.
    scene.wait_for_pods(&other);

    let platform = scene.platform();

    scene.assert_succeeds_with_steps_run_once(&platform, &under_way, &STEPS);
    scene.assert_succeeds_with_steps_run_once(&platform, &other, &["alone"]);
}
