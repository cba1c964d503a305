//! The parts of `dsl.TaskConfig` as Kubernetes writes them.

use serde_json::{Map, Value, json};

use super::TaskConfigSources;
use crate::plan::ResourceSpec;

pub(super) fn list_or_null(items: Vec<Value>) -> Value {
    if items.is_empty() {
        Value::Null
    } else {
        Value::Array(items)
    }
}

/// The uses of a feature.
fn uses<'p>(platform: &'p Map<String, Value>, feature: &str) -> impl Iterator<Item = &'p Value> {
    let uses = platform.get(feature).and_then(Value::as_array);
    uses.into_iter().flatten()
}

/// The name that a use has: its parameter's value, else what is written. `None` when the parameter
/// is null.
fn item_name(item: &Value, parameter: &str, name_field: &str) -> Option<String> {
    match item.get(parameter) {
        Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name.clone()),
        Some(other) => Some(other.to_string()),
        None => item
            .get(name_field)
            .and_then(Value::as_str)
            .map(str::to_owned),
    }
    .filter(|name| !name.is_empty())
}

/// An object of those members that have a value.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let members = members.into_iter();
    let given = members.filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(given.filter(|(_, value)| !value.is_null()).collect())
}

/// A member that is there and not empty.
fn non_empty(item: &Value, member: &str) -> Option<Value> {
    let value = item.get(member)?;
    let empty = match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    (!empty).then(|| value.clone())
}

pub(super) fn resources(spec: &ResourceSpec) -> Value {
    let amounts = |cpu: &Option<String>, memory: &Option<String>| {
        let entries = [("cpu", cpu), ("memory", memory)].into_iter();
        let entries =
            entries.filter_map(|(name, amount)| Some((name.to_owned(), json!(amount.as_ref()?))));
        entries.collect::<Map<_, _>>()
    };
    let mut limits = amounts(&spec.cpu_limit, &spec.memory_limit);
    if let Some((kind, count)) = &spec.accelerator {
        limits.insert(kind.clone(), json!(count));
    }
    let given = json!({
        "limits": limits,
        "requests": amounts(&spec.cpu_request, &spec.memory_request),
    });
    object([
        ("limits", non_empty(&given, "limits")),
        ("requests", non_empty(&given, "requests")),
    ])
}

pub(super) fn env(sources: &TaskConfigSources<'_>) -> Value {
    let declared = sources.env.iter();
    let mut all: Vec<Value> = declared
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    let platform = sources.platform;
    for (feature, parameter, name_field, source, key) in [
        (
            "secretAsEnv",
            "secretNameParameter",
            "secretName",
            "secretKeyRef",
            "secretKey",
        ),
        (
            "configMapAsEnv",
            "configMapNameParameter",
            "configMapName",
            "configMapKeyRef",
            "configMapKey",
        ),
    ] {
        for item in uses(platform, feature) {
            let Some(name) = item_name(item, parameter, name_field) else {
                continue;
            };
            for one in item
                .get("keyToEnv")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let reference = object([
                    ("name", Some(json!(name))),
                    ("key", one.get(key).cloned()),
                    ("optional", item.get("optional").cloned()),
                ]);
                all.push(json!({"name": one["envVar"], "valueFrom": {source: reference}}));
            }
        }
    }
    for field in uses(platform, "fieldPathAsEnv") {
        let reference = json!({"fieldRef": {"fieldPath": field["fieldPath"]}});
        all.push(json!({"name": field["name"], "valueFrom": reference}));
    }
    Value::Array(all)
}

pub(super) fn node_selector(platform: &Map<String, Value>) -> Value {
    let selector = platform.get("nodeSelector").cloned().unwrap_or_default();
    // JSON wins over single labels, as upstream.
    match selector.get("nodeSelectorJson") {
        Some(json) => json.clone(),
        None => non_empty(&selector, "labels").unwrap_or_default(),
    }
}

pub(super) fn tolerations(platform: &Map<String, Value>) -> Value {
    let mut all = Vec::new();
    for item in uses(platform, "tolerations") {
        match item.get("tolerationJson") {
            Some(Value::Array(several)) => all.extend(several.iter().cloned()),
            Some(Value::Object(one)) if !one.is_empty() => all.push(Value::Object(one.clone())),
            // Empty JSON asks for nothing.
            Some(_) => {}
            None => all.push(object([
                ("key", non_empty(item, "key")),
                ("operator", non_empty(item, "operator")),
                ("value", non_empty(item, "value")),
                ("effect", non_empty(item, "effect")),
                (
                    "tolerationSeconds",
                    non_empty(item, "tolerationSeconds").map(to_integer),
                ),
            ])),
        }
    }
    list_or_null(all)
}

/// Protobuf writes 64-bit numbers as texts.
fn to_integer(value: Value) -> Value {
    match value.as_str().and_then(|text| text.parse::<i64>().ok()) {
        Some(number) => number.into(),
        None => value,
    }
}

pub(super) fn affinity(platform: &Map<String, Value>) -> Value {
    let mut node = Terms::default();
    for item in uses(platform, "nodeAffinity") {
        if let Some(given) = item.get("nodeAffinityJson") {
            // Kubernetes takes terms for alternatives, so those of several uses go into one list.
            let terms = given.pointer(&format!("/{REQUIRED}/nodeSelectorTerms"));
            let terms = terms.and_then(Value::as_array);
            node.required.extend(terms.into_iter().flatten().cloned());
            let weighted = given.get(PREFERRED).and_then(Value::as_array);
            node.preferred
                .extend(weighted.into_iter().flatten().cloned());
        } else {
            let term = object([
                ("matchExpressions", non_empty(item, "matchExpressions")),
                ("matchFields", non_empty(item, "matchFields")),
            ]);
            node.add(item, term, "preference");
        }
    }
    let (mut affinity, mut anti_affinity) = (Terms::default(), Terms::default());
    for item in uses(platform, "podAffinity") {
        let anti = item.get("anti").and_then(Value::as_bool).unwrap_or(false);
        let terms = if anti {
            &mut anti_affinity
        } else {
            &mut affinity
        };
        terms.add(item, pod_term(item), "podAffinityTerm");
    }
    let required = list_or_null(std::mem::take(&mut node.required));
    let node = object([
        (
            REQUIRED,
            (!required.is_null()).then(|| json!({"nodeSelectorTerms": required})),
        ),
        (PREFERRED, Some(list_or_null(node.preferred))),
    ]);
    let all = json!({"nodeAffinity": node, "podAffinity": affinity.list(), "podAntiAffinity": anti_affinity.list()});
    let all = object([
        ("nodeAffinity", non_empty(&all, "nodeAffinity")),
        ("podAffinity", non_empty(&all, "podAffinity")),
        ("podAntiAffinity", non_empty(&all, "podAntiAffinity")),
    ]);
    if all == json!({}) { Value::Null } else { all }
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Required terms, and preferred ones with their weight.
#[derive(Default)]
struct Terms {
    required: Vec<Value>,
    preferred: Vec<Value>,
}

impl Terms {
    fn add(&mut self, item: &Value, term: Value, name: &str) {
        match item.get("weight").filter(|weight| !weight.is_null()) {
            Some(weight) => self.preferred.push(json!({"weight": weight, name: term})),
            None => self.required.push(term),
        }
    }

    fn list(self) -> Value {
        object([
            (REQUIRED, Some(list_or_null(self.required))),
            (PREFERRED, Some(list_or_null(self.preferred))),
        ])
    }
}

fn pod_term(item: &Value) -> Value {
    let selector = |expressions: &str, labels: &str| {
        object([
            ("matchExpressions", non_empty(item, expressions)),
            ("matchLabels", non_empty(item, labels)),
        ])
    };
    let namespaces = selector("matchNamespaceExpressions", "matchNamespaceLabels");
    object([
        (
            "labelSelector",
            Some(selector("matchPodExpressions", "matchPodLabels")),
        ),
        // An empty selector would mean every namespace.
        (
            "namespaceSelector",
            (namespaces != json!({})).then_some(namespaces),
        ),
        ("namespaces", non_empty(item, "namespaces")),
        ("topologyKey", non_empty(item, "topologyKey")),
    ])
}

/// Volumes and where they are mounted.
pub(super) fn volumes(sources: &TaskConfigSources<'_>) -> (Vec<Value>, Vec<Value>) {
    let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
    let mut add = |name: String, source: (&str, Value), path: Value, sub_path: Option<Value>| {
        let volume = json!({"name": name, source.0: source.1});
        // Two mounts of one claim share its volume: names of volumes are unique in a pod.
        if !volumes.contains(&volume) {
            volumes.push(volume);
        }
        mounts.push(object([
            ("name", Some(json!(name))),
            ("mountPath", Some(path)),
            ("subPath", sub_path),
        ]));
    };
    if let Some((claim, folder)) = &sources.workspace {
        let source = json!({"claimName": claim});
        let name = "kfp-workspace".to_owned();
        add(name, ("persistentVolumeClaim", source), json!(folder), None);
    }
    for item in uses(sources.platform, "pvcMount") {
        if let Some(claim) = item_name(item, "pvcNameParameter", "constant") {
            let source = ("persistentVolumeClaim", json!({"claimName": claim}));
            add(
                volume_name(&claim),
                source,
                item["mountPath"].clone(),
                non_empty(item, "subPath"),
            );
        }
    }
    for (feature, parameter, name_field, source, name_of) in [
        (
            "secretAsVolume",
            "secretNameParameter",
            "secretName",
            "secret",
            "secretName",
        ),
        (
            "configMapAsVolume",
            "configMapNameParameter",
            "configMapName",
            "configMap",
            "name",
        ),
    ] {
        for item in uses(sources.platform, feature) {
            if let Some(name) = item_name(item, parameter, name_field) {
                let content = object([
                    (name_of, Some(json!(name))),
                    ("optional", item.get("optional").cloned()),
                ]);
                add(
                    volume_name(&name),
                    (source, content),
                    item["mountPath"].clone(),
                    None,
                );
            }
        }
    }
    (volumes, mounts)
}

/// An object's name as a volume's, which must be a label of 63 characters at most (RFC 1123).
fn volume_name(object: &str) -> String {
    let name: String = object.replace('.', "-").chars().take(63).collect();
    name.trim_end_matches('-').to_owned()
}
