//! The store in fifteen lines. Run it in several terminals at once: they share the file.
//!
//! ```text
//! cargo run --example quickstart
//! ```

use recstore::{Store, Swap};

fn main() -> recstore::Result<()> {
    let path = std::env::temp_dir().join("quickstart.rec");
    let store = Store::options().record_size(64).open_or_create(&path)?; // so does every process

    let version = store.put(7, b"seven")?; // has survived the death of this process when it returns
    if let Some(record) = store.get(7)? {
        println!("record 7, version {}: {}", record.version(), String::from_utf8_lossy(&record));
    }

    // Read, change, write, as one step: exact from any number of processes.
    store.update(8, |old| {
        let runs = old.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        println!("this program has run {} times", runs + 1);
        Some((runs + 1).to_le_bytes())
    })?;

    match store.compare_and_swap(7, Some(version), b"SEVEN")? {
        Swap::Done(version) => println!("record 7 is at version {version}"),
        Swap::Conflict { current } => println!("another process was faster: {current:?}"),
    }

    store.sync()?; // all of it survives the loss of power
    println!("{} records in {}; remove the file to begin anew", store.len()?, path.display());
    store.close()
}
