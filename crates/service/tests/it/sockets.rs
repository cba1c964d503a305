//! Who can reach a socket, and what may be in its place.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ferroflow_service::grpc::listen;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn only_its_user_can_reach_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sockets/test.sock");

    let _listener = listen(&socket).unwrap();

    assert_eq!(mode(&socket), 0o600);
    assert_eq!(mode(&folder.path().join("sockets")), 0o700);
}

#[tokio::test]
async fn a_folder_that_others_may_enter_is_refused_and_let_be() {
    let folder = tempfile::tempdir().unwrap();
    let open = folder.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();

    let error = listen(&open.join("test.sock")).unwrap_err();

    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(mode(&open), 0o755);
}

#[tokio::test]
async fn a_stale_socket_is_replaced_but_neither_one_in_use_nor_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sockets/test.sock");
    let listener = listen(&socket).unwrap();

    assert_eq!(listen(&socket).unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(listener);
    assert!(socket.exists());
    assert!(listen(&socket).is_ok());

    let file = folder.path().join("sockets/notes.txt");
    fs::write(&file, "mine").unwrap();
    assert_eq!(listen(&file).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_says_so() {
    let folder = tempfile::tempdir().unwrap();

    let error = listen(&folder.path().join("x".repeat(120))).unwrap_err();

    assert!(error.to_string().contains("shorter folder"), "{error}");
}
