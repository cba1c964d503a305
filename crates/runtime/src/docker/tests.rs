//! The container of an attempt, as it is sent to the engine.

use ferroflow_launcher::kfp::{Kfp, OutputSpec};
use ferroflow_launcher::{AttemptSpec, InputArtifact, OutputArtifact, Workspace};
use serde_json::{Value, json};

use std::collections::BTreeMap;
use std::path::Path;

use super::DockerConfig;
use super::engine::Engine;
use super::objects::{self, ContainerParams};
use super::platform::Platform;
use super::user::User;
use crate::tests::{key, key_of};

const DIR: &str = "/data/attempts/run/task/2";

fn spec(platform: Value) -> AttemptSpec {
    let Value::Object(platform) = platform else {
        panic!("no object")
    };
    AttemptSpec {
        name: "train".to_owned(),
        image: "python:3.11".to_owned(),
        argv: vec!["true".to_owned()],
        env: vec![("A".to_owned(), "$(KFP_RETRY_INDEX)".to_owned())],
        local_inputs: vec![
            "/elsewhere/data.csv".into(),
            "/data/artifacts/p/prepare/1/rows".into(),
        ],
        kfp: Some(Kfp {
            outputs: OutputSpec {
                artifacts: vec![OutputArtifact {
                    name: "model".to_owned(),
                    list: false,
                    uri: "/data/artifacts/p/train/1/model".to_owned(),
                    path: "/data/artifacts/p/train/1/model".into(),
                }],
                ..OutputSpec::new(format!("{DIR}/outputs").as_ref())
            },
            platform,
            arguments: serde_json::Map::new(),
        }),
        ..AttemptSpec::new(key("train", 2), format!("{DIR}/work").into())
    }
}

fn api_body(spec: &AttemptSpec, user: User, engine: &Engine) -> Result<Value, String> {
    let config = DockerConfig {
        data_dir: "/data".into(),
        artifacts: Some("/data/artifacts".into()),
        images: BTreeMap::from([("python:3.11".to_owned(), "mirror/python:3.11".to_owned())]),
        ..DockerConfig::default()
    };
    let platform = Platform::of(spec)?;
    let body = objects::container(&ContainerParams {
        spec,
        platform: &platform,
        config: &config,
        engine,
        user,
        launcher: Path::new("/usr/bin/ferroflow-launcher"),
        dir: Path::new(DIR),
        workspace: Path::new("/data/workspaces/run"),
    })?;
    Ok(serde_json::to_value(body).unwrap())
}

fn engine() -> Engine {
    Engine {
        rootless: false,
        selinux: false,
        cores: 4,
    }
}

const NON_ROOT: User = User {
    uid: 1000,
    gid: 1000,
};

#[test]
fn a_plain_task_is_a_plain_container() {
    insta::assert_yaml_snapshot!(api_body(&spec(json!({})), NON_ROOT, &engine()).unwrap());
}

#[test]
fn all_that_a_task_asks_for_is_in_its_container() {
    let mut spec = spec(json!({
        "enabledSharedMemory": {"volumeName": "shm", "size": "64Mi"},
        "fieldPathAsEnv": [{"name": "POD", "fieldPath": "metadata.name"}],
    }));
    let model = &mut spec.kfp.as_mut().unwrap().outputs.artifacts[0];
    model.uri = "s3://bucket/train/model".to_owned();
    model.path = "/s3/bucket/train/model".into();
    spec.inputs = vec![InputArtifact {
        uri: "minio://bucket/rows".to_owned(),
        path: "/minio/bucket/rows".into(),
        digest: None,
        stamp: None,
    }];
    spec.resources = serde_json::from_value(json!({
        "requests": {"cpu": "500m", "memory": "64Mi"},
        "limits": {"cpu": "16", "memory": "1Gi", "nvidia.com/gpu": "2"},
    }))
    .unwrap();
    spec.workspace = Some(Workspace {
        size: "1Gi".to_owned(),
        access_modes: Vec::new(),
        storage_class: None,
    });
    let engine = Engine {
        selinux: true,
        ..engine()
    };

    insta::assert_yaml_snapshot!(api_body(&spec, User { uid: 0, gid: 0 }, &engine).unwrap());
}

#[test]
fn containers_of_two_domains_with_the_same_ids_do_not_meet() {
    let task = spec(json!({}));
    let mut trial = task.clone();
    trial.key = key_of("tuning", "train", 2);
    trial.kfp = None;
    trial.labels = BTreeMap::from([("team".to_owned(), "vision".to_owned())]);

    let bodies = [&task, &trial].map(|spec| api_body(spec, NON_ROOT, &engine()).unwrap());

    assert_ne!(
        objects::container_name(&task.key),
        objects::container_name(&trial.key)
    );
    let labels = bodies.each_ref().map(|body| body["Labels"].clone());
    assert_eq!(labels[1]["ai.ferroflow.domain"], "tuning");
    assert_eq!(labels[1]["ai.ferroflow.name"], "train");
    assert_eq!(labels[1]["ai.ferroflow.run"], Value::Null);
    assert_eq!(labels[1]["team"], "vision");
    assert_eq!(labels[0]["ai.ferroflow.owner"], Value::Null);
    let env = bodies.each_ref().map(|body| body["Env"].to_string());
    assert!(
        env[0].contains("KFP_POD_NAME=") && !env[1].contains("KFP_POD_NAME="),
        "{env:?}"
    );
}

#[test]
fn large_values_are_not_in_its_environment() {
    let mut spec = spec(json!({}));
    spec.env.push(("LARGE".to_owned(), "x".repeat(100_000)));

    let body = api_body(&spec, NON_ROOT, &engine()).unwrap();

    assert!(!body.to_string().contains("LARGE"), "{body}");
    spec.env.push(("TOO_LARGE".to_owned(), "x".repeat(200_000)));
    let problem = api_body(&spec, NON_ROOT, &engine()).unwrap_err();
    assert!(problem.contains("TOO_LARGE"), "{problem}");
}

#[test]
fn what_a_container_cannot_have_is_refused_by_its_field() {
    let mut accelerator = spec(json!({}));
    let limits = &mut accelerator.resources.limits;
    limits.insert("amd.com/gpu".to_owned(), "1".to_owned());
    let field = spec(json!({"fieldPathAsEnv": [{"name": "N", "fieldPath": "spec.nodeName"}]}));

    for (spec, named) in [
        (accelerator, "resources.limits.amd.com/gpu"),
        (field, "spec.nodeName"),
    ] {
        let refused = api_body(&spec, NON_ROOT, &engine()).unwrap_err();
        assert!(refused.contains(named), "{refused}");
    }
}
