//! Where environments are and what they are made with.

use std::path::PathBuf;

/// Settings of [`crate::PythonEnvs`].
#[derive(Debug, Clone)]
pub struct PythonConfig {
    /// The folder that holds the environments.
    pub root: PathBuf,
    /// The interpreter that environments are made with, a name on the PATH or a path.
    pub interpreter: String,
    /// Environment variables that the tools see. Steps do not see them.
    pub tool_env: Vec<(String, String)>,
}

impl PythonConfig {
    /// Settings for `root`, with pip's and uv's variables out of `inherited` so that indexes,
    /// certificates and proxies that work for pip work here.
    pub fn new(
        root: PathBuf,
        interpreter: String,
        inherited: impl Iterator<Item = (String, String)>,
    ) -> Self {
        let mut tool_env: Vec<(String, String)> =
            inherited.filter(|(name, _)| wanted(name)).collect();
        let value = |env: &[(String, String)], name: &str| {
            env.iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
        };
        // uv does not read pip's variables; these four say the same to it.
        for (pip, uv) in [
            ("PIP_CERT", "SSL_CERT_FILE"),
            ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
            ("PIP_EXTRA_INDEX_URL", "UV_INDEX"),
            ("PIP_FIND_LINKS", "UV_FIND_LINKS"),
        ] {
            if let (Some(found), None) = (value(&tool_env, pip), value(&tool_env, uv)) {
                tool_env.push((uv.to_owned(), found));
            }
        }
        if value(&tool_env, "UV_CACHE_DIR").is_none() {
            let cache = root.join("cache").display().to_string();
            tool_env.push(("UV_CACHE_DIR".to_owned(), cache));
        }
        Self {
            root,
            interpreter,
            tool_env,
        }
    }
}

fn wanted(name: &str) -> bool {
    const EXACT: [&str; 6] = [
        "PATH",
        "HOME",
        "LANG",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "TMPDIR",
    ];
    let upper = name.to_ascii_uppercase();
    EXACT.contains(&name)
        || name.starts_with("PIP_")
        || name.starts_with("UV_")
        || ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"].contains(&upper.as_str())
        || name.starts_with("PYENV_")
}
