//! A real Docker engine of this machine, as the test bed or the environment gives it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::image_map;
use crate::services::{self, merge};

/// What tests that need containers are given.
pub struct Engine {
    launcher: String,
    task_image: String,
}

impl Engine {
    /// The engine of `DOCKER_HOST`, a launcher for containers and an image with a shell and Python
    /// that the engine has; or what is missing.
    pub fn open() -> Result<Self, String> {
        let variable = |name: &str| {
            std::env::var(name)
                .map_err(|_| format!("{name} is not set (cargo xtask test --cluster sets it)"))
        };
        variable("DOCKER_HOST")?;
        Ok(Self {
            launcher: variable("FERROFLOW_TEST_LAUNCHER")?,
            task_image: variable("FERROFLOW_TEST_TASK_IMAGE")?,
        })
    }

    /// An image with a shell and Python.
    pub fn task_image(&self) -> &str {
        &self.task_image
    }

    /// Settings of containers that see `folder`, with the images of pipelines replaced by one that
    /// is here.
    pub fn docker(&self, folder: &Path) -> Value {
        let shared = format!("{0}:{0}", folder.display());
        json!({
            "launcher": self.launcher,
            // The test bed's engine makes no network of its own.
            "network": "host",
            "image_patience_s": 1,
            "mounts": [shared],
            "images": image_map(&self.task_image),
        })
    }

    /// Writes a settings file for `ferroflow up` in `folder`, whose `shared` containers see; `more`
    /// is merged into it.
    pub fn settings(&self, folder: &Path, more: &Value) -> String {
        let shared = folder.join("shared");
        std::fs::create_dir_all(&shared).unwrap();
        let mut settings = json!({"runtime": "docker", "docker": self.docker(&shared)});
        merge(&mut settings, more);
        services::settings(folder, &settings)
    }

    /// Asks the engine as its users do; what it said.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("docker")
            .args(arguments)
            .output()
            .expect("docker is installed");
        assert!(
            output.status.success(),
            "docker {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}
