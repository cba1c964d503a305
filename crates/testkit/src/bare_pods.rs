//! Pods without anything around them, to measure against.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{ApiProxy, NAMESPACE};

/// How often a pod is looked at; a look costs a millisecond or two.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The API server behind a local proxy, so that a call costs a call and not a program's start.
pub struct BarePods {
    _proxy: ApiProxy,
    url: String,
    image: String,
}

impl BarePods {
    /// Opens the way to the API; pods will run `image`.
    pub fn open(image: &str) -> Self {
        let proxy = ApiProxy::start();
        Self {
            url: format!("{}/api/v1/namespaces/{NAMESPACE}/pods", proxy.url()),
            _proxy: proxy,
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
                _ => std::thread::sleep(POLL_INTERVAL),
            }
        }
        ureq::delete(&url).call().expect("the pod is deleted");
    }
}
