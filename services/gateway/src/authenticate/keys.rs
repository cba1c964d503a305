//! API keys: who calls, by a secret that the request carries.
//!
//! The file has a line `principal:<SHA-256 of the key, hexadecimal>` for each key; `#` begins a
//! comment. Behind the hash there may be `namespaces=a,b`: the key is good for these and no others;
//! without it, it is the single user's. A key is looked for by its hash, which is compared with
//! every line in the same time, so that neither the file nor the time of an answer tells a key.

use std::path::Path;

use axum::http::{HeaderMap, header};
use ferroflow_types::{Access, Caller, Namespace, Principal};
use sha2::{Digest as _, Sha256};

type Hash = [u8; 32];

/// Every key that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiKeys(Vec<(Caller, Hash)>);

impl ApiKeys {
    /// The keys of a file.
    ///
    /// # Errors
    /// What is wrong, with the line.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split_once('#').map_or(line, |(line, _)| line).trim();
            if line.is_empty() {
                continue;
            }
            let wrong = |problem: &str| format!("line {number}: {problem}");
            // A service account's name has colons of its own.
            let (subject, hash) = line
                .rsplit_once(':')
                .ok_or_else(|| wrong("`principal:sha256-of-the-key` is needed"))?;
            let subject = subject.trim();
            if subject.is_empty() {
                return Err(wrong("the principal is empty"));
            }
            let (hash, access) = match hash.trim().split_once(char::is_whitespace) {
                None => (hash.trim(), Access::SingleUser),
                Some((hash, rest)) => (hash, namespaces(rest.trim()).map_err(|p| wrong(&p))?),
            };
            let mut bytes = Hash::default();
            hex::decode_to_slice(hash, &mut bytes)
                .map_err(|_| wrong("the hash is not 64 hexadecimal digits (sha256sum)"))?;
            let principal = Principal {
                subject: subject.to_owned(),
                groups: Vec::new(),
            };
            keys.push((Caller { principal, access }, bytes));
        }
        if keys.is_empty() {
            return Err("it holds no key".to_owned());
        }
        Ok(Self(keys))
    }

    /// Who calls, if the request carries a key of ours.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Option<&Caller> {
        let given = headers.get(header::AUTHORIZATION)?.as_bytes();
        // The name of a scheme is the same in either case (RFC 9110 §11.1).
        let (scheme, key) = given.split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return None;
        }
        let hash: Hash = Sha256::digest(key.trim_ascii()).into();
        // Every line is compared to its end, also after a match: the time of an answer must not
        // tell a key.
        let mut found = None;
        for (caller, known) in &self.0 {
            let difference = known
                .iter()
                .zip(&hash)
                .fold(0, |difference, (a, b)| difference | (a ^ b));
            if difference == 0 {
                found = Some(caller);
            }
        }
        found
    }
}

/// What stands behind a hash.
fn namespaces(text: &str) -> Result<Access, String> {
    let names = text.strip_prefix("namespaces=").ok_or_else(|| {
        format!("{text:?} is not known behind the hash: namespaces=a,b may be there")
    })?;
    let parse = |name: &str| name.parse::<Namespace>().map_err(|error| error.to_string());
    let names = names.split(',').map(parse).collect::<Result<_, _>>()?;
    Ok(Access::Namespaces(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf secret | sha256sum`.
    const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn caller(keys: &ApiKeys, authorization: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        let found = keys.caller(&headers);
        found.map(|found| found.principal.subject.clone())
    }

    #[test]
    fn a_key_says_who_calls() {
        let text =
            format!("# keys\n\nann: {HASH} # of the laptop\nsystem:serviceaccount:a:b:{HASH}\n");
        let keys = ApiKeys::parse(&text).unwrap();

        assert_eq!(
            caller(&keys, "Bearer secret").as_deref(),
            Some("system:serviceaccount:a:b")
        );
        assert!(caller(&keys, "bearer  secret").is_some());
        for wrong in [
            "Bearer secre",
            "Bearer ",
            "Basic secret",
            "secret",
            "Bearer secret2",
        ] {
            assert_eq!(caller(&keys, wrong), None, "{wrong}");
        }
        assert_eq!(
            caller(&keys, &format!("Bearer {HASH}")),
            None,
            "the hash is no key"
        );
        assert!(keys.caller(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_key_may_be_good_for_some_namespaces() {
        let text = format!("ann: {HASH}  namespaces=a,team-b # of the team\n");
        let keys = ApiKeys::parse(&text).unwrap();
        let names = ["a", "team-b"].map(|name| name.parse().unwrap());
        assert_eq!(keys.0[0].0.access, Access::Namespaces(names.into()));
    }

    #[test]
    fn a_wrong_line_is_told_by_its_number() {
        assert_eq!(ApiKeys::parse("# none\n").unwrap_err(), "it holds no key");
        for (text, problem) in [
            ("ann", "line 1: `principal:"),
            ("\nann:12", "line 2: the hash"),
            (&format!(":{HASH}"), "line 1: the principal is empty"),
            (
                &format!("ann:{HASH} namespaces="),
                "line 1: \"\" is not a valid namespace",
            ),
            (
                &format!("ann:{HASH} admin"),
                "line 1: \"admin\" is not known",
            ),
        ] {
            let error = ApiKeys::parse(text).unwrap_err();
            assert!(error.starts_with(problem), "{error}");
        }
    }
}
