//! What the gateway answers itself: health, metrics, the API's description, a first page.

use axum::body::Body;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use ferroflow_service::metrics::Metrics;
use serde_json::json;

use crate::error::json_response;
use crate::openapi;
use crate::transcode::Routes;

/// The commit that the binary was built from, as KFP's clients ask for it.
const COMMIT: &str = match option_env!("FERROFLOW_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

const INDEX: &str = include_str!("index.html");

/// What an orchestrator asks, whoever it is and by whatever name it calls us.
pub(crate) fn probe(method: &Method, path: &str, draining: bool) -> Option<Response<Body>> {
    if method != Method::GET && method != Method::HEAD {
        return None;
    }
    match (path, draining) {
        ("/healthz", _) | ("/readyz", false) => {
            Some(json_response(StatusCode::OK, &json!({"status": "ok"})))
        }
        ("/readyz", true) => Some(json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"status": "stopping"}),
        )),
        _ => None,
    }
}

/// The page for a path, if it is one of ours.
pub(crate) fn page(
    method: &Method,
    path: &str,
    routes: &Routes,
    metrics: Option<&Metrics>,
) -> Option<Response<Body>> {
    let version = env!("CARGO_PKG_VERSION");
    // KFP's health has no method of its own: any is answered.
    match path {
        "/apis/v2beta1/healthz" => {
            return Some(json_response(
                StatusCode::OK,
                &json!({
                    "commit_sha": COMMIT, "tag_name": version, "multi_user": false,
                    "pipeline_store": "database",
                }),
            ));
        }
        "/apis/v1beta1/healthz" => {
            return Some(json_response(
                StatusCode::OK,
                &json!({
                    "commit_sha": COMMIT, "tag_name": version, "multi_user": false,
                }),
            ));
        }
        _ => {}
    }
    if method != Method::GET && method != Method::HEAD {
        return None;
    }
    match path {
        "/" => Some(text("text/html; charset=utf-8", INDEX.to_owned())),
        "/metrics" => {
            let rendered = metrics.map(Metrics::render).unwrap_or_default();
            Some(text("text/plain; version=0.0.4", rendered))
        }
        "/openapi.json" => Some(json_response(StatusCode::OK, &openapi::document(routes))),
        _ => None,
    }
}

fn text(kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
