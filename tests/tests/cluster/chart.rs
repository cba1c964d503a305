//! The Helm chart on a real cluster: taken by the API server, installed, used, upgraded, removed.
//!
//! Needs, beside what every test of the cluster needs, `FERROFLOW_TEST_HELM` (the program),
//! `DATABASE_URL` and `FERROFLOW_TEST_POD_DATABASE` (the same server as pods reach it).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferroflow_testkit::cluster::{Cluster, database};
use ferroflow_testkit::shell_pipeline;
use serde_json::{Value, json};

/// The chart.
fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/ferroflow")
}

/// Runs a program to its end; what it said on both streams, and whether it succeeded.
fn run_command(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Asks the cluster; what it said.
fn kubectl(arguments: &[&str]) -> String {
    let output = Command::new("kubectl").args(arguments).output().unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {arguments:?}: {problem}");
    String::from_utf8(output.stdout).unwrap()
}

/// Two namespaces, the databases and secrets of one installation; gone when it is dropped.
struct Installation {
    cluster: Cluster,
    helm: String,
    namespace: String,
    tasks: String,
    databases: Vec<String>,
}

impl Installation {
    /// Prepares everything that docs/install.md asks for, or prints what is missing.
    fn open(name: &str) -> Option<Self> {
        let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
        let opened = Cluster::open().and_then(|cluster| {
            let helm = variable("FERROFLOW_TEST_HELM")?;
            variable("DATABASE_URL")?;
            Ok((cluster, helm, variable("FERROFLOW_TEST_POD_DATABASE")?))
        });
        let (cluster, helm, pod_database) = match opened {
            Ok(opened) => opened,
            Err(reason) => {
                println!("skipped: {reason}");
                return None;
            }
        };
        let namespace = format!("chart-{name}-{}", std::process::id());
        let tasks = format!("{namespace}-tasks");
        let databases =
            ["pipelines", "events"].map(|of| format!("{}_{of}", namespace.replace('-', "_")));
        let (server, _) = pod_database.rsplit_once('/').unwrap();
        let (_, role) = server.rsplit_once("://").unwrap();
        let (role, _) = role.split_once(':').unwrap();
        for name in &databases {
            database(name);
            psql(&format!("ALTER DATABASE {name} OWNER TO {role}"));
        }
        let installation = Self {
            cluster,
            helm,
            namespace,
            tasks,
            databases: databases.to_vec(),
        };
        let urls = json!({
            "pipelines": format!("{server}/{}", installation.databases[0]),
            "events": format!("{server}/{}", installation.databases[1]),
        });
        installation.prepare(&urls);
        Some(installation)
    }

    fn prepare(&self, databases: &Value) {
        let namespace = |name: &str, level: &str| {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
                "name": name,
                "labels": {
                    "pod-security.kubernetes.io/enforce": level,
                    "pod-security.kubernetes.io/warn": level,
                },
            }})
        };
        let secret = |namespace: &str, name: &str, data: &Value| {
            json!({"apiVersion": "v1", "kind": "Secret", "stringData": data,
                "metadata": {"name": name, "namespace": namespace}})
        };
        let s3 = self.cluster.s3();
        let keys = json!({
            "access-key-id": s3["access_key_id"], "secret-access-key": s3["secret_access_key"],
        });
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            namespace(&self.namespace, "restricted"),
            namespace(&self.tasks, "baseline"),
            secret(&self.namespace, "ferroflow-databases", databases),
            secret(&self.namespace, "ferroflow-store", &keys),
            secret(&self.tasks, "ferroflow-store", &keys),
        ]});
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("objects.json");
        std::fs::write(&file, objects.to_string()).unwrap();
        kubectl(&["apply", "--server-side", "-f", &file.display().to_string()]);
    }

    /// Values of an installation of this checkout's image.
    fn values(&self) -> Value {
        let settings = self.cluster.kubernetes();
        let image = settings["launcher_image"].as_str().unwrap();
        let (repository, tag) = image.rsplit_once(':').unwrap();
        json!({
            "image": {"repository": repository, "tag": tag},
            "database": {"existingSecret": "ferroflow-databases"},
            "artifacts": {
                "url": format!("s3://ferroflow/{}", self.namespace),
                "endpoint": self.cluster.s3()["endpoint"],
                "existingSecret": "ferroflow-store",
            },
            "tasks": {"namespace": self.tasks, "images": settings["images"]},
        })
    }

    /// Runs helm in the namespace; it must succeed.
    fn helm(&self, arguments: &[&str]) -> String {
        let in_namespace = [&["--namespace", &self.namespace], arguments].concat();
        let (succeeded, text) = run_command(&self.helm, &in_namespace);
        assert!(succeeded, "helm {arguments:?}: {text}\n{}", self.state());
        text
    }

    /// Installs or upgrades and waits until every pod is ready.
    fn apply(&self, values: &Value) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("values.json");
        std::fs::write(&file, values.to_string()).unwrap();
        let (chart, file) = (chart().display().to_string(), file.display().to_string());
        self.helm(&[
            "upgrade",
            "--install",
            "ferroflow",
            &chart,
            "--values",
            &file,
            "--wait",
            "--timeout",
            "4m",
        ]);
    }

    /// Waits until the release has so many pods, those that are ending among them.
    fn wait_for_pod_count(&self, pods: usize) {
        let begun = Instant::now();
        let release = "app.kubernetes.io/instance=ferroflow";
        let get_pods = [
            "--namespace",
            &self.namespace,
            "get",
            "pods",
            "--output",
            "name",
        ];
        while kubectl(&[&get_pods[..], &["--selector", release]].concat())
            .lines()
            .count()
            != pods
        {
            assert!(begun.elapsed() < Duration::from_mins(2), "{}", self.state());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// What pods say, for the message of a failure.
    fn state(&self) -> String {
        let n = &self.namespace;
        let pods = ["get", "pods,events", "--namespace", n, "--output", "wide"];
        let logs = [
            "logs",
            "--namespace",
            n,
            "--selector",
            "app.kubernetes.io/instance=ferroflow",
            "--tail",
            "40",
            "--prefix",
            "--ignore-errors",
        ];
        [&pods[..], &logs[..]]
            .map(|arguments| run_command("kubectl", arguments).1)
            .concat()
    }

    /// Checks that neither the release nor its tasks left anything.
    fn assert_nothing_left(&self) {
        let release = "app.kubernetes.io/instance=ferroflow";
        let of_release = "all,configmaps,secrets,serviceaccounts,roles,rolebindings,\
                          networkpolicies,poddisruptionbudgets";
        let of_tasks = "pods,persistentvolumeclaims";
        for (namespace, kinds, selector) in [
            (&self.namespace, of_release, release),
            (&self.tasks, of_release, release),
            (&self.tasks, of_tasks, ""),
        ] {
            let there = ["--namespace", namespace, "get", kinds];
            let which = ["--selector", selector, "--output", "name"];
            let left = kubectl(&[there, which].concat());
            assert_eq!(left, "", "in {namespace}");
        }
    }

    /// One value of an object of the release.
    fn value(&self, object: &str, path: &str) -> String {
        let output = format!("go-template={{{{{path}}}}}");
        kubectl(&[
            "--namespace",
            &self.namespace,
            "get",
            object,
            "--output",
            &output,
        ])
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.state());
        }
        let (_, text) = run_command(
            "kubectl",
            &[
                "delete",
                "namespace",
                &self.namespace,
                &self.tasks,
                "--timeout",
                "60s",
            ],
        );
        println!("{text}");
        for name in &self.databases {
            psql(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        }
    }
}

fn psql(command: &str) {
    let url = std::env::var("DATABASE_URL").unwrap();
    let (succeeded, text) = run_command("psql", &[&url, "--quiet", "--command", command]);
    assert!(succeeded, "{command}: {text}");
}

/// A caller of the gateway's Service.
#[derive(Clone)]
struct Caller {
    agent: ureq::Agent,
    url: String,
    host: String,
    key: Option<String>,
}

impl Caller {
    fn call(&self, method: &str, path: &str, body: &Value) -> Result<(u16, Value), ureq::Error> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("host", &self.host)
            .header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let body = if method == "GET" {
            String::new()
        } else {
            body.to_string()
        };
        let mut response = self.agent.run(request.body(body).unwrap())?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string()?;
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok((status, value))
    }

    /// Creates a run of two steps; its id.
    fn submit(&self) -> String {
        let tasks = ["first", "second"].map(|key| {
            let upstream = (key == "second").then(|| "first".to_owned());
            (
                key.to_owned(),
                "echo done".to_owned(),
                upstream.into_iter().collect(),
            )
        });
        let run =
            json!({"display_name": "chart", "pipeline_spec": shell_pipeline("chart", &tasks)});
        let (status, made) = self.call("POST", "/apis/v2beta1/runs", &run).unwrap();
        assert_eq!(status, 200, "{made}");
        made["run_id"].as_str().unwrap().to_owned()
    }

    fn succeeds(&self, run: &str, installation: &Installation) {
        const LIMIT: Duration = Duration::from_mins(3);
        let begun = Instant::now();
        loop {
            let path = format!("/apis/v2beta1/runs/{run}");
            let (status, found) = self.call("GET", &path, &Value::Null).unwrap();
            assert_eq!(status, 200, "{found}");
            match found["state"].as_str() {
                Some("SUCCEEDED") => return,
                Some("FAILED" | "CANCELED") => panic!("{found:#}"),
                _ => assert!(
                    begun.elapsed() < LIMIT,
                    "{found:#}\n{}",
                    installation.state()
                ),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Asks until told to stop; how many answers there were, and everything that was none.
    fn poll_until(&self, stop: &AtomicBool) -> (usize, Vec<String>) {
        let (mut answers, mut failures) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            match self.call("GET", "/apis/v2beta1/runs?page_size=1", &Value::Null) {
                Ok((200, _)) => answers += 1,
                other => failures.push(format!("{other:?}")),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        (answers, failures)
    }
}

/// Callers that keep their connections, and callers that make one for each request.
fn agents() -> [ureq::Agent; 2] {
    [10, 0].map(|idle| {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .max_idle_connections(idle)
            .build();
        config.into()
    })
}

#[test]
fn every_object_is_taken_by_the_api_server() {
    let Some(installation) = Installation::open("objects") else {
        return;
    };
    let chart = chart().display().to_string();
    let mut object_count = 0;
    for entry in std::fs::read_dir(format!("{chart}/ci")).unwrap() {
        let values = entry.unwrap().path().display().to_string();
        installation.helm(&["lint", "--strict", &chart, "--values", &values]);
        // The API server looks at objects in namespaces that are there.
        let tasks = format!(
            "tasks.namespace={},tasks.createNamespace=false",
            installation.tasks
        );
        let objects = installation.helm(&[
            "template", "release", &chart, "--values", &values, "--set", &tasks,
        ]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("objects.yaml");
        std::fs::write(&file, objects).unwrap();
        let file = file.display().to_string();
        let (succeeded, text) = run_command(
            "kubectl",
            &["apply", "--server-side", "--dry-run=server", "-f", &file],
        );
        assert!(succeeded && !text.contains("Warning"), "{values}: {text}");
        object_count += text.lines().count();
    }
    assert!(object_count > 40, "{object_count} objects only");

    let minimal = format!("{chart}/ci/minimal-values.yaml");
    for (setting, problem) in [
        (
            "artifacts.url=",
            "artifacts.url: say where artifacts are kept",
        ),
        (
            "database.existingSecret=",
            "database.existingSecret: name a secret",
        ),
        ("gateway.replcas=3", "replcas"),
        ("ingress.enabled=true", "ingress.hosts: name the hosts"),
    ] {
        let (succeeded, text) = run_command(
            &installation.helm,
            &[
                "template", "release", &chart, "--values", &minimal, "--set", setting,
            ],
        );
        assert!(!succeeded && text.contains(problem), "{setting}: {text}");
    }
}

#[test]
fn a_release_is_installed_used_upgraded_and_removed() {
    let Some(installation) = Installation::open("release") else {
        return;
    };
    let mut values = installation.values();
    installation.apply(&values);
    let [pooled, unpooled] = agents();
    let address = installation.value("service/ferroflow-gateway", ".spec.clusterIP");
    let key = || installation.value("secret/ferroflow-api-keys", ".data.admin | base64decode");
    let caller = Caller {
        agent: pooled,
        url: format!("http://{address}"),
        host: format!("ferroflow-gateway.{}", installation.namespace),
        key: Some(key()),
    };

    for wrong in [None, Some("wrong".to_owned())] {
        let unauthorized = Caller {
            key: wrong,
            ..caller.clone()
        };
        let (status, _) = unauthorized
            .call("GET", "/apis/v2beta1/runs", &Value::Null)
            .unwrap();
        assert_eq!(status, 401);
    }
    let run = caller.submit();
    caller.succeeds(&run, &installation);

    let stop = AtomicBool::new(false);
    let other = Caller {
        agent: unpooled,
        ..caller.clone()
    };
    std::thread::scope(|scope| {
        let pollers = [&caller, &other].map(|caller| scope.spawn(|| caller.poll_until(&stop)));
        let run = caller.submit();
        values["telemetry"] = json!({"logFilter": "info,ferroflow=debug"});
        installation.apply(&values);
        caller.succeeds(&run, &installation);
        installation.wait_for_pod_count(4);
        stop.store(true, Ordering::Relaxed);
        for poller in pollers {
            let (answers, failures) = poller.join().unwrap();
            println!(
                "{answers} answers during the upgrade, {} lost",
                failures.len()
            );
            assert!(failures.is_empty() && answers > 50, "{failures:#?}");
        }
    });
    assert_eq!(Some(key()), caller.key, "an upgrade keeps the key");

    installation.helm(&["uninstall", "ferroflow", "--wait", "--timeout", "2m"]);
    // Gateways still answer for a while, as they do whenever they are told to end.
    installation.wait_for_pod_count(0);
    installation.assert_nothing_left();
}
