//! Where environments are and what they are made with.

use std::path::PathBuf;

use crate::redact::Secrets;

/// Settings of [`crate::PythonEnvs`].
#[derive(Clone)]
pub struct PythonConfig {
    /// The folder that holds the environments.
    pub root: PathBuf,
    /// The interpreter that environments are made with, a name on the PATH or a path.
    pub interpreter: String,
    /// Environment variables that the tools see. Steps do not see them.
    pub(crate) tool_env: Vec<(String, String)>,
}

/// Variables have credentials in them.
impl std::fmt::Debug for PythonConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.tool_env.iter().map(|(name, _)| name).collect();
        f.debug_struct("PythonConfig")
            .field("root", &self.root)
            .field("interpreter", &self.interpreter)
            .field("tool_env", &names)
            .finish()
    }
}

impl PythonConfig {
    /// Settings for `root`, with the variables out of `inherited` that pip, uv and git follow, so that
    /// indexes, certificates, proxies and credentials that work for pip work here.
    pub fn new(
        root: PathBuf,
        interpreter: String,
        inherited: impl Iterator<Item = (String, String)>,
    ) -> Self {
        let mut tool_env: Vec<(String, String)> = inherited
            .filter(|(name, _)| is_tool_variable(name))
            .collect();
        if !tool_env.iter().any(|(name, _)| name == "UV_CACHE_DIR") {
            // Beside the environments: uv links packages out of it, and links do not lead to other
            // file systems.
            let cache = root.join("cache").display().to_string();
            tool_env.push(("UV_CACHE_DIR".to_owned(), cache));
        }
        Self {
            root,
            interpreter,
            tool_env,
        }
    }

    /// What pip needs in a step that runs it by itself, to be configured as it is here: names of
    /// variables of this process, whose values may be secrets, and paths of files of this user.
    pub fn pip_variables(&self) -> (Vec<String>, Vec<(String, String)>) {
        let is_pips = |name: &&String| {
            // A step has its own home, PATH and the like, and pip does not read what is uv's or
            // pyenv's.
            let of_tools = ["UV_", "PYENV_", "XDG_DATA"];
            let own = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR"];
            !own.contains(&name.as_str()) && !of_tools.iter().any(|start| name.starts_with(start))
        };
        let names = self.tool_env.iter().map(|(name, _)| name).filter(is_pips);
        let home = self.variable("HOME").map(PathBuf::from);
        let files = [
            // The variable names one file: where both are there, the one that pip prefers.
            ("PIP_CONFIG_FILE", ".config/pip/pip.conf"),
            ("PIP_CONFIG_FILE", ".pip/pip.conf"),
            ("NETRC", ".netrc"),
        ];
        let mut paths: Vec<(String, String)> = Vec::new();
        for (name, inner) in files {
            let file = home.as_ref().map(|home| home.join(inner));
            let is_new =
                self.variable(name).is_none() && paths.iter().all(|(known, _)| known != name);
            if let Some(file) = file.filter(|file| is_new && file.exists()) {
                paths.push((name.to_owned(), file.display().to_string()));
            }
        }
        (names.cloned().collect(), paths)
    }

    /// A variable that the tools see.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        let found = self.tool_env.iter().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Where interpreters are that were fetched for us.
    pub(crate) fn interpreters_dir(&self) -> PathBuf {
        self.root.join("pythons")
    }

    /// Credentials in variables and in the `netrc`.
    pub(crate) fn secrets(&self) -> Secrets {
        let mut secrets = Secrets::default();
        for (_, value) in &self.tool_env {
            secrets.add_urls(value);
        }
        let home = self.variable("HOME").map(PathBuf::from);
        let usual = home.map(|home| home.join(".netrc"));
        let netrc = self.variable("NETRC").map(PathBuf::from).or(usual);
        let text = netrc.and_then(|netrc| std::fs::read_to_string(netrc).ok());
        secrets.add_netrc(&text.unwrap_or_default());
        secrets
    }
}

fn is_tool_variable(name: &str) -> bool {
    const EXACT: [&str; 17] = [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "TMPDIR",
        "NETRC",
        "XDG_CONFIG_HOME",
        "XDG_CONFIG_DIRS",
        "XDG_DATA_HOME",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "SSL_CLIENT_CERT",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "SSH_AUTH_SOCK",
        "SSH_ASKPASS",
    ];
    const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];
    let upper = name.to_ascii_uppercase();
    EXACT.contains(&name)
        || PROXIES.contains(&upper.as_str())
        || ["PIP_", "UV_", "PYENV_", "GIT_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}
