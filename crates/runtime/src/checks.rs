//! Inputs of this machine are what the task that made them left there, or they are not given out.
//! Those of other stores are compared when they are fetched.

use ferroflow_artifacts::contents::{Contents, RecordedContent, State};
use ferroflow_artifacts::digest;
use ferroflow_launcher::{AttemptSpec, Failure};

use crate::fetch::transfer_failure;

/// Refuses an attempt one of whose inputs has changed. What is not there is the command's to judge.
pub(crate) async fn check_inputs(contents: &Contents, spec: &AttemptSpec) -> Result<(), Failure> {
    let copied = spec.inputs.iter();
    let copied = copied.filter(|input| digest::local_path(&input.uri).is_some());
    for input in spec.checked.iter().chain(copied) {
        // Without a stamp there is nothing to compare with: such content may change.
        let Some(stamp) = &input.stamp else { continue };
        let recorded = RecordedContent {
            uri: &input.uri,
            digest: input.digest.as_deref(),
            stamp: Some(stamp),
        };
        match contents.state(recorded).await {
            // KFP registers an output without content as well, so an input may be missing from the
            // start.
            Ok(State::Same | State::Missing) => {}
            Ok(State::Changed) => return Err(input.changed_failure()),
            Err(error) => return Err(transfer_failure(&format!("read {}", input.uri), &error)),
        }
    }
    Ok(())
}
