//! The files below `src/`, and which of their text is no test.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Path below `src/`, and text.
pub type Files = BTreeMap<String, String>;

pub fn read_files(directory: &Path, source: &Path) -> Files {
    let mut files = Files::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(read_files(&path, source));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(source).unwrap().to_str().unwrap().to_owned();
            files.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
    files
}

pub fn sample(files: &[(&str, &str)]) -> Files {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

pub fn is_test(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("tests/")
}

pub fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}
