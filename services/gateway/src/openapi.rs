//! The OpenAPI 3.1 document, out of the same descriptors that transcoding uses.

use std::collections::{BTreeMap, HashMap};
use std::slice;

use prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use crate::contracts::Contracts;
use crate::route::{Binding, Routes};
use crate::uploads::Upload;

/// What a binding to every method is described as.
const ANY: [&str; 5] = ["delete", "get", "patch", "post", "put"];

/// The document.
pub(crate) fn document(contracts: &Contracts, routes: &Routes) -> Value {
    let mut schemas = BTreeMap::new();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut uses = HashMap::new();
    for binding in routes.all() {
        let operation = operation(binding, contracts, &mut schemas);
        let operations = paths.entry(plain_path(&binding.path)).or_default();
        let verb = binding
            .http
            .as_ref()
            .map(|http| http.as_str().to_ascii_lowercase());
        let verbs = match &verb {
            Some(verb) => slice::from_ref(verb),
            None => &ANY.map(str::to_owned)[..],
        };
        for verb in verbs {
            let mut operation = operation.clone();
            number_operation(&mut operation, &mut uses);
            operations.insert(verb.clone(), operation);
        }
    }
    for upload in Upload::ALL {
        let operation = upload_operation(upload, contracts, &mut schemas);
        paths
            .entry(upload.path().to_owned())
            .or_default()
            .insert("post".to_owned(), operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Ferroflow", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// Ids of operations are unique. A method that has several has a number behind the name of each but the
/// first, as the generator of grpc-gateway numbers them.
fn number_operation(operation: &mut Value, uses: &mut HashMap<String, u32>) {
    let Value::String(id) = &mut operation["operationId"] else {
        return;
    };
    let count = uses.entry(id.clone()).or_default();
    *count += 1;
    if *count > 1 {
        id.push_str(&count.to_string());
    }
}

/// `{a=b/*}` as `{a}`.
fn plain_path(path: &str) -> String {
    let mut result = String::new();
    let mut rest = path;
    while let Some(begin) = rest.find('{') {
        let end = rest[begin..]
            .find('}')
            .map_or(rest.len(), |end| begin + end);
        let name = rest[begin..end].split('=').next().unwrap_or_default();
        result.push_str(&rest[..begin]);
        result.push_str(name);
        rest = &rest[end..];
    }
    result + rest
}

fn operation(
    binding: &Binding,
    contracts: &Contracts,
    schemas: &mut BTreeMap<String, Value>,
) -> Value {
    let input = binding.method.input();
    let in_path = |name: &str| {
        binding.path.contains(&format!("{{{name}}}"))
            || binding.path.contains(&format!("{{{name}="))
    };
    let mut parameters = Vec::new();
    for name in path_variables(&binding.path) {
        parameters.push(json!({
            "name": name, "in": "path", "required": true, "schema": {"type": "string"},
        }));
    }
    // Fields of inner messages can be parameters too (`a.b`); only those of the request are
    // described.
    let leaf = |field: &FieldDescriptor| {
        !in_path(field.name()) && field.name() != binding.body && !field.is_map()
    };
    if binding.body != "*" {
        for field in input.fields().filter(leaf) {
            if !matches!(field.kind(), Kind::Message(_)) {
                let schema = field_schema(&field, schemas);
                parameters.push(json!({"name": field.name(), "in": "query", "schema": schema}));
            }
        }
    }
    let output = match &binding.response {
        Some(field) => field_schema(field, schemas),
        None => message_schema(&binding.method.output(), schemas),
    };
    let mut operation = json!({
        "operationId": format!("{}_{}", binding.method.parent_service().name(), binding.method.name()),
        "tags": [binding.method.parent_service().name()],
        "parameters": parameters,
        "responses": {
            "200": {"description": "The answer", "content": {"application/json": {"schema": output}}},
            "default": {
                "description": "What went wrong",
                "content": {"application/json": {"schema": error_schema(contracts, schemas)}},
            },
        },
    });
    let body = match binding.body.as_str() {
        "" => None,
        "*" => Some(message_schema(&input, schemas)),
        name => input
            .get_field_by_name(name)
            .map(|field| field_schema(&field, schemas)),
    };
    if let Some(schema) = body {
        operation["requestBody"] = json!({"content": {"application/json": {"schema": schema}}});
    }
    operation
}

/// A multipart form: no `google.api.http` rule can say that.
fn upload_operation(
    upload: Upload,
    contracts: &Contracts,
    schemas: &mut BTreeMap<String, Value>,
) -> Value {
    let parameters: Vec<_> = upload
        .parameters()
        .iter()
        .map(|(name, description)| {
            json!({
                "name": name, "in": "query", "description": description,
                "required": *name == "pipelineid", "schema": {"type": "string"},
            })
        })
        .collect();
    let output = upload.method(contracts).map(|method| method.output());
    let output = output.map_or_else(|| json!({}), |output| message_schema(&output, schemas));
    let file = json!({
        "type": "string", "contentMediaType": "application/octet-stream",
        "description": "YAML or JSON, or a .zip or .tar.gz that holds it",
    });
    let error = json!({
        "type": "object",
        "properties": {
            "error_message": {"type": "string"}, "error_details": {"type": "string"},
        },
    });
    json!({
        "operationId": format!("PipelineUploadService_{}", upload.rpc()),
        "tags": ["PipelineUploadService"],
        "parameters": parameters,
        "requestBody": {
            "required": true,
            "content": {"multipart/form-data": {"schema": {
                "type": "object", "required": ["uploadfile"], "properties": {"uploadfile": file},
            }}},
        },
        "responses": {
            "200": {"description": "The answer", "content": {"application/json": {"schema": output}}},
            "default": {
                "description": "What went wrong",
                "content": {"application/json": {"schema": error}},
            },
        },
    })
}

fn path_variables(path: &str) -> Vec<&str> {
    let parts = path.split('{').skip(1);
    parts
        .filter_map(|part| part.split(['}', '=']).next())
        .collect()
}

fn error_schema(contracts: &Contracts, schemas: &mut BTreeMap<String, Value>) -> Value {
    match contracts.pool().get_message_by_name("google.rpc.Status") {
        Some(status) => message_schema(&status, schemas),
        None => json!({}),
    }
}

fn message_schema(message: &MessageDescriptor, schemas: &mut BTreeMap<String, Value>) -> Value {
    match message.full_name() {
        "google.protobuf.Timestamp" => return json!({"type": "string", "format": "date-time"}),
        "google.protobuf.Duration" => return json!({"type": "string"}),
        "google.protobuf.Struct" | "google.protobuf.Any" | "google.protobuf.Empty" => {
            return json!({"type": "object"});
        }
        "google.protobuf.Value" => return json!({}),
        "google.protobuf.ListValue" => return json!({"type": "array"}),
        "google.api.HttpBody" => return json!({"type": "string", "format": "binary"}),
        _ => {}
    }
    let name = message.full_name().to_owned();
    if !schemas.contains_key(&name) {
        // Known before its fields are looked at: messages may contain themselves.
        schemas.insert(name.clone(), Value::Null);
        let fields = message.fields();
        let properties: Map<String, Value> = fields
            .map(|field| (field.name().to_owned(), field_schema(&field, schemas)))
            .collect();
        schemas.insert(
            name.clone(),
            json!({"type": "object", "properties": properties}),
        );
    }
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn field_schema(field: &FieldDescriptor, schemas: &mut BTreeMap<String, Value>) -> Value {
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        let value = kind_schema(&entry.map_entry_value_field().kind(), schemas);
        return json!({"type": "object", "additionalProperties": value});
    }
    let one = kind_schema(&field.kind(), schemas);
    match field.cardinality() {
        Cardinality::Repeated => json!({"type": "array", "items": one}),
        _ => one,
    }
}

fn kind_schema(kind: &Kind, schemas: &mut BTreeMap<String, Value>) -> Value {
    match kind {
        Kind::Message(message) => message_schema(message, schemas),
        Kind::Enum(of) => {
            let names: Vec<_> = of.values().map(|value| value.name().to_owned()).collect();
            json!({"type": "string", "enum": names})
        }
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Double | Kind::Float => json!({"type": "number"}),
        Kind::String => json!({"type": "string"}),
        Kind::Bytes => json!({"type": "string", "format": "byte"}),
        // In protobuf's JSON, integers of 64 bits are texts.
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => {
            json!({"type": "string", "format": "int64"})
        }
        _ => json!({"type": "integer", "format": "int32"}),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_binding_is_described() {
        let contracts = Contracts::default();
        let routes = Routes::build(contracts.pool()).unwrap();

        let document = document(&contracts, &routes);

        let create = &document["paths"]["/apis/v2beta1/runs"]["post"];
        assert_eq!(create["operationId"], "RunService_CreateRun");
        assert!(create["requestBody"].is_object());
        let update = "/apis/v2beta1/pipelines/{pipeline.pipeline_id}";
        assert!(document["paths"][update]["patch"].is_object());
        let operations = document["paths"].as_object().unwrap().values();
        let operations: Vec<_> = operations
            .flat_map(|path| path.as_object().unwrap().values())
            .collect();
        assert_eq!(operations.len(), routes.all().len() + Upload::ALL.len());
        let ids: HashSet<_> = operations
            .iter()
            .map(|operation| operation["operationId"].as_str().unwrap())
            .collect();
        assert_eq!(ids.len(), operations.len());
        assert!(ids.contains("TaskService_StreamLogs2"));
    }

    #[test]
    fn uploads_are_described() {
        let contracts = Contracts::default();
        let routes = Routes::build(contracts.pool()).unwrap();

        let document = document(&contracts, &routes);

        for (path, answer, parameter) in [
            ("/apis/v2beta1/pipelines/upload", "Pipeline", "namespace"),
            (
                "/apis/v2beta1/pipelines/upload_version",
                "PipelineVersion",
                "pipelineid",
            ),
        ] {
            let post = &document["paths"][path]["post"];
            let form = &post["requestBody"]["content"]["multipart/form-data"]["schema"];
            assert!(form["properties"]["uploadfile"].is_object(), "{path}");
            let schema = post.pointer("/responses/200/content/application~1json/schema/$ref");
            let schema = schema.and_then(Value::as_str).unwrap();
            assert!(schema.ends_with(&format!(".{answer}")), "{path}: {schema}");
            let mut names = post["parameters"].as_array().unwrap().iter();
            assert!(names.any(|one| one["name"] == parameter), "{path}");
        }
    }
}
