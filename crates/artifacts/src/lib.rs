//! Where artifacts are: URIs, paths, digests, reading.
//!
//! A local artifact's URI is `file://…` or an absolute path, so that programs can open it as it
//! is. `s3://` and `minio://` are the configured S3; URIs of other stores are kept and handed on.
#![warn(missing_docs)]

pub mod contents;
pub mod digest;
mod entries;
pub mod read;
pub mod safe_fs;
pub mod stamp;
pub mod stores;
pub mod transfer;
