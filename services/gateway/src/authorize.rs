//! What may be called, deny by default: an RPC whose contract states no rule cannot be called.
//!
//! A rule is the method option `ferroflow.access.v1.rule` and says which verb on which resource a
//! call is. In a single-user installation the one user may do everything that has a rule.

use std::collections::{BTreeSet, HashMap};

use ferroflow_proto::access::v1 as pb;
use ferroflow_types::{Access, Caller, Principal};
use prost_reflect::{DescriptorPool, ExtensionDescriptor, MethodDescriptor, Value};

const RULE_OPTION: &str = "ferroflow.access.v1.rule";

/// What calling an RPC means.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// `get`, `list`, `create`, `update`, `delete`, …
    verb: String,
    /// `pipelines`, `runs`, …
    resource: String,
    /// Whether callers without a key may call it as well.
    anonymous: bool,
}

impl Rule {
    /// Whether a call changes nothing, so that it may be made twice.
    fn is_read_only(&self) -> bool {
        // A verb that is not listed counts as one that changes something.
        matches!(
            self.verb.as_str(),
            "get" | "list" | "logs" | "readArtifact" | "reflect" | "watch"
        )
    }
}

/// The rules of all contracts.
pub(crate) struct Rules {
    /// By the full name of the RPC, `package.Service.Rpc`.
    by_rpc: HashMap<String, (MethodDescriptor, Rule)>,
}

/// A call that its caller may make; nothing else is sent to a service.
#[derive(Debug, Clone)]
pub(crate) struct AuthorizedCall {
    /// Who calls.
    pub(crate) caller: Caller,
    /// The RPC.
    pub(crate) method: MethodDescriptor,
    /// Making the call twice is as good as making it once.
    pub(crate) idempotent: bool,
}

/// Why a call is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// There is no such RPC, or it states no rule.
    NoRule,
    /// The request shows no key that is known.
    Unauthenticated,
}

impl Rules {
    /// The rules that the contracts state.
    ///
    /// # Errors
    /// Names the RPC whose rule cannot be read.
    pub(crate) fn read(pool: &DescriptorPool) -> Result<Self, String> {
        let option = pool.get_extension_by_name(RULE_OPTION);
        let option = option.ok_or_else(|| format!("{RULE_OPTION} is not among the descriptors"))?;
        let mut by_rpc = HashMap::new();
        for method in pool
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
        {
            if let Some(rule) = rule_of(&method, &option)? {
                by_rpc.insert(method.full_name().to_owned(), (method, rule));
            }
        }
        Ok(Self { by_rpc })
    }

    /// Whether an RPC is for everybody, as it tells nothing that is anyone's.
    pub(crate) fn is_public(&self, rpc: &str) -> bool {
        self.by_rpc.get(rpc).is_some_and(|(_, rule)| rule.anonymous)
    }

    /// The call of an RPC (`package.Service.Rpc`), if there is a rule that lets the caller make it.
    /// A caller who is not known does not learn which RPCs there are.
    pub(crate) fn authorize(
        &self,
        caller: Option<&Caller>,
        rpc: &str,
    ) -> Result<AuthorizedCall, Denied> {
        let caller = match caller {
            Some(caller) => caller.clone(),
            None if self.is_public(rpc) => anonymous(),
            None => return Err(Denied::Unauthenticated),
        };
        // A rule is enough: what the caller finds is limited by namespaces, and there are no grants
        // yet.
        let (method, rule) = self.by_rpc.get(rpc).ok_or(Denied::NoRule)?;
        Ok(AuthorizedCall {
            caller,
            method: method.clone(),
            idempotent: rule.is_read_only(),
        })
    }
}

/// The caller of an RPC that is for everybody. It is in no namespace, so it finds nothing.
fn anonymous() -> Caller {
    let principal = Principal {
        subject: "anonymous".to_owned(),
        groups: Vec::new(),
    };
    Caller {
        principal,
        access: Access::Namespaces(BTreeSet::new()),
    }
}

fn rule_of(
    method: &MethodDescriptor,
    option: &ExtensionDescriptor,
) -> Result<Option<Rule>, String> {
    let options = method.options();
    if !options.has_extension(option) {
        return Ok(None);
    }
    let name = method.full_name();
    let decoded = match options.get_extension(option).as_ref() {
        Value::Message(rule) => rule.transcode_to::<pb::Rule>().ok(),
        _ => None,
    };
    let pb::Rule {
        verb,
        resource,
        anonymous,
    } = decoded.ok_or_else(|| format!("{name}: its {RULE_OPTION} is no rule"))?;
    if verb.is_empty() || resource.is_empty() {
        let problem = "needs a verb and a resource, such as {verb: \"get\" resource: \"runs\"}";
        return Err(format!("{name}: its {RULE_OPTION} {problem}"));
    }
    Ok(Some(Rule {
        verb,
        resource,
        anonymous,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KFP: &str = "kubeflow.pipelines.backend.api.v2beta1";

    /// Services that the gateway has no way to: none of them may have a rule.
    const INTERNAL: [&str; 1] = ["ferroflow.attempts.v1.AttemptService"];

    fn methods() -> Vec<MethodDescriptor> {
        let services = ferroflow_proto::pool().services();
        let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
        methods.collect()
    }

    fn rules() -> Rules {
        Rules::read(ferroflow_proto::pool()).unwrap()
    }

    fn allowed(rpc: &str) -> Result<AuthorizedCall, Denied> {
        rules().authorize(Some(&Caller::local()), rpc)
    }

    #[test]
    fn every_rpc_of_every_contract_has_a_rule_unless_it_is_internal() {
        let rules = rules();
        for method in methods() {
            let service = method.parent_service();
            let denied = rules
                .authorize(Some(&Caller::local()), method.full_name())
                .err();
            let internal = INTERNAL.contains(&service.full_name());
            let expected = internal.then_some(Denied::NoRule);
            assert_eq!(denied, expected, "{}", method.full_name());
        }
    }

    #[test]
    fn what_the_gateway_itself_answers_has_rules() {
        let rules = rules();
        let healthz = format!("{KFP}.HealthzService.GetHealthz");
        for (rpc, verb, resource) in [
            (healthz.as_str(), "get", "health"),
            ("grpc.health.v1.Health.Check", "get", "health"),
            ("grpc.health.v1.Health.Watch", "watch", "health"),
            ("ferroflow.events.v1.EventService.Watch", "watch", "events"),
            (
                "grpc.reflection.v1.ServerReflection.ServerReflectionInfo",
                "reflect",
                "platform",
            ),
            (
                "grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo",
                "reflect",
                "platform",
            ),
        ] {
            let (_, rule) = &rules.by_rpc[rpc];
            assert_eq!((&*rule.verb, &*rule.resource), (verb, resource));
        }
    }

    /// A call is read whole before it is passed on, and a stream of requests would never be.
    #[test]
    fn no_rpc_of_a_service_behind_the_gateway_takes_a_stream() {
        let mut behind = methods();
        behind.retain(|method| !method.full_name().starts_with("grpc."));
        behind.retain(MethodDescriptor::is_client_streaming);

        assert_eq!(behind, []);
    }

    #[test]
    fn what_only_reads_may_be_repeated() {
        let idempotent = |rpc| {
            allowed(&format!("{KFP}.RunService.{rpc}"))
                .unwrap()
                .idempotent
        };
        assert!(idempotent("GetRun"));
        assert!(idempotent("ListRuns"));
        assert!(!idempotent("CreateRun"));
        assert!(!idempotent("TerminateRun"));
    }

    #[test]
    fn what_states_no_rule_is_denied() {
        for rpc in [
            "ferroflow.pipelines.v1.TaskService.Nope",
            "ferroflow.attempts.v1.AttemptService.Take",
            "evil.RunService.CreateRun",
            "RunService.CreateRun",
            "",
        ] {
            assert_eq!(allowed(rpc).err(), Some(Denied::NoRule), "{rpc}");
        }
    }

    #[test]
    fn only_health_is_for_those_who_are_not_known() {
        let rules = rules();
        let open = rules.by_rpc.keys().filter(|rpc| rules.is_public(rpc));
        let mut open: Vec<_> = open.map(String::as_str).collect();
        open.sort_unstable();
        assert_eq!(
            open,
            ["grpc.health.v1.Health.Check", "grpc.health.v1.Health.Watch"]
        );
        for rpc in open {
            let caller = rules.authorize(None, rpc).unwrap().caller;
            assert_eq!(caller.access, Access::Namespaces(BTreeSet::new()), "{rpc}");
        }
    }

    #[test]
    fn who_is_not_known_is_denied_whatever_they_call() {
        let get = format!("{KFP}.RunService.GetRun");
        for rpc in [get.as_str(), "ferroflow.pipelines.v1.TaskService.Nope"] {
            let denied = rules().authorize(None, rpc).err();
            assert_eq!(denied, Some(Denied::Unauthenticated), "{rpc}");
        }
    }

    fn compiled(rule: &str) -> Result<Rules, String> {
        let text = format!(
            "syntax = \"proto3\"; package t; import \"ferroflow/access/v1/access.proto\"; \
             message M {{}} service S {{ rpc R(M) returns (M) {{ {rule} }} }}"
        );
        let contracts = crate::contracts::tests::compiled(&text);
        Rules::read(contracts.pool())
    }

    #[test]
    fn rules_of_a_further_contract_are_read() {
        let rules =
            compiled("option (ferroflow.access.v1.rule) = {verb: \"get\" resource: \"things\"};");
        let rules = rules.unwrap();
        assert_eq!(rules.by_rpc["t.S.R"].1.resource, "things");
        assert!(
            rules
                .by_rpc
                .contains_key(&format!("{KFP}.RunService.GetRun"))
        );
        assert!(!compiled("").unwrap().by_rpc.contains_key("t.S.R"));
    }

    #[test]
    fn a_rule_without_a_verb_or_a_resource_stops_the_start() {
        for rule in ["{verb: \"get\"}", "{resource: \"things\"}", "{}"] {
            let option = format!("option (ferroflow.access.v1.rule) = {rule};");
            let error = compiled(&option).err().unwrap();
            assert!(error.starts_with("t.S.R: "), "{error}");
            assert!(error.contains("needs a verb and a resource"), "{error}");
        }
    }
}
