//! Statuses that would tell a caller the cause of a failure.
//!
//! What fails inside is a `ferroflow_types::Error`, which `ferroflow_service::status::to_status` logs
//! with its causes and tells by the number of the request. A status that is made by hand has no such
//! number, and a cause that is formatted into it shows callers paths, hosts and SQL.

use crate::layers::found;
use crate::source::{Breach, Source};

/// The codes that say nothing of the caller's request.
const STATUSES: &[&str] = &[
    "Status::internal",
    "Status::unknown",
    "Status::data_loss",
    "Status::unavailable",
];

const BY_HAND: &str = "a failure that is no fault of the request goes through to_status";

/// `crates/service` depends on `crates/proto`, so its decoder cannot use `to_status`.
pub(crate) const EXCEPTIONS: &[(&str, &str)] = &[("crates/proto/src/nesting.rs", BY_HAND)];

/// Breaches in one file of a crate or service, its tests aside. The client in `bin` shows statuses to
/// whoever called it, and may make its own.
pub(crate) fn breaches(source: &Source) -> Vec<Breach> {
    if source.path.starts_with("bin/") {
        return Vec::new();
    }
    found(source, |name| {
        let by_hand = STATUSES.iter().any(|status| name.ends_with(status));
        (by_hand && !name.test).then(|| BY_HAND.to_owned())
    })
}
