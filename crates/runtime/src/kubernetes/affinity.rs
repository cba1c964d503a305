//! Affinity terms of a task as Kubernetes writes them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinity,
    PodAffinityTerm, PodAntiAffinity, PreferredSchedulingTerm, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde_json::Value;

use super::platform::{self, Platform};

/// The pod's affinity; `None` when the task asks for none.
pub(super) fn of(platform: &Platform) -> Result<Option<Affinity>, String> {
    let affinity = Affinity {
        node_affinity: node(platform)?,
        pod_affinity: pods(platform),
        pod_anti_affinity: anti(platform),
    };
    Ok((affinity != Affinity::default()).then_some(affinity))
}

fn node(platform: &Platform) -> Result<Option<NodeAffinity>, String> {
    let (mut required, mut preferred) = (Vec::new(), Vec::new());
    for term in &platform.node_affinity {
        match &term.node_affinity_json {
            // A parameter without a value leaves out what it is for, as upstream does.
            Some(Value::Null) => {}
            Some(given) => {
                let given: NodeAffinity = serde_json::from_value(given.clone())
                    .map_err(|error| format!("nodeAffinityJson: {error}"))?;
                let terms = given.required_during_scheduling_ignored_during_execution;
                required.extend(terms.into_iter().flat_map(|all| all.node_selector_terms));
                let terms = given.preferred_during_scheduling_ignored_during_execution;
                preferred.extend(terms.into_iter().flatten());
            }
            None => {
                let preference = NodeSelectorTerm {
                    match_expressions: requirements(&term.match_expressions),
                    match_fields: requirements(&term.match_fields),
                };
                // An empty term matches no node, which nobody means.
                if preference == NodeSelectorTerm::default() {
                    continue;
                }
                match term.weight {
                    Some(weight) => preferred.push(PreferredSchedulingTerm { preference, weight }),
                    None => required.push(preference),
                }
            }
        }
    }
    let affinity = NodeAffinity {
        required_during_scheduling_ignored_during_execution: (!required.is_empty()).then_some(
            NodeSelector {
                node_selector_terms: required,
            },
        ),
        preferred_during_scheduling_ignored_during_execution: Some(preferred)
            .filter(|terms| !terms.is_empty()),
    };
    Ok((affinity != NodeAffinity::default()).then_some(affinity))
}

fn requirements(from: &[platform::Expression]) -> Option<Vec<NodeSelectorRequirement>> {
    let list = from.iter().map(|expression| NodeSelectorRequirement {
        key: expression.key.clone(),
        operator: expression.operator.clone(),
        values: (!expression.values.is_empty()).then(|| expression.values.clone()),
    });
    Some(list.collect::<Vec<_>>()).filter(|list| !list.is_empty())
}

fn selector(
    expressions: &[platform::Expression],
    labels: &BTreeMap<String, String>,
) -> LabelSelector {
    let expressions = expressions
        .iter()
        .map(|expression| LabelSelectorRequirement {
            key: expression.key.clone(),
            operator: expression.operator.clone(),
            values: (!expression.values.is_empty()).then(|| expression.values.clone()),
        });
    LabelSelector {
        match_expressions: Some(expressions.collect()),
        match_labels: Some(labels.clone()),
    }
}

fn term(from: &platform::PodAffinity) -> PodAffinityTerm {
    let (expressions, labels) = (
        &from.match_namespace_expressions,
        &from.match_namespace_labels,
    );
    // An empty selector would mean every namespace.
    let by_namespace = !expressions.is_empty() || !labels.is_empty();
    PodAffinityTerm {
        label_selector: Some(selector(
            &from.match_pod_expressions,
            &from.match_pod_labels,
        )),
        namespace_selector: by_namespace.then(|| selector(expressions, labels)),
        namespaces: (!from.namespaces.is_empty()).then(|| from.namespaces.clone()),
        topology_key: from.topology_key.clone(),
        ..PodAffinityTerm::default()
    }
}

/// Required and preferred terms.
type Terms = (
    Option<Vec<PodAffinityTerm>>,
    Option<Vec<WeightedPodAffinityTerm>>,
);

fn terms(platform: &Platform, anti: bool) -> Terms {
    let (mut required, mut preferred) = (Vec::new(), Vec::new());
    let wanted = platform.pod_affinity.iter();
    for asked in wanted.filter(|asked| asked.anti.unwrap_or(false) == anti) {
        match asked.weight {
            Some(weight) => preferred.push(WeightedPodAffinityTerm {
                pod_affinity_term: term(asked),
                weight,
            }),
            None => required.push(term(asked)),
        }
    }
    (
        Some(required).filter(|list| !list.is_empty()),
        Some(preferred).filter(|list| !list.is_empty()),
    )
}

fn pods(platform: &Platform) -> Option<PodAffinity> {
    let (required, preferred) = terms(platform, false);
    (required.is_some() || preferred.is_some()).then_some(PodAffinity {
        required_during_scheduling_ignored_during_execution: required,
        preferred_during_scheduling_ignored_during_execution: preferred,
    })
}

fn anti(platform: &Platform) -> Option<PodAntiAffinity> {
    let (required, preferred) = terms(platform, true);
    (required.is_some() || preferred.is_some()).then_some(PodAntiAffinity {
        required_during_scheduling_ignored_during_execution: required,
        preferred_during_scheduling_ignored_during_execution: preferred,
    })
}
