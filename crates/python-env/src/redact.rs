//! Texts without secrets: what tools print, what errors name, what keys are made of.
//!
//! Credentials are part of URLs (`https://user:token@host/…`, `?token=…`), of headers and of `netrc`.
//! Those that are known are hidden wherever they occur; those that are not, where URLs have them.

use std::fmt;

use percent_encoding::percent_decode_str;

/// What is shown in place of a secret.
const MASK: &str = "***";

/// Shorter ones occur in every text.
const SECRET_MIN: usize = 4;

/// Tokens are this long at least (GitLab's are 20, others longer); few names of users are.
const TOKEN_MIN: usize = 20;

/// Whether the name of a user may be a token, which many hosts take in its place.
pub(crate) fn may_be_token(user: &str) -> bool {
    user.len() >= TOKEN_MIN
}

/// Secrets that are known.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

impl Secrets {
    /// Takes note of a secret.
    pub(crate) fn add(&mut self, secret: &str) {
        if secret.len() >= SECRET_MIN && !self.0.iter().any(|known| known == secret) {
            self.0.push(secret.to_owned());
            // The longest first: a part of it must not be replaced before it.
            self.0.sort_by_key(|known| std::cmp::Reverse(known.len()));
        }
    }

    /// Takes note of the credentials of every URL in a text, as they are written and as they are meant.
    /// The name of a user is hidden in URLs only, for it may be any word, unless it may be a token: it
    /// is long, or has no password.
    pub(crate) fn add_urls(&mut self, text: &str) {
        for found in userinfos(text) {
            self.add(found);
            let (user, password) = found.split_once(':').unwrap_or((found, ""));
            if password.is_empty() || may_be_token(user) {
                self.add(user);
                self.add(&decoded(user));
            }
            self.add(password);
            self.add(&decoded(password));
        }
        for (_, value) in sensitive_values(text) {
            self.add(value);
            self.add(&decoded(value));
        }
    }

    /// Takes note of the passwords of a `netrc`.
    pub(crate) fn add_netrc(&mut self, text: &str) {
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            if matches!(word, "password" | "account")
                && let Some(secret) = words.next()
            {
                self.add(secret.trim_matches('"'));
            }
        }
    }

    /// The text without secrets.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut text = without_credentials(text);
        for secret in &self.0 {
            if text.contains(secret) {
                text = text.replace(secret, MASK);
            }
        }
        text
    }
}

/// The text with the credentials of its URLs and headers hidden.
pub(crate) fn without_credentials(text: &str) -> String {
    let spans = userinfos(text)
        .into_iter()
        .chain(sensitive_values(text).into_iter().map(|(_, value)| value))
        .chain(headers(text));
    mask(text, spans)
}

/// The text with the users and passwords of its URLs hidden, and nothing else.
pub(crate) fn without_users(text: &str) -> String {
    mask(text, userinfos(text).into_iter())
}

/// The text with parts of it hidden.
fn mask<'a>(text: &'a str, spans: impl Iterator<Item = &'a str>) -> String {
    let mut spans: Vec<_> = spans
        .map(|span| {
            let start = span.as_ptr() as usize - text.as_ptr() as usize;
            (start, start + span.len())
        })
        // An empty user or password is no secret, and would put the mask where nothing was.
        .filter(|(start, end)| start < end)
        .collect();
    spans.sort_unstable();
    let (mut result, mut at) = (String::with_capacity(text.len()), 0);
    for (start, end) in spans {
        if start >= at {
            result.push_str(&text[at..start]);
            result.push_str(MASK);
        }
        at = at.max(end);
    }
    result.push_str(&text[at..]);
    result
}

/// What ends a URL in a text.
fn ends_url(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`' | '|')
}

/// `user:password` of every URL in a text. The user of an `ssh` URL is no secret.
fn userinfos(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let scheme = &rest[..at];
        let inner = &rest[at + 3..];
        let end = inner
            .find(|c| ends_url(c) || matches!(c, '/' | '?' | '#'))
            .unwrap_or(inner.len());
        let userinfo = inner[..end].rsplit_once('@').map(|(userinfo, _)| userinfo);
        if let Some(userinfo) = userinfo
            && (userinfo.contains(':') || !scheme.ends_with("ssh"))
        {
            found.push(userinfo);
        }
        rest = &inner[end..];
    }
    found
}

/// Names of query parameters that carry secrets contain one of these.
const SENSITIVE: [&str; 7] = [
    "token",
    "secret",
    "password",
    "passwd",
    "signature",
    "credential",
    "apikey",
];

/// Query parameters of URLs in a text whose name says that they are secret.
fn sensitive_values(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(['?', '&']) {
        let rest = &text[at + 1..];
        let end = rest
            .find(|c| ends_url(c) || matches!(c, '&' | '#'))
            .unwrap_or(rest.len());
        let Some((name, value)) = rest[..end].split_once('=') else {
            continue;
        };
        let plain = name.to_ascii_lowercase().replace(['-', '_'], "");
        let is_secret = SENSITIVE.iter().any(|word| plain.contains(word));
        if is_secret || matches!(plain.as_str(), "sig" | "auth" | "key") {
            found.push((name, value));
        }
    }
    found
}

/// The values of `Authorization` headers in a text.
fn headers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let lower = line.to_ascii_lowercase();
        let at = lower.find("authorization:")? + "authorization:".len();
        Some(line.get(at..)?.trim())
    })
}

/// `%41` as `A`; what is no such code stays.
pub(crate) fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_urls_and_headers_are_hidden() {
        for (text, expected) in [
            (
                "cannot fetch https://user:t0ken@host/simple/x (401)",
                "cannot fetch https://***@host/simple/x (401)",
            ),
            (
                "git+https://t0ken@host/r.git@main and ssh://git@host/r",
                "git+https://***@host/r.git@main and ssh://git@host/r",
            ),
            (
                "\"https://host/x?a=1&access_token=t0ken&b=2\"",
                "\"https://host/x?a=1&access_token=***&b=2\"",
            ),
            ("Authorization: Basic dDBrZW4=", "Authorization: ***"),
            ("six==1.0 @ nothing", "six==1.0 @ nothing"),
            ("https://host/a@b?q=1", "https://host/a@b?q=1"),
        ] {
            assert_eq!(without_credentials(text), expected);
        }
    }

    #[test]
    fn names_of_users_are_hidden_in_urls_only() {
        let mut secrets = Secrets::default();
        secrets.add_urls("https://python:p4ssword@host/simple");
        secrets.add_urls("https://t0ken@a/x https://t0ken2:@b/x");
        secrets.add_urls("https://ghp_0123456789abcdefghij:x-oauth-basic@c/x");
        let text = "python of https://python:p4ssword@host: p4ssword, t0ken, t0ken2, \
            ghp_0123456789abcdefghij";

        let hidden = secrets.redact(text);

        assert_eq!(hidden, "python of https://***@host: ***, ***, ***, ***");
    }

    #[test]
    fn known_secrets_are_hidden_wherever_they_are() {
        let mut secrets = Secrets::default();
        secrets.add_urls("https://user:p%40ss%3Aword@host/simple");
        secrets.add_netrc("machine h login me password netrc-secret\n");
        let text = "tried p@ss:word, p%40ss%3Aword and netrc-secret";

        let hidden = secrets.redact(text);

        assert_eq!(hidden, "tried ***, *** and ***");
        assert!(!format!("{secrets:?}").contains("netrc-secret"));
    }
}
