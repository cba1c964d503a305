//! What every service shares: settings, telemetry, tasks and shutdown, gRPC, errors, identity.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | settings out of defaults, file, environment, flags |
//! | [`telemetry`] | logs, traces, trace context |
//! | [`metrics`] | the Prometheus endpoint's text |
//! | [`listing`] | which part of a list a request asks for |
//! | [`request`] | fields of requests, read or refused by name |
//! | [`runner`] | named tasks and the order in which they stop |
//! | [`grpc`] | listeners, channels, the server's layers |
//! | [`identity`] | who calls, signed by the gateway, verified by services |
//! | [`service`] | what a service is to whoever puts services together |
//! | [`worker`] | work that is done again and again |
//! | [`status`] | [`ferroflow_types::Error`] as gRPC status |
#![warn(missing_docs)]

pub mod config;
pub mod grpc;
pub mod identity;
pub mod listing;
pub mod metrics;
pub mod request;
pub mod runner;
pub mod service;
pub mod status;
pub mod telemetry;
pub mod worker;
