//! The records of a store as a Parquet file, as of one moment.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use recstore::Store;

use crate::Failure;

const SCHEMA: &str = "message recstore {
    REQUIRED INT64 id (INTEGER(64, false));
    REQUIRED INT64 version (INTEGER(64, false));
    REQUIRED BYTE_ARRAY data;
}";
/// Records of a row group: that many are in memory at once.
const GROUP_RECORDS: usize = 1 << 16;

/// Export all records into a Parquet file, in the order of ids
///
/// Columns: id and version, unsigned integers of 64 bits, and data, the bytes. One snapshot: others go on writing.
#[derive(clap::Args)]
pub(crate) struct Parquet {
    /// The store
    store: PathBuf,
    /// The new file
    file: PathBuf,
}

impl Parquet {
    pub(crate) fn run(&self) -> Result<String, Failure> {
        let store = Store::open(&self.store)?;
        let snapshot = store.snapshot()?;
        let mut ids = Vec::new();
        for record in snapshot.iter() {
            ids.push(record?.0);
        }
        ids.sort_unstable();

        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", self.file.display());
        // Whole or not at all.
        let unfinished = unfinished(&self.file);
        if self.file.exists() {
            return Err(named(&"exists already").into());
        }
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let file = File::create(&unfinished).map_err(|error| named(&error))?;
        let mut writer = SerializedFileWriter::new(
            file.try_clone()?,
            Arc::new(parse_message_type(SCHEMA)?),
            Arc::new(properties),
        )?;
        for group in ids.chunks(GROUP_RECORDS) {
            let (mut group_ids, mut versions, mut data) = (Vec::new(), Vec::new(), Vec::new());
            for &id in group {
                if let Some((version, bytes)) = snapshot.get_versioned(id)? {
                    group_ids.push(id.cast_signed());
                    versions.push(version.get().cast_signed());
                    data.push(ByteArray::from(bytes.to_vec()));
                }
            }
            let mut columns = writer.next_row_group()?;
            for numbers in [&group_ids, &versions] {
                let mut column = columns.next_column()?.ok_or("a column of the schema")?;
                column.typed::<Int64Type>().write_batch(numbers, None, None)?;
                column.close()?;
            }
            let mut column = columns.next_column()?.ok_or("a column of the schema")?;
            column.typed::<ByteArrayType>().write_batch(&data, None, None)?;
            column.close()?;
            columns.close()?;
        }
        writer.close()?;
        file.sync_all()?;
        std::fs::rename(&unfinished, &self.file).map_err(|error| named(&error))?;
        Ok(format!("{}: {} records exported", self.file.display(), ids.len()))
    }
}

fn unfinished(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".unfinished");
    name.into()
}
