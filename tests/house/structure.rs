//! The shape of the house: the floors, and what may import what.
//!
//! The sources are read as text: `use crate::..` and `use super::..`, and such paths in code, `mod tests` apart. What they
//! name is resolved to the file of a module.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// From the lowest floor to the highest: a module imports from its own floor and from lower ones.
const FLOORS: [&[&str]; 12] = [
    &["error", "fault", "record", "report"],
    &["sys"],
    &["format"],
    &["protocol"],
    &["file"],
    &["region"],
    &["recovery"],
    &["handle"],
    &["store"],
    &["bindings"],
    &["testing"],
    &["cli"],
];

/// A file of the crate, as the path of its module: `store::batch`.
type Module = String;

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../src")
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // The package for Python is a crate of its own.
            if path != src().join("python") {
                files(&path, found);
            }
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// The module of a file below `src`.
fn module(path: &Path) -> Module {
    let path = path.strip_prefix(src()).unwrap().with_extension("");
    let mut parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
    if parts.last() == Some(&"mod") {
        parts.pop();
    }
    parts.join("::")
}

/// The code without comments, and with nothing in its strings. A character literal is left as it is.
fn bare(code: &str) -> String {
    let mut bare = String::new();
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => {
                chars.by_ref().find(|&c| c == '\n');
                bare.push('\n');
            }
            '"' => {
                bare.push_str("\"\"");
                while let Some(c) = chars.next().filter(|&c| c != '"') {
                    if c == '\\' {
                        chars.next();
                    }
                }
            }
            '\'' if chars.clone().nth(1) == Some('\'') => {
                chars.nth(1);
            }
            '\'' if chars.peek() == Some(&'\\') => {
                chars.nth(1);
                chars.by_ref().find(|&c| c == '\'');
            }
            c => bare.push(c),
        }
    }
    bare
}

/// The code without its modules of tests.
fn without_tests(code: &str) -> String {
    let mut left = String::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("#[cfg(") {
        let (condition, item) = after.split_once(']').unwrap();
        left.push_str(before);
        rest = item;
        if condition.contains("test")
            && !condition.contains("not(test)")
            && item.trim_start().starts_with("mod ")
        {
            rest = &item[block_end(item)..];
        }
    }
    left + rest
}

/// Where the first block in braces ends.
fn block_end(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Every path in the code that begins with `crate::` or `super::`, braces resolved.
fn paths(code: &str, of: &str) -> Vec<String> {
    let mut found = Vec::new();
    let parent = of.rsplit_once("::").map_or("", |(parent, _)| parent);
    for (start, root) in [("crate::", ""), ("super::", parent)] {
        for (at, _) in code.match_indices(start) {
            let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$';
            if code[..at].chars().next_back().is_some_and(is_word) {
                continue;
            }
            let root = if root.is_empty() { String::new() } else { format!("{root}::") };
            resolve(&root, &code[at + start.len()..], &mut found);
        }
    }
    found
}

/// The paths of a tree of imports, from behind its first `::` on; how much of the code it is.
fn resolve(prefix: &str, code: &str, found: &mut Vec<String>) -> usize {
    let end = code.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(code.len());
    let path = format!("{prefix}{}", &code[..end]);
    if !code[end..].starts_with('{') || !code[..end].ends_with("::") && end != 0 {
        found.push(path.trim_end_matches("::").to_owned());
        return end;
    }
    let mut at = end + 1;
    loop {
        at += code[at..].find(|c: char| !c.is_whitespace() && c != ',').unwrap();
        if code[at..].starts_with('}') {
            return at + 1;
        }
        at += resolve(&path, &code[at..], found);
        at += code[at..].find([',', '}']).unwrap(); // An `as` is passed over.
    }
}

/// Of each module, the modules that it imports.
fn imports() -> BTreeMap<Module, BTreeSet<Module>> {
    let mut found = Vec::new();
    files(&src(), &mut found);
    let modules: BTreeMap<Module, PathBuf> = found.into_iter().map(|path| (module(&path), path)).collect();
    let has_floor = |module: &str| !matches!(module, "lib" | "main");
    let file_of = |path: &str| {
        let mut path = path;
        loop {
            if modules.contains_key(path) {
                return Some(path.to_owned());
            }
            path = path.rsplit_once("::")?.0;
        }
    };
    modules
        .iter()
        .filter(|(module, _)| has_floor(module))
        .map(|(module, file)| {
            let code = without_tests(&bare(&std::fs::read_to_string(file).unwrap()));
            let imported = paths(&code, module).into_iter().filter_map(|path| file_of(&path));
            (module.clone(), imported.filter(|imported| imported != module).collect())
        })
        .collect()
}

fn floor(module: &str) -> usize {
    let top = module.split("::").next().unwrap();
    FLOORS.iter().position(|floor| floor.contains(&top)).unwrap_or_else(|| panic!("{module} has no floor"))
}

#[test]
fn no_import_runs_up() {
    let up: Vec<String> = imports()
        .iter()
        .flat_map(|(module, imported)| imported.iter().map(move |imported| (module, imported)))
        .filter(|(module, imported)| floor(imported) > floor(module))
        .map(|(module, imported)| format!("{module} imports {imported}, of a higher floor"))
        .collect();
    assert!(up.is_empty(), "{up:#?}");
}

#[test]
fn no_modules_import_each_other() {
    let imports = imports();
    assert!(imports.len() > 100, "{} modules were read", imports.len());
    let is_on_one = |module: &Module| reach(&imports, module).contains(module);
    let circles: Vec<&Module> = imports.keys().filter(|module| is_on_one(module)).collect();
    assert!(circles.is_empty(), "these modules import each other, directly or by others: {circles:?}");
}

/// All modules that a module imports, and those that these import.
fn reach<'a>(imports: &'a BTreeMap<Module, BTreeSet<Module>>, module: &'a Module) -> BTreeSet<&'a Module> {
    let mut found = BTreeSet::new();
    let mut next = vec![module];
    while let Some(module) = next.pop() {
        next.extend(imports.get(module).into_iter().flatten().filter(|imported| found.insert(*imported)));
    }
    found
}

/// The sections of a chapter that tell of no code.
const WITHOUT_CODE: [&str; 1] = ["How it is tested"];

#[test]
fn the_functions_that_the_chapters_name_exist() {
    let mut named = 0;
    for chapter in ["protocol/mod.md", "recovery/mod.md"] {
        let text = std::fs::read_to_string(src().join(chapter)).unwrap();
        for section in text.split("\n# ").skip(1) {
            let (heading, body) = section.split_once('\n').unwrap();
            if WITHOUT_CODE.contains(&heading) {
                continue;
            }
            let code = body.trim_start().strip_prefix("In the code: ");
            let code =
                code.unwrap_or_else(|| panic!("{chapter}: \"{heading}\" does not begin with its code"));
            let (paragraph, _) = code.split_once("\n\n").unwrap();
            for name in paragraph.split('`').skip(1).step_by(2) {
                let (module, function) = name.rsplit_once("::").unwrap();
                let file = src().join(module.replace("::", "/")).with_extension("rs");
                let code =
                    bare(&std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}")));
                let is_there = ["(", "<"].iter().any(|next| code.contains(&format!("fn {function}{next}")));
                assert!(is_there, "{chapter}: {heading}: there is no function {name}");
                named += 1;
            }
        }
    }
    assert!(named > 40, "{named} functions are named");
}

#[test]
fn one_word_names_one_type_of_the_library() {
    let mut found = Vec::new();
    files(&src(), &mut found);
    let mut named: BTreeMap<String, Vec<Module>> = BTreeMap::new();
    for path in found.iter().filter(|path| floor_of(&module(path)).is_some_and(|top| top != "cli")) {
        let code = without_tests(&bare(&std::fs::read_to_string(path).unwrap()));
        for kind in ["struct ", "enum "] {
            for (at, _) in code.match_indices(kind) {
                let is_word = code[..at].ends_with(char::is_alphanumeric);
                let name = code[at + kind.len()..].split(|c: char| !c.is_alphanumeric()).next().unwrap();
                if !is_word && !name.is_empty() {
                    named.entry(name.to_owned()).or_default().push(module(path));
                }
            }
        }
    }
    assert!(named.len() > 100, "{} types were found", named.len());
    // A layout is private to its view, and each view has one.
    named.retain(|name, modules| name != "Layout" && modules.len() > 1);
    assert!(named.is_empty(), "these words name several types: {named:#?}");
}

/// The first part of a module's path, if it has a floor.
fn floor_of(module: &str) -> Option<&str> {
    let top = module.split("::").next().unwrap();
    FLOORS.iter().flat_map(|floor| floor.iter()).find(|floor| **floor == top).copied()
}
