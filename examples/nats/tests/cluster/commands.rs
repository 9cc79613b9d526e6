//! The command as a process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use recstore_nats::connect::{Connect, Connection};
use serde_json::Value;

use crate::servers::{Cluster, wait_for};

/// `recstore-nats` with these arguments.
pub(crate) fn nats(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recstore-nats"));
    // Contexts of the user are none of the test's.
    command.args(arguments).env("XDG_CONFIG_HOME", "/nonexistent").stdin(Stdio::null());
    for name in ["NATS_URL", "NATS_CONTEXT", "NATS_USER", "NATS_PASSWORD", "NATS_CREDS", "NATS_TOKEN"] {
        command.env_remove(name);
    }
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    nats(arguments).output().unwrap()
}

#[track_caller]
pub(crate) fn succeeds(arguments: &[&str]) -> Output {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

#[track_caller]
pub(crate) fn fails(code: i32, with: &str, arguments: &[&str]) {
    let output = run(arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.contains(with), "{arguments:?} does not say {with:?}: {text}");
}

/// A command that runs until it is killed.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap())
    }

    /// Waits for an object on its standard output that is so.
    pub(crate) fn wait_until(&mut self, what: &str, mut is_so: impl FnMut(&Value) -> bool) {
        let mut lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        wait_for(what, || {
            let line = lines.next().expect("the command runs").unwrap();
            is_so(&serde_json::from_str(&line).unwrap())
        });
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

/// A connection of the test's own.
pub(crate) fn connection(cluster: &Cluster) -> Connection {
    let mut connection = None;
    wait_for("a connection", || {
        connection = Connection::open(&cluster.url(), &Connect::default()).ok();
        connection.is_some()
    });
    connection.unwrap()
}

/// The path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
