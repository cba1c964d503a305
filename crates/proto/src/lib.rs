//! The contracts of `proto/` as Rust types, clients and servers, and their descriptors.
//!
//! | module | contract |
//! |---|---|
//! | [`kfp::v2beta1`] | Kubeflow Pipelines' API |
//! | [`ml_pipelines`] | the compiled pipeline (PipelineSpec IR) |
//! | [`kfp_kubernetes`] | its Kubernetes platform document |
//! | [`access::v1`] | the option that states which access an RPC needs |
//! | [`attempts::v1`] | launchers in pods and the runtime that made them |
//! | [`events::v1`] | our event stream |
//! | [`pipelines::v1`] | our additions: tasks, logs, artifacts, uploads, due times |
//!
//! The same descriptor set drives transcoding, gRPC reflection and the OpenAPI document.

pub mod canonical;
pub mod json;
pub mod nesting;

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

/// Every contract, encoded as a `google.protobuf.FileDescriptorSet` with comments and options.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

// Linking takes about 14 ms, so `ferroflow up` does it while it opens databases.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(DESCRIPTOR_SET).expect("the build script encoded this set")
});

/// The descriptors of every contract.
pub fn pool() -> &'static DescriptorPool {
    &POOL
}

macro_rules! generated {
    ($package:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
    };
}

/// Options and types of Google's API conventions.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    missing_docs,
    reason = "generated code"
)]
pub mod google {
    pub mod api {
        generated!("google.api");
    }
    pub mod rpc {
        generated!("google.rpc");
    }
}

/// Kubeflow Pipelines; short: [`kfp`].
#[allow(
    clippy::all,
    clippy::pedantic,
    missing_docs,
    deprecated,
    reason = "generated code"
)]
pub mod kubeflow {
    pub mod pipelines {
        pub mod backend {
            pub mod api {
                pub mod v2beta1 {
                    generated!("kubeflow.pipelines.backend.api.v2beta1");
                }
            }
        }
    }
}

/// The compiled pipeline.
#[allow(
    clippy::all,
    clippy::pedantic,
    missing_docs,
    deprecated,
    reason = "generated code"
)]
pub mod ml_pipelines {
    generated!("ml_pipelines");
}

/// The Kubernetes platform document.
#[allow(
    clippy::all,
    clippy::pedantic,
    missing_docs,
    deprecated,
    reason = "generated code"
)]
pub mod kfp_kubernetes {
    generated!("kfp_kubernetes");
}

/// Our own contracts; short: [`access`], [`attempts`], [`events`], [`pipelines`].
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    missing_docs,
    reason = "generated code"
)]
pub mod ferroflow {
    pub mod access {
        pub mod v1 {
            generated!("ferroflow.access.v1");
        }
    }
    pub mod attempts {
        pub mod v1 {
            generated!("ferroflow.attempts.v1");
        }
    }
    pub mod events {
        pub mod v1 {
            generated!("ferroflow.events.v1");
        }
    }
    pub mod pipelines {
        pub mod v1 {
            generated!("ferroflow.pipelines.v1");
        }
    }
}

pub use ferroflow::{access, attempts, events, pipelines};
pub use kubeflow::pipelines::backend::api as kfp;
