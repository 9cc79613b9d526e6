//! A virtual machine loses its power at a random moment, over and over, and loses nothing that it
//! acknowledged as durable.
//!
//! Not part of an ordinary run. To run it, on x86-64 Debian or Ubuntu (as root if QEMU is not installed):
//!
//! ```text
//! cargo test --release --test real_power_loss -- --ignored --nocapture
//! ```
//!
//! It gets QEMU and Debian's kernel with `apt-get` (the kernel is unpacked, not installed), packs itself
//! into an initramfs, and boots that: the first process of the machine is this binary, on an ext4 file
//! system. `RECSTORE_QEMU_ROUNDS` says how many times (20), `RECSTORE_SEED` replays the draws; at which
//! instruction the power goes depends on the emulator's pace too.
//!
//! What is real: the kernel, its page cache, its writeback, ext4 and its journal, virtio, SIGKILL of the
//! machine. What is modelled: the disk. Its cache forgets: of what was written since the last flush
//! each 512-byte sector keeps its old state, the newest, or one between (see `qemu/disk.rs`).
//!
//! Writers (processes, threads, or one alone that also closes and reopens) put, update, delete and sync;
//! what was durable is said over a serial line once the call has returned. The next boot opens the store.
//! Fails when an id is older than what was acknowledged, or holds what nobody wrote; when a deleted
//! one is back; when `verify` finds anything, or a slot is on no list; when a call fails, or hangs.
//!
//! That it finds losses: the second test; and mistakes made on purpose, with the feature `testing` and
//! `RECSTORE_QEMU_FAULT=ReuseEarly` or another of `recstore::testing::Fault`. In two runs of each, caught
//! after at most this many rounds: `LowerSeqWins` 4, `ReuseEarly` 6, `NoTombstone` 7, `DurableEarly` 10,
//! `TombstoneEarly` 34; `NoScrub` at once, before any loss. `SumWithoutHeader` can't be caught here: a
//! header lies within one sector, so no loss of power tears it.

#![cfg(target_arch = "x86_64")]

mod common;
mod qemu;

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use qemu::disk::Flushes;
use qemu::rounds::Run;

/// One machine at a time.
static MACHINE: Mutex<()> = Mutex::new(());

fn rounds() -> u64 {
    common::number_from_env("RECSTORE_QEMU_ROUNDS").unwrap_or(20)
}

/// The directory with the kernel; it is fetched if it isn't there.
fn kernel() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("qemu-kernel");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/qemu/get_kernel.sh");
    let status = Command::new("sh").arg(script).arg(&dir).status().expect("a shell");
    assert!(status.success(), "QEMU or the kernel can't be had");
    dir
}

#[test]
fn child_entry() {
    qemu::guest::enter();
}

#[test]
#[ignore = "boots virtual machines for minutes"]
fn a_machine_that_loses_its_power_loses_nothing_acknowledged() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let fault = std::env::var(qemu::guest::FAULT).ok();
    let mut run = Run::new(kernel(), common::seed(), Flushes::Honest, fault.as_deref());
    let result = run.rounds(rounds());
    run.figures.print();
    if let Err(what) = result {
        panic!("{what}\n{}", run.keep_disk());
    }
    assert!(run.figures.acknowledged() > 0 && run.figures.recoveries > 0, "nothing was put to the test");
}

/// That the test sees a loss.
#[test]
#[ignore = "boots virtual machines for minutes"]
fn a_disk_that_lies_about_flushes_is_caught() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut run = Run::new(kernel(), common::seed(), Flushes::Lies, None);
    let what = run.rounds(rounds()).expect_err("nothing was lost");
    run.figures.print();
    println!("caught: {what}");
    assert!(
        what.contains("durable or later") || what.contains("the store is gone"),
        "another failure: {what}"
    );
}
