//! What runs and recurring runs are made from: their pipeline and its parameters. The fields are the
//! same in both messages, below `run` and below `recurring_run`.

use ferroflow_proto::json::{has_non_finite, struct_to_map, to_json};
use ferroflow_proto::kfp::v2beta1::{PipelineVersionReference, RuntimeConfig};
use ferroflow_service::request::{invalid, parsed_opt};
use prost_types::Struct;
use serde_json::{Map, Value};
use tonic::Status;

use crate::app::create_run::PipelineSource;

const NON_FINITE_NUMBER: &str = "NaN and infinities are no JSON numbers: give a text";

/// A specification that came with the message `of`.
pub(super) fn inline(of: &str, spec: &Struct) -> Result<PipelineSource, Status> {
    if spec.fields.values().any(has_non_finite) {
        return Err(invalid(&format!("{of}.pipeline_spec"), NON_FINITE_NUMBER));
    }
    Ok(PipelineSource::Inline(Value::Object(struct_to_map(spec))))
}

/// A stored pipeline that the message `of` names.
pub(super) fn stored(of: &str, named: &PipelineVersionReference) -> Result<PipelineSource, Status> {
    let field = |name: &str| format!("{of}.pipeline_version_reference.{name}");
    Ok(PipelineSource::Reference {
        pipeline: parsed_opt(&field("pipeline_id"), &named.pipeline_id)?,
        version: parsed_opt(&field("pipeline_version_id"), &named.pipeline_version_id)?,
    })
}

/// Neither of these. The third member, `pipeline_version_id`, is deprecated, and no server reads it.
pub(super) fn missing(of: &str) -> Status {
    let problem = "pipeline_spec or pipeline_version_reference is needed";
    invalid(&format!("{of}.pipeline_source"), problem)
}

/// The parameters in the configuration of the message `of`.
pub(super) fn parameters(of: &str, config: &RuntimeConfig) -> Result<Map<String, Value>, Status> {
    let read = config.parameters.iter().map(|(name, value)| {
        if has_non_finite(value) {
            let field = format!("{of}.runtime_config.parameters.{name}");
            return Err(invalid(&field, NON_FINITE_NUMBER));
        }
        Ok((name.clone(), to_json(value)))
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use prost_types::value::Kind;

    use super::*;

    #[test]
    fn numbers_that_json_lacks_are_refused_in_both_places() {
        let of = "recurring_run";
        let nan = prost_types::Value {
            kind: Some(Kind::NumberValue(f64::NAN)),
        };
        let spec = Struct {
            fields: [("x".to_owned(), nan.clone())].into(),
        };
        let config = RuntimeConfig {
            parameters: [("x".to_owned(), nan)].into(),
            ..RuntimeConfig::default()
        };

        let refused = parameters(of, &config).unwrap_err();
        assert!(
            refused
                .message()
                .contains("recurring_run.runtime_config.parameters.x"),
            "{refused}"
        );
        let refused = inline(of, &spec).unwrap_err();
        assert!(
            refused.message().contains("recurring_run.pipeline_spec"),
            "{refused}"
        );
    }
}
