//! Where artifacts may go.

use ferroflow_artifacts::stores::Stores;
use ferroflow_runtime::{Destinations, Runtime};

/// The root as it is kept: a path, or the URI of a place in a store that tasks can write to.
///
/// # Errors
/// Says what would do.
pub(crate) fn validate(
    root: &str,
    runtime: &dyn Runtime,
    stores: &Stores,
) -> Result<String, String> {
    let path = root.strip_prefix("file://").unwrap_or(root);
    if path.starts_with('/') && !path.split('/').any(|part| part == "..") {
        return Ok(path.to_owned());
    }
    let has_store_scheme = ["s3://", "minio://"]
        .iter()
        .any(|scheme| root.starts_with(scheme));
    let to_stores = runtime.capabilities().outputs == Destinations::FilesAndStores;
    if to_stores && has_store_scheme && stores.open(root).is_ok() {
        return Ok(root.to_owned());
    }
    let expected = if to_stores {
        "an s3:// or minio:// URI with a bucket, or an absolute path that every task can write to"
    } else {
        "an absolute path or a file:// URI; tasks that are processes of this machine write files, \
         for object stores use `--runtime docker` or `--runtime kubernetes`"
    };
    Err(format!(
        "{root:?} is not a place that this installation writes to: give {expected}"
    ))
}
