//! What a request is for, out of its method, path and content type alone.
//!
//! | file | holds |
//! |---|---|
//! | `template` | path templates: reading, matching, decoding |
//! | `table` | every binding of every RPC, the most special first |

#[cfg(test)]
mod fuzz;
mod table;
mod template;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, header};

use crate::pages::Page;
use crate::uploads::Upload;
pub(crate) use table::{Binding, RouteError, RouteMatch, Routes};
pub(crate) use template::has_good_escapes;

/// What a request is for.
pub(crate) enum Target<'r> {
    /// A page of the gateway's own.
    Page(Page),
    /// An RPC.
    Rpc(Rpc<'r>),
}

/// An RPC, by the way in which it is asked for.
pub(crate) enum Rpc<'r> {
    /// In native gRPC, by its full name.
    Native(String),
    /// By a form that brings a pipeline.
    Upload(Upload),
    /// By one of its bindings to HTTP.
    Rest(RouteMatch<'r>),
}

impl Rpc<'_> {
    /// `package.Service.Rpc`.
    pub(crate) fn full_name(&self) -> String {
        match self {
            Self::Native(name) => name.clone(),
            Self::Upload(upload) => upload.full_name(),
            Self::Rest(found) => found.binding.method.full_name().to_owned(),
        }
    }
}

/// What a request is for.
pub(crate) fn target<'r>(
    routes: &'r Routes,
    request: &Request<Body>,
) -> Result<Target<'r>, RouteError> {
    let (method, path) = (request.method(), request.uri().path());
    // The content type decides before the path: `/package.Service/Rpc` may match a template as
    // well.
    if is_grpc(request.headers()) {
        let rpc = native_rpc(request).ok_or(RouteError::Unknown)?;
        return Ok(Target::Rpc(Rpc::Native(rpc)));
    }
    if let Some(page) = Page::of(method, path) {
        return Ok(Target::Page(page));
    }
    // Before bindings, to which the `upload` of this path is the id of a pipeline.
    if let Some(upload) = Upload::of(method, path) {
        return Ok(Target::Rpc(Rpc::Upload(upload)));
    }
    let found = routes.find(method, path)?;
    Ok(Target::Rpc(Rpc::Rest(found)))
}

/// Whether a request is gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        // `application/grpc-web` is another protocol, which is not served.
        .is_some_and(|kind| kind == "application/grpc" || kind.starts_with("application/grpc+"))
}

/// The full name of the RPC that is asked for in native gRPC.
pub(crate) fn native_rpc(request: &Request<Body>) -> Option<String> {
    let path = Some(request.uri().path()).filter(|_| is_grpc(request.headers()));
    full_name(path?)
}

/// `/package.Service/Rpc` as `package.Service.Rpc`.
fn full_name(path: &str) -> Option<String> {
    let (service, rpc) = path.strip_prefix('/')?.split_once('/')?;
    // One path for each method: `/a.b/c.d` must not be taken for `/a.b.c/d`.
    let named = !service.is_empty() && !rpc.is_empty() && !rpc.contains(['/', '.']);
    named.then(|| format!("{service}.{rpc}"))
}

/// Whether a request asks for what it reads only.
pub(crate) fn is_read_method(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a request is for, in a word.
    fn target_of(method: &str, path: &str, kind: &str) -> String {
        let routes = Routes::build(ferroflow_proto::pool()).unwrap();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, kind)
            .body(Body::empty())
            .unwrap();
        match target(&routes, &request) {
            Ok(Target::Page(page)) => format!("page {page:?}"),
            Ok(Target::Rpc(Rpc::Native(rpc))) => format!("grpc {rpc}"),
            Ok(Target::Rpc(Rpc::Upload(upload))) => format!("upload {upload:?}"),
            Ok(Target::Rpc(Rpc::Rest(found))) => format!("rest {}", found.binding.method.name()),
            Err(problem) => format!("{problem:?}"),
        }
    }

    #[test]
    fn a_request_is_for_one_thing() {
        const JSON: &str = "application/json";
        const GRPC: &str = "application/grpc";
        for (method, path, kind, expected) in [
            ("GET", "/apis/v2beta1/runs", JSON, "rest ListRuns"),
            ("POST", "/p.S/R", GRPC, "grpc p.S.R"),
            ("POST", "/p.S/R", "application/grpc+proto", "grpc p.S.R"),
            ("POST", "/p.S/R", "application/grpc-web", "Unknown"),
            ("POST", "//p.S/R", GRPC, "Unknown"),
            ("POST", "/p.S/R/x", GRPC, "Unknown"),
            ("POST", "/p/S.R", GRPC, "Unknown"),
            ("POST", "/p.S/", GRPC, "Unknown"),
            ("GET", "/metrics", JSON, "page Metrics"),
            ("POST", "/metrics", JSON, "Unknown"),
            (
                "POST",
                "/apis/v2beta1/healthz",
                JSON,
                "page Health(V2beta1)",
            ),
            (
                "POST",
                "/apis/v2beta1/pipelines/upload",
                "multipart/form-data",
                "upload Pipeline",
            ),
            (
                "GET",
                "/apis/v2beta1/pipelines/upload",
                JSON,
                "rest GetPipeline",
            ),
        ] {
            assert_eq!(target_of(method, path, kind), expected, "{method} {path}");
        }
    }
}
