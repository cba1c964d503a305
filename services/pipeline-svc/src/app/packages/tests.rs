//! Fetching, from servers of this machine: they stand for what is inside.

use std::collections::HashMap;
use std::sync::Mutex;

use ferroflow_types::ErrorKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const PIPELINE: &str = "pipelineInfo: {name: fetched}\nschemaVersion: 2.1.0\nroot: {}\n";

/// A server that answers each path with a status line, headers and a body, and notes what was asked.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(address: &str, answers: &[(&str, String)]) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers: HashMap<String, String> = answers
            .iter()
            .map(|(path, answer)| ((*path).to_owned(), answer.clone()))
            .collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => request.push(byte),
                        Err(_) => break,
                    }
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let answer = answers.get(&path).cloned().unwrap_or_else(|| {
                    "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned()
                });
                recorded.lock().unwrap().push(path);
                // A client that has read enough may be gone.
                let _closed = stream.write_all(answer.as_bytes()).await.is_err();
            }
        });
        Self { port, asked }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn found(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

fn redirect(to: &str) -> String {
    format!(
        "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

fn fetcher_for(texts: &[&str]) -> PackageFetcher {
    let texts: Vec<_> = texts.iter().map(|&text| text.to_owned()).collect();
    PackageFetcher::new(parse_networks(&texts).unwrap())
}

async fn problem(packages: &PackageFetcher, url: &str) -> String {
    let error = packages.fetch(url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    error.to_string()
}

/// Names that lead to one address after another.
struct RotatingResolver(Mutex<Vec<IpAddr>>);

impl Resolve for RotatingResolver {
    fn resolve(&self, _: Name) -> Resolving {
        let mut left = self.0.lock().unwrap();
        let now = if left.len() > 1 {
            left.remove(0)
        } else {
            left[0]
        };
        Box::pin(async move {
            let found: Addrs = Box::new(std::iter::once(SocketAddr::from((now, 0))));
            Ok(found)
        })
    }
}

#[tokio::test]
async fn a_package_is_fetched_from_a_network_that_is_allowed() {
    let server = Server::start(
        "127.0.0.1",
        &[
            ("/a/p.yaml", found(PIPELINE)),
            ("/moved", redirect("a/p.yaml")),
            ("/none.yaml", found("a: 1\n")),
        ],
    )
    .await;
    let packages = fetcher_for(&["127.0.0.1"]);
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", server.port);

    let package = packages.fetch(&url("/a/p.yaml")).await.unwrap();
    assert_eq!(package.name, "p.yaml");
    assert_eq!(package.file.pipeline["pipelineInfo"]["name"], "fetched");
    let package = packages.fetch(&url("/moved")).await.unwrap();
    assert_eq!(package.name, "p.yaml");

    let none = problem(&packages, &url("/none.yaml")).await;
    assert!(none.contains("no pipeline spec"), "{none}");
    let gone = problem(&packages, &url("/gone.yaml?token=secret")).await;
    assert!(gone.contains("404") && !gone.contains("secret"), "{gone}");
}

#[tokio::test]
async fn private_addresses_are_not_connected_to() {
    let server = Server::start("127.0.0.1", &[("/p.yaml", found(PIPELINE))]).await;
    let packages = fetcher_for(&[]);
    for host in [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
    ] {
        let url = format!("http://{host}:{}/p.yaml", server.port);
        let text = problem(&packages, &url).await;
        assert!(text.contains("is not a public address"), "{host}: {text}");
        assert!(text.contains(SETTING), "{host}: {text}");
    }
    let metadata = problem(&packages, "http://169.254.169.254/latest").await;
    assert!(metadata.contains("is not a public address"), "{metadata}");
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn every_redirect_is_checked() {
    let inside = Server::start("127.0.0.2", &[("/p.yaml", found(PIPELINE))]).await;
    let secret = format!("http://127.0.0.2:{}/p.yaml", inside.port);
    let answers = [
        ("/inside", redirect(&secret)),
        ("/loop", redirect("/loop")),
        ("/file", redirect("file:///etc/passwd")),
        ("/user", redirect("http://a:b@127.0.0.1/")),
    ];
    let outside = Server::start("127.0.0.1", &answers).await;
    let packages = fetcher_for(&["127.0.0.1/32"]);
    for (path, words) in [
        ("/inside", "is not a public address"),
        ("/loop", "more than 10 redirects"),
        ("/file", "give an http or https URL"),
        ("/user", "user or password"),
    ] {
        let url = format!("http://127.0.0.1:{}{path}", outside.port);
        let text = problem(&packages, &url).await;
        assert!(text.contains(words), "{path}: {text}");
    }
    assert_eq!(inside.asked(), 0);
    let from = Url::parse("https://example.com/a").unwrap();
    let downgraded = redirect_target(&from, "http://example.com/a").unwrap_err();
    assert!(downgraded.to_string().contains("from https to http"));
}

/// The first look-up leads to where packages may come from, and a moment later the name leads inside.
#[tokio::test]
async fn a_rebound_name_is_refused() {
    let first = Server::start("127.0.0.1", &[("/p.yaml", redirect("/again"))]).await;
    let [allowed, other] = ["127.0.0.1", "127.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
    let names = RotatingResolver(Mutex::new(vec![allowed, other]));
    let packages = PackageFetcher::with_resolver(vec![IpNet::from(allowed)], names);

    let url = format!("http://rebound.example:{}/p.yaml", first.port);
    let text = problem(&packages, &url).await;

    assert!(text.contains("rebound.example"), "{text}");
    assert!(text.contains("is not a public address"), "{text}");
    assert_eq!(first.asked(), 1);
}

#[tokio::test]
async fn no_more_is_read_than_a_package_may_have() {
    let declared = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        SIZE_MAX + 1
    );
    let body = "x".repeat(SIZE_MAX + 1);
    let undeclared = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}");
    let answers = [("/declared", declared), ("/undeclared", undeclared)];
    let server = Server::start("127.0.0.1", &answers).await;
    let packages = fetcher_for(&["127.0.0.0/8"]);
    for path in ["/declared", "/undeclared"] {
        let url = format!("http://127.0.0.1:{}{path}", server.port);
        let text = problem(&packages, &url).await;
        assert!(
            text.contains("larger than 33554432 bytes"),
            "{path}: {text}"
        );
    }
}

#[tokio::test]
async fn what_is_no_url_of_a_package_is_refused() {
    let packages = fetcher_for(&[]);
    for (url, words) in [
        ("p.yaml", "not a URL"),
        ("ftp://example.com/p.yaml", "http or https"),
        ("file:///etc/passwd", "http or https"),
        ("https://me:secret@example.com/p.yaml", "user or password"),
    ] {
        let text = problem(&packages, url).await;
        assert!(
            text.contains(words) && text.contains(FIELD),
            "{url}: {text}"
        );
        assert!(!text.contains("secret"), "{text}");
    }
    assert!(parse_networks(&["10.0.0.0/33".to_owned()]).is_err());
    assert!(parse_networks(&["intranet".to_owned()]).is_err());
}
