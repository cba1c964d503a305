//! A real cluster and a real store, as the test bed or the environment gives them.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Map, Value, json};

use crate::services::{self, merge};

/// The namespace of tests.
pub const NAMESPACE: &str = "ferroflow-test";
/// The secret with the store's keys.
const STORE_SECRET: &str = "ferroflow-store";

/// What tests that need a cluster are given.
pub struct Cluster {
    endpoint: String,
    access_key: String,
    secret_key: String,
    launcher_image: String,
    task_image: String,
    /// An address of this machine that pods can reach, if there is one.
    address: Option<String>,
}

impl Cluster {
    /// The cluster of `KUBECONFIG`, the store of `FERROFLOW_TEST_S3`
    /// (`http://<access key>:<secret>@<address>`, with a bucket `ferroflow`), and images that its
    /// nodes have or can pull; or what is missing.
    pub fn open() -> Result<Self, String> {
        let variable = |name: &str| {
            std::env::var(name)
                .map_err(|_| format!("{name} is not set (cargo xtask test --cluster sets it)"))
        };
        variable("KUBECONFIG")?;
        let store = variable("FERROFLOW_TEST_S3")?;
        let (endpoint, access_key, secret_key) = store_of(&store)?;
        let cluster = Self {
            endpoint,
            access_key,
            secret_key,
            launcher_image: variable("FERROFLOW_TEST_IMAGE")?,
            task_image: variable("FERROFLOW_TEST_TASK_IMAGE")?,
            address: variable("FERROFLOW_TEST_ADDRESS").ok(),
        };
        cluster.prepare();
        Ok(cluster)
    }

    /// How the store of `FERROFLOW_TEST_S3` is reached, as settings.
    pub fn s3_of(address: &str) -> Result<Value, String> {
        let (endpoint, access_key, secret_key) = store_of(address)?;
        Ok(json!({
            "endpoint": endpoint, "access_key_id": access_key, "secret_access_key": secret_key,
        }))
    }

    /// The store's address.
    pub fn store(&self) -> &str {
        &self.endpoint
    }

    /// The same with another way to the store.
    #[must_use]
    pub fn with_store(self, endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            ..self
        }
    }

    /// An image with a shell and Python.
    pub fn task_image(&self) -> &str {
        &self.task_image
    }

    /// The namespace and the secrets that tests and the ecosystem's pipelines expect.
    fn prepare(&self) {
        let secret = |name: &str, data: Value| {
            json!({"apiVersion": "v1", "kind": "Secret", "stringData": data,
                "metadata": {"name": name, "namespace": NAMESPACE}})
        };
        let keys = json!({"access-key-id": self.access_key, "secret-access-key": self.secret_key});
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            secret(STORE_SECRET, keys),
            secret("test-secret-1", json!({"username": "user1"})),
            secret("test-secret-2", json!({"password": "psw1"})),
            secret("test-secret-3", json!({"password": "psw2"})),
        ]}));
    }

    /// Applies objects.
    pub fn apply(&self, objects: &Value) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("objects.json");
        std::fs::write(&file, objects.to_string()).unwrap();
        self.kubectl(&["apply", "--server-side", "-f", &file.display().to_string()]);
    }

    /// Makes a folder, a volume of it, and a claim by which pods mount it. The cluster's
    /// node must be this machine, as the test bed's is.
    pub fn share(&self, folder: &Path, name: &str) {
        std::fs::create_dir_all(folder).unwrap();
        let size = json!({"storage": "1Mi"});
        let modes = json!(["ReadWriteMany"]);
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
                "spec": {
                    "capacity": size, "accessModes": modes, "storageClassName": "",
                    "hostPath": {"path": folder}, "persistentVolumeReclaimPolicy": "Retain",
                    "claimRef": {"name": name, "namespace": NAMESPACE},
                },
            },
            {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {
                    "accessModes": modes, "storageClassName": "", "volumeName": name,
                    "resources": {"requests": size},
                },
            },
        ]}));
    }

    /// Asks the cluster; what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same where a refusal is no reason to stop: what it said, or why not.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("kubectl")
            .args(["--namespace", NAMESPACE])
            .args(arguments)
            .output()
            .expect("kubectl is installed");
        let stderr = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!("kubectl {arguments:?}: {stderr}"));
        }
        Ok(String::from_utf8(output.stdout).unwrap())
    }

    /// How S3 is reached, as settings.
    pub fn s3(&self) -> Value {
        json!({
            "endpoint": self.endpoint,
            "access_key_id": self.access_key,
            "secret_access_key": self.secret_key,
        })
    }

    /// Settings of pods, with the images of pipelines replaced by one that is here.
    pub fn kubernetes(&self) -> Value {
        let listen = self.address.as_ref().map(|address| format!("{address}:0"));
        json!({
            "report_listen": listen.unwrap_or_default(),
            "namespace": NAMESPACE,
            "launcher_image": self.launcher_image,
            "store_secret": STORE_SECRET,
            "image_patience_s": 10,
            "accelerators": {"NVIDIA_TESLA_P4": "nvidia.com/gpu"},
            "images": image_map(&self.task_image),
        })
    }

    /// The images of a compiled pipeline that are replaced by others, as sentences.
    pub fn mapped_images(&self, pipeline: &str) -> Vec<String> {
        let settings = self.kubernetes();
        let images = pipeline.lines().filter_map(|line| {
            let image = line.split_once(" image: ");
            let image = image.or(line.split_once("defaultValue: oci://"))?.1;
            Some(image.trim_matches(['\'', '"', ' ', ']']).to_owned())
        });
        let mapped = images.filter_map(|image| {
            let map = &settings["images"];
            let mapped = map.get(&image).unwrap_or(&map["*"]).as_str()?;
            // An operation is no image.
            (mapped != image && !image.starts_with("argostub/"))
                .then(|| format!("{image} → {mapped}"))
        });
        let distinct: std::collections::BTreeSet<_> = mapped.collect();
        distinct.into_iter().collect()
    }

    /// Writes a settings file for `ferroflow up` in `folder`; `more` is merged into it.
    pub fn settings(&self, folder: &Path, more: &Value) -> String {
        let root = format!("s3://ferroflow/{}", folder.file_name().unwrap().display());
        let mut settings = json!({
            "runtime": "kubernetes",
            "artifacts": {"url": root, "s3": self.s3()},
            "kubernetes": self.kubernetes(),
        });
        merge(&mut settings, more);
        services::settings(folder, &settings)
    }
}

/// The images that stand for those of the ecosystem's pipelines; `task_image` for all that are not
/// named.
pub(crate) fn image_map(task_image: &str) -> Value {
    json!({
        "*": task_image,
        "registry.domain.local/modelcar:test": "ferroflow.test/modelcar:1",
        // Its script needs a shell that knows `[[`.
        "ghcr.io/containerd/busybox": "ferroflow.test/busybox:1",
        // Rows of the ecosystem's table whose image must be missing.
        "gcr.io/my-image": "gcr.io/my-image",
    })
}

/// A name that nobody else has, out of that of a temporary folder.
pub fn unique(folder: &Path) -> String {
    let name = folder.file_name().unwrap().to_string_lossy();
    name.trim_start_matches('.').to_lowercase()
}

/// A pipeline whose every step mounts a claim at `/shared`.
pub fn with_shared_volume(spec: Value, claim: &str) -> Value {
    let mount = json!({"pvcMount": [{"constant": claim, "mountPath": "/shared"}]});
    let steps = spec["deploymentSpec"]["executors"].as_object().unwrap();
    let executors: Map<_, _> = steps
        .keys()
        .map(|step| (step.clone(), mount.clone()))
        .collect();
    json!({
        "pipeline_spec": spec,
        "platform_spec": {"platforms": {"kubernetes": {
            "deploymentSpec": {"executors": executors},
        }}},
    })
}

/// The replica that drives a run, by the database of pipelines.
pub fn owner(pipelines: &str, run: &str) -> String {
    query(
        pipelines,
        &format!("SELECT owner FROM runs WHERE id = '{run}'"),
    )
}

/// Endpoint, key name and key in `http://<access key>:<secret>@<address>`.
fn store_of(store: &str) -> Result<(String, String, String), String> {
    let (scheme, rest) = store
        .split_once("://")
        .ok_or("FERROFLOW_TEST_S3: no scheme")?;
    let (keys, address) = rest.split_once('@').ok_or("FERROFLOW_TEST_S3: no keys")?;
    let (access_key, secret_key) = keys.split_once(':').ok_or("FERROFLOW_TEST_S3: no keys")?;
    Ok((
        format!("{scheme}://{address}"),
        access_key.to_owned(),
        secret_key.to_owned(),
    ))
}

/// The API server on a port of this machine, without TLS and keys; ends when it is dropped.
pub struct ApiProxy {
    proxy: Child,
    url: String,
}

impl ApiProxy {
    /// Starts it.
    pub fn start() -> Self {
        let mut proxy = Command::new("kubectl")
            .args(["proxy", "--port", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl is installed");
        let mut line = String::new();
        let out = proxy.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap_or_default();
        Self {
            url: format!("http://{address}"),
            proxy,
        }
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        // It may have ended with the cluster.
        let _ended = self.proxy.kill().is_err();
        let _ended = self.proxy.wait().is_err();
    }
}

/// The URL of a new database beside the one of `DATABASE_URL`; empty, which means a file, without it.
pub fn database(name: &str) -> String {
    let Ok(url) = std::env::var("DATABASE_URL") else {
        return String::new();
    };
    let name: String = name
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
        .collect();
    let status = Command::new("psql")
        .args([&url, "--quiet", "--command"])
        .arg(format!("CREATE DATABASE {name}"))
        .status()
        .expect("psql is installed");
    assert!(status.success(), "cannot create database {name}");
    let (server, _) = url.rsplit_once('/').expect("a URL has a path");
    format!("{server}/{name}")
}

/// What a query answers, as psql prints it without head and borders.
pub fn query(database: &str, query: &str) -> String {
    let output = Command::new("psql")
        .args([database, "--tuples-only", "--no-align", "--command", query])
        .output()
        .expect("psql is installed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{query}: {stderr}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
