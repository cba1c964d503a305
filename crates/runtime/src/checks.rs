//! Inputs of this machine are what the task that made them left there, or they are not given out.
//! Those of other stores are compared when they are fetched.

use ferroflow_artifacts::contents::{Contents, Noted, State};
use ferroflow_artifacts::digest;
use ferroflow_launcher::{AttemptSpec, Failure};

use crate::fetch::failed;

/// Refuses an attempt one of whose inputs has changed. What is not there is the command's to judge.
pub(crate) async fn check_inputs(contents: &Contents, spec: &AttemptSpec) -> Result<(), Failure> {
    let copied = spec.inputs.iter();
    let copied = copied.filter(|input| digest::local(&input.uri).is_some());
    for input in spec.checked.iter().chain(copied) {
        // Without a stamp there is nothing to compare with: such content may change.
        let Some(stamp) = &input.stamp else { continue };
        let noted = Noted {
            uri: &input.uri,
            digest: input.digest.as_deref(),
            stamp: Some(stamp),
        };
        match contents.state(noted).await {
            // KFP registers an output without content as well, so an input may be missing from the
            // start.
            Ok(State::Same | State::Missing) => {}
            Ok(State::Changed) => return Err(input.is_changed()),
            Err(error) => return Err(failed(&format!("read {}", input.uri), &error)),
        }
    }
    Ok(())
}
