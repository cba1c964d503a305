//! The contracts of the services behind the gateway: what routes, rules of access, reflection and
//! the OpenAPI document are made of.

use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};

/// The descriptors of every service that clients may call.
#[derive(Debug, Clone)]
pub struct Contracts {
    pool: DescriptorPool,
}

impl Default for Contracts {
    /// Those of `proto/`.
    fn default() -> Self {
        Self {
            pool: ferroflow_proto::pool().clone(),
        }
    }
}

impl Contracts {
    /// These, and those of an encoded `google.protobuf.FileDescriptorSet` that has its imports with
    /// it. A file that is known already is the same in both.
    ///
    /// # Errors
    /// Why the set cannot be added.
    pub fn with(mut self, encoded: &[u8]) -> Result<Self, String> {
        let added = self.pool.decode_file_descriptor_set(encoded);
        added.map_err(|error| format!("the descriptors cannot be added: {error}"))?;
        Ok(self)
    }

    pub(crate) fn pool(&self) -> &DescriptorPool {
        &self.pool
    }

    /// All of them as one encoded set, with their options.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        self.pool.encode_to_vec()
    }
}

/// Whether a message is a scalar that may be absent.
pub(crate) fn is_wrapper(message: &MessageDescriptor) -> bool {
    let name = message.full_name().strip_prefix("google.protobuf.");
    matches!(
        name,
        Some(
            "DoubleValue"
                | "FloatValue"
                | "Int64Value"
                | "UInt64Value"
                | "Int32Value"
                | "UInt32Value"
                | "BoolValue"
                | "StringValue"
                | "BytesValue"
        )
    )
}

/// Whether a value is one text, as a part of a path can be.
pub(crate) fn is_text(kind: &Kind) -> bool {
    let Kind::Message(message) = kind else {
        return true;
    };
    let name = message.full_name().strip_prefix("google.protobuf.");
    is_wrapper(message) || matches!(name, Some("Timestamp" | "Duration" | "FieldMask"))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use protox::file::{
        ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver,
    };

    use super::*;

    /// One file whose text is here.
    struct SingleFileResolver(String);

    impl FileResolver for SingleFileResolver {
        fn open_file(&self, name: &str) -> Result<File, protox::Error> {
            if name == "t.proto" {
                return File::from_source(name, &self.0);
            }
            Err(protox::Error::file_not_found(name))
        }
    }

    /// The contracts, and that of a service that only a test has.
    pub(crate) fn compiled(text: &str) -> Contracts {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
        let mut files = ChainFileResolver::new();
        files.add(SingleFileResolver(text.to_owned()));
        files.add(IncludeFileResolver::new(root));
        files.add(GoogleFileResolver::new());
        let mut compiler = protox::Compiler::with_file_resolver(files);
        compiler.include_imports(true).open_file("t.proto").unwrap();
        let set = compiler.encode_file_descriptor_set();
        Contracts::default().with(&set).unwrap()
    }

    #[test]
    fn a_further_contract_stands_beside_those_that_are_known() {
        let contracts = compiled("syntax = \"proto3\"; package t; message M {} service S {}");

        let pool = DescriptorPool::decode(contracts.encoded().as_slice()).unwrap();
        for service in ["t.S", "ferroflow.events.v1.EventService"] {
            assert!(pool.get_service_by_name(service).is_some(), "{service}");
        }
        assert!(ferroflow_proto::pool().get_service_by_name("t.S").is_none());
    }

    #[test]
    fn options_survive_the_encoding() {
        let pool = DescriptorPool::decode(Contracts::default().encoded().as_slice()).unwrap();
        let http = pool.get_extension_by_name("google.api.http").unwrap();
        let service = pool.get_service_by_name("ferroflow.events.v1.EventService");

        let watch = service.unwrap().methods().next().unwrap();

        assert!(watch.options().has_extension(&http));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        let error = Contracts::default().with(b"\xff\xff").unwrap_err();
        assert!(
            error.starts_with("the descriptors cannot be added: "),
            "{error}"
        );
    }
}
