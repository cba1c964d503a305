//! MinIO: S3 on this machine.

use std::process::Command;
use std::time::Duration;

use super::{daemon, is_healthy, node, state, tools};

const PORT: u16 = 19000;

/// The keys of a store that holds nothing but tests' data.
const ACCESS_KEY: &str = "ferroflow-test";
const SECRET_KEY: &str = "ferroflow-test-secret";

/// `http://<access key>:<secret>@<address>`, as tests read it.
pub(super) fn url() -> anyhow::Result<String> {
    let node = node::address()?;
    Ok(format!("http://{ACCESS_KEY}:{SECRET_KEY}@{node}:{PORT}"))
}

pub(super) fn up() -> anyhow::Result<()> {
    tools::minio()?;
    let folder = state("minio")?;
    // A bucket is a folder of the store.
    std::fs::create_dir_all(folder.join("ferroflow"))?;
    let mut minio = Command::new(tools::bin("minio")?);
    minio
        .args(["server", "--quiet", "--address"])
        .arg(format!("0.0.0.0:{PORT}"))
        .arg(folder)
        .env("MINIO_ROOT_USER", ACCESS_KEY)
        .env("MINIO_ROOT_PASSWORD", SECRET_KEY);
    daemon::ensure("minio", &mut minio, Duration::from_secs(20), answers)
}

pub(super) fn answers() -> bool {
    is_healthy(PORT, "/minio/health/ready")
}

pub(super) fn down() -> anyhow::Result<()> {
    daemon::stop("minio")
}
