//! Holds the layer table in `src/lib.rs`: a module imports only from lower rows.
//!
//! Reads every file under `src/`, finds the paths that begin at the crate's root (`crate::x`,
//! `use crate::{x, y}` and chains of `super` that climb that high) and compares the rows. Within
//! row 0 a module may know those listed before it; in every other row siblings may not meet. The
//! tables of `blob` and `ground` are held in the same way, and no files import each other in a circle.
//! Tests inside the files count too: a test that needs a higher layer belongs to that layer.
//!
//! A small tokeniser instead of a parser: no dependency, and enough, because paths are all that
//! is asked. Two things it does not see: a path made by a macro, and a module renamed by `use`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod circles;
mod files;
mod may_know;
mod paths;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use files::{Files, read_files, sample};
use paths::{depth, imports, imports_below, tokens};

#[test]
fn modules_import_only_from_lower_rows() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let table = Table::parse(&fs::read_to_string(source.join("lib.rs")).unwrap());
    let files = read_files(&source, &source);
    assert!(files.len() > 10, "src/ has {} files: is this the project?", files.len());
    let problems = check(&table, &files);
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// The rooms of the log, by the table in `src/blob/mod.rs`.
#[test]
fn the_rooms_of_the_log_import_only_from_lower_rows() {
    check_rooms_of("blob", 30);
}

/// The parts of the server, by the table in `src/ground/mod.rs`.
#[test]
fn the_parts_of_the_server_import_only_from_lower_rows() {
    check_rooms_of("ground", 100);
}

fn check_rooms_of(module: &str, files_min: usize) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(module);
    let root = fs::read_to_string(directory.join("mod.rs")).unwrap();
    let files = read_files(&directory, &directory);
    let count = files.len();
    assert!(count > files_min, "src/{module}/ has {count} files: is this it?");
    let problems = check_rooms(module, &Table::parse(&root), &exports(&root), &files);
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn a_room_that_knows_a_higher_one_is_named() {
    let table = Table::parse(
        "//! | row | rooms |\n//! | 0 | `words` |\n//! | 1 | `meta` `store` |\n\
         //! | 2 | `care` |\n//! | 3 | `face` |\n",
    );
    let exports = exports("mod care;\npub use care::gc::{Move, Victim};\npub use words::Error;\n");
    let files = sample(&[
        ("mod.rs", "use self::care::gc;"),
        ("meta/mod.rs", "use crate::blob::{Error, Victim};\nuse super::store::State;"),
        ("store.rs", "use crate::blob::words::Word; use crate::net::Conn;"),
        ("care/gc.rs", "use super::evict; use super::super::store::State;\nfn f() { super::g() }"),
        ("words.rs", "fn f() { crate::blob::meta::scan() }"),
        ("stray.rs", ""),
    ]);
    assert_eq!(
        check_rooms("blob", &table, &exports, &files),
        [
            "src/blob/meta/mod.rs:1 imports `care`: `meta` (row 1) may know lower rows only, and \
             `care` is in row 2",
            "src/blob/meta/mod.rs:2 imports `store`: siblings may not meet (`meta` and `store` are \
             both in row 1)",
            "src/blob/stray.rs: `stray` is in no row of the table in src/blob/mod.rs",
            "src/blob/words.rs:1 imports `meta`: `words` (row 0) may know lower rows only, and \
             `meta` is in row 1",
        ]
    );
}

/// The server shares words with the device, not machinery.
#[test]
fn the_server_knows_row_0_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let table = Table::parse(&fs::read_to_string(source.join("lib.rs")).unwrap());
    for (path, text) in read_files(&source, &source) {
        if !path.starts_with("ground/") {
            continue;
        }
        for (line, module) in imports(&text, depth(&path)) {
            let row = table.0.get(&module).map_or(0, |(row, _)| *row);
            assert!(module == "ground" || row == 0, "src/{path}:{line} imports `{module}`");
        }
    }
}

/// What is linked into a device, by Cargo's own account: none of what the server brings.
#[test]
fn the_device_has_none_of_the_servers_dependencies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let (_, feature) = manifest.split_once("\nground-control = [").unwrap();
    let (feature, _) = feature.split_once(']').unwrap();
    let mut servers: Vec<&str> =
        feature.split('"').filter_map(|word| word.strip_prefix("dep:")).collect();
    assert!(servers.len() > 5, "the feature ground-control lists {servers:?}");
    // The device has an older one of its own.
    servers.retain(|name| *name != "getrandom");
    servers.extend(["libsqlite3-sys", "openssl-sys", "sqlx-core", "tower", "mio"]);
    // What the feature `sim` brings stands for all that simulations need.
    servers.push("embedded-storage");
    let device = linked(root, &[]);
    let server = linked(root, &["--features", "ground-control,sim"]);
    for name in servers {
        assert!(!device.contains(&name.to_owned()), "the device links {name}");
        // A name that no graph has proves nothing.
        assert!(name == "openssl-sys" || server.contains(&name.to_owned()), "{name} is not used");
    }
}

fn linked(root: &Path, features: &[&str]) -> Vec<String> {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(features)
        .current_dir(root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn a_higher_module_and_a_sibling_are_named() {
    let files = sample(&[
        ("blob/gc.rs", "use std::fmt;\nuse crate::registry::Client;\n"),
        ("registry/mod.rs", "use crate::{blob::{Log, Store}, words::{self, Word}};\n"),
        ("net.rs", "fn f() { super::blob::open() }\n"),
    ]);
    assert_eq!(
        check(&sample_table(), &files),
        [
            "src/blob/gc.rs:2 imports src/registry/mod.rs: siblings may not meet \
             (`blob` and `registry` are both in row 2)",
            "src/net.rs:1 imports src/blob/: `net` (row 1) may know lower rows only, \
             and `blob` is in row 2",
            "src/registry/mod.rs:1 imports src/blob/: siblings may not meet \
             (`registry` and `blob` are both in row 2)",
        ]
    );
}

#[test]
fn row_0_is_ordered_within() {
    let files = sample(&[("words.rs", "use crate::numbers::One;"), ("numbers.rs", "")]);
    assert_eq!(check(&sample_table(), &files), <[&str; 0]>::default());
    let files = sample(&[("numbers.rs", "use crate::words::Word;"), ("words.rs", "")]);
    assert_eq!(
        check(&sample_table(), &files),
        ["src/numbers.rs:1 imports src/words.rs: in row 0 `words` is listed after `numbers`"]
    );
}

#[test]
fn a_module_outside_the_table_is_refused() {
    let files = sample(&[("stray/mod.rs", "")]);
    let problems = check(&sample_table(), &files);
    assert_eq!(problems, ["src/stray/mod.rs: `stray` is in no row of the table in src/lib.rs"]);
}

#[test]
fn what_is_no_import_is_left_alone() {
    let files = sample(&[(
        "blob/mod.rs",
        r##"
        //! Unlike [`crate::registry`], this /* crate::registry */ is local.
        use self::gc::run; use crate::net::Conn; use super::numbers;
        const NAME: &str = "crate::registry"; const RAW: &str = r#"crate::"registry""#;
        const QUOTE: char = '"'; fn f<'a>(x: &'a str) -> &'a str { x } // crate::registry
        mod tests { use super::registry; mod deep { use super::super::registry; } }
        "##,
    )]);
    assert_eq!(check(&sample_table(), &files), <[&str; 0]>::default());
}

#[test]
fn an_inline_module_is_one_deeper() {
    let files = sample(&[("blob/gc.rs", "mod tests {\n use super::super::super::registry::X; }")]);
    assert_eq!(
        check(&sample_table(), &files),
        ["src/blob/gc.rs:2 imports src/registry/: siblings may not meet \
          (`blob` and `registry` are both in row 2)"]
    );
}

fn sample_table() -> Table {
    Table::parse(
        "//! | row | modules | may know |\n//! |---|---|---|\n\
         //! | 0 words | `numbers` `words` | nothing |\n//! | 1 devices | `net` | outside |\n\
         //! | 2 engines | `blob` (a `net::Conn`) and `registry` (net) | |\n",
    )
}

/// Where a module stands: its row, and its place in the row.
struct Table(BTreeMap<String, (usize, usize)>);

impl Table {
    /// Reads the rows of the documentation table: the names in backquotes in its second column,
    /// except what is in parentheses.
    fn parse(text: &str) -> Self {
        let mut places = BTreeMap::new();
        for line in text.lines() {
            let Some(row) = line.strip_prefix("//! |") else { continue };
            let mut columns = row.split('|').map(str::trim);
            let number = columns.next().and_then(|head| head.split(' ').next()?.parse().ok());
            let (Some(number), Some(modules)) = (number, columns.next()) else { continue };
            let plain: String = outside_parentheses(modules);
            for (place, name) in plain.split('`').skip(1).step_by(2).enumerate() {
                let name = name.trim_end_matches('/').to_owned();
                assert!(
                    places.insert(name.clone(), (number, place)).is_none(),
                    "the table lists `{name}` twice"
                );
            }
        }
        assert!(places.len() > 3, "there is no table of layers");
        Self(places)
    }
}

fn outside_parentheses(text: &str) -> String {
    let mut depth = 0_u32;
    let keep = |letter: &char| {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => return depth == 0,
        }
        false
    };
    text.chars().filter(keep).collect()
}

/// One line a broken rule, in the order of the files.
fn check(table: &Table, files: &Files) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in files {
        // The root declares the modules; the binaries and the build script stand above the rows.
        let outside = ["bin/", "build/"].iter().any(|directory| path.starts_with(directory));
        if ["lib.rs", "build.rs"].contains(&path.as_str()) || outside {
            continue;
        }
        let module = path.split('/').next().unwrap().trim_end_matches(".rs");
        let Some(&(row, place)) = table.0.get(module) else {
            problems
                .push(format!("src/{path}: `{module}` is in no row of the table in src/lib.rs"));
            continue;
        };
        for (line, other) in imports(text, depth(path)) {
            let Some(&(other_row, other_place)) = table.0.get(&other) else { continue };
            let reason = if other == module || other_row < row {
                continue;
            } else if other_row > row {
                format!(
                    "`{module}` (row {row}) may know lower rows only, and `{other}` is in \
                     row {other_row}"
                )
            } else if row != 0 {
                format!("siblings may not meet (`{module}` and `{other}` are both in row {row})")
            } else if other_place > place {
                format!("in row 0 `{other}` is listed after `{module}`")
            } else {
                continue;
            };
            problems
                .push(format!("src/{path}:{line} imports {}: {reason}", file_of(&other, files)));
        }
    }
    problems
}

/// The names that `text`, the root of a module, hands on, with the rooms that they are of.
fn exports(text: &str) -> BTreeMap<String, String> {
    let tokens = tokens(text);
    let mut found = BTreeMap::new();
    for (at, _) in tokens.iter().enumerate().filter(|(_, token)| token.1 == "use") {
        let path = tokens[at + 1..].iter().take_while(|token| token.1 != ";");
        let words: Vec<&str> = path.map(|token| token.1.as_str()).collect();
        let is_type = |word: &&&str| word.starts_with(|letter: char| letter.is_uppercase());
        let names = words.iter().filter(is_type);
        found.extend(names.map(|name| ((*name).to_owned(), words[0].to_owned())));
    }
    found
}

/// One line a broken rule within `module`, whose rooms `table` lists and whose root has `exports`.
fn check_rooms(
    module: &str,
    table: &Table,
    exports: &BTreeMap<String, String>,
    files: &Files,
) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in files {
        if path == "mod.rs" {
            continue;
        }
        let room = path.split('/').next().unwrap().trim_end_matches(".rs");
        let Some(&(row, _)) = table.0.get(room) else {
            let place = format!("src/{module}/mod.rs");
            problems.push(format!(
                "src/{module}/{path}: `{room}` is in no row of the table in {place}"
            ));
            continue;
        };
        for (line, name) in imports_below(text, depth(path), module) {
            let other = exports.get(&name).unwrap_or(&name);
            let Some(&(other_row, _)) = table.0.get(other) else { continue };
            let reason = if other == room || other_row < row {
                continue;
            } else if other_row > row {
                format!(
                    "`{room}` (row {row}) may know lower rows only, and `{other}` is in \
                     row {other_row}"
                )
            } else {
                format!("siblings may not meet (`{room}` and `{other}` are both in row {row})")
            };
            problems.push(format!("src/{module}/{path}:{line} imports `{other}`: {reason}"));
        }
    }
    problems
}

fn file_of(module: &str, files: &Files) -> String {
    [format!("{module}.rs"), format!("{module}/mod.rs")]
        .into_iter()
        .find(|path| files.contains_key(path))
        .map_or_else(|| format!("src/{module}/"), |path| format!("src/{path}"))
}
