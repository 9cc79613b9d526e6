//! What the documents say about the tests is so: each file of `tests/` that they name is there, and so are the binary and the
//! module behind each `--test`.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn documents(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            documents(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "md") {
            found.push(path);
        }
    }
}

/// The words that follow each `after` in the text, as long as they are made of what names are made of.
fn names<'a>(text: &'a str, after: &'a str) -> impl Iterator<Item = &'a str> {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || "_/.".contains(c));
    text.split(after).skip(1).map(move |rest| rest.split(ends).next().unwrap_or("").trim_end_matches('.'))
}

/// The sources of a test binary: its directory, or its file.
fn binary(name: &str) -> Option<PathBuf> {
    let tests = root().join("tests");
    let (dir, file) = (tests.join(name), tests.join(name).with_extension("rs"));
    if dir.join("main.rs").exists() { Some(dir) } else { file.exists().then_some(file) }
}

#[test]
fn the_tests_that_the_documents_name_are_there() {
    let mut documents_found = vec![root().join(".ci/run")]; // Not in the package.
    documents_found.retain(|path| path.exists());
    for dir in ["src", "tests", "fuzz", "benches"] {
        documents(&root().join(dir), &mut documents_found);
    }
    documents_found.extend(["README.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    let mut missing = Vec::new();
    let mut named = 0;
    for path in documents_found {
        let text = std::fs::read_to_string(&path).unwrap();
        for name in names(&text, "tests/").filter(|name| !name.is_empty()) {
            named += 1;
            if !root().join("tests").join(name).exists() {
                missing.push(format!("{}: tests/{name}", path.display()));
            }
        }
        for rest in text.split("--test ").skip(1) {
            named += 1;
            let mut words = rest.split([' ', '`', '\n', ',', '"']);
            let name = words.next().unwrap_or("");
            let module = words.next().and_then(|word| word.strip_suffix("::"));
            let found = binary(name)
                .is_some_and(|at| module.is_none_or(|module| at.join(module).with_extension("rs").exists()));
            if !found {
                missing.push(format!("{}: --test {name} {}", path.display(), module.unwrap_or("")));
            }
        }
    }
    assert!(missing.is_empty(), "not there: {missing:#?}");
    assert!(named > 50, "only {named} are named: the documents are not read");
}
