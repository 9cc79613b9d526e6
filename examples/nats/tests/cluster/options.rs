//! Logins, contexts, TLS, and servers that are too old.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;

use recstore::Store;

use crate::commands::{fails, nats, succeeds, text};
use crate::servers::{Cluster, program};

#[test]
fn a_login_is_taken_from_options_variables_and_contexts() {
    let Some(program) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let more = "authorization { user: ann, password: secret }";
    let cluster = Cluster::start(&program, dir.path(), 1, more);
    let url = &cluster.url();
    let store = Store::create(dir.path().join("s.rec")).unwrap();
    let path = &*store.path().to_string_lossy().into_owned();
    let arguments = ["mirror", path, url, "--bucket", "b", "--once"];
    fails(4, "uthorization", &arguments);
    succeeds(&[&arguments[..], &["--user", "ann", "--password", "secret"]].concat());
    fails(4, "uthorization", &[&arguments[..], &["--user", "ann", "--password", "wrong"]].concat());
    let output = nats(&arguments).env("NATS_USER", "ann").env("NATS_PASSWORD", "secret").output().unwrap();
    assert!(output.status.success(), "{output:?}");

    let contexts = dir.path().join("config/nats/context");
    std::fs::create_dir_all(&contexts).unwrap();
    let fields = serde_json::json!({"url": url, "user": "ann", "password": "secret"});
    std::fs::write(contexts.join("prod.json"), fields.to_string()).unwrap();
    let config = dir.path().join("config");
    let in_context = |arguments: &[&str]| nats(arguments).env("XDG_CONFIG_HOME", &config).output().unwrap();
    let output = in_context(&["mirror", path, "--bucket", "b", "--once", "--context", "prod"]);
    assert!(output.status.success(), "{output:?}");
    let output = in_context(&["mirror", path, "--bucket", "b", "--once", "--context", "absent"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    std::fs::write(config.join("nats/context.txt"), "prod\n").unwrap();
    let output = in_context(&["mirror", path, "--bucket", "b", "--once"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn tls_needs_an_authority_that_signed_the_server() {
    let Some(program) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(dir.path()).output().is_ok_and(|output| output.status.success())
    };
    let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    let key = [
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem",
    ];
    let is_made = openssl(&[&key[..], &["-subj", "/CN=authority"]].concat())
        && openssl(
            &[&["req", "-newkey", "rsa:2048", "-nodes", "-keyout", "s.key", "-out", "s.csr"], &subject[..]]
                .concat(),
        )
        && openssl(&[
            "x509",
            "-req",
            "-in",
            "s.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-out",
            "s.pem",
            "-days",
            "2",
            "-copy_extensions",
            "copyall",
        ]);
    if !is_made {
        assert!(std::env::var_os("RECSTORE_NO_SKIP").is_none(), "no openssl");
        println!("SKIPPED: no openssl");
        return;
    }
    let at = |name: &str| dir.path().join(name).display().to_string();
    let more = format!("tls {{ cert_file: \"{}\", key_file: \"{}\" }}", at("s.pem"), at("s.key"));
    let cluster = Cluster::start(&program, dir.path(), 1, &more);
    let url = &cluster.url().replace("nats://127.0.0.1", "tls://localhost");
    let store = Store::create(dir.path().join("s.rec")).unwrap();
    store.put(1, b"one").unwrap();
    let arguments = ["mirror", text(store.path()), url, "--bucket", "b", "--once", "--give-up-after", "0"];
    fails(4, "", &arguments);
    succeeds(&[&arguments[..], &["--tlsca", &at("ca.pem")]].concat());
}

#[test]
fn a_server_that_is_too_old_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("s.rec")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let info = r#"{"server_id":"X","server_name":"old","version":"2.10.29","max_payload":1048576,"headers":true,"proto":1}"#;
        write!(stream, "INFO {info}\r\n").unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while let Some(Ok(line)) = lines.next() {
            if line == "PING" && write!(stream, "PONG\r\n").is_err() {
                break;
            }
        }
    });
    fails(4, "2.11 is needed", &["mirror", text(store.path()), &url, "--bucket", "b", "--once"]);
    server.join().unwrap();
}
