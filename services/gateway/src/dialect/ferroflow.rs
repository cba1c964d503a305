//! Our own API: the defaults as they are.

use super::Dialect;

/// Every path that is in no other dialect.
pub(super) struct Ferroflow;

impl Dialect for Ferroflow {
    fn roots(&self) -> &'static [&'static str] {
        &["/"]
    }
}
