//! Indexes with credentials, as pip's configuration, `netrc` and components name them: packages are
//! installed, and nobody else learns of the credentials.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use ferroflow_python_env::{EnvSpec, PipInstall, PythonConfig, PythonEnvs};

const PASSWORD: &str = "canary-4711";

/// `me:canary-4711` as a header has it.
const BASIC: &str = "Basic bWU6Y2FuYXJ5LTQ3MTE=";

/// Makes a wheel of a package that has nothing in it but its name.
const WHEEL: &str = "import sys, zipfile\n\
    name, path = sys.argv[1:]\n\
    info = f'{name}-1.0.dist-info/'\n\
    with zipfile.ZipFile(f'{path}/{name}-1.0-py3-none-any.whl', 'w') as wheel:\n\
    \x20   wheel.writestr(f'{name}.py', f'name = {name!r}')\n\
    \x20   wheel.writestr(info + 'METADATA', f'Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n')\n\
    \x20   wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
    \x20   wheel.writestr(info + 'RECORD', f'{name}.py,,\\n{info}METADATA,,\\n{info}WHEEL,,\\n{info}RECORD,,\\n')\n";

/// An index of one package that wants a password, on loopback.
struct Index {
    port: u16,
    folder: tempfile::TempDir,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Index {
    fn start(package: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("python3")
            .args(["-c", WHEEL, package])
            .arg(folder.path())
            .status();
        assert!(made.unwrap().success());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (root, served) = (folder.path().to_path_buf(), Arc::clone(&requests));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (root, served) = (root.clone(), Arc::clone(&served));
                std::thread::spawn(move || serve(stream.unwrap(), &root, &served));
            }
        });
        Self {
            port,
            folder,
            requests,
        }
    }

    fn url(&self, userinfo: &str) -> String {
        format!("http://{userinfo}127.0.0.1:{}/simple", self.port)
    }

    fn was_requested(&self) -> bool {
        !self.requests.lock().unwrap().is_empty()
    }
}

fn serve(mut stream: std::net::TcpStream, root: &Path, requests: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    let headers: Vec<_> = lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    requests.lock().unwrap().push(path.clone());
    let known = headers.iter().any(|line| line.ends_with(BASIC));
    let wheel = path.rsplit('/').next().unwrap_or_default();
    let wheels = std::fs::read_dir(root).unwrap().flatten();
    let names = wheels.map(|found| found.file_name().to_string_lossy().into_owned());
    let (status, body) = if !known {
        ("401 Unauthorized", Vec::new())
    } else if wheel.ends_with(".whl") {
        ("200 OK", std::fs::read(root.join(wheel)).unwrap())
    } else {
        // Of the package that is asked for, or of all on a page of links.
        let package = path.strip_prefix("/simple/").unwrap_or_default();
        let package = package.trim_end_matches('/').replace('-', "_");
        let names = names.filter(|name| name.starts_with(&package));
        let links = names.map(|name| format!("<a href=\"/files/{name}\">{name}</a>"));
        ("200 OK", links.collect::<String>().into_bytes())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Type: text/html\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    if !first.starts_with("HEAD") {
        stream.write_all(&body).unwrap();
    }
}

fn of_package(name: &str) -> PipInstall {
    PipInstall {
        packages: vec![name.to_owned()],
        ..PipInstall::default()
    }
}

fn env_spec(step: PipInstall) -> EnvSpec {
    EnvSpec {
        steps: vec![step],
        python: None,
    }
}

/// Variables of this process without those of pip and uv, and others on top.
fn variables(more: &[(&str, String)]) -> Vec<(String, String)> {
    let own = std::env::vars()
        .filter(|(name, _)| !name.starts_with("PIP_") && !name.starts_with("UV_"))
        .filter(|(name, _)| !more.iter().any(|(other, _)| other == name));
    let more = more
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()));
    own.chain(more).collect()
}

/// A uv that logs how it is called.
async fn logging_uv(root: &Path) -> (PathBuf, PathBuf) {
    let config = PythonConfig::new(root.join("first"), "python3".to_owned(), std::env::vars());
    PythonEnvs::new(config)
        .ensure(&EnvSpec::default())
        .await
        .unwrap();
    let (bin, calls) = (root.join("bin"), root.join("calls"));
    std::fs::create_dir(&bin).unwrap();
    let fetched = root.join("first/tools/bin/uv");
    let uv = if fetched.exists() {
        fetched
    } else {
        which("uv")
    };
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n",
        calls.display(),
        uv.display()
    );
    std::fs::write(bin.join("uv"), script).unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(bin.join("uv"), mode).unwrap();
    (bin, calls)
}

/// The interpreter itself: a shim of pyenv needs the home of its user.
fn python() -> String {
    let output = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output();
    let path = String::from_utf8(output.unwrap().stdout).unwrap();
    path.trim().to_owned()
}

fn which(program: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap();
    let found = path
        .split(':')
        .map(|folder| Path::new(folder).join(program));
    found.into_iter().find(|file| file.exists()).unwrap()
}

/// Files below a folder that have the password in them, but for those named.
fn leaks(folder: &Path, except: &[&Path]) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let paths = paths.filter(|path| !except.contains(&path.as_path()) && !path.is_symlink());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                return leaks(&path, except);
            }
            let bytes = std::fs::read(&path).unwrap_or_default();
            let mut windows = bytes.windows(PASSWORD.len());
            let found = windows.any(|part| part == PASSWORD.as_bytes());
            found.then_some(path).into_iter().collect()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_used_and_shown_to_nobody() {
    let root = tempfile::tempdir().unwrap();
    let (bin, calls) = logging_uv(root.path()).await;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let python = python();
    let secrets = root.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    let user = format!("me:{PASSWORD}@");
    let envs = |name: &str, more: &[(&str, String)]| {
        let mut more = more.to_vec();
        more.push(("PATH", path.clone()));
        more.push(("HOME", secrets.display().to_string()));
        let folder = root.path().join(name);
        let variables = variables(&more).into_iter();
        PythonEnvs::new(PythonConfig::new(folder, python.clone(), variables))
    };

    // By the file that PIP_CONFIG_FILE names.
    let index = Index::start("by_file");
    let file = secrets.join("pip.conf");
    let text = format!("[global]\nextra-index-url = {}\n", index.url(&user));
    std::fs::write(&file, text).unwrap();
    let named = [("PIP_CONFIG_FILE", file.display().to_string())];
    let spec = env_spec(of_package("by_file"));
    let found = envs("a", &named).ensure(&spec).await;
    assert!(found.is_ok() && index.was_requested(), "{found:?}");

    // By netrc, on pages of links.
    let index = Index::start("by_netrc");
    let netrc = format!("machine 127.0.0.1 login me password {PASSWORD}\n");
    std::fs::write(secrets.join(".netrc"), netrc).unwrap();
    let links = index.url("").replace("/simple", "/links");
    let named = [("PIP_FIND_LINKS", links), ("PIP_NO_INDEX", "1".to_owned())];
    let spec = env_spec(of_package("by_netrc"));
    let found = envs("b", &named).ensure(&spec).await;
    assert!(found.is_ok() && index.was_requested(), "{found:?}");
    std::fs::remove_file(secrets.join(".netrc")).unwrap();

    // By the component.
    let index = Index::start("by_component");
    let url = index.url(&user);
    let step = PipInstall {
        index_url: Some(url.clone()),
        // As the SDK writes it when no host is given.
        trusted_hosts: vec![url],
        ..of_package("by_component")
    };
    let found = envs("c", &[]).ensure(&env_spec(step)).await;
    assert!(found.is_ok() && index.was_requested(), "{found:?}");

    // By a direct URL.
    let index = Index::start("by_url");
    let wheel = index
        .url(&user)
        .replace("/simple", "/files/by_url-1.0-py3-none-any.whl");
    let step = of_package(&format!("by_url @ {wheel}"));
    let found = envs("d", &[]).ensure(&env_spec(step)).await;
    assert!(found.is_ok() && index.was_requested(), "{found:?}");

    // What goes wrong does not tell either.
    let user = format!("{PASSWORD}:wrong@");
    let url = index.url(&user);
    let step = PipInstall {
        index_url: Some(url.clone()),
        ..of_package(&format!("none @ {url}/none-1.0-py3-none-any.whl"))
    };
    let error = envs("e", &[]).ensure(&env_spec(step)).await.unwrap_err();
    let message = format!("{error} {error:?}");
    assert!(
        message.contains("none-1.0") && !message.contains(PASSWORD),
        "{message}"
    );

    let log = std::fs::read_to_string(&calls).unwrap();
    assert!(
        log.contains("pip install") && !log.contains(PASSWORD),
        "{log}"
    );
    assert_eq!(leaks(root.path(), &[&secrets]), Vec::<PathBuf>::new());
    drop(index.folder);
}
