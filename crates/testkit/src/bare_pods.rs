//! Pods without anything around them, to measure against.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::NAMESPACE;

/// How often a pod is looked at; a look costs a millisecond or two.
const LOOK: Duration = Duration::from_millis(10);

/// The API server behind a local proxy, so that a call costs a call and not a program's start.
pub struct BarePods {
    proxy: Child,
    url: String,
    image: String,
}

impl Drop for BarePods {
    fn drop(&mut self) {
        // It may have ended with the cluster.
        let _ended = self.proxy.kill().is_err();
        let _ended = self.proxy.wait().is_err();
    }
}

impl BarePods {
    /// Opens the way to the API; pods will run `image`.
    pub fn open(image: &str) -> Self {
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
            proxy,
            url: format!("http://{address}/api/v1/namespaces/{NAMESPACE}/pods"),
            image: image.to_owned(),
        }
    }

    /// Makes a pod that runs `true`.
    pub fn create(&self, name: &str) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": self.image, "command": ["true"]}]},
        });
        ureq::post(&self.url)
            .send_json(&pod)
            .expect("the pod is made");
    }

    /// Waits until a pod has succeeded, then deletes it.
    pub fn finish(&self, name: &str) {
        let url = format!("{}/{name}", self.url);
        loop {
            let mut answer = ureq::get(&url).call().expect("the pod is there");
            let pod: Value = answer.body_mut().read_json().unwrap();
            match pod["status"]["phase"].as_str() {
                Some("Succeeded") => break,
                Some("Failed") => panic!("pod {name} failed"),
                _ => std::thread::sleep(LOOK),
            }
        }
        ureq::delete(&url).call().expect("the pod is deleted");
    }
}
