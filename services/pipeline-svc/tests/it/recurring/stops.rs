//! What stops a recurring run, and what does not.

use ferroflow_testkit::Platform;
use ferroflow_testkit::scene::eventually;
use serde_json::json;
use uuid::Uuid;

use super::{
    LIMIT, RECURRING, body, create, echo, every_second, filter, get, platform, post, runs_of,
    seconds, state,
};

/// Uploads a pipeline that prints; its id and that of its version.
fn upload(platform: &Platform, name: &str) -> (String, String) {
    let spec = echo("true").to_string();
    let (status, made) = platform.upload(name, "p.json", spec.as_bytes());
    assert_eq!(status, 200, "{made}");
    let pipeline = made["pipeline_id"].as_str().unwrap().to_owned();
    let path = format!("/apis/v2beta1/pipelines/{pipeline}/versions");
    let (_, listed) = platform.get(&path);
    let version = &listed["pipeline_versions"][0]["pipeline_version_id"];
    (pipeline, version.as_str().unwrap().to_owned())
}

#[test]
fn a_pinned_version_runs_on_and_one_that_follows_stops_with_the_reason() {
    let (_data, platform) = platform();
    let (pipeline, version) = upload(&platform, "followed");
    let mut asked = body("follows", "true", &every_second());
    asked.as_object_mut().unwrap().remove("pipeline_spec");
    asked["pipeline_version_reference"] = json!({"pipeline_id": pipeline});
    let follows = create(&platform, &asked);
    asked["pipeline_version_reference"]["pipeline_version_id"] = json!(version);
    let pinned = create(&platform, &asked);
    let made = |id: &str| runs_of(&platform, id).len();
    eventually(LIMIT, "runs of both", || {
        made(&follows) > 0 && made(&pinned) > 0
    });
    let shown = &get(&platform, &follows)["pipeline_version_reference"];
    assert_eq!(*shown, json!({"pipeline_id": pipeline}));
    let run = &runs_of(&platform, &follows)[0]["pipeline_version_reference"];
    assert_eq!(run["pipeline_version_id"], version.as_str());

    let path = format!("/apis/v2beta1/pipelines/{pipeline}?cascade=true");
    assert_eq!(platform.request("DELETE", &path, &[], "").0, 200);
    eventually(LIMIT, "it stops", || {
        state(&platform, &follows).0 == "DISABLED"
    });
    let (_, reason) = state(&platform, &follows);
    assert!(
        reason.contains(&pipeline) && reason.contains("not found"),
        "{reason}"
    );
    let before = made(&pinned);
    eventually(LIMIT, "the pinned one runs on", || {
        made(&pinned) >= before + 2
    });
    assert_eq!(
        state(&platform, &pinned),
        ("ENABLED".to_owned(), String::new())
    );
}

#[test]
fn one_whose_runs_a_setting_forbids_waits_until_the_setting_is_mended() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);
    let mut asked = body("large", "true", &every_second());
    asked["runtime_config"] = json!({"parameters": {"text": "a".repeat(100_000)}});
    let large = create(&platform, &asked);
    let small = create(&platform, &body("small", "true", &every_second()));
    let made = |platform: &Platform, id: &str| runs_of(platform, id).len();
    eventually(LIMIT, "a run", || made(&platform, &large) > 0);
    drop(platform);

    let platform = Platform::start(data.path(), &["--value-max", "65536"]);
    let before = (made(&platform, &large), made(&platform, &small));
    eventually(LIMIT, "runs of the other", || {
        made(&platform, &small) >= before.1 + 2
    });
    assert_eq!(made(&platform, &large), before.0);
    assert_eq!(
        state(&platform, &large),
        ("ENABLED".to_owned(), String::new())
    );
    drop(platform);

    let platform = Platform::start(data.path(), &[]);
    eventually(LIMIT, "runs again", || made(&platform, &large) > before.0);
}

#[test]
fn a_client_that_takes_the_id_of_a_due_time_does_not_take_its_run() {
    let (_data, platform) = platform();
    let period = json!({"periodic_schedule": {"interval_second": "2"}});
    let id = create(&platform, &body("every other second", "true", &period));
    eventually(LIMIT, "a run", || !runs_of(&platform, &id).is_empty());
    let first = runs_of(&platform, &id)[0].clone();
    // Whoever knows a schedule can compute the ids of its runs.
    let due: jiff::Timestamp = first["scheduled_at"].as_str().unwrap().parse().unwrap();
    let of = |millis: i64| {
        let schedule = Uuid::parse_str(&id).unwrap();
        Uuid::new_v5(&schedule, millis.to_string().as_bytes()).to_string()
    };
    assert_eq!(first["run_id"], of(due.as_millisecond()));
    let taken = of(due.as_millisecond() + 6000);
    let mine = json!({"run_id": taken, "display_name": "mine", "pipeline_spec": echo("true")});
    let (status, made) = platform.post("/apis/v2beta1/runs", &mine);
    assert_eq!((status, &made["run_id"]), (200, &json!(taken)), "{made}");
    eventually(LIMIT, "the due time", || runs_of(&platform, &id).len() > 4);
    let runs = runs_of(&platform, &id);
    let times: Vec<_> = runs.iter().map(seconds).collect();
    for pair in times.windows(2) {
        assert_eq!((pair[1] - pair[0]).rem_euclid(86_400), 2, "{times:?}");
    }
    assert!(runs.iter().all(|run| run["run_id"] != taken), "{runs:?}");
}

#[test]
fn archiving_an_experiment_disables_its_schedules() {
    let (_data, platform) = platform();
    let experiment = json!({"display_name": "e"});
    let (_, made) = platform.post("/apis/v2beta1/experiments", &experiment);
    let experiment = made["experiment_id"].as_str().unwrap();
    let mut asked = body(
        "in it",
        "true",
        &json!({"cron_schedule": {"cron": "0 0 1 1 *"}}),
    );
    asked["experiment_id"] = json!(experiment);
    let id = create(&platform, &asked);
    let other = create(&platform, &body("beside", "true", &every_second()));
    let listed = |query: &str| {
        let (status, listed) = platform.get(&format!("{RECURRING}?{query}"));
        assert_eq!(status, 200, "{listed}");
        let found = listed["recurringRuns"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let names = found
            .iter()
            .map(|one| one["display_name"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>(), listed)
    };
    assert_eq!(listed(&format!("experiment_id={experiment}")).0, ["in it"]);
    assert_eq!(listed(&filter("display_name", "beside")).0, ["beside"]);
    let (first, page) = listed("page_size=1&sort_by=created_at%20desc");
    assert_eq!(
        (first, &page["total_size"]),
        (vec!["beside".to_owned()], &json!(2))
    );
    let token = page["next_page_token"].as_str().unwrap();
    assert_eq!(
        listed(&format!("page_size=1&page_token={token}")).0,
        ["in it"]
    );

    post(
        &platform,
        &format!("/apis/v2beta1/experiments/{experiment}:archive"),
    );
    assert_eq!(state(&platform, &id).0, "DISABLED");
    assert_eq!(state(&platform, &other).0, "ENABLED");
}
