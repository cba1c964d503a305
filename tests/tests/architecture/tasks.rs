//! Tasks that nobody looks after, and queues without an end.
//!
//! What runs beside a request belongs to the runner of `crates/service`, which waits for it, ends it
//! and tells how it ended. A full queue holds up who fills it.

use crate::layers::found;
use crate::source::{Breach, Source};

const SPAWNS: &[&str] = &["tokio::spawn", "task::spawn", "task::spawn_local"];
const QUEUES: &[&str] = &["unbounded_channel"];

const BARE: &str = "a task belongs to a runner";
const UNBOUNDED: &str = "a queue has an end";

/// Files that start tasks of their own, or have a queue without an end.
pub(crate) const EXCEPTIONS: &[(&str, &str)] = &[
    ("crates/bus/src/embedded.rs", BARE),
    ("crates/db/src/lib.rs", BARE),
    ("crates/db/src/signal.rs", BARE),
    ("crates/db/src/sqlite.rs", BARE),
    ("crates/runtime/src/docker.rs", BARE),
    ("crates/runtime/src/docker/models.rs", BARE),
    ("crates/runtime/src/kubernetes/index.rs", BARE),
    ("crates/runtime/src/kubernetes/launchers.rs", BARE),
    ("crates/runtime/src/kubernetes/reconciler.rs", BARE),
    ("crates/runtime/src/process.rs", BARE),
    ("crates/service/src/grpc/replicas.rs", BARE),
    ("crates/testkit/src/fault_proxy.rs", BARE),
];

/// Breaches in one file of a crate or service, its tests aside.
pub(crate) fn breaches(source: &Source) -> Vec<Breach> {
    found(source, |name| {
        let is = |paths: &[&str]| paths.iter().any(|path| name.ends_with(path));
        match () {
            () if name.test => None,
            () if is(SPAWNS) => Some(BARE.to_owned()),
            () if is(QUEUES) => Some(UNBOUNDED.to_owned()),
            () => None,
        }
    })
}
