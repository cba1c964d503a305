//! Templates and paths that nobody meant.

use axum::http::Method;

use super::template::Template;
use crate::fuzz::{ROUTES, fuzz};

#[test]
fn templates() {
    let paths = [
        "v1",
        "v1/a",
        "v1/a/b:c",
        "v1/",
        "",
        ":",
        "a:b:c",
        "v1/%2F/%zz",
    ];
    let dictionary = [
        "{",
        "}",
        "=",
        "*",
        "**",
        "/",
        ":",
        "{a=**}",
        "{b.c=x/*}",
        "%2F",
        "é",
    ];
    fuzz(
        "path templates",
        include_str!("../../tests/corpus/templates.txt"),
        &dictionary,
        |text| {
            let Ok(template) = Template::parse(text) else {
                return false;
            };
            assert!(text.starts_with('/'), "{text:?}");
            let names: Vec<_> = template
                .variables
                .iter()
                .map(|one| one.field.as_str())
                .collect();
            for path in paths {
                let _bare = template.has_bare_verb(path);
                let Some(values) = template.matches(path) else {
                    continue;
                };
                let given: Vec<_> = values.into_iter().map(|(name, _)| name).collect();
                assert_eq!(given, names, "{text:?}");
            }
            true
        },
    );
}

#[test]
fn paths() {
    let dictionary = [
        "/", "..", ".", "%2e", "%2F", "%00", "%c3", "%", ":", ":archive", "//", "\\", "+",
    ];
    let methods = [Method::GET, Method::POST, Method::HEAD, Method::DELETE];
    fuzz(
        "paths",
        include_str!("../../tests/corpus/paths.txt"),
        &dictionary,
        |path| {
            let found = methods
                .iter()
                .filter_map(|method| ROUTES.find(method, path).ok());
            let mut accepted = false;
            for found in found {
                accepted = true;
                for (_, value) in &found.variables {
                    assert!(!value.contains('\0'), "{path:?}");
                    let is_dots = value.split('/').any(|part| part == "..");
                    assert!(!is_dots || path.contains("%2"), "{path:?}");
                }
            }
            accepted
        },
    );
}
