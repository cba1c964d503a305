//! The front door: HTTP/JSON, native gRPC, uploads and event streams on one port.
//!
//! ```text
//! connection ─► hygiene ─► keys, authz ┬─► pages      /metrics /openapi.json     (/healthz, /readyz: for all)
//!                                     ├─► uploads    multipart forms of KFP
//!                                     ├─► transcode  REST ⇄ gRPC by descriptor
//!                                     └─► proxy      native gRPC
//!                                            │  signed identity, trace context
//!                                            ▼
//!                                        services
//! ```
//!
//! No RPC has a handler of its own here: `google.api.http` in the descriptors says everything.
//! What has no rule in `authz` cannot be called.

mod authz;
pub mod config;
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
pub use server::{Deps, Handle, StartError, start};
pub use upstream::{Upstream, Way};
