//! Requests made at random of messages, and what the service is asked by them: the same messages.
//!
//! The oracle is the message that a request was written from, by code that shares nothing with the
//! gateway's: every spelling that the mapping allows stands for the same value.

mod values;

use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value};

use crate::test_gateway::TestGateway;
use values::{Random, json, scalar};

/// Requests of each of the two tests.
const CASES: u64 = 400;

/// Fields of a message that a query can give, with their paths in the contract's names.
fn leaves(gateway: &TestGateway) -> Vec<(String, FieldDescriptor)> {
    let leaf = |field: &FieldDescriptor| {
        let inner = field
            .kind()
            .as_message()
            .map(|inner| inner.full_name().to_owned());
        let own = inner.is_some_and(|name| !name.starts_with("google.protobuf."));
        !field.is_map() && !own
    };
    let outer = gateway.message("Everything");
    let mut leaves: Vec<_> = outer
        .fields()
        .filter(leaf)
        .map(|field| (field.name().to_owned(), field))
        .collect();
    for above in ["inner", "inner.deeper"] {
        for field in gateway.message("Inner").fields().filter(leaf) {
            leaves.push((format!("{above}.{}", field.name()), field));
        }
    }
    leaves
}

/// Sets the field at a path.
fn set(message: &mut DynamicMessage, path: &str, value: Value) {
    match path.split_once('.') {
        None if matches!(
            message.get_field_by_name(path).as_deref(),
            Some(Value::List(_))
        ) =>
        {
            message
                .get_field_by_name_mut(path)
                .unwrap()
                .as_list_mut()
                .unwrap()
                .push(value);
        }
        None => message.set_field_by_name(path, value),
        Some((outer, rest)) => {
            let inner = message.get_field_by_name_mut(outer).unwrap();
            set(inner.as_message_mut().unwrap(), rest, value);
        }
    }
}

/// A path in one of its spellings.
fn spelled(gateway: &TestGateway, path: &str, random: &mut Random) -> String {
    let mut message = gateway.message("Everything");
    let parts = path.split('.').map(|part| {
        let field = message.get_field_by_name(part).unwrap();
        if let Some(inner) = field.kind().as_message() {
            message = inner.clone();
        }
        random.pick(&[field.name(), field.json_name()]).to_owned()
    });
    parts.collect::<Vec<_>>().join(".")
}

/// A request and what it is.
struct Case {
    method: &'static str,
    target: String,
    body: String,
    rpc: &'static str,
    message: DynamicMessage,
    /// Top-level fields that the path or body gives.
    taken: Vec<&'static str>,
}

impl Case {
    fn new(gateway: &TestGateway, method: &'static str, rpc: &'static str) -> Self {
        Self {
            method,
            target: String::new(),
            body: String::new(),
            rpc,
            message: DynamicMessage::new(gateway.message("Everything")),
            taken: Vec::new(),
        }
    }

    /// `/v1/…/{text}`, whose last part is a text.
    fn with_text(mut self, before: &str, after: &str, random: &mut Random) -> Self {
        let text = random.text();
        let escaped = random.escaped(&text, "-_.~:;,=+&'");
        self.target = format!("{before}{escaped}{after}");
        self.message.set_field_by_name("text", Value::String(text));
        self.taken.push("text");
        self
    }

    /// Several segments: an encoded slash stays one.
    fn with_segments(
        mut self,
        count: usize,
        random: &mut Random,
        join: impl Fn(&[String]) -> String,
    ) -> Self {
        let texts: Vec<_> = (0..count).map(|_| random.text()).collect();
        let escaped: Vec<_> = texts
            .iter()
            .map(|text| random.escaped(text, "-_.~:"))
            .collect();
        let kept = texts.iter().map(|text| text.replace('/', "%2F"));
        let value = join(&kept.collect::<Vec<_>>());
        self.target = join(&escaped);
        self.message.set_field_by_name("text", Value::String(value));
        self.taken.push("text");
        self
    }

    fn with_body(
        mut self,
        field: Option<&str>,
        gateway: &TestGateway,
        random: &mut Random,
    ) -> Self {
        match field {
            None => {
                let mut body = DynamicMessage::new(gateway.message("Everything"));
                fill(gateway, &mut body, &self.taken, random);
                for (field, value) in body.fields() {
                    self.message.set_field(&field, value.clone());
                }
                let kind = Kind::Message(gateway.message("Everything"));
                self.body = json(&Value::Message(body), &kind, random);
            }
            Some(name) => {
                let descriptor = gateway
                    .message("Everything")
                    .get_field_by_name(name)
                    .unwrap();
                let value = body_field(&descriptor, random);
                self.body = json(&value, &descriptor.kind(), random);
                self.message.set_field(&descriptor, value);
            }
        }
        self
    }
}

/// A value for a field that is a whole body.
fn body_field(field: &FieldDescriptor, random: &mut Random) -> Value {
    let count = random.below(4);
    if field.is_map() {
        let entries = (0..count).map(|number| {
            let key = MapKey::String(format!("{number}{}", random.text()));
            (key, Value::String(random.text()))
        });
        return Value::Map(entries.collect());
    }
    if field.is_list() {
        return Value::List(
            (0..count)
                .map(|_| scalar(&field.kind(), random).0)
                .collect(),
        );
    }
    match field.kind() {
        Kind::Message(inner) => {
            let mut message = DynamicMessage::new(inner);
            message.set_field_by_name("size", Value::I32(3));
            Value::Message(message)
        }
        kind => scalar(&kind, random).0,
    }
}

/// Sets some fields, of each `oneof` one at most; what was given is returned as query parameters.
fn fill(
    gateway: &TestGateway,
    message: &mut DynamicMessage,
    taken: &[&str],
    random: &mut Random,
) -> Vec<(String, String)> {
    let mut given = Vec::new();
    let mut chosen = false;
    for (path, field) in leaves(gateway) {
        let first = path.split('.').next().unwrap();
        if taken.contains(&first) || !random.one_in(6) {
            continue;
        }
        let choice = field
            .containing_oneof()
            .is_some_and(|choice| !choice.is_synthetic());
        if choice && std::mem::replace(&mut chosen, true) {
            continue;
        }
        let count = if field.is_list() {
            1 + random.below(3)
        } else {
            1
        };
        for _ in 0..count {
            let (value, text) = scalar(&field.kind(), random);
            set(message, &path, value);
            given.push((path.clone(), text));
        }
    }
    given
}

fn case(gateway: &TestGateway, random: &mut Random) -> Case {
    let new = |method, rpc| Case::new(gateway, method, rpc);
    let root = random.pick(&["/v1", "/apis/v2beta1"]);
    match random.below(12) {
        0 => new("GET", "Item").with_text(&format!("{root}/items/"), "", random),
        1 => new("POST", "Archive").with_text(&format!("{root}/items/"), ":archive", random),
        2 => {
            let count = 1 + random.below(4);
            let tree = |parts: &[String]| parts.join("/");
            let mut case = new("GET", "Tree").with_segments(count, random, tree);
            case.target = format!("/v1/tree/{}", case.target);
            case
        }
        3 => {
            let tree = |parts: &[String]| parts.join("/");
            let mut case = new("POST", "CancelTree").with_segments(2, random, tree);
            case.target = format!("/v1/tree/{}:cancel", case.target);
            case
        }
        4 => {
            let shelf = |parts: &[String]| format!("shelves/{}/books/{}", parts[0], parts[1]);
            let mut case = new("GET", "Page").with_segments(2, random, shelf);
            let name = random.text();
            let escaped = random.escaped(&name, "-_.~:");
            case.target = format!("/v1/{}/pages/{escaped}", case.target);
            set(&mut case.message, "inner.name", Value::String(name));
            case.taken.push("inner");
            case
        }
        5 => {
            let mut case = new("GET", "Typed");
            case.target = "/v1/typed".to_owned();
            for name in ["int64", "color", "flag", "time"] {
                let field = gateway
                    .message("Everything")
                    .get_field_by_name(name)
                    .unwrap();
                let (value, text) = scalar(&field.kind(), random);
                case.message.set_field(&field, value);
                case.target.extend(["/", &random.escaped(&text, "-:")]);
                case.taken.push(name);
            }
            case
        }
        6..9 => case_with_body(gateway, root, random),
        9 => {
            let mut case = new(random.pick(&["GET", "PUT", "DELETE", "OPTIONS"]), "Any");
            case.target = "/v1/any".to_owned();
            case
        }
        _ => {
            let mut case = new("GET", "Query");
            case.target = format!("{root}/query");
            case
        }
    }
}

fn case_with_body(gateway: &TestGateway, root: &str, random: &mut Random) -> Case {
    let new = |method, rpc| Case::new(gateway, method, rpc);
    match random.below(3) {
        0 => new("POST", "Whole")
            .with_text(&format!("{root}/whole/"), "", random)
            .with_body(None, gateway, random),
        1 => {
            let mut case = new("PATCH", "Part").with_body(Some("inner"), gateway, random);
            let name = random.text();
            let escaped = random.escaped(&name, "-_.~");
            case.target = format!("{root}/part/{escaped}");
            set(&mut case.message, "inner.name", Value::String(name));
            case.taken.push("inner");
            case
        }
        _ => {
            let (path, rpc, field) = random.pick(&[
                ("/v1/texts", "Texts", "texts"),
                ("/v1/labels", "Labels", "labels"),
                ("/v1/text", "Text", "text"),
            ]);
            let mut case = new("PUT", rpc).with_body(Some(field), gateway, random);
            case.target = path.to_owned();
            case.taken.push(field);
            case
        }
    }
}

/// A request with its query.
fn whole_case(gateway: &TestGateway, seed: u64) -> Case {
    let mut random = Random(seed);
    let mut case = case(gateway, &mut random);
    if case.rpc == "Whole" {
        return case;
    }
    let mut given = fill(gateway, &mut case.message, &case.taken, &mut random);
    // Those of one list keep their order, whatever else is between them.
    let turn = random.below(5);
    given.sort_by_key(|(path, _)| (path.len() + turn) * 7 % 5);
    let pairs = given.iter().map(|(path, text)| {
        let name = spelled(gateway, path, &mut random);
        let value = random.escaped(text, "-_.~/:,*").replace("%20", "+");
        format!("{name}={value}")
    });
    let query = pairs.collect::<Vec<_>>().join("&");
    if !query.is_empty() {
        case.target.extend(["?", &query]);
    }
    case
}

/// A message as it comes over the wire, where defaults are not there.
fn message_again(message: &DynamicMessage) -> DynamicMessage {
    let bytes = message.encode_to_vec();
    DynamicMessage::decode(message.descriptor(), bytes.as_slice()).unwrap()
}

#[test]
fn a_request_that_is_written_from_a_message_becomes_it() {
    let gateway = TestGateway::start();
    let mut rpcs = std::collections::BTreeMap::new();
    for seed in 0..CASES {
        let case = whole_case(&gateway, seed);
        let Case {
            method,
            target,
            body,
            ..
        } = &case;
        let what = format!("seed {seed}: {method} {target} {body}");
        let answer = gateway.ask(method, target, &["content-type: application/json"], body);
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        let (rpc, message) = gateway.last_call().unwrap();
        let expected = message_again(&case.message);
        assert_eq!(rpc, case.rpc, "{what}");
        // Their debug text has no end, as a message of theirs holds itself.
        assert!(message == expected, "{what}: {message} is not {expected}");
        *rpcs.entry(rpc).or_insert(0) += 1;
        if !matches!(case.rpc, "Texts" | "Labels" | "Text") {
            // The answer is the message again.
            let mut json = serde_json::Deserializer::from_slice(&answer.body);
            let shown = DynamicMessage::deserialize(gateway.message("Everything"), &mut json);
            assert!(shown.unwrap() == expected, "{what}: {}", answer.text());
        }
    }
    println!("{CASES} requests: {rpcs:?}");
    assert_eq!(rpcs.len(), 13, "{rpcs:?}");
}

#[test]
fn a_request_with_one_fault_is_refused() {
    let gateway = TestGateway::start();
    let mut refused = 0;
    for seed in 0..CASES {
        let Case {
            method,
            target,
            body,
            ..
        } = whole_case(&gateway, seed);
        if target.starts_with("/apis/") {
            continue;
        }
        let mut random = Random(!seed);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut faulty = (path.to_owned(), query.to_owned(), body.clone());
        let fault = random.below(6);
        match fault {
            0 => faulty.1 += "&nope=1",
            1 => faulty.1 += "&int32=x&int32=x",
            2 => faulty.1 += random.pick(&["&text=%", "&text=%f", "&text=%zz", "&%ff=1"]),
            3 => faulty.0 += random.pick(&["%", "%2", "%zz", "%c3", "%00"]),
            4 => faulty.0 += random.pick(&["/..", "/%2e%2E/x", "/."]),
            _ => faulty.2 += random.pick(&["{", "}", "1 2", "{} []", "nul"]),
        }
        let target = format!("{}?{}", faulty.0, faulty.1);
        let answer = gateway.ask(
            method,
            &target,
            &["content-type: application/json"],
            &faulty.2,
        );
        let what = format!("seed {seed}, fault {fault}: {method} {target} {}", faulty.2);
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert!(gateway.last_call().is_none(), "{what}");
        refused += 1;
    }
    println!("{refused} requests refused");
    assert!(refused >= 200, "{refused}");
}
