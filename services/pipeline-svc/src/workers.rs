//! Long-running work: the actors that drive runs, and the schedules that make them.

mod actor;
mod attempt;
mod caching;
mod import;
pub(crate) mod runs;
pub(crate) mod schedules;
mod step;

use ferroflow_types::{Namespace, Scope};

/// The scope of what is done for all callers. Only workers can make one: nothing that a request
/// leads to finds objects of namespaces that are not its caller's.
pub(crate) struct AllNamespaces(());

impl Scope for AllNamespaces {
    fn covers(&self, _namespace: &Namespace) -> bool {
        true
    }
}
