//! Reads the repository's text files, and Rust as far as these tests need it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the repository.
#[derive(Debug)]
pub struct TextFile {
    /// From the repository's root, with `/`.
    pub path: String,
    pub text: String,
}

impl TextFile {
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the tests are in the repository")
        .to_owned()
}

/// Every text file that is written by hand or generated from such, without recorded bytes.
pub fn text_files() -> Vec<TextFile> {
    const SKIPPED: [&str; 6] = [
        "target",
        "streampress-data",
        "node_modules",
        "testdata",
        "corpus",
        "artifacts",
    ];
    let root = root();
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable folder").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_hidden = name.starts_with('.') && name != ".config" && name != ".github";
            if is_hidden || SKIPPED.contains(&&*name) || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(&root).expect("below the root");
                let path = path.to_string_lossy().replace('\\', "/");
                files.push(TextFile { path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// A package's code without comments and without test modules, by the top-level module that it belongs to; `lib` is the
/// crate's root.
pub fn modules(files: &[TextFile], src: &str) -> BTreeMap<String, Vec<Module>> {
    let mut found: BTreeMap<String, Vec<Module>> = BTreeMap::new();
    for file in files {
        let Some(path) = file.path.strip_prefix(src).filter(|_| file.is_rust()) else {
            continue;
        };
        let mut parts: Vec<&str> = path.trim_end_matches(".rs").split('/').collect();
        if parts.contains(&"tests") || parts[0] == "bin" || parts == ["main"] {
            continue;
        }
        if parts.last() == Some(&"mod") && parts.len() > 1 {
            parts.pop();
        }
        found.entry(parts[0].to_owned()).or_default().push(Module {
            path: file.path.clone(),
            is_top: parts.len() == 1,
            code: without_tests_and_comments(&file.text),
        });
    }
    found
}

#[derive(Debug)]
pub struct Module {
    pub path: String,
    /// It is the top-level module itself, so that `super` is the crate's root.
    is_top: bool,
    pub code: String,
}

impl Module {
    /// The first names of the paths that begin at the crate's root: `transport` for `crate::transport::x`.
    pub fn imports(&self) -> Vec<String> {
        let mut names = heads(&self.code, "crate::");
        if self.is_top && !self.path.ends_with("/lib.rs") {
            names.extend(heads(&self.code, "super::"));
        }
        names
    }
}

fn without_tests_and_comments(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(any(test") {
            while lines.next_if(|line| line.starts_with("#[")).is_some() {}
            if lines.next().is_some_and(|line| line.ends_with('{')) {
                lines.by_ref().find(|line| *line == "}");
            }
        } else if !line.trim_start().starts_with("//") {
            code += line;
            code.push('\n');
        }
    }
    code
}

/// The first names after each `prefix`, those in braces too: `a` and `b` for `crate::{a::c, b}`.
fn heads(code: &str, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        if !rest.starts_with('{') {
            found.extend(identifier(rest));
            continue;
        }
        let (mut depth, mut is_head) = (0, false);
        for (at, c) in rest.char_indices() {
            match c {
                '{' => (depth, is_head) = (depth + 1, depth == 0),
                '}' if depth == 1 => break,
                '}' => depth -= 1,
                ',' => is_head = depth == 1,
                _ if is_head && !c.is_whitespace() => {
                    found.extend(identifier(&rest[at..]));
                    is_head = false;
                }
                _ => {}
            }
        }
    }
    found
}

/// The names that a `lib.rs` exports from its modules, each with its module: `(Damage, error)`.
pub fn reexports(lib: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (at, _) in lib.match_indices("pub use ") {
        let statement = lib[at + "pub use ".len()..].split(';').next();
        let Some((module, names)) = statement.and_then(|text| text.split_once("::")) else {
            continue;
        };
        for name in names.split(|c: char| !c.is_alphanumeric() && c != '_') {
            found.insert(name.to_owned(), module.to_owned());
        }
    }
    found
}

/// The modules that a `lib.rs` declares, but for its tests.
pub fn declared_modules(lib: &str) -> Vec<String> {
    let code = without_tests_and_comments(lib);
    let declaration = |line: &str| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        let name = line.strip_prefix("mod ")?.strip_suffix(';')?;
        Some(name.to_owned())
    };
    code.lines().filter_map(declaration).collect()
}

/// The structs, enums, traits, unions and type aliases that a file declares outside of traits and implementations.
pub fn declared_types(file: &TextFile) -> Vec<String> {
    let mut found = Vec::new();
    for line in file.text.lines() {
        let mut words = line.split_whitespace().peekable();
        words.next_if(|word| word.starts_with("pub"));
        let kind = words.next().unwrap_or_default();
        // An indented alias belongs to an implementation.
        if ["struct", "enum", "trait", "union"].contains(&kind)
            || (kind == "type" && !line.starts_with(' '))
        {
            found.extend(words.next().and_then(identifier));
        }
    }
    found
}

fn identifier(text: &str) -> Option<String> {
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    Some(text[..end].to_owned()).filter(|name| !name.is_empty())
}

#[test]
fn imports_are_found_at_the_root_of_a_crate_only() {
    let code = "use crate::{a::{x, y}, b};\nfn f() { crate::c::g(self::crate_::d()); }\n// crate::e\n#[cfg(test)]\nmod tests {\n    use crate::f;\n}\nuse super::g;\n";
    let module = |is_top, path: &str| Module {
        path: path.to_owned(),
        is_top,
        code: without_tests_and_comments(code),
    };
    assert_eq!(module(false, "p/src/m/n.rs").imports(), ["a", "b", "c"]);
    assert_eq!(module(true, "p/src/m.rs").imports(), ["a", "b", "c", "g"]);
}

#[test]
fn types_are_found_and_associated_types_are_not() {
    let text = "pub(crate) struct A<T>(T);\n    enum B {\nimpl X for Y {\n    type Z = u8;\n}\npub type C = u8;\n// struct D\n";
    let file = TextFile {
        path: "a.rs".to_owned(),
        text: text.to_owned(),
    };
    assert_eq!(declared_types(&file), ["A", "B", "C"]);
}
