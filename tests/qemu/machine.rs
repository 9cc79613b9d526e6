//! A virtual machine: it boots, says lines over its serial port, and loses its power.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::initramfs;
use super::nbd::{Fuse, serve};

/// Longer than an emulated machine on a busy one takes to say its next line: past it, it hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// The memory of a machine, MiB.
const MEMORY: &str = "256";

/// What machines are made of: the files are in a directory of the test's.
pub(crate) struct Parts {
    pub(crate) kernel: PathBuf,
    dir: PathBuf,
}

impl Parts {
    pub(crate) fn new(kernel: &Path, dir: &Path) -> Self {
        std::fs::write(dir.join("initramfs"), initramfs::build(kernel)).expect("a file system with room");
        Self { kernel: kernel.to_path_buf(), dir: dir.to_path_buf() }
    }

    fn console(&self) -> PathBuf {
        self.dir.join("console")
    }

    /// The end of what the machine's kernel and programs said on its console.
    pub(crate) fn last_words(&self) -> String {
        let bytes = std::fs::read(self.console()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// What comes from the machine.
#[derive(Debug)]
pub(crate) enum Event {
    /// A line over the serial port.
    Line(String),
    /// The disk has no power any more.
    Blown,
    /// The machine is off.
    Off,
}

pub(crate) struct Machine {
    qemu: Child,
    events: Receiver<Event>,
    disk: Option<JoinHandle<Disk>>,
    socket: PathBuf,
    pub(crate) fuse: Fuse,
    pub(crate) started: Instant,
}

impl Machine {
    /// Boots. `environment` is that of its first process.
    pub(crate) fn boot(parts: &Parts, environment: &[(&str, String)], disk: Disk) -> Self {
        let socket = parts.dir.join("disk");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("a socket");
        let (sender, events) = channel();
        let fuse = Fuse::new();
        let disk = spawn({
            let (fuse, sender, mut disk) = (fuse.clone(), sender.clone(), disk);
            move || {
                let blown = || _ = sender.send(Event::Blown);
                if let Err(e) = serve(&listener, &mut disk, &fuse, blown) {
                    println!("the disk's server: {e}");
                }
                disk
            }
        });
        // A name that the kernel doesn't know becomes its first process's environment; what stands after the
        // dashes, its arguments.
        let mut append = "console=ttyS0 quiet panic=-1".to_string();
        for (name, value) in environment {
            append.push_str(&format!(" {name}={value}"));
        }
        append.push_str(" -- child_entry --exact --nocapture --test-threads=1");
        let mut qemu = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", MEMORY])
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .arg("-kernel")
            .arg(parts.kernel.join("vmlinuz"))
            .arg("-initrd")
            .arg(parts.dir.join("initramfs"))
            .args(["-append", &append])
            .arg("-serial")
            .arg(format!("file:{}", parts.console().display()))
            .args(["-chardev", "stdio,id=said,signal=off", "-serial", "chardev:said"])
            .arg("-blockdev")
            .arg(format!("driver=nbd,node-name=disk,server.type=unix,server.path={}", socket.display()))
            .args(["-device", "virtio-blk-pci,drive=disk,write-cache=on"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("QEMU starts");
        let serial = qemu.stdout.take().expect("a pipe");
        spawn(move || listen(serial, &sender));
        Self { qemu, events, disk: Some(disk), socket, fuse, started: Instant::now() }
    }

    /// The next event; an error if none comes for minutes.
    pub(crate) fn next(&self) -> Result<Event, String> {
        match self.events.recv_timeout(PATIENCE) {
            Ok(event) => Ok(event),
            Err(RecvTimeoutError::Timeout) => Err(format!("nothing for {} s", PATIENCE.as_secs())),
            Err(RecvTimeoutError::Disconnected) => Ok(Event::Off),
        }
    }

    /// SIGKILL. What came over the serial port before, comes still; then the machine is off.
    pub(crate) fn kill(&mut self) {
        let _ = self.qemu.kill();
        self.qemu.wait().expect("a child");
    }

    /// The disk of a machine that is off.
    pub(crate) fn take_disk(mut self) -> Disk {
        self.kill();
        self.join().expect("the disk is taken once")
    }

    fn join(&mut self) -> Option<Disk> {
        let disk = self.disk.take()?;
        let _ = UnixStream::connect(&self.socket); // if QEMU never came, the server waits still
        Some(disk.join().expect("the disk's server"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        self.join();
    }
}

/// Sends whole lines; the last one may have been cut off, and doesn't count.
fn listen(serial: impl std::io::Read, sender: &Sender<Event>) {
    let mut serial = BufReader::new(serial);
    let mut line = Vec::new();
    while let Ok(1..) = serial.read_until(b'\n', &mut line) {
        if line.pop_if(|b| *b == b'\n').is_some() {
            let _ = sender.send(Event::Line(String::from_utf8_lossy(&line).into_owned()));
        }
        line.clear();
    }
    let _ = sender.send(Event::Off);
}

/// An empty ext4 file system.
pub(crate) fn file_system(dir: &Path, bytes: u64) -> Vec<u8> {
    let path = dir.join("ext4");
    File::create(&path).and_then(|f| f.set_len(bytes)).expect("a file system with room");
    let made = Command::new("mkfs.ext4")
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
        .args([
            "-q",
            "-F",
            "-b",
            "4096",
            "-m",
            "0",
            "-J",
            "size=4",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
        ])
        .arg(&path)
        .status();
    assert!(made.expect("mkfs.ext4 starts").success());
    std::fs::read(&path).expect("the file system")
}
