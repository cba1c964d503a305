//! Every binding of every RPC, built once from the descriptors.

use std::collections::HashSet;

use axum::http::Method;
use ferroflow_proto::google::api::HttpRule;
use ferroflow_proto::google::api::http_rule::Pattern;
use prost_reflect::{
    DescriptorPool, ExtensionDescriptor, FieldDescriptor, MessageDescriptor, MethodDescriptor,
    Value,
};

use super::template::{Segment, Template, is_canonical};
use crate::contracts::is_text;

/// One way to reach an RPC over HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    /// The RPC.
    pub(crate) method: MethodDescriptor,
    /// The HTTP method; none for every method.
    pub(crate) http: Option<Method>,
    /// The path as it is written.
    pub(crate) path: String,
    template: Template,
    /// The field that is the body, `*` for the whole message, empty for none.
    pub(crate) body: String,
    /// The field that is the body of the response; none for the whole message.
    pub(crate) response: Option<FieldDescriptor>,
}

/// All bindings, the most special first.
pub(crate) struct Routes {
    bindings: Vec<Binding>,
}

/// A binding that a request matches, with the values of its path's variables.
pub(crate) struct RouteMatch<'r> {
    /// The binding.
    pub(crate) binding: &'r Binding,
    /// Field paths and values.
    pub(crate) variables: Vec<(&'r str, String)>,
}

/// Why no binding was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RouteError {
    /// The path has an escape or a segment that is not allowed.
    Path,
    /// No RPC has this path.
    Unknown,
    /// Only these methods have it.
    Method(Vec<Method>),
}

impl Binding {
    /// Whether it is for requests of a method.
    fn accepts_method(&self, method: &Method) -> bool {
        self.http.as_ref().is_none_or(|http| http == method)
    }
}

impl Routes {
    /// The bindings of every service in the pool.
    ///
    /// # Errors
    /// Names the RPC whose rule cannot be read, or two that cannot be told apart.
    pub(crate) fn build(pool: &DescriptorPool) -> Result<Self, String> {
        let extension = pool.get_extension_by_name("google.api.http");
        let extension = extension.ok_or("google.api.http is not among the descriptors")?;
        let mut bindings: Vec<Binding> = Vec::new();
        for method in pool
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
        {
            bindings.extend(bindings_of(&method, &extension)?);
        }
        // The first match counts: special templates before general ones, one method before all
        // methods.
        bindings.sort_by_key(|binding| (rank(&binding.template), binding.http.is_none()));
        // Of two bindings that match alike, the order of the files would choose.
        let mut taken = HashSet::new();
        for binding in &bindings {
            let Template { segments, verb, .. } = &binding.template;
            if !taken.insert((segments, verb, &binding.http)) {
                let (name, path) = (binding.method.full_name(), &binding.path);
                return Err(format!(
                    "{name} is bound to {path}, which something else is bound to as well"
                ));
            }
        }
        Ok(Self { bindings })
    }

    /// Every binding.
    pub(crate) fn all(&self) -> &[Binding] {
        &self.bindings
    }

    /// The binding for a request. HEAD is answered like GET.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Result<RouteMatch<'_>, RouteError> {
        let raw = path.strip_prefix('/').ok_or(RouteError::Path)?;
        if !is_canonical(raw) {
            return Err(RouteError::Path);
        }
        // The server leaves out the body of an answer to HEAD.
        let wanted = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let (mut other_methods, mut is_verb) = (Vec::new(), false);
        for binding in &self.bindings {
            let accepts = binding.accepts_method(wanted);
            let Some(variables) = binding.template.matches(raw) else {
                is_verb |= accepts && binding.template.has_bare_verb(raw);
                continue;
            };
            // Templates with verbs came first: by now it is known that the path ends with a verb
            // and has no value before it (`/v1/items/:archive`). The verb is not a value either.
            if is_verb && binding.template.verb.is_none() {
                continue;
            }
            if accepts {
                return Ok(RouteMatch { binding, variables });
            }
            other_methods.extend(binding.http.clone());
        }
        let mut seen = HashSet::new();
        other_methods.retain(|method| seen.insert(method.clone()));
        Err(if other_methods.is_empty() {
            RouteError::Unknown
        } else {
            RouteError::Method(other_methods)
        })
    }
}

/// Literals before single wildcards before the rest, and verbs before none.
fn rank(template: &Template) -> (bool, Vec<(u8, Segment)>) {
    let segments = template.segments.iter().map(|segment| {
        let rank = match segment {
            Segment::Literal(_) => 0,
            Segment::Wildcard => 1,
            Segment::Rest => 2,
        };
        (rank, segment.clone())
    });
    (template.verb.is_none(), segments.collect())
}

/// The bindings of an RPC, none if it states no rule.
fn bindings_of(
    method: &MethodDescriptor,
    extension: &ExtensionDescriptor,
) -> Result<Vec<Binding>, String> {
    let options = method.options();
    if !options.has_extension(extension) {
        return Ok(Vec::new());
    }
    let named = |problem: String| format!("{}: {problem}", method.full_name());
    let rule = match options.get_extension(extension).as_ref() {
        Value::Message(rule) => rule.transcode_to::<HttpRule>().ok(),
        _ => None,
    };
    let mut rule = rule.ok_or_else(|| named("its http rule cannot be read".to_owned()))?;
    if method.is_client_streaming() {
        return Err(named(
            "streams of requests cannot be bound to HTTP".to_owned(),
        ));
    }
    let mut rules = std::mem::take(&mut rule.additional_bindings);
    if rules
        .iter()
        .any(|rule| !rule.additional_bindings.is_empty())
    {
        return Err(named("additional_bindings are one level deep".to_owned()));
    }
    rules.insert(0, rule);
    let bindings = rules.into_iter().map(|rule| binding(method, rule));
    bindings.collect::<Result<_, _>>().map_err(named)
}

fn binding(method: &MethodDescriptor, rule: HttpRule) -> Result<Binding, String> {
    let (http, path) = match rule.pattern {
        Some(Pattern::Get(path)) => (Some(Method::GET), path),
        Some(Pattern::Put(path)) => (Some(Method::PUT), path),
        Some(Pattern::Post(path)) => (Some(Method::POST), path),
        Some(Pattern::Delete(path)) => (Some(Method::DELETE), path),
        Some(Pattern::Patch(path)) => (Some(Method::PATCH), path),
        Some(Pattern::Custom(custom)) if custom.kind == "*" => (None, custom.path),
        Some(Pattern::Custom(custom)) => {
            let http = Method::from_bytes(custom.kind.as_bytes());
            let http = http.map_err(|_| format!("{:?} is no HTTP method", custom.kind))?;
            (Some(http), custom.path)
        }
        None => return Err("its http rule has no path".to_owned()),
    };
    let template = Template::parse(&path)?;
    for variable in &template.variables {
        check_variable(&method.input(), &variable.field)?;
    }
    let field = |message: MessageDescriptor, name: &str| {
        let field = message.get_field_by_name(name);
        field.ok_or_else(|| format!("its body {name} is no field of {}", message.name()))
    };
    if !matches!(rule.body.as_str(), "" | "*") {
        field(method.input(), &rule.body)?;
    }
    let response = match rule.response_body.as_str() {
        "" => None,
        name => Some(field(method.output(), name)?),
    };
    Ok(Binding {
        method: method.clone(),
        http,
        path,
        template,
        body: rule.body,
        response,
    })
}

/// A variable is one text, in messages that are there once.
fn check_variable(input: &MessageDescriptor, path: &str) -> Result<(), String> {
    let wrong = |problem: &str| format!("variable {path}: {problem}");
    let mut message = Some(input.clone());
    let mut last = None;
    for part in path.split('.') {
        let outer = message.ok_or_else(|| wrong("a scalar has no fields"))?;
        let field = outer.get_field_by_name(part);
        let field = field.ok_or_else(|| wrong(&format!("there is no field {part}")))?;
        if field.is_list() || field.is_map() {
            return Err(wrong(&format!("{part} is repeated")));
        }
        message = field.kind().as_message().cloned();
        last = Some(field.kind());
    }
    match last {
        Some(kind) if is_text(&kind) => Ok(()),
        _ => Err(wrong("a message is no text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: Method, path: &str) -> Result<String, RouteError> {
        let routes = Routes::build(ferroflow_proto::pool()).unwrap();
        routes
            .find(&method, path)
            .map(|found| found.binding.method.name().to_owned())
    }

    fn built(rules: &[&str]) -> Result<Routes, String> {
        let rpcs = rules.iter().enumerate().map(|(number, rule)| {
            format!("rpc R{number}(M) returns (M) {{ option (google.api.http) = {{{rule}}}; }}")
        });
        let rpcs: String = rpcs.collect();
        let text = format!(
            "syntax = \"proto3\"; package t; import \"google/api/annotations.proto\"; \
             message M {{ string id = 1; M m = 2; repeated string many = 3; }} \
             service S {{ {rpcs} }}"
        );
        Routes::build(crate::contracts::tests::compiled(&text).pool())
    }

    #[test]
    fn rules_that_cannot_be_served_stop_the_start() {
        for (rules, problem) in [
            (vec![""], "t.S.R0: its http rule has no path"),
            (vec![r#"get: "v1""#], "must begin with /"),
            (
                vec![r#"get: "/v1/{nope}""#],
                "variable nope: there is no field nope",
            ),
            (
                vec![r#"get: "/v1/{id.x}""#],
                "variable id.x: a scalar has no fields",
            ),
            (
                vec![r#"get: "/v1/{many}""#],
                "variable many: many is repeated",
            ),
            (
                vec![r#"get: "/v1/{m}""#],
                "variable m: a message is no text",
            ),
            (
                vec![r#"post: "/v1" body: "nope""#],
                "its body nope is no field of M",
            ),
            (
                vec![r#"get: "/v1" response_body: "nope""#],
                "nope is no field of M",
            ),
            (
                vec![r#"custom {kind: "A B" path: "/v1"}"#],
                "is no HTTP method",
            ),
            (
                vec![
                    r#"get: "/a" additional_bindings {get: "/b" additional_bindings {get: "/c"}}"#,
                ],
                "one level deep",
            ),
            (
                vec![
                    r#"get: "/v1/{id}""#,
                    r#"post: "/v1/{id}""#,
                    r#"get: "/v1/{m.id}""#,
                ],
                "which something else is bound to as well",
            ),
            (
                vec![r#"get: "/v1" additional_bindings {get: "/v1"}"#],
                "which something else is bound to as well",
            ),
        ] {
            let error = built(&rules).err().unwrap();
            assert!(error.contains(problem), "{rules:?}: {error}");
        }
    }

    #[test]
    fn the_most_special_binding_is_found_in_whatever_order_they_stand() {
        let mut rules = vec![
            r#"get: "/v1/{id=**}""#,
            r#"get: "/v1/{id}""#,
            r#"get: "/v1/{id}/x""#,
            r#"get: "/v1/a""#,
            r#"get: "/v1/a/{id}""#,
            r#"get: "/v1/{id}:do""#,
            r#"get: "/v1/{id=**}:do""#,
            r#"custom {kind: "*" path: "/v1/a"}"#,
        ];
        for _ in 0..rules.len() {
            rules.rotate_left(1);
            let routes = built(&rules).unwrap();
            for (method, path, expected) in [
                (Method::GET, "/v1/a", r#"get: "/v1/a""#),
                (Method::PUT, "/v1/a", r#"custom {kind: "*" path: "/v1/a"}"#),
                (Method::GET, "/v1/b", r#"get: "/v1/{id}""#),
                (Method::GET, "/v1/a/x", r#"get: "/v1/a/{id}""#),
                (Method::GET, "/v1/b/x", r#"get: "/v1/{id}/x""#),
                (Method::GET, "/v1/b/y", r#"get: "/v1/{id=**}""#),
                (Method::GET, "/v1", r#"get: "/v1/{id=**}""#),
                (Method::GET, "/v1/a:do", r#"get: "/v1/{id}:do""#),
                (Method::GET, "/v1/a/b:do", r#"get: "/v1/{id=**}:do""#),
            ] {
                let found = routes.find(&method, path).ok().unwrap();
                let number: usize = found.binding.method.name()[1..].parse().unwrap();
                assert_eq!(rules[number], expected, "{method} {path}");
            }
        }
    }

    #[test]
    fn a_verb_that_is_known_is_no_part_of_a_value() {
        let routes = built(&[r#"get: "/v1/{id}""#, r#"get: "/v1/{id}:do""#]).unwrap();
        let find = |path| {
            routes
                .find(&Method::GET, path)
                .map(|found| found.variables[0].1.clone())
        };
        assert_eq!(find("/v1/7:do").as_deref(), Ok("7"));
        assert_eq!(find("/v1/7:other").as_deref(), Ok("7:other"));
        assert_eq!(find("/v1/:other").as_deref(), Ok(":other"));
        assert_eq!(find("/v1/:do"), Err(RouteError::Unknown));
        assert_eq!(find("/v1/7%3Ado").as_deref(), Ok("7:do"));
    }

    #[test]
    fn paths_lead_to_their_rpcs() {
        for (method, path, rpc) in [
            (Method::GET, "/apis/v2beta1/runs/7", "GetRun"),
            (
                Method::POST,
                "/apis/v2beta1/runs/7:terminate",
                "TerminateRun",
            ),
            (
                Method::POST,
                "/apis/v2beta1/pipelines/create",
                "CreatePipelineAndVersion",
            ),
            (
                Method::GET,
                "/apis/v2beta1/pipelines/names/x",
                "GetPipelineByName",
            ),
            (Method::HEAD, "/apis/v2beta1/pipelines/x", "GetPipeline"),
            (
                Method::GET,
                "/apis/v1alpha1/runs/7/nodes/9/log",
                "StreamLogs",
            ),
        ] {
            assert_eq!(found(method, path).as_deref(), Ok(rpc), "{path}");
        }
        assert_eq!(found(Method::GET, "/apis/none"), Err(RouteError::Unknown));
        assert_eq!(
            found(Method::GET, "/apis/v2beta1/runs/.."),
            Err(RouteError::Path)
        );
        assert_eq!(
            found(Method::PUT, "/apis/v2beta1/runs"),
            Err(RouteError::Method(vec![Method::POST, Method::GET]))
        );
    }
}
