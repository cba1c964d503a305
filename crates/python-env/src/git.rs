//! Credentials of `git+https` requirements, out of the URLs and into git's own environment.
//!
//! uv hands the URL of a repository to git on its command line. git takes headers for a URL from
//! variables as well, where only the processes of the same user see them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::redact::{decoded, may_be_token};

/// The requirements without credentials in URLs of git, and the variables that have them instead.
pub(crate) fn separate_credentials(
    packages: &[String],
    tool_env: &[(String, String)],
) -> (Vec<String>, Vec<(String, String)>) {
    let mut plain = Vec::with_capacity(packages.len());
    let mut headers = Vec::new();
    for package in packages {
        match split(package) {
            None => plain.push(package.clone()),
            Some((requirement, header)) => {
                plain.push(requirement);
                headers.push(header);
            }
        }
    }
    (plain, variables(headers, tool_env))
}

/// `GIT_CONFIG_COUNT` and its pairs, behind those that are there already.
fn variables(
    headers: Vec<(String, String)>,
    tool_env: &[(String, String)],
) -> Vec<(String, String)> {
    if headers.is_empty() {
        return Vec::new();
    }
    let count = tool_env.iter().find(|(name, _)| name == "GIT_CONFIG_COUNT");
    let count = count.and_then(|(_, count)| count.parse::<usize>().ok());
    let first = count.unwrap_or(0);
    let total = (first + headers.len()).to_string();
    let pairs = headers
        .into_iter()
        .enumerate()
        .flat_map(|(index, (key, value))| {
            let index = first + index;
            [
                (format!("GIT_CONFIG_KEY_{index}"), key),
                (format!("GIT_CONFIG_VALUE_{index}"), value),
            ]
        });
    let count = ("GIT_CONFIG_COUNT".to_owned(), total);
    std::iter::once(count).chain(pairs).collect()
}

/// The requirement without credentials, and the setting of git that has them.
fn split(package: &str) -> Option<(String, (String, String))> {
    let at = package.find("git+http")?;
    let (before, url) = package.split_at(at);
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // At the last one: a password may have a `@` in it.
    let (userinfo, host) = rest[..end].rsplit_once('@')?;
    let path = rest[end..]
        .split(['@', '?', '#'])
        .next()
        .unwrap_or_default();
    let plain = format!("{}://{host}{path}", scheme.strip_prefix("git+")?);
    // git sends a header unasked, and hosts refuse a name without a password even for what is public:
    // a name stays where it is. A token alone is the user's name, as git sends it.
    let credentials = match userinfo.split_once(':') {
        Some((user, password)) => format!("{}:{}", decoded(user), decoded(password)),
        None if may_be_token(userinfo) => format!("{}:", decoded(userinfo)),
        None => return None,
    };
    let header = format!("Authorization: Basic {}", STANDARD.encode(credentials));
    let requirement = format!("{before}{scheme}://{host}{}", &rest[end..]);
    Some((requirement, (format!("http.{plain}.extraHeader"), header)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_leave_the_url() {
        let packages = [
            "six".to_owned(),
            "mine @ git+https://me:t%40ken@host:8443/org/mine.git@main#egg=mine".to_owned(),
            "git+ssh://git@host/org/x.git".to_owned(),
            "git+https://git@host/org/y.git".to_owned(),
        ];
        let tool_env = [("GIT_CONFIG_COUNT".to_owned(), "1".to_owned())];

        let (plain, env) = separate_credentials(&packages, &tool_env);

        let expected = [
            "six",
            "mine @ git+https://host:8443/org/mine.git@main#egg=mine",
            "git+ssh://git@host/org/x.git",
            "git+https://git@host/org/y.git",
        ];
        assert_eq!(plain, expected);
        let header = format!("Authorization: Basic {}", STANDARD.encode("me:t@ken"));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            env,
            [
                pair("GIT_CONFIG_COUNT", "2"),
                pair(
                    "GIT_CONFIG_KEY_1",
                    "http.https://host:8443/org/mine.git.extraHeader"
                ),
                pair("GIT_CONFIG_VALUE_1", &header),
            ]
        );
    }

    #[test]
    fn a_token_alone_leaves_the_url_as_well() {
        let token = "ghp_0123456789abcdefghij";
        let packages = [format!("git+https://{token}@host/org/x.git")];

        let (plain, env) = separate_credentials(&packages, &[]);

        assert_eq!(plain, ["git+https://host/org/x.git"]);
        let header = STANDARD.encode(format!("{token}:"));
        assert!(env[2].1.ends_with(&header), "{env:?}");
    }
}
