//! Compiled pipelines as files, read as this service reads an upload.

use ferroflow_types::Error;
use serde_json::Value;

use crate::app::spec_file;

/// The PipelineSpec in a file and its platform document, in canonical JSON.
///
/// `filename` tells by its ending what the file is: YAML, JSON, or an archive with one of these.
///
/// # Errors
/// Invalid, with everything that is wrong and where.
pub fn read(filename: &str, bytes: &[u8]) -> Result<(Value, Option<Value>), Error> {
    let file = spec_file::read(filename, bytes)?;
    Ok((file.pipeline, file.platform))
}
