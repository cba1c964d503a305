//! Every binding of every RPC, built once from the descriptors.

use axum::http::Method;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};

use super::template::{Segment, Template, is_canonical};

/// One way to reach an RPC over HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    /// The RPC.
    pub(crate) method: MethodDescriptor,
    /// The HTTP method.
    pub(crate) http: Method,
    /// The path as it is written.
    pub(crate) path: String,
    template: Template,
    /// The field that is the body, `*` for the whole message.
    pub(crate) body: String,
}

/// All bindings, the most special first.
pub(crate) struct Routes {
    bindings: Vec<Binding>,
}

/// A binding that a request matches, with the values of its path's variables.
pub(crate) struct Found<'r> {
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
            let options = method.options();
            if !options.has_extension(&extension) {
                continue;
            }
            let rule = options.get_extension(&extension).into_owned();
            let Value::Message(rule) = rule else { continue };
            bindings.push(binding(&method, &rule)?);
            if let Some(more) = rule.get_field_by_name("additional_bindings")
                && let Value::List(rules) = more.into_owned()
            {
                for rule in rules {
                    if let Value::Message(rule) = rule {
                        bindings.push(binding(&method, &rule)?);
                    }
                }
            }
        }
        bindings.sort_by_key(|binding| rank(&binding.template));
        for pair in bindings.windows(2) {
            let same = pair[0].http == pair[1].http
                && pair[0].template.segments == pair[1].template.segments
                && pair[0].template.verb == pair[1].template.verb;
            if same {
                let (a, b) = (pair[0].method.full_name(), pair[1].method.full_name());
                return Err(format!("{a} and {b} are both bound to {}", pair[0].path));
            }
        }
        Ok(Self { bindings })
    }

    /// Every binding.
    pub(crate) fn all(&self) -> &[Binding] {
        &self.bindings
    }

    /// The binding for a request. HEAD is answered like GET.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Result<Found<'_>, RouteError> {
        let raw = path.strip_prefix('/').ok_or(RouteError::Path)?;
        if !is_canonical(raw) {
            return Err(RouteError::Path);
        }
        let wanted = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let mut others = Vec::new();
        for binding in &self.bindings {
            let Some(variables) = binding.template.matches(raw) else {
                continue;
            };
            if binding.http == wanted {
                return Ok(Found { binding, variables });
            }
            others.push(binding.http.clone());
        }
        others.dedup();
        Err(if others.is_empty() {
            RouteError::Unknown
        } else {
            RouteError::Method(others)
        })
    }
}

/// Literals before single wildcards before the rest, and verbs before none.
fn rank(template: &Template) -> (bool, Vec<(u8, Segment)>) {
    let segments = template.segments.iter().map(|segment| {
        let rank = match segment {
            Segment::Literal(_) => 0,
            Segment::One => 1,
            Segment::Rest => 2,
        };
        (rank, segment.clone())
    });
    (template.verb.is_none(), segments.collect())
}

fn binding(method: &MethodDescriptor, rule: &DynamicMessage) -> Result<Binding, String> {
    let text = |field: &str| match rule
        .get_field_by_name(field)
        .map(std::borrow::Cow::into_owned)
    {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let verbs = [
        ("get", Method::GET),
        ("put", Method::PUT),
        ("post", Method::POST),
        ("delete", Method::DELETE),
        ("patch", Method::PATCH),
    ];
    let found = verbs.into_iter().map(|(field, http)| (text(field), http));
    let name = method.full_name();
    let (path, http) = found
        .into_iter()
        .find(|(path, _)| !path.is_empty())
        .ok_or_else(|| format!("{name}: its http rule has no path"))?;
    let template = Template::parse(&path).map_err(|problem| format!("{name}: {problem}"))?;
    for variable in &template.variables {
        let mut message = Some(method.input());
        for part in variable.field.split('.') {
            let field = message
                .as_ref()
                .and_then(|message| message.get_field_by_name(part));
            let field =
                field.ok_or_else(|| format!("{name}: there is no field {}", variable.field))?;
            message = field.kind().as_message().cloned();
        }
    }
    Ok(Binding {
        method: method.clone(),
        http,
        path,
        template,
        body: text("body"),
    })
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
