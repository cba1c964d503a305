//! gRPC reflection: tells clients such as `grpcurl` what can be called.

use std::sync::{Arc, LazyLock};

use axum::http::Request;
use ferroflow_proto::nesting::UNKNOWN_BYTES_MAX;
use tonic::body::Body;
use tonic_reflection::server::Builder;
use tower::{ServiceExt as _, service_fn};

use crate::contracts::Contracts;
use crate::upstream::{Backend, Upstreams, backend};

/// The version of today, and the one that older clients ask for.
const V1: &str = "grpc.reflection.v1.ServerReflection";
const V1ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// What the reflection services are made of.
struct ReflectionSource {
    contracts: Contracts,
    services: Vec<String>,
}

impl ReflectionSource {
    /// Calls `build` with everything registered.
    ///
    /// # Errors
    /// What reflection makes of the descriptors, as a sentence.
    fn backend(
        &self,
        build: impl FnOnce(Builder<'_>) -> Result<Backend, tonic_reflection::server::Error>,
    ) -> Result<Backend, String> {
        let encoded = self.contracts.encoded();
        let mut builder = Builder::configure()
            .register_encoded_file_descriptor_set(&encoded)
            // The contracts have it, with its rule of access.
            .include_reflection_service(false);
        for service in &self.services {
            builder = builder.with_service_name(service);
        }
        build(builder).map_err(|error| error.to_string())
    }
}

/// Adds the services that describe what can be called, and nothing else.
///
/// Each is made at its first call: it encodes and decodes every descriptor once more, which took 9
/// of the 57 ms in which the platform starts, and few clients ask.
pub(crate) fn with_reflection(upstreams: Upstreams, contracts: &Contracts) -> Upstreams {
    let source = Arc::new(ReflectionSource {
        contracts: contracts.clone(),
        services: upstreams
            .services()
            .chain([V1, V1ALPHA])
            .map(str::to_owned)
            .collect(),
    });
    let v1 = Arc::clone(&source);
    let v1 = lazy_backend(move || {
        v1.backend(|builder| {
            // Short messages only, as for health checks: no descriptor of ours checks how they
            // nest.
            let service = builder.build_v1()?;
            Ok(backend(
                service.max_decoding_message_size(UNKNOWN_BYTES_MAX),
            ))
        })
    });
    let v1alpha = lazy_backend(move || {
        source.backend(|builder| {
            let service = builder.build_v1alpha()?;
            Ok(backend(
                service.max_decoding_message_size(UNKNOWN_BYTES_MAX),
            ))
        })
    });
    upstreams.with(V1, v1).with(V1ALPHA, v1alpha)
}

/// A backend that is made when it is called first.
fn lazy_backend(make: impl FnOnce() -> Result<Backend, String> + Send + 'static) -> Backend {
    let made = Arc::new(LazyLock::new(make));
    backend(service_fn(move |request: Request<Body>| {
        // The first call holds its thread while this is made, for some milliseconds.
        let made = LazyLock::force(&made).clone();
        async move {
            match made {
                Ok(made) => made.oneshot(request).await.map_err(Into::into),
                Err(problem) => Err(Box::<dyn std::error::Error + Send + Sync>::from(problem)),
            }
        }
    }))
}
