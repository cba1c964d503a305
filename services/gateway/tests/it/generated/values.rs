//! Values at random, and the spellings that stand for them.

use std::fmt::Write as _;

use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value};

/// SplitMix64: the same numbers everywhere.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// A text that is never empty, `.` or `..`.
    pub(super) fn text(&mut self) -> String {
        const LETTERS: [&str; 24] = [
            "a", "Z", "0", "-", "_", ".", "~", " ", "/", "%", "?", "&", "=", "+", ":", ";", ",",
            "#", "é", "漢", "\"", "'", "\\", "\u{1}",
        ];
        let length = 1 + self.below(6);
        let text: String = (0..length).map(|_| self.pick(&LETTERS)).collect();
        if text.chars().all(|c| c == '.') {
            "dots".to_owned()
        } else {
            text
        }
    }

    /// A text in a URL; `plain` are letters that need no escape where it stands.
    pub(super) fn escaped(&mut self, text: &str, plain: &str) -> String {
        let mut escaped = String::new();
        for letter in text.chars() {
            let may = letter.is_ascii_alphanumeric() || plain.contains(letter);
            if may && !self.one_in(8) {
                escaped.push(letter);
                continue;
            }
            for byte in letter.to_string().bytes() {
                let _infallible = if self.one_in(2) {
                    write!(escaped, "%{byte:02X}")
                } else {
                    write!(escaped, "%{byte:02x}")
                };
            }
        }
        escaped
    }
}

/// A value of a kind, and texts that stand for it in a query.
pub(super) fn scalar(kind: &Kind, random: &mut Random) -> (Value, String) {
    let small = i64::try_from(random.next() % 2_000_000).unwrap() - 1_000_000;
    match kind {
        Kind::String => {
            let text = random.text();
            (Value::String(text.clone()), text)
        }
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            let number = random.pick(&[i32::try_from(small).unwrap(), i32::MIN, i32::MAX, 0]);
            (Value::I32(number), number.to_string())
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            let number = random.pick(&[small, i64::MIN, i64::MAX, 0]);
            (Value::I64(number), number.to_string())
        }
        Kind::Uint32 | Kind::Fixed32 => {
            let number = random.pick(&[7, u32::MAX, 0]);
            (Value::U32(number), number.to_string())
        }
        Kind::Uint64 | Kind::Fixed64 => {
            let number = random.pick(&[7, u64::MAX, 0]);
            (Value::U64(number), number.to_string())
        }
        Kind::Double => {
            let (number, text) = random.pick(&[
                (0.5, "0.5"),
                (-1e300, "-1e300"),
                (3.0, "3"),
                (1500.0, "1.5E3"),
                (f64::INFINITY, "Infinity"),
            ]);
            (Value::F64(number), text.to_owned())
        }
        Kind::Float => {
            let (number, text) = random.pick(&[
                (0.25, "0.25"),
                (-3.0, "-3"),
                (f32::NEG_INFINITY, "-Infinity"),
            ]);
            (Value::F32(number), text.to_owned())
        }
        Kind::Bool => {
            let flag = random.one_in(2);
            (Value::Bool(flag), flag.to_string())
        }
        Kind::Enum(of) => {
            let number = random.pick(&[0, 1, 2, 99]);
            let name = of.get_value(number).map(|value| value.name().to_owned());
            let text = name.filter(|_| random.one_in(2));
            (
                Value::EnumNumber(number),
                text.unwrap_or_else(|| number.to_string()),
            )
        }
        Kind::Bytes => {
            let (bytes, texts) = random.pick(&[
                (vec![0xff, 0xef], ["/+8=", "_-8=", "/+8", "_-8"]),
                (vec![1, 2, 3], ["AQID"; 4]),
            ]);
            (Value::Bytes(bytes.into()), random.pick(&texts).to_owned())
        }
        Kind::Message(message) => well_known(message, random),
    }
}

/// The same of a message that has a JSON form of its own.
fn well_known(message: &MessageDescriptor, random: &mut Random) -> (Value, String) {
    let (json, text) = match message.name() {
        "Timestamp" => random.pick(&[
            ("\"2026-01-02T03:04:05Z\"", "2026-01-02T03:04:05Z"),
            (
                "\"2026-01-02T03:04:05.250Z\"",
                "2026-01-02T04:04:05.25+01:00",
            ),
        ]),
        "Duration" => random.pick(&[("\"1.500s\"", "1.5s"), ("\"-3s\"", "-3s")]),
        "FieldMask" => random.pick(&[("\"a,bC\"", "a,bC"), ("\"a,bC\"", "a,b_c")]),
        "StringValue" => random.pick(&[("\"5\"", "5"), ("\"a b\"", "a b")]),
        "Int64Value" => random.pick(&[("\"5\"", "5"), ("\"-9\"", "-9")]),
        "BoolValue" => random.pick(&[("true", "true"), ("false", "false")]),
        "DoubleValue" => random.pick(&[("2.5", "2.5"), ("-0.5", "-0.5")]),
        "BytesValue" => random.pick(&[("\"AQ==\"", "AQ"), ("\"/w==\"", "_w")]),
        "Struct" => ("{\"a\": [1, null]}", "{\"a\": [1, null]}"),
        "Value" => random.pick(&[("\"x\"", "\"x\""), ("[true]", "[true]")]),
        "ListValue" => ("[{}, 1.5]", "[{}, 1.5]"),
        other => panic!("{other}"),
    };
    let mut json = serde_json::Deserializer::from_str(json);
    let value = DynamicMessage::deserialize(message.clone(), &mut json).unwrap();
    (Value::Message(value), text.to_owned())
}

/// A value as JSON, in one of its spellings.
pub(super) fn json(value: &Value, kind: &Kind, random: &mut Random) -> String {
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    match (value, kind) {
        (Value::EnumNumber(number), Kind::Enum(of)) => {
            let name = of.get_value(*number).map(|value| quoted(value.name()));
            name.filter(|_| random.one_in(2))
                .unwrap_or_else(|| number.to_string())
        }
        (Value::I32(number), _) => match random.below(3) {
            0 => format!("{number}.0"),
            1 => quoted(&number.to_string()),
            _ => number.to_string(),
        },
        (Value::U32(number), _) => random.pick(&[number.to_string(), quoted(&number.to_string())]),
        (Value::I64(number), _) => random.pick(&[number.to_string(), quoted(&number.to_string())]),
        (Value::U64(number), _) => random.pick(&[number.to_string(), quoted(&number.to_string())]),
        (Value::F64(number), _) if number.is_infinite() => quoted("Infinity"),
        (Value::F64(number), _) => format!("{number:?}"),
        (Value::F32(number), _) if number.is_infinite() => quoted("-Infinity"),
        (Value::F32(number), _) => format!("{number:?}"),
        (Value::Bool(flag), _) => flag.to_string(),
        (Value::String(text), _) => quoted(text),
        (Value::Bytes(bytes), _) if bytes.len() == 2 => {
            random.pick(&["\"/+8=\"", "\"_-8\""]).into()
        }
        (Value::Bytes(_), _) => quoted("AQID"),
        (Value::Message(message), _) if message.descriptor().full_name().starts_with("google.") => {
            serde_json::to_string(message).unwrap()
        }
        (Value::Message(message), _) => {
            let fields = message.fields().map(|(field, value)| {
                let name = random.pick(&[field.name(), field.json_name()]).to_owned();
                format!("{}: {}", quoted(&name), json(value, &field.kind(), random))
            });
            format!(" {{{}}}\n", fields.collect::<Vec<_>>().join(" , "))
        }
        (Value::List(items), kind) => {
            let items = items.iter().map(|item| json(item, kind, random));
            format!("[{}]", items.collect::<Vec<_>>().join(","))
        }
        (Value::Map(entries), Kind::Message(entry)) => {
            let kind = entry.map_entry_value_field().kind();
            let entries = entries.iter().map(|(key, value)| {
                let key = match key {
                    MapKey::String(key) => quoted(key),
                    MapKey::I32(key) => quoted(&key.to_string()),
                    key => panic!("{key:?}"),
                };
                format!("{key}: {}", json(value, &kind, random))
            });
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        (value, kind) => panic!("{value:?} {kind:?}"),
    }
}
