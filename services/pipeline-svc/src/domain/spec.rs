//! A specification as it is stored.

/// Both documents of a compiled pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpecText {
    /// `sha256:…` over both documents.
    pub digest: String,
    /// The PipelineSpec, canonical JSON.
    pub pipeline: String,
    /// The platform document, canonical JSON.
    pub platform: Option<String>,
}
