//! Keys and certificates of the cluster, made by openssl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::shell::run;

/// Where they are.
pub(super) struct Pki {
    folder: PathBuf,
}

impl Pki {
    /// Makes what is missing.
    pub(super) fn ensure(folder: &Path, node: &str) -> anyhow::Result<Self> {
        let pki = Self {
            folder: folder.to_path_buf(),
        };
        if pki.file("done").exists() {
            return Ok(pki);
        }
        fs::create_dir_all(folder)?;
        pki.openssl(&["genrsa", "-out", "service-accounts.key", "2048"])?;
        pki.openssl(&[
            "rsa",
            "-in",
            "service-accounts.key",
            "-pubout",
            "-out",
            "service-accounts.pub",
        ])?;
        pki.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "3650",
            "-subj",
            "/CN=ferroflow-testbed",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ])?;
        let names = format!(
            "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
             DNS:localhost,IP:127.0.0.1,IP:10.96.0.1,IP:{node}"
        );
        pki.sign("apiserver", "/CN=kube-apiserver", &names)?;
        let client = "extendedKeyUsage=clientAuth";
        pki.sign(
            "apiserver-kubelet",
            "/O=system:masters/CN=apiserver",
            client,
        )?;
        fs::write(pki.file("done"), "")?;
        Ok(pki)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn sign(&self, name: &str, subject: &str, extension: &str) -> anyhow::Result<()> {
        let (key, request, certificate) = (
            format!("{name}.key"),
            format!("{name}.csr"),
            format!("{name}.crt"),
        );
        fs::write(self.file("extension"), extension)?;
        self.openssl(&[
            "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout", &key,
            "-out", &request,
        ])?;
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "3650",
            "-extfile",
            "extension",
            "-out",
            &certificate,
        ])
    }

    fn openssl(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut openssl = Command::new("openssl");
        run(openssl
            .args(arguments)
            .current_dir(&self.folder)
            .stderr(Stdio::null()))
    }
}
