//! Who calls: the holder of an API key, or the one user of an installation without keys.

mod keys;

use std::path::Path;

use axum::http::HeaderMap;
use ferroflow_types::Caller;
use tonic::Status;

use keys::ApiKeys;

/// Tells who calls.
pub(crate) struct Authenticator {
    /// Without keys there is one user.
    keys: Option<ApiKeys>,
}

impl Authenticator {
    /// One that knows the keys of a file; without one, the caller is always the one user.
    ///
    /// # Errors
    /// What is wrong with the file, with the line.
    pub(crate) fn load(keys: Option<&Path>) -> Result<Self, String> {
        let keys = keys.map(ApiKeys::load).transpose()?;
        Ok(Self { keys })
    }

    /// Whether callers are told apart; where they are not, nobody else may reach the gateway.
    pub(crate) fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Who calls, if the request shows it.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        match &self.keys {
            // One user on a loopback address: whoever can connect is that user.
            None => Some(Caller::local()),
            Some(keys) => keys.caller(headers).cloned(),
        }
    }
}

/// What one hears who shows no key that is known.
pub(crate) fn unauthenticated() -> Status {
    Status::unauthenticated(
        "an API key is needed: Authorization: Bearer <key> (kfp.Client(existing_token=…))",
    )
}

#[cfg(test)]
mod tests {
    use axum::http::header;

    use super::*;

    /// `printf secret | sha256sum`.
    const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn bearer(key: &str) -> HeaderMap {
        let value = format!("Bearer {key}").parse().unwrap();
        [(header::AUTHORIZATION, value)].into_iter().collect()
    }

    #[test]
    fn without_keys_everybody_is_the_one_user() {
        let one = Authenticator::load(None).unwrap();

        assert!(!one.has_keys());
        for headers in [HeaderMap::new(), bearer("whatever")] {
            assert_eq!(one.caller(&headers), Some(Caller::local()));
        }
    }

    #[test]
    fn with_keys_a_key_is_needed() {
        let file = std::env::temp_dir().join(format!("keys-{}", std::process::id()));
        std::fs::write(&file, format!("ann: {HASH}\n")).unwrap();
        let some = Authenticator::load(Some(&file)).unwrap();
        std::fs::remove_file(&file).unwrap();

        assert!(some.has_keys());
        let ann = some.caller(&bearer("secret")).unwrap();
        assert_eq!(ann.principal.subject, "ann");
        for headers in [HeaderMap::new(), bearer("other")] {
            assert_eq!(some.caller(&headers), None);
        }
        assert!(
            Authenticator::load(Some(&file)).is_err(),
            "the file is gone"
        );
    }
}
