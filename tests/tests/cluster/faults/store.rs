//! An object store that is busy, hangs up, loses answers, is slow, or is away for long.

use std::time::Duration;

use ferroflow_testkit::fault_proxy::Fault;
use ferroflow_testkit::scene::{LIMIT, Scene};
use serde_json::json;

use super::STEPS;

/// How long a fault lasts: the end of the first step and the start of the second are in it.
const FAULT_DURATION: Duration = Duration::from_secs(12);

#[test]
fn a_store_that_fails_for_a_while_costs_nothing() {
    let Some(scene) = Scene::behind_proxies("store", &json!({})) else {
        return;
    };
    let platform = scene.platform();
    for (name, fault) in [
        ("busy", Fault::SlowDown),
        ("hung", Fault::HangUp),
        ("slow", Fault::Slow(Duration::from_millis(500))),
    ] {
        let steps = [0, 1, 2].map(|at| format!("{name}{at}"));
        let steps = steps.each_ref().map(String::as_str);
        let run = scene.submit(&platform, &steps, 4);
        scene.wait_for_step(steps[0], 1);

        scene.store().set(fault);
        std::thread::sleep(FAULT_DURATION);
        scene.store().set(Fault::None);

        scene.assert_succeeds_with_steps_run_once(&platform, &run, &steps);
        let retries = scene.retries(&platform, &run);
        assert!(retries.is_empty(), "{name}: {retries:?}");
        println!("{fault:?} for {FAULT_DURATION:?}: every step ran once");
    }
}

/// Writing exclusively is what an answer that is lost makes hard: who asks again is refused.
#[test]
fn an_answer_that_is_lost_costs_nothing() {
    let Some(scene) = Scene::behind_proxies("answer", &json!({})) else {
        return;
    };
    let platform = scene.platform();
    for file in ["spec.json", "started", "result", "outcome.json"] {
        let step = format!("lost-{}", file.replace('.', "-"));
        scene.store().drop_response("PUT", &format!("/{file}"));

        let run = scene.submit(&platform, &[&step], 1);

        scene.assert_succeeds_with_steps_run_once(&platform, &run, &[&step]);
        assert!(scene.store().is_done(), "{file} was written");
        let retries = scene.retries(&platform, &run);
        assert!(retries.is_empty(), "{file}: {retries:?}");
        println!("lost the answer to PUT {file}: the step ran once");
    }
}

#[test]
fn a_store_that_is_away_for_long_is_told_and_costs_an_attempt() {
    let Some(scene) = Scene::behind_proxies("away", &json!({"store_patience_s": 5})) else {
        return;
    };
    let platform = scene.platform();
    let run = scene.submit(&platform, &STEPS, 4);
    scene.wait_for_step("t1", 1);

    scene.store().set(Fault::SlowDown);
    // Its command ends, and its launcher gives up.
    scene.wait_for_pods(&run);
    scene.store().set(Fault::None);

    let ended = platform.wait(&run, LIMIT);
    assert_eq!(ended["state"], "SUCCEEDED", "{ended:#}");
    let times = STEPS.map(|step| scene.times_run(step));
    assert_eq!(times, [1, 2, 1], "what could not be kept is done again");
    scene.assert_transitions_published_once(&platform, &run);
    let why = scene.retries(&platform, &run);
    assert!(why.iter().any(|why| why.contains("store")), "{why:?}");
}
