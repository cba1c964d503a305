//! What the driver of a run can be asked to do, and how it may answer.

use super::run::RunStatus;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Stop the run.
    Cancel,
    /// Run again what failed.
    Retry,
    /// Stop it and remove it.
    Delete,
}

/// Why it is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such run.
    Missing,
    /// It has ended, so it cannot be stopped.
    Ended(RunStatus),
    /// Only what failed or was stopped can be tried again.
    NotRetryable(RunStatus),
}

impl Request {
    /// The word that is stored.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "CANCEL",
            Self::Retry => "RETRY",
            Self::Delete => "DELETE",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let all = [Self::Cancel, Self::Retry, Self::Delete];
        all.into_iter().find(|one| one.as_str() == text)
    }

    /// Whether a run of this status takes it.
    pub(crate) fn check(self, status: RunStatus) -> Result<(), Refusal> {
        match self {
            Self::Cancel if status.ended() => Err(Refusal::Ended(status)),
            Self::Retry if !status.ended() || status == RunStatus::Succeeded => {
                Err(Refusal::NotRetryable(status))
            }
            Self::Cancel | Self::Retry | Self::Delete => Ok(()),
        }
    }
}

impl Refusal {
    /// The text that is stored.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Missing => "MISSING".to_owned(),
            Self::Ended(status) => format!("ENDED {}", status.as_str()),
            Self::NotRetryable(status) => format!("NOT_RETRYABLE {}", status.as_str()),
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (word, status) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "MISSING" => Some(Self::Missing),
            "ENDED" => Some(Self::Ended(RunStatus::parse(status)?)),
            "NOT_RETRYABLE" => Some(Self::NotRetryable(RunStatus::parse(status)?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_reads_back_the_same() {
        for request in [Request::Cancel, Request::Retry, Request::Delete] {
            assert_eq!(Request::parse(request.as_str()), Some(request));
        }
        for refusal in [
            Refusal::Missing,
            Refusal::Ended(RunStatus::Failed),
            Refusal::NotRetryable(RunStatus::Running),
        ] {
            assert_eq!(Refusal::parse(&refusal.text()), Some(refusal));
        }
        assert_eq!(Refusal::parse("ENDED NOPE"), None);
    }

    #[test]
    fn a_run_takes_what_its_status_allows() {
        assert_eq!(
            Request::Cancel.check(RunStatus::Failed),
            Err(Refusal::Ended(RunStatus::Failed))
        );
        assert_eq!(Request::Cancel.check(RunStatus::Running), Ok(()));
        assert!(Request::Retry.check(RunStatus::Running).is_err());
        assert!(Request::Retry.check(RunStatus::Succeeded).is_err());
        assert_eq!(Request::Retry.check(RunStatus::Canceled), Ok(()));
        assert_eq!(Request::Delete.check(RunStatus::Running), Ok(()));
    }
}
