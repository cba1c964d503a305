//! The front door: HTTP/JSON, native gRPC, uploads and event streams on one port.
//!
//! ```text
//! connection ─► hygiene ─► keys, rules ┬─► pages      /metrics /openapi.json     (/healthz, /readyz: for all)
//!                                     ├─► uploads    multipart forms of KFP
//!                                     ├─► transcode  REST ⇄ gRPC by descriptor
//!                                     └─► proxy      native gRPC
//!                                            │  signed identity, trace context
//!                                            ▼
//!                                        services
//! ```
//!
//! No RPC has a handler of its own here: `google.api.http` in the descriptors says everything.
//! So does `ferroflow.access.v1.rule` of who may call it; an RPC without it cannot be called.

mod authorize;
mod call;
pub mod config;
mod contracts;
mod error;
mod events;
mod health;
mod hygiene;
mod keys;
pub mod log_noise;
mod openapi;
mod pages;
mod prefix;
mod proxy;
mod server;
mod transcode;
mod uploads;
mod upstream;

pub use config::Config;
pub use contracts::Contracts;
pub use server::{Deps, Handle, StartError, start};
pub use upstream::{Upstream, Way};
