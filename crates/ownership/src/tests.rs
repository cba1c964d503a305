//! Two replicas of a toy service over every database at hand.

mod ask;
mod claims;
mod members;
mod requests;
mod supervisor;
pub(crate) mod toy;
