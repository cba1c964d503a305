//! The rules of pipelines, pure: no clock, no network, no database, no environment.

pub(crate) mod address;
pub(crate) mod arguments;
pub(crate) mod artifact;
pub(crate) mod budget;
pub(crate) mod content_type;
pub(crate) mod definition;
pub(crate) mod engine;
pub(crate) mod executor_input;
pub(crate) mod expr;
pub(crate) mod fingerprint;
pub(crate) mod go_layout;
pub(crate) mod invocation;
pub(crate) mod ir;
pub(crate) mod listing;
pub(crate) mod macros;
pub(crate) mod placeholder;
pub(crate) mod plan;
pub(crate) mod platform;
pub(crate) mod recurring;
pub(crate) mod request;
pub(crate) mod run;
pub(crate) mod run_parameters;
pub(crate) mod spec;
pub(crate) mod task_config;
pub(crate) mod task_path;
pub(crate) mod values;
