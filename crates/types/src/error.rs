//! The one error that crosses layers: transport-free, with a public and an internal half.
//!
//! `message` and `violations` may be shown to the caller; `source` is for the log only. `api` turns
//! a kind into a gRPC code in exactly one place (`ferroflow_service::status`).

use std::error::Error as StdError;
use std::fmt;

/// What kind of failure it is; decides the gRPC code and the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong whatever the state of the system is (400).
    Invalid,
    /// No such object, or the caller may not know of it (404).
    NotFound,
    /// The name or id is taken (409).
    AlreadyExists,
    /// The object's state does not allow it (400, `FAILED_PRECONDITION`).
    Precondition,
    /// Somebody else changed it meanwhile, or it is busy (409, `ABORTED`).
    Conflict,
    /// The request does not show who calls (401).
    Unauthenticated,
    /// The caller may not do this (403).
    Forbidden,
    /// A limit is reached (429).
    Exhausted,
    /// A part that is needed does not answer; another try may succeed (503).
    Unavailable,
    /// It took too long (504).
    Deadline,
    /// The installation does not do this (501).
    Unimplemented,
    /// A defect of ours (500).
    Internal,
    /// Stored data is broken (500).
    DataLoss,
}

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The path of the field, for example `root.dag.tasks.train.componentRef.name`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub description: String,
}

impl FieldViolation {
    /// A violation of `field`.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            description: description.into(),
        }
    }
}

impl fmt::Display for FieldViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.description)
    }
}

/// A failure that a caller hears of.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    reason: &'static str,
    message: String,
    violations: Vec<FieldViolation>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Our result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of `kind`; `reason` is a stable word such as `RUN_NOT_FOUND`.
    pub fn new(kind: ErrorKind, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            reason,
            message: message.into(),
            violations: Vec::new(),
            source: None,
        }
    }

    /// A wrong request.
    pub fn invalid(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, reason, message)
    }

    /// A wrong request with every wrong field of it.
    pub fn violations(
        reason: &'static str,
        message: impl Into<String>,
        violations: Vec<FieldViolation>,
    ) -> Self {
        Self {
            violations,
            ..Self::new(ErrorKind::Invalid, reason, message)
        }
    }

    /// An object that is not there.
    pub fn not_found(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, reason, message)
    }

    /// A defect of ours, or a part below that failed: the caller learns no more than that.
    pub fn internal(
        what: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::new(ErrorKind::Internal, "INTERNAL", what).caused_by(source)
    }

    /// Keeps the cause, for the log.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The stable word for programs.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// The sentence for people, without the violations.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Every wrong field.
    pub fn field_violations(&self) -> &[FieldViolation] {
        &self.violations
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for violation in &self.violations {
            write!(f, "; {violation}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

/// An error with all its causes, for logs and for reports to whoever runs the step.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
