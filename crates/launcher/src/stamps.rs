//! Stamps of outputs that were put into a store.

use ferroflow_artifacts::stamp;
use ferroflow_artifacts::stores::Stores;
use ferroflow_artifacts::transfer::TransferError;

use crate::{AttemptSpec, Outputs};

/// Notes what stored outputs look like now that they are where they belong. Outputs of this machine,
/// and those that a command put elsewhere, are left as they are.
///
/// # Errors
/// When the store fails or is away.
pub async fn record_stamps(
    stores: &Stores,
    spec: &AttemptSpec,
    outputs: &mut Outputs,
) -> Result<(), TransferError> {
    for output in spec.outputs() {
        let produced = outputs.artifacts.get_mut(&output.name);
        for artifact in produced.into_iter().flatten() {
            let rest = artifact.uri.strip_prefix(&output.uri);
            let is_ours = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if is_ours && artifact.stamp.is_none() && artifact.digest.is_some() {
                let place = stores.open(&artifact.uri)?;
                artifact.stamp = stamp::of_place(&place).await?;
            }
        }
    }
    Ok(())
}
