//! HTTP/JSON, native gRPC, uploads and event streams on one port.
//!
//! ```text
//! connection ─► hygiene ─► authenticate ─► route ─► authorize ─┬─► transcode  REST ⇄ gRPC by descriptor
//!                              │             │                 ├─► uploads    multipart forms of KFP
//!                              │             └─► pages         └─► proxy      native gRPC
//!                              └ API keys                           │  signed identity, trace context
//!                                                                   ▼
//!                                                                upstream
//! ```
//!
//! | module | says |
//! |---|---|
//! | `handle` | in which order a request passes the others |
//! | `hygiene` | what no request may bring along |
//! | `authenticate` | who calls |
//! | `route` | what a request is for |
//! | `authorize` | whether the caller may |
//! | `dialect` | how clients of an API expect to be read and answered |
//! | `transcode`, `uploads`, `proxy` | how the call is made of the request |
//! | `upstream` | where its service is |
//!
//! No RPC has a handler of its own here: `google.api.http` in the contracts says how one is reached,
//! and `ferroflow.access.v1.rule` who may call it; an RPC without that cannot be called.

mod authenticate;
mod authorize;
mod call;
pub mod config;
mod contracts;
mod dialect;
mod error;
mod events;
#[cfg(test)]
mod fuzz;
mod handle;
mod health;
mod hygiene;
pub mod log_noise;
mod openapi;
mod pages;
mod prefix;
mod proxy;
mod reflection;
mod route;
mod server;
mod transcode;
mod uploads;
mod upstream;

pub use config::Config;
pub use contracts::Contracts;
pub use server::{Deps, Handle, StartError, start};
pub use upstream::{Upstream, UpstreamConnection};
