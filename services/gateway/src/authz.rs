//! What may be called, deny by default: an RPC without a rule here cannot be served.
//!
//! A rule says which verb on which resource an RPC is. In a single-user installation the one user
//! may do everything that has a rule.

/// What calling an RPC means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// `get`, `list`, `create`, `update`, `delete`, …
    pub(crate) verb: &'static str,
    /// `pipelines`, `runs`, …
    pub(crate) resource: &'static str,
}

impl Rule {
    /// Whether a call changes nothing, so that it may be made twice.
    pub(crate) fn only_reads(self) -> bool {
        matches!(
            self.verb,
            "get" | "list" | "logs" | "readArtifact" | "reflect" | "watch"
        )
    }
}

const KFP: &str = "kubeflow.pipelines.backend.api.v2beta1";

/// Service, RPC, verb, resource.
const RULES: &[(&str, &str, &str, &str)] = &[
    (
        "ExperimentService",
        "CreateExperiment",
        "create",
        "experiments",
    ),
    ("ExperimentService", "GetExperiment", "get", "experiments"),
    (
        "ExperimentService",
        "ListExperiments",
        "list",
        "experiments",
    ),
    (
        "ExperimentService",
        "ArchiveExperiment",
        "archive",
        "experiments",
    ),
    (
        "ExperimentService",
        "UnarchiveExperiment",
        "unarchive",
        "experiments",
    ),
    (
        "ExperimentService",
        "DeleteExperiment",
        "delete",
        "experiments",
    ),
    ("PipelineService", "CreatePipeline", "create", "pipelines"),
    ("PipelineService", "GetPipeline", "get", "pipelines"),
    ("PipelineService", "GetPipelineByName", "get", "pipelines"),
    ("PipelineService", "ListPipelines", "list", "pipelines"),
    ("PipelineService", "DeletePipeline", "delete", "pipelines"),
    (
        "PipelineService",
        "CreatePipelineAndVersion",
        "create",
        "pipelines",
    ),
    (
        "PipelineService",
        "CreatePipelineVersion",
        "create",
        "pipelines",
    ),
    ("PipelineService", "GetPipelineVersion", "get", "pipelines"),
    (
        "PipelineService",
        "ListPipelineVersions",
        "list",
        "pipelines",
    ),
    (
        "PipelineService",
        "DeletePipelineVersion",
        "delete",
        "pipelines",
    ),
    ("PipelineService", "UpdatePipeline", "update", "pipelines"),
    (
        "PipelineService",
        "UpdatePipelineVersion",
        "update",
        "pipelines",
    ),
    ("RunService", "CreateRun", "create", "runs"),
    ("RunService", "GetRun", "get", "runs"),
    ("RunService", "ListRuns", "list", "runs"),
    ("RunService", "ArchiveRun", "archive", "runs"),
    ("RunService", "UnarchiveRun", "unarchive", "runs"),
    ("RunService", "DeleteRun", "delete", "runs"),
    ("RunService", "TerminateRun", "terminate", "runs"),
    ("RunService", "RetryRun", "retry", "runs"),
    (
        "RecurringRunService",
        "CreateRecurringRun",
        "create",
        "jobs",
    ),
    ("RecurringRunService", "GetRecurringRun", "get", "jobs"),
    ("RecurringRunService", "ListRecurringRuns", "list", "jobs"),
    (
        "RecurringRunService",
        "EnableRecurringRun",
        "enable",
        "jobs",
    ),
    (
        "RecurringRunService",
        "DisableRecurringRun",
        "disable",
        "jobs",
    ),
    (
        "RecurringRunService",
        "DeleteRecurringRun",
        "delete",
        "jobs",
    ),
    ("HealthzService", "GetHealthz", "get", "health"),
    (
        "ferroflow.pipelines.v1.UploadService",
        "UploadPipeline",
        "create",
        "pipelines",
    ),
    (
        "ferroflow.pipelines.v1.UploadService",
        "UploadPipelineVersion",
        "create",
        "pipelines",
    ),
    (
        "ferroflow.pipelines.v1.ScheduleService",
        "ListDueTimes",
        "get",
        "jobs",
    ),
    (
        "ferroflow.pipelines.v1.TaskService",
        "ListTasks",
        "get",
        "runs",
    ),
    (
        "ferroflow.pipelines.v1.TaskService",
        "GetTask",
        "get",
        "runs",
    ),
    (
        "ferroflow.pipelines.v1.TaskService",
        "ReadParameter",
        "get",
        "runs",
    ),
    (
        "ferroflow.pipelines.v1.TaskService",
        "StreamLogs",
        "logs",
        "runs",
    ),
    (
        "ferroflow.pipelines.v1.TaskService",
        "ListArtifacts",
        "list",
        "artifacts",
    ),
    (
        "ferroflow.pipelines.v1.TaskService",
        "GetArtifact",
        "get",
        "artifacts",
    ),
    (
        "ferroflow.pipelines.v1.TaskService",
        "ListArtifactFiles",
        "get",
        "artifacts",
    ),
    (
        "ferroflow.pipelines.v1.TaskService",
        "ReadArtifact",
        "readArtifact",
        "runs",
    ),
    (
        "ferroflow.pipelines.v1.TaskService",
        "ReadRunArtifact",
        "readArtifact",
        "runs",
    ),
    (
        "ferroflow.events.v1.EventService",
        "Watch",
        "watch",
        "events",
    ),
    (
        "grpc.reflection.v1.ServerReflection",
        "ServerReflectionInfo",
        "reflect",
        "platform",
    ),
    (
        "grpc.reflection.v1alpha.ServerReflection",
        "ServerReflectionInfo",
        "reflect",
        "platform",
    ),
];

/// The rule of an RPC, by its full service name and its own.
pub(crate) fn rule(service: &str, rpc: &str) -> Option<Rule> {
    let short = service
        .strip_prefix(KFP)
        .and_then(|rest| rest.strip_prefix('.'));
    let wanted = short.unwrap_or(service);
    let found = RULES
        .iter()
        .find(|(of, name, ..)| *of == wanted && *name == rpc)?;
    Some(Rule {
        verb: found.2,
        resource: found.3,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Services that the gateway has no way to: none of them may have a rule.
    const INTERNAL: [&str; 1] = ["ferroflow.attempts.v1.AttemptService"];

    #[test]
    fn every_rpc_of_every_contract_has_a_rule_unless_it_is_internal() {
        let is_internal = |name: &str| INTERNAL.contains(&name);
        assert!(RULES.iter().all(|(service, ..)| !is_internal(service)));
        let without: Vec<_> = ferroflow_proto::pool()
            .services()
            .filter(|service| !is_internal(service.full_name()))
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .filter(|method| rule(method.parent_service().full_name(), method.name()).is_none())
            .map(|method| method.full_name().to_owned())
            .collect();

        assert_eq!(without, Vec::<String>::new());
    }

    /// What upstream declares and does not register is not in the contracts.
    #[test]
    fn every_rule_is_of_an_rpc() {
        let known: Vec<_> = ferroflow_proto::pool()
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .map(|method| method.full_name().to_owned())
            .collect();
        let of_nothing: Vec<_> = RULES
            .iter()
            .filter(|(service, ..)| !service.starts_with("grpc.reflection."))
            .map(|(service, rpc, ..)| {
                if service.contains('.') {
                    format!("{service}.{rpc}")
                } else {
                    format!("{KFP}.{service}.{rpc}")
                }
            })
            .filter(|name| !known.contains(name))
            .collect();

        assert_eq!(of_nothing, Vec::<String>::new());
    }

    /// A call is read whole before it is passed on, and a stream of requests would never be.
    #[test]
    fn no_rpc_of_a_service_behind_the_gateway_takes_a_stream() {
        let streaming: Vec<_> = ferroflow_proto::pool()
            .services()
            .filter(|service| !service.full_name().starts_with("grpc."))
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .filter(prost_reflect::MethodDescriptor::is_client_streaming)
            .map(|method| method.full_name().to_owned())
            .collect();

        assert_eq!(streaming, Vec::<String>::new());
    }

    #[test]
    fn what_only_reads_may_be_repeated() {
        let reads = |service, rpc| rule(service, rpc).unwrap().only_reads();
        assert!(reads("RunService", "GetRun"));
        assert!(reads("RunService", "ListRuns"));
        assert!(!reads("RunService", "CreateRun"));
        assert!(!reads("RunService", "TerminateRun"));
    }

    #[test]
    fn what_is_not_in_the_table_has_none() {
        assert_eq!(rule("ferroflow.pipelines.v1.TaskService", "Nope"), None);
        assert_eq!(
            rule("RunService", "CreateRun").map(|rule| rule.verb),
            Some("create")
        );
        assert_eq!(rule("evil.RunService", "CreateRun"), None);
    }
}
