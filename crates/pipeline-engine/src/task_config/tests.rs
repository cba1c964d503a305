use serde_json::{Map, Value, json};

use super::*;
use crate::plan::ResourceSpec;

fn platform() -> Map<String, Value> {
    let platform = json!({
        "nodeSelector": {"labels": {"disk": "ssd"}},
        "tolerations": [
            {"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": "30"},
            {"tolerationJson": [{"key": "spot"}]}
        ],
        "nodeAffinity": [{"weight": 5, "matchExpressions":
            [{"key": "zone", "operator": "In", "values": ["a"]}]}],
        "secretAsEnv": [{"secretNameParameter": "keys",
            "keyToEnv": [{"secretKey": "token", "envVar": "TOKEN"}]}],
        "fieldPathAsEnv": [{"name": "POD", "fieldPath": "metadata.name"}],
        "pvcMount": [{"pvcNameParameter": "data.claim", "mountPath": "/data", "subPath": "x"}],
        "secretAsVolume": [{"secretNameParameter": null, "mountPath": "/none"}],
        "imagePullPolicy": "Always"
    });
    match platform {
        Value::Object(platform) => platform,
        other => panic!("{other}"),
    }
}

fn of(fields: &[(ConfigField, bool)]) -> (Value, Passthroughs) {
    let passthroughs = Passthroughs(fields.iter().copied().collect());
    let resources = ResourceSpec {
        cpu_limit: Some("2".to_owned()),
        memory_request: Some("20Gi".to_owned()),
        accelerator: Some(("nvidia.com/gpu".to_owned(), "1".to_owned())),
        ..ResourceSpec::default()
    };
    let sources = TaskConfigSources {
        env: &[("A".to_owned(), "1".to_owned())],
        resources: &resources,
        platform: &platform(),
        workspace: Some(("claim".to_owned(), "/kfp-workspace".to_owned())),
    };
    (value(&passthroughs, &sources), passthroughs)
}

#[test]
fn listed_parts_are_in_the_value_as_kubernetes_writes_them() {
    use ConfigField::{Affinity, Env, NodeSelector, Resources, Tolerations, Volumes};
    let all =
        [Affinity, Env, NodeSelector, Resources, Tolerations, Volumes].map(|field| (field, false));

    let (value, _) = of(&all);

    assert_eq!(
        value,
        json!({
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 5, "preference": {"matchExpressions":
                    [{"key": "zone", "operator": "In", "values": ["a"]}]}}]}},
            "tolerations": [
                {"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30},
                {"key": "spot"}
            ],
            "nodeSelector": {"disk": "ssd"},
            "env": [
                {"name": "A", "value": "1"},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
            ],
            "volumes": [
                {"name": "kfp-workspace", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "data-claim", "persistentVolumeClaim": {"claimName": "data.claim"}}
            ],
            "volumeMounts": [
                {"name": "kfp-workspace", "mountPath": "/kfp-workspace"},
                {"name": "data-claim", "mountPath": "/data", "subPath": "x"}
            ],
            "resources": {"limits": {"cpu": "2", "nvidia.com/gpu": "1"},
                "requests": {"memory": "20Gi"}}
        })
    );
}

#[test]
fn nothing_listed_leaves_everything_to_the_pod() {
    let (value, passthroughs) = of(&[]);

    assert_eq!(
        value,
        json!({"affinity": null, "tolerations": null, "nodeSelector": null, "env": null,
            "volumes": null, "volumeMounts": null, "resources": {}})
    );
    assert_eq!(passthroughs.applied(platform()), platform());
}

#[test]
fn what_is_listed_goes_to_the_pod_only_where_it_is_applied() {
    let (value, passthroughs) = of(&[(ConfigField::Env, true), (ConfigField::Volumes, false)]);

    assert!(value["env"].is_array() && value["tolerations"].is_null());
    let applied = passthroughs.applied(platform());
    assert!(applied.contains_key("secretAsEnv") && applied.contains_key("tolerations"));
    assert!(!applied.contains_key("pvcMount") && !applied.contains_key("secretAsVolume"));
    assert!(!passthroughs.on_task(ConfigField::Volumes));
    assert!(passthroughs.on_task(ConfigField::Resources));
}
