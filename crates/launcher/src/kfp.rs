//! What KFP asks of an attempt, beside a command that runs: all of it behind one field of its spec.
//!
//! | module | holds |
//! |---|---|
//! | `bootstrap` | the SDK's Python bootstrap, which can be given large values |
//! | `outputs` | the executor's report, parameter files, artifacts |
//! | `values` | the types of output parameters |
//!
//! An attempt of another domain has none of it, and its command is told nothing of KFP.

pub(crate) mod bootstrap;
pub(crate) mod outputs;
mod values;

use std::path::{Path, PathBuf};

use ferroflow_types::ValueLimit;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{AttemptSpec, OutputArtifact};

/// Where components expect the folder that the tasks of a run share, in a container.
pub const WORKSPACE: &str = "/kfp-workspace";

/// What is KFP's of an attempt.
///
/// In `spec.json` its members are members of the spec itself, as releases up to 0.1 wrote them and
/// read them. Those always wrote `outputs`; who leaves that out asks for nothing of KFP.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kfp {
    /// What it gives.
    pub outputs: OutputSpec,
    /// `kfp_kubernetes.KubernetesExecutorConfig` as canonical JSON, every parameter a constant.
    pub platform: Map<String, Value>,
    /// Input parameters, for operations that have no command, and to name those that are too large.
    pub arguments: Map<String, Value>,
}

/// [`Kfp`] as members of a spec. With an `Option` of [`Kfp`] itself, serde would take a member that
/// cannot be read for one that is not there.
#[derive(Deserialize)]
struct SerializedKfp {
    outputs: Option<OutputSpec>,
    #[serde(default)]
    platform: Map<String, Value>,
    #[serde(default)]
    arguments: Map<String, Value>,
}

/// Reads the members of a spec that are KFP's.
pub(crate) fn read<'de, D: Deserializer<'de>>(members: D) -> Result<Option<Kfp>, D::Error> {
    let SerializedKfp {
        outputs,
        platform,
        arguments,
    } = SerializedKfp::deserialize(members)?;
    Ok(outputs.map(|outputs| Kfp {
        outputs,
        platform,
        arguments,
    }))
}

/// An operation that the SDK writes as the name of an image; nothing of that name can be pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Makes a volume claim.
    CreateClaim,
    /// Deletes one.
    DeleteClaim,
}

impl Kfp {
    /// The operation that an attempt of this image stands for.
    pub fn operation(image: &str) -> Option<Operation> {
        match image {
            "argostub/createpvc" => Some(Operation::CreateClaim),
            "argostub/deletepvc" => Some(Operation::DeleteClaim),
            _ => None,
        }
    }
}

impl AttemptSpec {
    /// KFP's operation that it is, with its arguments.
    pub fn operation(&self) -> Option<(Operation, &Map<String, Value>)> {
        let kfp = self.kfp.as_ref()?;
        Some((Kfp::operation(&self.image)?, &kfp.arguments))
    }

    /// What KFP's SDK finds in the environment of a component.
    pub fn kfp_variables(&self, pod: &str, uid: &str) -> Vec<(String, String)> {
        let pod = [("KFP_POD_NAME", pod), ("KFP_POD_UID", uid)];
        let pod = pod.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let of_pod = pod.into_iter().filter(|_| self.kfp.is_some());
        of_pod.chain(self.kfp_retry_index()).collect()
    }

    /// How often the component was tried before, where the rest is the pod's to say.
    pub fn kfp_retry_index(&self) -> Option<(String, String)> {
        let retries = self.key.attempt.saturating_sub(1).to_string();
        let variable = ("KFP_RETRY_INDEX".to_owned(), retries);
        self.kfp.is_some().then_some(variable)
    }
}

/// Where outputs are to be found once the command has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputSpec {
    /// The executor's own report; need not exist.
    pub metadata_file: PathBuf,
    /// Output parameters.
    pub parameters: Vec<OutputParameter>,
    /// Output artifacts.
    pub artifacts: Vec<OutputArtifact>,
    /// How large the values may be that it gives: output parameters, metadata of artifacts.
    #[serde(default)]
    pub values: ValueLimit,
}

impl OutputSpec {
    /// Nothing but a report in the folder for outputs.
    pub fn new(outputs_dir: &Path) -> Self {
        Self {
            metadata_file: report_file(outputs_dir),
            parameters: Vec::new(),
            artifacts: Vec::new(),
            values: ValueLimit::default(),
        }
    }

    /// The files that are read, artifacts aside.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let parameters = self.parameters.iter();
        let parameters = parameters.map(|parameter| parameter.path.as_path());
        parameters.chain([self.metadata_file.as_path()])
    }
}

/// The executor's report in the folder for outputs.
pub fn report_file(outputs_dir: &Path) -> PathBuf {
    outputs_dir.join("output_metadata.json")
}

/// An output parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputParameter {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ParameterKind,
    /// The file that holds its text.
    pub path: PathBuf,
}

/// The type of an output parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParameterKind {
    /// A number.
    Double,
    /// A whole number.
    Integer,
    /// Text, taken as it is.
    String,
    /// `true` or `false`.
    Boolean,
    /// A JSON list.
    List,
    /// A JSON object.
    Struct,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As release 0.1 left it in the folder of an attempt.
    const FORMER: &str = include_str!("kfp/former_spec.json");

    fn spec(value: &Value) -> Result<AttemptSpec, serde_json::Error> {
        // As files and stores are read: from text.
        serde_json::from_str(&value.to_string())
    }

    /// What is left of a value without members that another one does not have.
    fn known_to(other: &Value, value: Value) -> Value {
        match (other, value) {
            (Value::Object(other), Value::Object(value)) => {
                let known = value.into_iter().filter_map(|(name, value)| {
                    let value = known_to(other.get(&name)?, value);
                    Some((name, value))
                });
                Value::Object(known.collect())
            }
            (_, value) => value,
        }
    }

    #[test]
    fn a_spec_of_the_former_release_is_read_and_written_as_it_was() {
        let former: Value = serde_json::from_str(FORMER).unwrap();

        let spec = spec(&former).unwrap();

        let kfp = spec.kfp.as_ref().unwrap();
        assert_eq!(kfp.outputs.parameters[0].kind, ParameterKind::Integer);
        assert_eq!(kfp.arguments["text"], "hello");
        assert_eq!(kfp.platform["imagePullPolicy"], "Always");
        assert_eq!(spec.name, "makes");
        assert_eq!(spec.outputs().count(), 1);
        // During an upgrade a server or launcher of that release reads what this one writes; members
        // that it does not know do not matter to it.
        let written = serde_json::to_value(&spec).unwrap();
        assert_eq!(known_to(&former, written), former);
    }

    #[test]
    fn a_spec_without_outputs_asks_for_nothing_of_kfp() {
        let mut value: Value = serde_json::from_str(FORMER).unwrap();
        for member in ["outputs", "platform", "arguments"] {
            value.as_object_mut().unwrap().remove(member);
        }

        let mut spec = spec(&value).unwrap();

        assert_eq!(spec.kfp, None);
        assert_eq!(spec.kfp_variables("pod", "uid"), []);
        "argostub/createpvc".clone_into(&mut spec.image);
        assert_eq!(spec.operation(), None);
        let written = serde_json::to_value(&spec).unwrap();
        assert!(written.get("outputs").is_none(), "{written}");
    }

    #[test]
    fn a_member_that_cannot_be_read_is_not_taken_for_a_missing_one() {
        for (member, bad) in [
            ("outputs", json!({"parameters": [], "artifacts": []})),
            ("platform", json!([])),
            ("arguments", json!("text")),
        ] {
            let mut value: Value = serde_json::from_str(FORMER).unwrap();
            value[member] = bad;
            assert!(spec(&value).is_err(), "{member}");
        }
    }

    #[test]
    fn components_get_their_pod_and_their_retries() {
        let mut spec: AttemptSpec = serde_json::from_str(FORMER).unwrap();
        spec.key.attempt = 3;

        let variables = spec.kfp_variables("pod", "uid");

        let variables: Vec<_> = variables
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let expected = [
            ("KFP_POD_NAME", "pod"),
            ("KFP_POD_UID", "uid"),
            ("KFP_RETRY_INDEX", "2"),
        ];
        assert_eq!(variables, expected);
    }

    #[test]
    fn operations_are_recognised_by_their_images() {
        let mut spec: AttemptSpec = serde_json::from_str(FORMER).unwrap();
        assert_eq!(spec.operation(), None);
        for (image, expected) in [
            ("argostub/createpvc", Operation::CreateClaim),
            ("argostub/deletepvc", Operation::DeleteClaim),
        ] {
            image.clone_into(&mut spec.image);
            let (operation, arguments) = spec.operation().unwrap();
            assert_eq!((operation, &arguments["text"]), (expected, &json!("hello")));
        }
    }
}
