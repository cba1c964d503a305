//! The rules of pipelines, pure: no clock, no network, no database, no environment.

pub(crate) mod plan;
