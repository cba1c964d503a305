//! How deep messages may nest: checked on the encoded bytes, before anything recurses over them.
//!
//! One object of a `google.protobuf.Struct` is three messages (the struct, its entry, the value), so
//! prost's fixed limit of 100 messages is about 30 objects, and a constant of a pipeline is ten
//! deep before it begins. prost is therefore built without its limit, and [`Codec`], which every
//! generated client and server uses, sets this one.

use std::marker::PhantomData;

use prost::bytes::Buf as _;
use prost::{Message, Name};
use prost_reflect::{Kind, MessageDescriptor};
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

/// Messages inside one another, the outermost included.
pub const MESSAGES_MAX: usize = 400;

/// The largest message of which no descriptor is at hand: even if every byte of it opened a group,
/// skipping it would recurse no deeper than that.
pub const UNKNOWN_BYTES_MAX: usize = 1024;

/// What is wrong with a message's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Deep,
    Group,
    Broken,
}

/// Checks the encoded message without recursion.
///
/// # Errors
/// `InvalidArgument` for a message that nests deeper than [`MESSAGES_MAX`], or is none.
pub fn check(message: &MessageDescriptor, bytes: &[u8]) -> Result<(), Status> {
    let problem = match scan(message, bytes) {
        Ok(()) => return Ok(()),
        Err(Fault::Deep) => format!(
            "the message is nested deeper than {MESSAGES_MAX} messages (an object of a value counts \
             three): give values that are nested less"
        ),
        Err(Fault::Group) => "groups are not part of proto3".to_owned(),
        Err(Fault::Broken) => "the message is not valid protobuf".to_owned(),
    };
    Err(Status::invalid_argument(problem))
}

fn scan(message: &MessageDescriptor, bytes: &[u8]) -> Result<(), Fault> {
    if is_shallow(bytes.len(), 1) {
        return Ok(());
    }
    // Where each message that is open ends, and what it is.
    let mut open = vec![(bytes.len(), message.clone())];
    let mut at = 0;
    while let Some((end, message)) = open.last() {
        let end = *end;
        if at == end {
            open.pop();
            continue;
        }
        let key = varint(bytes, &mut at, end)?;
        // By the wire type. A group (3 to 4) has no length: prost would recurse over one to skip
        // it.
        let skip = match key & 7 {
            0 => {
                varint(bytes, &mut at, end)?;
                0
            }
            1 => 8,
            5 => 4,
            2 => usize::try_from(varint(bytes, &mut at, end)?).map_err(|_| Fault::Broken)?,
            3 | 4 => return Err(Fault::Group),
            _ => return Err(Fault::Broken),
        };
        if skip > end - at {
            return Err(Fault::Broken);
        }
        // Only a field with a length (wire type 2) can be a message.
        let field = u32::try_from(key >> 3).ok().filter(|_| key & 7 == 2);
        let field = field.and_then(|number| message.get_field(number));
        match field.map(|field| field.kind()) {
            // Messages that are too short to nest too deep are passed over as a whole.
            Some(Kind::Message(inner)) if !is_shallow(skip, open.len() + 1) => {
                if open.len() == MESSAGES_MAX {
                    return Err(Fault::Deep);
                }
                open.push((at + skip, inner));
            }
            _ => at += skip,
        }
    }
    Ok(())
}

/// Whether a message of `len` bytes at this depth is too short to nest too deep: each level has a
/// key and a length.
fn is_shallow(len: usize, depth: usize) -> bool {
    depth + len / 2 <= MESSAGES_MAX
}

fn varint(bytes: &[u8], at: &mut usize, end: usize) -> Result<u64, Fault> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        if *at == end {
            return Err(Fault::Broken);
        }
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Fault::Broken)
}

/// prost's codec behind the check.
#[derive(Debug, Clone)]
pub struct Codec<T, U> {
    prost: ProstCodec<T, U>,
}

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self {
            prost: ProstCodec::default(),
        }
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = CheckedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        self.prost.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        CheckedDecoder(PhantomData)
    }
}

/// Decodes what passes the check.
#[derive(Debug, Clone)]
pub struct CheckedDecoder<U>(PhantomData<U>);

impl<U: Message + Name + Default> Decoder for CheckedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = source.copy_to_bytes(source.remaining());
        // Most messages are too short to nest deep, and need no descriptor.
        if !is_shallow(bytes.len(), 1) {
            let message = crate::pool().get_message_by_name(&U::full_name());
            let message =
                message.ok_or_else(|| Status::internal("the message's type is unknown"))?;
            check(&message, &bytes)?;
        }
        let decoded = U::decode(bytes);
        decoded.map(Some).map_err(|error| {
            Status::invalid_argument(format!("the message cannot be read: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tonic::Code;

    use super::*;
    use crate::json::{from_json, to_json};

    fn nested(objects: usize) -> Value {
        (0..objects).fold(json!(1), |inner, _| json!({"x": inner}))
    }

    fn value() -> MessageDescriptor {
        crate::pool()
            .get_message_by_name("google.protobuf.Value")
            .unwrap()
    }

    #[test]
    fn values_of_any_useful_depth_pass_and_come_back() {
        let deep = nested(130);
        let bytes = from_json(&deep).encode_to_vec();

        assert!(check(&value(), &bytes).is_ok());
        let decoded = prost_types::Value::decode(&bytes[..]).unwrap();
        assert_eq!(to_json(&decoded), deep);
    }

    #[test]
    fn deeper_ones_and_groups_are_refused_before_anything_recurses() {
        let deep = from_json(&nested(140)).encode_to_vec();
        let status = check(&value(), &deep).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("nested deeper"), "{status}");

        // Field 1 as the beginning of a group, 100,000 times.
        let groups = vec![0x0b; 100_000];
        let status = check(&value(), &groups).unwrap_err();
        assert!(status.message().contains("groups"), "{status}");
    }

    #[test]
    fn broken_bytes_are_told() {
        for bytes in [
            vec![0xff; 2000],
            [vec![0x12, 0xff, 0xff, 0x7f], vec![0; 900]].concat(),
        ] {
            assert!(check(&value(), &bytes).is_err(), "{:?}", &bytes[..4]);
        }
    }

    #[test]
    fn wide_messages_pass() {
        let wide = json!({"list": vec![json!({"a": 1.5}); 10_000]});
        let bytes = from_json(&wide).encode_to_vec();

        assert!(check(&value(), &bytes).is_ok());
    }
}
