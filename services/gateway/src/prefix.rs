//! The path below which Kubeflow's UI server passes on calls of the API: scripts have it in their
//! `host`.

use axum::http::Uri;
use axum::http::uri::PathAndQuery;

const PREFIX: &str = "/pipeline";

/// Takes the prefix off, so that `/pipeline/apis/…` is `/apis/…`.
pub(crate) fn strip(uri: &mut Uri) {
    let Some(rest) = uri.path().strip_prefix(PREFIX) else {
        return;
    };
    let path = match rest {
        "" => "/",
        rest if rest.starts_with('/') => rest,
        _ => return,
    };
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    // What is left of a valid path is valid, so neither step fails.
    parts.path_and_query = target.parse::<PathAndQuery>().ok();
    if let Ok(stripped) = Uri::from_parts(parts) {
        *uri = stripped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_segment_is_the_prefix() {
        for (given, expected) in [
            ("/pipeline/apis/v2beta1/runs?a=b", "/apis/v2beta1/runs?a=b"),
            ("/pipeline", "/"),
            ("/pipeline/", "/"),
            ("/pipelines/apis", "/pipelines/apis"),
            ("/pipeline/pipeline/x", "/pipeline/x"),
            ("/apis/pipeline/x", "/apis/pipeline/x"),
            ("http://h:1/pipeline/a%2Fb?c", "http://h:1/a%2Fb?c"),
        ] {
            let mut uri: Uri = given.parse().unwrap();
            strip(&mut uri);
            assert_eq!(uri.to_string(), expected, "{given}");
        }
    }
}
