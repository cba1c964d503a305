//! `kill -9` of the service in every phase of a step: at the moment, not near it. Proxies before the
//! store and the API server hold the request that makes the moment.

use std::time::Duration;

use ferroflow_testkit::fault_proxy::Side;
use ferroflow_testkit::scene::{LIMIT, Scene};
use serde_json::json;

use super::STEPS;

/// Who is asked in the moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Store,
    Api,
}

/// A moment of a step.
struct Phase {
    step: &'static str,
    target: Target,
    side: Side,
    method: &'static str,
    path: &'static str,
}

const fn phase(
    step: &'static str,
    target: Target,
    side: Side,
    method: &'static str,
    path: &'static str,
) -> Phase {
    Phase {
        step,
        target,
        side,
        method,
        path,
    }
}

/// In the order of a step's life; steps are named after them.
const PHASES: [Phase; 10] = [
    phase(
        "before-its-spec-is-written",
        Target::Store,
        Side::Request,
        "PUT",
        "/spec.json",
    ),
    phase(
        "with-its-spec-written",
        Target::Store,
        Side::Answer,
        "PUT",
        "/spec.json",
    ),
    phase(
        "before-its-pod-is-applied",
        Target::Api,
        Side::Request,
        "PATCH",
        "/pods/ff-",
    ),
    phase(
        "with-its-pod-applied",
        Target::Api,
        Side::Answer,
        "PATCH",
        "/pods/ff-",
    ),
    // From here on it is the pod that asks the store.
    phase(
        "with-its-container-begun",
        Target::Store,
        Side::Request,
        "GET",
        "/spec.json",
    ),
    phase(
        "with-its-command-about-to-start",
        Target::Store,
        Side::Answer,
        "PUT",
        "/started",
    ),
    phase(
        "with-its-outputs-on-the-way",
        Target::Store,
        Side::Request,
        "PUT",
        "/result",
    ),
    phase(
        "with-its-report-written",
        Target::Store,
        Side::Answer,
        "PUT",
        "/outcome.json",
    ),
    // And here the service again.
    phase(
        "before-its-pod-is-deleted",
        Target::Api,
        Side::Request,
        "DELETE",
        "/pods/ff-",
    ),
    phase(
        "with-its-pod-deleted",
        Target::Api,
        Side::Answer,
        "DELETE",
        "/pods/ff-",
    ),
];

/// The service is back at once, or when the pods have ended without it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Restart {
    AtOnce,
    Late,
}

fn kill_in_phase(scene: &Scene, phase: &Phase, restart: Restart) {
    let mut platform = scene.platform();
    let proxy = match phase.target {
        Target::Store => scene.store(),
        Target::Api => scene.api(),
    };
    let held = proxy.hold(phase.side, phase.method, phase.path);
    let late = format!("{}-late", phase.step);
    let step = match restart {
        Restart::AtOnce => phase.step,
        Restart::Late => late.as_str(),
    };
    let run = scene.submit(&platform, &[step], 1);

    held.wait(LIMIT);
    platform.kill();
    if restart == Restart::Late {
        drop(held);
        scene.wait_for_pods(&run);
        platform = scene.platform();
    } else {
        platform = scene.platform();
        drop(held);
    }

    scene.assert_succeeds_with_steps_run_once(&platform, &run, &[step]);
    let transition_counts = scene.assert_transitions_published_once(&platform, &run);
    let attempts = transition_counts
        .keys()
        .filter(|(_, _, attempt)| attempt == "2");
    assert_eq!(
        attempts.count(),
        0,
        "killed {step}: the first attempt counts"
    );
    println!("killed {step}: it ran once");
}

#[test]
fn a_service_that_is_killed_in_any_phase_of_a_step_loses_nothing() {
    let Some(scene) = Scene::behind_proxies("phases", &json!({})) else {
        return;
    };
    for phase in &PHASES {
        kill_in_phase(&scene, phase, Restart::AtOnce);
        kill_in_phase(&scene, phase, Restart::Late);
    }
}

#[test]
fn a_service_that_is_killed_again_and_again_loses_nothing() {
    let Some(scene) = Scene::open("kill") else {
        return;
    };
    let mut platform = scene.platform();
    let run = scene.submit(&platform, &STEPS, 4);

    for kill in 0..12 {
        std::thread::sleep(Duration::from_millis(900 + 137 * kill % 700));
        platform.kill();
        platform = scene.platform();
    }

    scene.assert_succeeds_with_steps_run_once(&platform, &run, &STEPS);
}
