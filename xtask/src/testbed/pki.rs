//! Keys and certificates of the test bed, made by openssl: the cluster's, and Kafka's.

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
        pki.authority("ca")?;
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

    /// Makes what is missing for Kafka: a broker's keys (`broker.pem`), a client's, and an authority
    /// that has signed nothing (`other-ca.crt`).
    pub(super) fn ensure_kafka(folder: &Path, node: &str) -> anyhow::Result<Self> {
        let pki = Self {
            folder: folder.to_path_buf(),
        };
        if pki.file("done").exists() {
            return Ok(pki);
        }
        fs::create_dir_all(folder)?;
        pki.authority("ca")?;
        pki.authority("other-ca")?;
        let names = format!("subjectAltName=DNS:localhost,IP:127.0.0.1,IP:{node}");
        pki.sign("broker", "/CN=broker", &names)?;
        pki.sign("client", "/CN=client", "extendedKeyUsage=clientAuth")?;
        // Java reads key and certificate from one file.
        let mut both = fs::read_to_string(pki.file("broker.key"))?;
        both.push_str(&fs::read_to_string(pki.file("broker.crt"))?);
        fs::write(pki.file("broker.pem"), both)?;
        fs::write(pki.file("done"), "")?;
        Ok(pki)
    }

    fn authority(&self, name: &str) -> anyhow::Result<()> {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        self.openssl(&[
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
            &key,
            "-out",
            &certificate,
        ])
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
