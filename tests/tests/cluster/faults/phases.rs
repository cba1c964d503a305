//! `kill -9` of the service in every phase of a step: at the moment, not near it. Proxies before the
//! store and the API server hold the request that makes the moment.

use std::time::Duration;

use ferroflow_testkit::fault_proxy::Side;
use ferroflow_testkit::scene::{LIMIT, Scene};
use serde_json::json;

use super::STEPS;

/// Who is asked in the moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Store,
    Api,
}

/// A moment of a step.
struct Phase {
    step: &'static str,
    asked: Asked,
    side: Side,
    method: &'static str,
    path: &'static str,
}

const fn phase(
    step: &'static str,
    asked: Asked,
    side: Side,
    method: &'static str,
    path: &'static str,
) -> Phase {
    Phase {
        step,
        asked,
        side,
        method,
        path,
    }
}

/// In the order of a step's life; steps are named after them.
const PHASES: [Phase; 10] = [
    phase(
        "before-its-spec-is-written",
        Asked::Store,
        Side::Request,
        "PUT",
        "/spec.json",
    ),
    phase(
        "with-its-spec-written",
        Asked::Store,
        Side::Answer,
        "PUT",
        "/spec.json",
    ),
    phase(
        "before-its-pod-is-applied",
        Asked::Api,
        Side::Request,
        "PATCH",
        "/pods/ff-",
    ),
    phase(
        "with-its-pod-applied",
        Asked::Api,
        Side::Answer,
        "PATCH",
        "/pods/ff-",
    ),
    // From here on it is the pod that asks the store.
    phase(
        "with-its-container-begun",
        Asked::Store,
        Side::Request,
        "GET",
        "/spec.json",
    ),
    phase(
        "with-its-command-about-to-start",
        Asked::Store,
        Side::Answer,
        "PUT",
        "/started",
    ),
    phase(
        "with-its-outputs-on-the-way",
        Asked::Store,
        Side::Request,
        "PUT",
        "/result",
    ),
    phase(
        "with-its-report-written",
        Asked::Store,
        Side::Answer,
        "PUT",
        "/outcome.json",
    ),
    // And here the service again.
    phase(
        "before-its-pod-is-deleted",
        Asked::Api,
        Side::Request,
        "DELETE",
        "/pods/ff-",
    ),
    phase(
        "with-its-pod-deleted",
        Asked::Api,
        Side::Answer,
        "DELETE",
        "/pods/ff-",
    ),
];

/// The service is back at once, or when the pods have ended without it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Back {
    AtOnce,
    Late,
}

fn killed_in(scene: &Scene, phase: &Phase, back: Back) {
    let mut platform = scene.platform();
    let proxy = match phase.asked {
        Asked::Store => scene.store(),
        Asked::Api => scene.api(),
    };
    let held = proxy.hold(phase.side, phase.method, phase.path);
    let late = format!("{}-late", phase.step);
    let step = match back {
        Back::AtOnce => phase.step,
        Back::Late => late.as_str(),
    };
    let run = scene.submit(&platform, &[step], 1);

    held.wait(LIMIT);
    platform.kill();
    if back == Back::Late {
        drop(held);
        scene.wait_for_pods(&run);
        platform = scene.platform();
    } else {
        platform = scene.platform();
        drop(held);
    }

    scene.succeeds_with_every_step_run_once(&platform, &run, &[step]);
    let seen = scene.every_transition_is_told_once(&platform, &run);
    let attempts = seen.keys().filter(|(_, _, attempt)| attempt == "2");
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
        killed_in(&scene, phase, Back::AtOnce);
        killed_in(&scene, phase, Back::Late);
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

    scene.succeeds_with_every_step_run_once(&platform, &run, &STEPS);
}
