//! What the gateway answers itself: health, metrics, the API's description, plain pages.

use axum::body::Body;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use ferroflow_service::metrics::Metrics;
use serde_json::json;

use crate::contracts::Contracts;
use crate::error::json_response;
use crate::route::{Routes, is_read_method};
use crate::{health, log_noise, openapi};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, type, content. The fragments that clients print (`/#/runs/details/…`) are read by the
/// page's script; paths in it are relative, so it works below a prefix as well.
const UI: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("ui/index.html")),
    ("/ui/app.css", CSS, include_str!("ui/app.css")),
    ("/ui/app.js", JAVASCRIPT, include_str!("ui/app.js")),
    ("/ui/api.js", JAVASCRIPT, include_str!("ui/api.js")),
    ("/ui/dom.js", JAVASCRIPT, include_str!("ui/dom.js")),
    ("/ui/run.js", JAVASCRIPT, include_str!("ui/run.js")),
];

/// Only what the gateway serves itself is loaded and run, and no other page frames ours.
const UI_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// The probes of an orchestrator: for everybody, without a key and under any host name. While the
/// gateway drains it is not ready, but stays healthy, so that nobody restarts it.
pub(crate) fn probe(method: &Method, path: &str, draining: bool) -> Option<Response<Body>> {
    if !is_read_method(method) {
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

/// The plain pages: the same for everybody, so no key is asked for. What they show is asked from the
/// API, with the key of whoever looks.
pub(crate) fn ui(method: &Method, path: &str) -> Option<Response<Body>> {
    if !is_read_method(method) {
        return None;
    }
    if path == "/ui/log-noise.json" {
        return Some(json_response(StatusCode::OK, &log_noise::json()));
    }
    let (_, kind, content) = UI.iter().find(|(known, ..)| *known == path)?;
    let mut response = text(kind, (*content).to_owned());
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, UI_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        // Asked for again each time: another version of the gateway has other pages under these
        // paths.
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

/// A page for those who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    /// KFP's, which answers whatever the method is.
    Health(health::Version),
    Metrics,
    OpenApi,
}

impl Page {
    /// The page at a path.
    pub(crate) fn of(method: &Method, path: &str) -> Option<Self> {
        if let Some(version) = health::Version::of(path) {
            return Some(Self::Health(version));
        }
        match path {
            _ if !is_read_method(method) => None,
            "/metrics" => Some(Self::Metrics),
            "/openapi.json" => Some(Self::OpenApi),
            _ => None,
        }
    }

    /// The page's content.
    pub(crate) fn show(
        self,
        contracts: &Contracts,
        routes: &Routes,
        metrics: Option<&Metrics>,
    ) -> Response<Body> {
        match self {
            Self::Health(version) => json_response(StatusCode::OK, &health::page(version)),
            Self::Metrics => {
                let rendered = metrics.map(Metrics::render).unwrap_or_default();
                text("text/plain; version=0.0.4", rendered)
            }
            Self::OpenApi => {
                let document = openapi::document(contracts, routes);
                json_response(StatusCode::OK, &document)
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_load_only_what_is_served() {
        let index = UI[0].2;
        for (path, ..) in &UI[1..3] {
            assert!(index.contains(path.trim_start_matches('/')), "{path}");
        }
        let served = |path: &str| ui(&Method::GET, path).is_some();
        for (path, _, content) in UI.iter().filter(|(path, ..)| path.ends_with(".js")) {
            for import in content.split("from \"./").skip(1) {
                let name = import.split('"').next().unwrap_or_default();
                assert!(served(&format!("/ui/{name}")), "{path} imports {name}");
            }
            let makes_markup = content.contains("innerHTML") || content.contains("eval(");
            assert!(!makes_markup, "{path} turns text into markup or code");
        }
        assert!(served("/ui/log-noise.json"));
    }
}
