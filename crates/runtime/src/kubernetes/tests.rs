//! Pods as they are built: what they look like, and that a real API server takes them.

use std::collections::BTreeMap;

use ferroflow_launcher::kfp::{Kfp, OutputSpec};
use ferroflow_launcher::runtime_endpoint::RuntimeEndpoint;
use ferroflow_launcher::{InputArtifact, Limits, Resources, Workspace};
use serde_json::{Map, Value, json};

use super::*;
use crate::tests::{key, key_of};

fn config() -> KubernetesConfig {
    KubernetesConfig {
        namespace: "default".to_owned(),
        launcher_image: "registry/ferroflow:1".to_owned(),
        store_secret: Some("store".to_owned()),
        root: "s3://bucket/root".to_owned(),
        endpoint: Some("http://minio:9000".to_owned()),
        ..KubernetesConfig::default()
    }
}

fn spec(platform: Value) -> AttemptSpec {
    let Value::Object(platform) = platform else {
        panic!("settings are an object");
    };
    AttemptSpec {
        name: "train".to_owned(),
        image: "python:3.11".to_owned(),
        argv: vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()],
        env: vec![("A".to_owned(), "1".to_owned())],
        limits: Limits {
            timeout_ms: Some(60_000),
            ..Limits::default()
        },
        resources: Resources {
            requests: BTreeMap::from([("cpu".to_owned(), "250m".to_owned())]),
            limits: BTreeMap::from([
                ("memory".to_owned(), "1Gi".to_owned()),
                ("nvidia.com/gpu".to_owned(), "1".to_owned()),
            ]),
        },
        kfp: Some(Kfp {
            outputs: OutputSpec::new("/ferroflow/attempt/outputs".as_ref()),
            platform,
            arguments: Map::new(),
        }),
        ..AttemptSpec::new(key("train", 2), "/ferroflow/attempt".into())
    }
}

/// Every feature of `KubernetesExecutorConfig` that a pod can have.
fn everything() -> Value {
    json!({
        "secretAsVolume": [
            {"secretName": "files", "mountPath": "/files", "optional": true},
            {"secretNameParameter": null, "secretName": "dropped", "mountPath": "/dropped"},
        ],
        "secretAsEnv": [{
            "secretNameParameter": "keys", "secretName": "old-keys",
            "keyToEnv": [{"secretKey": "password", "envVar": "PASSWORD"}],
        }],
        "configMapAsVolume": [{"configMapName": "settings", "mountPath": "/settings"}],
        "configMapAsEnv": [{
            "configMapName": "settings",
            "keyToEnv": [{"configMapKey": "mode", "envVar": "MODE"}],
        }],
        "pvcMount": [{"pvcNameParameter": "data", "mountPath": "/data", "subPath": "part"}],
        "nodeSelector": {"labels": {"disk": "ssd"}},
        "tolerations": [
            {"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": "60"},
            {"tolerationJson": [{"key": "spot", "operator": "Exists"}]},
        ],
        "nodeAffinity": [{"weight": 5, "matchExpressions": [
            {"key": "zone", "operator": "In", "values": ["a", "b"]}
        ]}],
        "podAffinity": [
            {"matchPodLabels": {"app": "cache"}, "topologyKey": "kubernetes.io/hostname",
                "matchNamespaceLabels": {"team": "vision"}},
            {"matchPodLabels": {"app": "noisy"}, "topologyKey": "zone", "anti": true, "weight": 1},
        ],
        "podMetadata": {"labels": {"team": "vision"}, "annotations": {"note": "hello"}},
        "imagePullSecret": [{"secretName": "registry"}],
        "imagePullPolicy": "Always",
        "genericEphemeralVolume": [{
            "volumeName": "scratch", "mountPath": "/scratch", "accessModes": ["ReadWriteOnce"],
            "size": "1Gi", "defaultStorageClass": true,
        }],
        "emptyDirMounts": [{"volumeName": "tmp", "mountPath": "/fast", "medium": "Memory",
            "sizeLimit": "64Mi"}],
        "fieldPathAsEnv": [{"name": "NODE", "fieldPath": "spec.nodeName"}],
        "activeDeadlineSeconds": "60",
        "securityContext": {"runAsUser": "1000", "runAsGroup": "1000", "runAsNonRoot": true},
        "enabledSharedMemory": {"volumeName": "shm", "size": "64Mi"},
        "initContainers": [
            {
                "name": "prepare", "image": "busybox:1", "command": ["sh", "-c"],
                "args": ["echo ready > /fast/ready"], "env": [{"name": "A", "value": "1"}],
                "volumeMounts": [{"volumeName": "tmp", "mountPath": "/fast"}],
                "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "32Mi"}},
            },
            {"name": "beside", "image": "busybox:1", "args": ["sleep", "9"],
                "restartPolicy": "Always"},
        ],
    })
}

#[test]
fn a_plain_task_is_a_plain_pod() {
    insta::assert_json_snapshot!(objects::pod(&spec(json!({})), &config(), None).unwrap());
}

#[test]
fn all_that_a_task_asks_for_is_in_its_pod() {
    insta::assert_json_snapshot!(objects::pod(&spec(everything()), &config(), None).unwrap());
}

#[test]
fn pods_of_two_domains_with_the_same_ids_do_not_meet() {
    let task = spec(json!({}));
    let mut trial = task.clone();
    trial.key = key_of("tuning", "train", 2);
    // Another tenant; the cluster's namespace is the same for all.
    trial.key.owner.namespace = "team-a".parse().unwrap();
    trial.kfp = None;
    trial.labels = BTreeMap::from([("team".to_owned(), "vision".to_owned())]);
    trial.workspace = Some(Workspace {
        size: "1Gi".to_owned(),
        access_modes: Vec::new(),
        storage_class: None,
    });

    let pods = [&task, &trial].map(|spec| objects::pod(spec, &config(), None).unwrap());

    let [of_task, of_trial] = pods.each_ref().map(|pod| pod.metadata.clone());
    assert_ne!(of_task.name, of_trial.name);
    assert_eq!(of_task.namespace, of_trial.namespace);
    let labels = of_trial.labels.unwrap();
    assert_eq!(labels["attempts.ferroflow.ai/domain"], "tuning");
    assert_eq!(labels["team"], "vision");
    assert!(!labels.contains_key("pipeline/runid"));
    assert_eq!(objects::attempt_of(&pods[0]), Some(task.key.clone()));
    assert_eq!(objects::attempt_of(&pods[1]), Some(trial.key.clone()));
    let claims = [&task, &trial].map(|spec| objects::workspace_claim(&spec.key.owner));
    assert_ne!(claims[0], claims[1]);
    let pod = serde_json::to_string(&pods[1]).unwrap();
    assert!(pod.contains(&claims[1]), "{pod}");
    assert!(!pod.contains("KFP_"), "{pod}");
}

fn runtime_endpoint() -> RuntimeEndpoint {
    RuntimeEndpoint {
        url: "http://10.0.0.7:9001".to_owned(),
        pod: "ff-warm-1".to_owned(),
        token: "secret".to_owned(),
    }
}

fn warm_pod() -> Pod {
    let class = PodClass::of(&spec(json!({}))).unwrap();
    objects::warm_pod("ff-warm-1", &class, &config(), runtime_endpoint())
}

#[test]
fn a_warm_pod_is_a_plain_pod_without_an_attempt() {
    insta::assert_json_snapshot!(warm_pod());
}

fn with_image_volumes() -> KubernetesConfig {
    KubernetesConfig {
        image_volume: true,
        ..config()
    }
}

#[test]
fn the_launcher_may_come_by_a_volume_of_its_image() {
    let pod = objects::pod(&spec(json!({})), &with_image_volumes(), None).unwrap();

    insta::assert_json_snapshot!(pod.spec);
}

#[test]
fn only_steps_that_need_nothing_of_their_own_go_to_warm_pods() {
    let mut workspace = spec(json!({}));
    workspace.argv.push("/kfp-workspace/x".to_owned());
    let mut expands = spec(json!({}));
    expands
        .env
        .push(("URL".to_owned(), "http://$(HOST)".to_owned()));

    assert!(PodClass::of(&spec(json!({}))).is_some());
    for special in [spec(everything()), workspace, expands] {
        assert!(PodClass::of(&special).is_none());
    }
}

#[test]
fn a_task_that_uses_the_workspace_mounts_it() {
    let mut spec = spec(json!({}));
    spec.argv = vec!["cat".to_owned(), "/kfp-workspace/x".to_owned()];
    spec.workspace = Some(Workspace {
        size: "1Gi".to_owned(),
        access_modes: Vec::new(),
        storage_class: None,
    });

    let pod = objects::pod(&spec, &config(), None).unwrap().spec.unwrap();

    let mounts = pod.containers[0].volume_mounts.as_ref().unwrap();
    assert!(
        mounts
            .iter()
            .any(|mount| mount.mount_path == "/kfp-workspace")
    );
}

#[test]
fn a_secret_and_a_claim_of_one_name_are_two_volumes() {
    let asked = json!({
        "secretAsVolume": [{"secretName": "data", "mountPath": "/secret"}],
        "pvcMount": [
            {"constant": "data", "mountPath": "/claim"},
            {"constant": "data", "mountPath": "/again"},
        ],
    });

    let pod = objects::pod(&spec(asked), &config(), None).unwrap();

    let pod = pod.spec.unwrap();
    let mounts = pod.containers[0].volume_mounts.as_ref().unwrap();
    let volume_at = |path: &str| {
        let mount = mounts.iter().find(|mount| mount.mount_path == path);
        let name = &mount.unwrap().name;
        let volumes = pod.volumes.as_ref().unwrap();
        volumes.iter().find(|volume| volume.name == *name).unwrap()
    };
    assert!(volume_at("/secret").secret.is_some());
    assert!(volume_at("/claim").persistent_volume_claim.is_some());
    assert_eq!(volume_at("/claim"), volume_at("/again"));
}

fn input(uri: &str, path: &str) -> InputArtifact {
    InputArtifact {
        uri: uri.to_owned(),
        path: path.into(),
        digest: None,
        stamp: None,
    }
}

/// A task with an input in an image, asked for twice.
fn with_model() -> AttemptSpec {
    let model = input("oci://registry/llama:1", "/oci/registry_llama:1/models");
    let mut spec = spec(json!({}));
    spec.inputs = vec![model.clone(), model, input("s3://b/x", "/s3/b/x")];
    spec
}

#[test]
fn a_model_in_an_image_is_copied_or_mounted() {
    let copied = objects::pod(&with_model(), &config(), None).unwrap();
    let mounted = objects::pod(&with_model(), &with_image_volumes(), None).unwrap();

    insta::assert_json_snapshot!([copied, mounted].map(|pod| {
        let spec = pod.spec.unwrap();
        let mounts = spec.containers[0].volume_mounts.clone();
        json!({"initContainers": spec.init_containers, "volumes": spec.volumes, "mounts": mounts})
    }));
    assert!(PodClass::of(&with_model()).is_none());
    let mut both = with_model();
    let clash = input("oci://registry_llama:1", "/oci/registry_llama:1/models");
    both.inputs.push(clash);
    let error = objects::pod(&both, &config(), None).unwrap_err();
    assert!(error.contains("have one path"), "{error}");
}

/// An attempt that brings `uri` to the workspace.
fn fetching(uri: &str) -> AttemptSpec {
    let mut spec = spec(json!({}));
    spec.fetch_into = Some("/kfp-workspace".into());
    spec.argv.clear();
    spec.inputs = vec![input(uri, "/kfp-workspace/.artifacts/x")];
    spec
}

#[test]
fn content_for_the_workspace_is_brought_by_the_launcher_alone() {
    let spec = fetching("s3://bucket/x");

    let pod = objects::pod(&spec, &config(), None).unwrap().spec.unwrap();

    let main = &pod.containers[0];
    assert_eq!(main.image.as_deref(), Some("registry/ferroflow:1"));
    let mut mounts = main.volume_mounts.iter().flatten();
    assert!(mounts.any(|mount| mount.mount_path == "/kfp-workspace"));
    let user = main.security_context.as_ref().unwrap().run_as_user;
    let group = pod.security_context.as_ref().unwrap().fs_group;
    assert_eq!((user, group), (Some(0), Some(65532)));
    assert!(PodClass::of(&spec).is_none());
    let error = objects::pod(&fetching("file:///data/x"), &config(), None).unwrap_err();
    assert!(error.contains("use an s3:// URI"), "{error}");
}

#[test]
fn what_is_not_given_is_left_to_the_cluster() {
    let former = json!({
        "launcher_image": "l:1", "service_account": "", "store_secret": "", "workspace_user": -1,
        "workspace_group": -1, "image_pull_policy": "", "schedule_patience_s": 0,
        "report_listen": "", "report_url": "",
    });
    let config: KubernetesConfig = serde_json::from_value(former).unwrap();
    let fetching = fetching("s3://bucket/x");

    let pod = objects::pod(&fetching, &config, None).unwrap();
    let pod = pod.spec.unwrap();

    assert_eq!(config.schedule_patience_s, None);
    assert!(config.report_listen.is_none() && config.report_url.is_none());
    assert!(pod.containers[0].security_context.is_none());
    assert!(pod.security_context.is_none());
    assert!(pod.service_account_name.is_none());
    assert_eq!(pod.automount_service_account_token, Some(false));
    let env = serde_json::to_string(&pod.containers[0].env).unwrap();
    assert!(!env.contains("secretKeyRef"), "{env}");

    let given = KubernetesConfig {
        service_account: Some("steps".to_owned()),
        image_pull_policy: Some("Never".to_owned()),
        ..config
    };
    let pod = objects::pod(&spec(json!({})), &given, None).unwrap();
    let pod = pod.spec.unwrap();
    assert_eq!(pod.service_account_name.as_deref(), Some("steps"));
    assert_eq!(pod.automount_service_account_token, Some(true));
    assert_eq!(
        pod.containers[0].image_pull_policy.as_deref(),
        Some("Never")
    );
}

#[test]
fn large_values_are_not_in_a_pods_object() {
    let mut spec = spec(json!({}));
    let text = "x".repeat(1024 * 1024);
    spec.argv.push(text.clone());
    let kfp = spec.kfp.as_mut().unwrap();
    kfp.arguments.insert("text".to_owned(), text.clone().into());
    for at in 0..20 {
        spec.env.push((format!("LARGE_{at}"), "x".repeat(100_000)));
    }
    spec.env.push(("SMALL".to_owned(), "small".to_owned()));
    spec.env
        .push(("REFERS".to_owned(), "$(SMALL)".repeat(10_000)));
    // The launcher would set it with both characters.
    spec.env.push(("ESCAPED".to_owned(), "$$5".repeat(5_500)));

    let pod = serde_json::to_string(&objects::pod(&spec, &config(), None).unwrap()).unwrap();

    assert!(pod.len() < 100_000, "{} bytes", pod.len());
    assert!(
        pod.contains("ESCAPED")
            && pod.contains("SMALL")
            && pod.contains("REFERS")
            && !pod.contains("LARGE_")
    );
    spec.env.push(("TEXT".to_owned(), text));
    let problem = objects::pod(&spec, &config(), None).unwrap_err();
    for named in [
        "environment variable TEXT",
        "input parameter text of 1048576 bytes",
    ] {
        assert!(problem.contains(named), "{problem}");
    }
}

#[test]
fn terms_that_say_nothing_are_left_out() {
    let empty = json!({
        "nodeAffinity": [{}, {"nodeAffinityJson": {}}, {"nodeAffinityJson": null}],
        "tolerations": [{}, {"tolerationJson": {}}, {"tolerationJson": null}],
    });

    let pod = objects::pod(&spec(empty), &config(), None)
        .unwrap()
        .spec
        .unwrap();

    assert_eq!((pod.affinity, pod.tolerations), (None, None));
}

#[test]
fn a_type_of_accelerator_is_a_resource_or_stands_for_one() {
    let mut spec = spec(json!({}));
    spec.resources.limits = BTreeMap::from([("NVIDIA_TESLA_P4".to_owned(), "1".to_owned())]);
    let mut config = config();

    let error = objects::pod(&spec, &config, None).unwrap_err();
    assert!(error.contains("kubernetes.accelerators"), "{error}");

    let known = ("NVIDIA_TESLA_P4".to_owned(), "nvidia.com/gpu".to_owned());
    config.accelerators = BTreeMap::from([known]);
    let pod = objects::pod(&spec, &config, None).unwrap().spec.unwrap();
    let limits = pod.containers[0]
        .resources
        .as_ref()
        .unwrap()
        .limits
        .as_ref();
    assert!(limits.unwrap().contains_key("nvidia.com/gpu"));
}

#[test]
fn what_is_not_understood_is_named() {
    let init = |container: Value| json!({"initContainers": [container]});
    for (platform, named) in [
        (json!({"newFeature": []}), "newFeature"),
        (json!({"podMetadata": {"owner": "x"}}), "owner"),
        (
            init(json!({"name": "main", "image": "a"})),
            "initContainers[0].name",
        ),
        (init(json!({"name": "a"})), "initContainers[0].image"),
        (
            init(json!({"name": "a", "image": "a", "restartPolicy": "Never"})),
            "initContainers[0].restartPolicy",
        ),
        (
            init(json!({"name": "a", "image": "a",
                "volumeMounts": [{"volumeName": "x", "mountPath": "x"}]})),
            "initContainers[0].volumeMounts",
        ),
    ] {
        let error = objects::pod(&spec(platform), &config(), None).unwrap_err();

        assert!(error.contains(named), "{error}");
    }
}

#[tokio::test]
async fn a_real_api_server_takes_every_pod() {
    if std::env::var_os("KUBECONFIG").is_none() {
        println!("skipped: KUBECONFIG is not set (cargo xtask test --cluster sets it)");
        return;
    }
    let client = Client::try_default().await.unwrap();
    let pods = Api::<Pod>::namespaced(client, "default");
    let attempts = [json!({}), everything()]
        .map(spec)
        .into_iter()
        .chain([with_model(), fetching("s3://bucket/x")])
        .map(|spec| objects::pod(&spec, &config(), Some(runtime_endpoint())).unwrap());
    let take = async |pod: Pod| {
        let name = pod.metadata.name.clone().unwrap();
        let parameters = PatchParams::apply(objects::MANAGER).force().dry_run();
        pods.patch(&name, &parameters, &Patch::Apply(&pod)).await
    };
    for pod in attempts.into_iter().chain([warm_pod()]) {
        take(pod).await.unwrap();
    }
    let mounted = objects::pod(&with_model(), &with_image_volumes(), None).unwrap();
    match take(mounted).await {
        Err(error) if error.to_string().contains("must specify a volume type") => {
            println!("not asked: this cluster has no image volumes");
        }
        taken => drop(taken.unwrap()),
    }
}
