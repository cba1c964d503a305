//! Two replicas of a toy service over every database at hand.

mod asking;
mod claims;
mod members;
mod requests;
mod supervising;
pub(crate) mod toy;
