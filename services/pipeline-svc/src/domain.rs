//! What the service stores and shows, and its rules, pure: no clock, no network, no database, no
//! environment. How a run gets to its end is `ferroflow_pipeline_engine`.

pub(crate) mod address;
pub(crate) mod artifact;
pub(crate) mod content_type;
pub(crate) mod definition;
pub(crate) mod id;
pub(crate) mod recurring;
pub(crate) mod request;
pub(crate) mod run;
pub(crate) mod spec;
