//! Servers on loopback: one, or a cluster of three; each a process of this test, killed with it.
//!
//! The program `nats-server` is the one that `RECSTORE_NATS_SERVER` names, or the one on the path. `.ci/run` has it from PyPI.

use std::ffi::OsString;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The program, or `None`: then a test says that it is skipped. With `RECSTORE_NO_SKIP` that is a failure.
pub(crate) fn program() -> Option<PathBuf> {
    let found = std::env::var_os("RECSTORE_NATS_SERVER").map(PathBuf::from).or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join("nats-server")).find(|path| path.exists())
    });
    if found.is_none() {
        assert!(std::env::var_os("RECSTORE_NO_SKIP").is_none(), "no nats-server");
        println!("SKIPPED: no nats-server on the path; name one with RECSTORE_NATS_SERVER");
    }
    found
}

/// Ports that are free now.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

pub(crate) struct Server {
    name: String,
    pub(crate) port: u16,
    pub(crate) monitor: u16,
    host: String,
    config: PathBuf,
    child: Option<Child>,
    /// The program, with what starts it in its network.
    program: Vec<OsString>,
    is_stopped: bool,
}

impl Server {
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none());
        let log =
            fs::File::options().create(true).append(true).open(self.config.with_extension("log")).unwrap();
        let child = Command::new(&self.program[0])
            .args(&self.program[1..])
            .arg("-c")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        wait_for(&format!("server {}", self.name), || TcpStream::connect((&*self.host, self.port)).is_ok());
    }

    fn pid(&self) -> Option<Pid> {
        self.child.as_ref().map(|child| Pid::from_raw(child.id() as i32))
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        self.is_stopped = false;
    }

    pub(crate) fn stop(&mut self) {
        if let Some(pid) = self.pid() {
            kill(pid, Signal::SIGSTOP).unwrap();
            self.is_stopped = true;
        }
    }

    pub(crate) fn go_on(&mut self) {
        if let Some(pid) = self.pid().filter(|_| self.is_stopped) {
            kill(pid, Signal::SIGCONT).unwrap();
        }
        self.is_stopped = false;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
}

impl Cluster {
    /// On loopback. `more` are lines of the configuration.
    pub(crate) fn start(program: &Path, dir: &Path, size: usize, more: &str) -> Self {
        Self::start_at(program, dir, size, more, |_| ("127.0.0.1".into(), Vec::new()))
    }

    /// Three servers in the network namespaces n0, n1 and n2, which have a bridge to this one.
    pub(crate) fn start_in_namespaces(program: &Path, dir: &Path) -> Self {
        Self::start_at(program, dir, 3, "", |n| {
            let name = format!("n{n}");
            (format!("10.77.0.{}", n + 2), ["ip", "netns", "exec", &name].map(OsString::from).into())
        })
    }

    fn start_at(
        program: &Path,
        dir: &Path,
        size: usize,
        more: &str,
        place: impl Fn(usize) -> (String, Vec<OsString>),
    ) -> Self {
        let ports: [[u16; 3]; 3] = {
            let all: [u16; 9] = free_ports();
            [[all[0], all[1], all[2]], [all[3], all[4], all[5]], [all[6], all[7], all[8]]]
        };
        let routes: Vec<String> =
            (0..size).map(|n| format!("nats://{}:{}", place(n).0, ports[n][1])).collect();
        let mut servers: Vec<Server> = (0..size)
            .map(|n| {
                let [port, route, monitor] = ports[n];
                let (host, mut command) = place(n);
                command.push(program.into());
                let name = format!("n{n}");
                let store = dir.join(&name);
                let cluster = if size > 1 {
                    format!("cluster {{ name: c, listen: {host}:{route}, routes: [{}] }}", routes.join(", "))
                } else {
                    String::new()
                };
                let config = dir.join(format!("{name}.conf"));
                let text = format!(
                    "server_name: {name}\nlisten: {host}:{port}\nhttp: {host}:{monitor}\n\
                     jetstream {{ store_dir: \"{}\", sync_interval: always, max_file_store: 1GB }}\n{cluster}\n{more}\n",
                    store.display()
                );
                fs::write(&config, text).unwrap();
                Server { name, port, monitor, host, config, child: None, program: command, is_stopped: false }
            })
            .collect();
        servers.iter_mut().for_each(Server::start);
        Self { servers }
    }

    pub(crate) fn url(&self) -> String {
        let servers: Vec<String> =
            self.servers.iter().map(|server| format!("{}:{}", server.host, server.port)).collect();
        format!("nats://{}", servers.join(","))
    }

    /// Everything runs again.
    pub(crate) fn heal(&mut self) {
        for server in &mut self.servers {
            server.go_on();
            if server.child.is_none() {
                server.start();
            }
        }
    }
}

pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(10));
    }
}
