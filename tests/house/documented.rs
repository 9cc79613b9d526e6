//! Every public method has an example that is run with the tests, and every public type has one, or names a method that
//! has one. The share is read from the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What may be without: hundredths of all.
const WITHOUT: usize = 10;

/// A public type or method, as its documentation names it: `Store`, `Store::put`.
struct Item {
    name: String,
    docs: String,
}

fn files() -> Vec<PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    let mut files: Vec<PathBuf> = std::fs::read_dir(src.join("store"))
        .expect("src/store")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "rs"))
        .collect();
    files.extend(["record.rs", "error.rs", "report.rs"].map(|name| src.join(name)));
    files
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The type that an `impl` block is of; `None` for a block of a trait, whose methods the trait documents.
fn type_of(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("impl")?;
    if rest.contains(" for ") {
        return None;
    }
    let rest = if rest.starts_with('<') { &rest[rest.find('>')? + 1..] } else { rest };
    Some(word(rest.trim_start()))
}

fn items(source: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut docs = String::new();
    let mut of = "";
    for line in source.lines().take_while(|line| !line.starts_with("mod tests")) {
        if line.starts_with("impl") {
            of = type_of(line).unwrap_or_default();
        }
        let code = line.trim_start();
        if let Some(text) = code.strip_prefix("///") {
            docs.push_str(text);
            docs.push('\n');
            continue;
        }
        if code.starts_with("#[") {
            continue;
        }
        let is_top = code.len() == line.len();
        let name = match code.strip_prefix("pub ") {
            Some(rest) if is_top => ["struct ", "enum ", "fn "]
                .iter()
                .find_map(|kind| rest.strip_prefix(kind))
                .map(|rest| word(rest).to_owned()),
            Some(rest) => rest.strip_prefix("fn ").map(|rest| format!("{of}::{}", word(rest))),
            None => None,
        };
        if let Some(name) = name {
            items.push(Item { name, docs: std::mem::take(&mut docs) });
        }
        docs.clear();
    }
    items
}

/// Whether an example in these docs is run.
fn has_example(docs: &str) -> bool {
    docs.lines().any(|line| line.trim() == "```")
}

#[test]
fn what_a_program_calls_has_an_example() {
    let all: Vec<Item> =
        files().iter().flat_map(|path| items(&std::fs::read_to_string(path).expect("a source"))).collect();
    let shown: BTreeSet<&str> =
        all.iter().filter(|item| has_example(&item.docs)).map(|item| item.name.as_str()).collect();
    let named = |item: &Item| {
        item.docs.match_indices("[`").any(|(at, _)| {
            let name = item.docs[at + 2..].split('`').next().unwrap_or_default();
            name.contains("::") && shown.contains(name)
        })
    };
    let mut without: BTreeMap<bool, Vec<&str>> = BTreeMap::new();
    for item in &all {
        let is_method = item.name.contains("::") || item.name.starts_with(char::is_lowercase);
        if !shown.contains(item.name.as_str()) && (is_method || !named(item)) {
            without.entry(is_method).or_default().push(&item.name);
        }
    }
    assert!(all.len() > 150, "{} public items: the sources are read wrong", all.len());
    for (is_method, without) in &without {
        let of = all.iter().filter(|item| item.name.contains("::") == *is_method).count();
        assert!(
            without.len() * 100 <= of * WITHOUT,
            "{} of {of} have no example: {without:?}",
            without.len()
        );
    }
}
