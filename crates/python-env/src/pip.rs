//! What `pip config list` says, in uv's words.
//!
//! pip finds its files itself (global, user, site, `PIP_CONFIG_FILE`), so it is asked and not imitated.
//! URLs go into uv's environment: a command line is there for every user of the machine to read.

use std::collections::BTreeMap;

use crate::redact::Secrets;
use crate::tool::{Interpreter, tool};
use crate::{PipInstall, PythonConfig};

/// pip's options by name, those of `install` over those of all commands, variables over both.
#[derive(Clone, Default)]
pub(crate) struct PipConfig(BTreeMap<String, String>);

/// How an installation is done. URLs in it have credentials, so it is not to be printed.
#[derive(Default)]
pub(crate) struct InstallOptions {
    /// Variables of uv's, over those that it has anyway.
    pub(crate) env: Vec<(String, String)>,
    /// Arguments of its command; none is a secret.
    pub(crate) flags: Vec<String>,
}

/// Prints the configuration as JSON: pip prints values as Python literals.
const LIST: &str = "import ast, json, subprocess, sys\n\
    result = subprocess.run([sys.executable, '-m', 'pip', 'config', 'list'], capture_output=True, text=True)\n\
    if result.returncode: sys.exit(result.stderr)\n\
    pairs = [line.split('=', 1) for line in result.stdout.splitlines() if '=' in line]\n\
    print(json.dumps([[name, str(ast.literal_eval(value))] for name, value in pairs]))";

/// Sections that speak of installing, weakest first.
const SECTIONS: [&str; 3] = ["global", "install", ":env:"];

/// Options that change nothing in an environment of its own, or mean nothing to uv.
const IGNORED: [&str; 27] = [
    "break-system-packages",
    "cache-dir",
    "compile",
    "debug",
    "disable-pip-version-check",
    "exists-action",
    "log",
    "no-cache-dir",
    "no-color",
    "no-compile",
    "no-input",
    "no-python-version-warning",
    "no-warn-conflicts",
    "no-warn-script-location",
    "prefer-binary",
    "progress-bar",
    "python",
    "quiet",
    "require-virtualenv",
    "root-user-action",
    "src",
    "upgrade",
    "upgrade-strategy",
    "use-deprecated",
    "use-feature",
    "user",
    "verbose",
];

/// Options that are handed on.
const FORWARDED: [&str; 18] = [
    "cert",
    "client-cert",
    "constraint",
    "default-timeout",
    "extra-index-url",
    "find-links",
    "index-url",
    "keyring-provider",
    "no-binary",
    "no-build-isolation",
    "no-deps",
    "no-index",
    "only-binary",
    "pre",
    "proxy",
    "retries",
    "timeout",
    "trusted-host",
];

impl PipConfig {
    /// Asks the pip of an interpreter; without one, only variables count.
    pub(crate) async fn read(config: &PythonConfig, python: &Interpreter) -> Self {
        let output = tool(config, &python.path).args(["-c", LIST]).output().await;
        let pairs = output
            .ok()
            .filter(|output| output.status.success())
            .and_then(|output| {
                serde_json::from_slice::<Vec<(String, String)>>(&output.stdout).ok()
            });
        let pairs = pairs.unwrap_or_else(|| {
            tracing::warn!("pip cannot be asked for its configuration, only PIP_* variables count");
            variables(config)
        });
        let found = Self::of(&pairs);
        let unknown: Vec<_> = found.unknown().collect();
        if !unknown.is_empty() {
            let options = unknown.join(", ");
            tracing::warn!(
                options,
                "options of pip's configuration that are not followed"
            );
        }
        found
    }

    fn of(pairs: &[(String, String)]) -> Self {
        // Stronger sections come later and replace what weaker ones say.
        let mut options = BTreeMap::new();
        for section in SECTIONS {
            for (key, value) in pairs {
                if let Some((found, name)) = key.rsplit_once('.')
                    && found == section
                {
                    options.insert(name.replace('_', "-"), value.clone());
                }
            }
        }
        Self(options)
    }

    fn unknown(&self) -> impl Iterator<Item = &str> {
        let names = self.0.keys().map(String::as_str);
        names.filter(|name| !FORWARDED.contains(name) && !IGNORED.contains(name))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(|text| text.trim())
            .filter(|text| !text.is_empty())
    }

    fn list(&self, name: &str) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn is_set(&self, name: &str) -> bool {
        let text = self.text(name).map(str::to_ascii_lowercase);
        matches!(text.as_deref(), Some("1" | "true" | "yes" | "on"))
    }

    /// Takes note of the credentials that are in there.
    pub(crate) fn secrets(&self, secrets: &mut Secrets) {
        for value in self.0.values() {
            secrets.add_urls(value);
        }
    }

    /// How uv does what pip would do for `step`. `tool_env` are the variables that uv has anyway; UV's own
    /// among them win over pip's configuration, and what a component asks for wins over both.
    pub(crate) fn install_options(
        &self,
        step: &PipInstall,
        tool_env: &[(String, String)],
    ) -> InstallOptions {
        let existing = |name: &str| {
            let found = tool_env.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        };
        let mut options = InstallOptions::default();
        let mut set = |name: &str, value: Option<String>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                options.env.push((name.to_owned(), value));
            }
        };
        let own = |uv: &str, pip: Option<String>| existing(uv).or(pip);
        let index = own(
            "UV_DEFAULT_INDEX",
            self.text("index-url").map(str::to_owned),
        );
        set("UV_DEFAULT_INDEX", step.index_url.clone().or(index));
        // uv splits this one at blanks, and the next one at commas.
        let more = own("UV_INDEX", Some(self.list("extra-index-url").join(" ")));
        let more = step.extra_index_urls.iter().cloned().chain(more);
        set(
            "UV_INDEX",
            Some(more.collect::<Vec<_>>().join(" ").trim().to_owned()),
        );
        let links = own("UV_FIND_LINKS", Some(self.list("find-links").join(",")));
        let links = step.find_links.iter().cloned().chain(links);
        set("UV_FIND_LINKS", Some(joined(links, ",")));
        let hosts = self.list("trusted-host");
        let hosts = step.trusted_hosts.iter().chain(&hosts);
        let hosts = hosts
            .filter_map(|host| trusted_host(host))
            .chain(existing("UV_INSECURE_HOST"));
        set("UV_INSECURE_HOST", Some(joined(hosts, " ")));
        // pip takes these two where its option does not say otherwise; uv does not know them.
        let bundles = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"].map(existing);
        let bundle = bundles.into_iter().flatten().find(|file| !file.is_empty());
        // pip's other name of the same option.
        let other_timeout = self.text("default-timeout").map(str::to_owned);
        for (uv, pip, other) in [
            ("SSL_CERT_FILE", "cert", bundle),
            ("SSL_CLIENT_CERT", "client-cert", None),
            ("HTTP_PROXY", "proxy", None),
            ("HTTPS_PROXY", "proxy", None),
            ("UV_HTTP_RETRIES", "retries", None),
            ("UV_HTTP_TIMEOUT", "timeout", other_timeout),
        ] {
            // Proxies are variables in either case.
            if existing(uv)
                .or_else(|| existing(&uv.to_ascii_lowercase()))
                .is_none()
            {
                set(uv, self.text(pip).map(str::to_owned).or(other));
            }
        }
        if self.text("keyring-provider") == Some("subprocess") {
            set(
                "UV_KEYRING_PROVIDER",
                own("UV_KEYRING_PROVIDER", Some("subprocess".to_owned())),
            );
        }
        // As pip does: the best version of any index.
        set(
            "UV_INDEX_STRATEGY",
            own("UV_INDEX_STRATEGY", Some("unsafe-best-match".to_owned())),
        );
        options.flags = self.flags(step);
        options
    }

    fn flags(&self, step: &PipInstall) -> Vec<String> {
        let mut flags = Vec::new();
        let mut flag = |args: &[&str]| flags.extend(args.iter().map(|arg| (*arg).to_owned()));
        // As pip does: pre-releases when asked for by version.
        let allow_prereleases = step.pre || self.is_set("pre");
        flag(&[
            "--prerelease",
            if allow_prereleases {
                "allow"
            } else {
                "if-necessary-or-explicit"
            },
        ]);
        if step.no_deps || self.is_set("no-deps") {
            flag(&["--no-deps"]);
        }
        if step.no_index || self.is_set("no-index") {
            flag(&["--no-index"]);
        }
        if self.is_set("no-build-isolation") {
            flag(&["--no-build-isolation"]);
        }
        for file in self.list("constraint") {
            flag(&["--constraint", &file]);
        }
        for name in ["no-binary", "only-binary"] {
            for value in self.list(name).iter().flat_map(|value| value.split(',')) {
                flag(&[&format!("--{name}"), value]);
            }
        }
        flags
    }
}

fn joined(parts: impl Iterator<Item = String>, separator: &str) -> String {
    let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
    parts.join(separator)
}

/// `PIP_*` variables as pip would list them.
fn variables(config: &PythonConfig) -> Vec<(String, String)> {
    let named = config.tool_env.iter().filter_map(|(name, value)| {
        let option = name.strip_prefix("PIP_")?.to_ascii_lowercase();
        Some((format!(":env:.{}", option.replace('_', "-")), value.clone()))
    });
    named.collect()
}

/// A trusted host as uv takes it: `host`, `host:port` or `*`.
///
/// pip takes URLs too (the SDK writes the index's when nothing is given), and reads the scheme as the
/// name of the host: it trusts nobody by them, and neither do we. Plain HTTP needs no trust here.
fn trusted_host(written: &str) -> Option<String> {
    if written.contains("://") {
        return None;
    }
    let host = written.rsplit_once('@').map_or(written, |(_, host)| host);
    let host = host.split('/').next().unwrap_or(host);
    if host.starts_with('[') || host.matches(':').count() > 1 {
        tracing::warn!(
            host,
            "uv cannot trust an IPv6 address without its certificate"
        );
        return None;
    }
    (!host.is_empty()).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> PipConfig {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        PipConfig::of(&pairs)
    }

    fn value<'a>(options: &'a InstallOptions, name: &str) -> Option<&'a str> {
        let found = options.env.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    #[test]
    fn options_of_pip_become_variables_of_uv() {
        let found = config(&[
            ("global.index-url", "https://u:secret@one/simple"),
            ("install.index-url", "https://u:secret@two/simple"),
            (
                "global.extra-index-url",
                "\nhttps://a/simple\nhttps://b/simple",
            ),
            (":env:.find-links", "/wheels https://c/x"),
            (
                "global.trusted-host",
                "host:8443 * https://u:secret@d/simple [::1]:80",
            ),
            ("global.proxy", "http://p:3128"),
            ("global.cert", "/ca.pem"),
            ("global.no-binary", ":all:"),
            ("download.index-url", "https://other/simple"),
        ]);
        let tool_env = [("SSL_CERT_FILE".to_owned(), "/own.pem".to_owned())];

        let options = found.install_options(&PipInstall::default(), &tool_env);

        let of = |name| value(&options, name);
        assert_eq!(of("UV_DEFAULT_INDEX"), Some("https://u:secret@two/simple"));
        assert_eq!(of("UV_INDEX"), Some("https://a/simple https://b/simple"));
        assert_eq!(of("UV_FIND_LINKS"), Some("/wheels,https://c/x"));
        assert_eq!(of("UV_INSECURE_HOST"), Some("host:8443 *"));
        assert_eq!(of("HTTPS_PROXY"), Some("http://p:3128"));
        assert_eq!(of("SSL_CERT_FILE"), None, "what is set already stays");
        let flags = options.flags.join(" ");
        assert!(flags.contains("--no-binary :all:"), "{flags}");
        assert!(!flags.contains("secret"), "{flags}");
    }

    #[test]
    fn certificates_are_those_that_pip_takes() {
        let bundle = |name: &str, file: &str| (name.to_owned(), file.to_owned());
        let requests = bundle("REQUESTS_CA_BUNDLE", "/requests.pem");
        let curl = bundle("CURL_CA_BUNDLE", "/curl.pem");
        let own = bundle("SSL_CERT_FILE", "/own.pem");
        let cert = [("global.cert", "/ca.pem")];
        for (pip, tool_env, expected) in [
            (&[][..], vec![curl.clone()], Some("/curl.pem")),
            (
                &[],
                vec![curl.clone(), requests.clone()],
                Some("/requests.pem"),
            ),
            (&cert, vec![requests.clone()], Some("/ca.pem")),
            (&[], vec![requests, own], None),
        ] {
            let options = config(pip).install_options(&PipInstall::default(), &tool_env);
            assert_eq!(value(&options, "SSL_CERT_FILE"), expected, "{tool_env:?}");
        }
    }

    #[test]
    fn a_component_wins_over_uv_and_uv_over_pip() {
        let found = config(&[
            ("global.index-url", "https://pip/simple"),
            ("global.extra-index-url", "https://pip-more/simple"),
        ]);
        let tool_env = [(
            "UV_DEFAULT_INDEX".to_owned(),
            "https://uv/simple".to_owned(),
        )];
        let none = PipInstall::default();
        let asks = PipInstall {
            index_url: Some("https://asked/simple".to_owned()),
            extra_index_urls: vec!["https://more/simple".to_owned()],
            ..PipInstall::default()
        };

        let options = found.install_options(&none, &tool_env);
        assert_eq!(
            value(&options, "UV_DEFAULT_INDEX"),
            Some("https://uv/simple")
        );
        let options = found.install_options(&asks, &tool_env);
        assert_eq!(
            value(&options, "UV_DEFAULT_INDEX"),
            Some("https://asked/simple")
        );
        assert_eq!(
            value(&options, "UV_INDEX"),
            Some("https://more/simple https://pip-more/simple")
        );
    }

    #[test]
    fn options_that_are_not_followed_are_known_by_name() {
        let found = config(&[
            ("global.target", "/x"),
            ("global.quiet", "1"),
            ("global.pre", "1"),
        ]);
        assert_eq!(found.unknown().collect::<Vec<_>>(), ["target"]);
        let options = found.install_options(&PipInstall::default(), &[]);
        assert!(options.flags.join(" ").contains("--prerelease allow"));
    }
}
