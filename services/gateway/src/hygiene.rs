//! What no request may bring along, and where requests may come from.
//!
//! Identity and routing headers of clients are dropped before anything reads them. A browser page
//! of another origin may not reach a gateway on this machine: the Host must be one of ours (DNS
//! rebinding), and so must the Origin (cross-site requests).

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};

/// Dropped by name.
const DROPPED_HEADERS: [&str; 6] = [
    "forwarded",
    "kubeflow-groups",
    "kubeflow-userid",
    "x-ff-identity",
    "x-goog-authenticated-user-email",
    "x-real-ip",
];

/// Dropped by the beginning of their name: what proxies say of users and addresses, and what would
/// override the method or the path of the request line (`X-HTTP-Method-Override`,
/// `X-Original-URL`).
const DROPPED_HEADER_PREFIXES: [&str; 5] = [
    "x-auth-",
    "x-forwarded-",
    "x-http-method",
    "x-original-",
    "x-remote-",
];

/// Drops what only a gateway may say, and what belongs to one connection.
pub(crate) fn strip_headers(headers: &mut HeaderMap) {
    // What `Connection` names is for one hop only (RFC 9110 §7.6.1). Headers that the gateway sets
    // are added later, so that no client can have them removed.
    let connection_headers: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| {
            value
                .split(',')
                .map(|name| name.trim().to_ascii_lowercase())
        })
        .collect();
    // Names with `_` go too: a server that takes `_` for `-` would read `kubeflow_userid` as
    // `kubeflow-userid`.
    let dropped: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            DROPPED_HEADERS.contains(&name)
                || DROPPED_HEADER_PREFIXES
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
                || name.contains('_')
                || connection_headers.iter().any(|other| other == name)
        })
        .cloned()
        .collect();
    for name in dropped {
        headers.remove(name);
    }
    headers.remove(header::CONNECTION);
}

/// Why a request is refused before anything looks at it.
pub(crate) type Refusal = (StatusCode, String);

/// Host names that requests may name.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    names: Vec<String>,
}

impl Hosts {
    /// Loopback's names, the address we listen on, and those that are configured.
    pub(crate) fn new(listen: &str, configured: &[String]) -> Self {
        let mut names = vec![
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "[::1]".to_owned(),
        ];
        names.push(host_of(listen).to_ascii_lowercase());
        names.extend(configured.iter().map(|name| name.to_ascii_lowercase()));
        Self { names }
    }

    fn allows(&self, authority: &str) -> bool {
        let host = host_of(authority).to_ascii_lowercase();
        self.names.contains(&host)
    }

    /// Checks which host a request names, and that no page of another origin sends it.
    pub(crate) fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        // A value that is no text becomes `?`, which no host is called, and is refused.
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        // HTTP/2 has `:authority` instead of Host.
        let host =
            text(header::HOST).or_else(|| uri.authority().map(axum::http::uri::Authority::as_str));
        match host {
            Some(host) if self.allows(host) => {}
            host => {
                let host = host.unwrap_or("(none)");
                let message = format!(
                    "host {host} is not one of this gateway's: add it to gateway.allowed_hosts"
                );
                return Err((StatusCode::MISDIRECTED_REQUEST, message));
            }
        }
        // Browsers add `Sec-Fetch-*` themselves, and scripts cannot set it; other clients do not
        // send it.
        let site = headers
            .get("sec-fetch-site")
            .and_then(|value| value.to_str().ok());
        let foreign_origin = text(header::ORIGIN).is_some_and(|origin| {
            origin
                .split_once("://")
                .is_none_or(|(_, authority)| !self.allows(authority))
        });
        // Following a link from another page to a page of ours is the one thing that is allowed.
        let navigation = *method == Method::GET
            && headers
                .get("sec-fetch-mode")
                .is_some_and(|mode| mode == "navigate");
        let foreign_site = matches!(site, Some("cross-site" | "same-site")) && !navigation;
        if foreign_origin || foreign_site {
            let message = "requests from pages of another origin are refused".to_owned();
            return Err((StatusCode::FORBIDDEN, message));
        }
        Ok(())
    }
}

/// What is read of the body of a request that is answered without it.
const UNREAD_BODY_MAX: usize = 64 * 1024;
/// How long that may take.
const UNREAD_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads the body of a request that is answered without it, as far as that costs little: a
/// connection whose request was not read is closed, and the client's next request on it would fail.
pub(crate) async fn drain(body: Body) {
    let read = axum::body::to_bytes(body, UNREAD_BODY_MAX);
    // One that is too long or too slow loses its connection.
    let _read = tokio::time::timeout(UNREAD_BODY_TIMEOUT, read)
        .await
        .is_ok();
}

fn host_of(authority: &str) -> &str {
    match authority.rfind(':') {
        // A colon inside brackets is part of an IPv6 address.
        Some(at) if !authority[at..].contains(']') => &authority[..at],
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, headers: &[(&'static str, &str)]) -> Option<u16> {
        let mut map = HeaderMap::new();
        map.insert(header::HOST, host.parse().unwrap());
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let hosts = Hosts::new("127.0.0.1:8080", &[]);
        let refused = hosts.check(&Method::POST, &Uri::from_static("/"), &map);
        refused.err().map(|(status, _)| status.as_u16())
    }

    #[test]
    fn only_our_own_hosts_and_origins_pass() {
        assert_eq!(check("127.0.0.1:8080", &[]), None);
        assert_eq!(
            check("LOCALHOST", &[("origin", "http://localhost:3000")]),
            None
        );
        assert_eq!(check("[::1]:8080", &[]), None);
        assert_eq!(check("evil.example", &[]), Some(421));
        assert_eq!(
            check("localhost", &[("origin", "http://evil.example")]),
            Some(403)
        );
        assert_eq!(check("localhost", &[("origin", "null")]), Some(403));
        assert_eq!(
            check("localhost", &[("sec-fetch-site", "cross-site")]),
            Some(403)
        );
    }

    #[test]
    fn identity_of_clients_is_dropped() {
        let mut headers = HeaderMap::new();
        for name in [
            "kubeflow-userid",
            "x-forwarded-for",
            "x_y",
            "x-secret",
            "x-kept",
        ] {
            headers.insert(HeaderName::from_static(name), "v".parse().unwrap());
        }
        headers.insert(header::CONNECTION, "x-secret".parse().unwrap());

        strip_headers(&mut headers);

        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-kept"]);
    }
}
