//! Where artifacts are: URIs, paths, digests, reading.
//!
//! A local artifact's URI is `file://…` or an absolute path, so that programs can open it as it
//! is. URIs of other stores are kept and handed on, not interpreted.
#![warn(missing_docs)]

pub mod digest;
pub mod read;
