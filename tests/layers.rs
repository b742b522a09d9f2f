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

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

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

fn sample(files: &[(&str, &str)]) -> Files {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

/// Path below `src/`, and text.
type Files = BTreeMap<String, String>;

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
                    "src/lib.rs lists `{name}` twice"
                );
            }
        }
        assert!(places.len() > 3, "src/lib.rs has no layer table");
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

fn read_files(directory: &Path, source: &Path) -> Files {
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

/// No two files import each other, directly or by way of others: each can be read after those that
/// it imports. A module and the files below it are one, so what they have of each other counts not.
#[test]
fn no_files_import_each_other_in_a_circle() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = read_files(&source, &source);
    let imports: usize = Tree::read(&files).imports().values().map(BTreeSet::len).sum();
    assert!(imports > 2 * files.len(), "{imports} imports in src/: are these all?");
    let circles = circles(&files);
    assert!(circles.is_empty(), "\n{}\n", circles.join("\n"));
}

#[test]
fn a_circle_of_files_is_named() {
    let files = sample(&[
        ("lib.rs", "mod a; mod d; mod e;"),
        ("a/mod.rs", "mod b; mod c; pub use {b::{B, x as helper}, c::C}; use crate::d;"),
        ("a/b.rs", "use super::c::{self, Z as Y}; fn f() { super::own() } pub struct B;"),
        // By what the module hands on.
        ("a/c.rs", "const TEXT: &str = \"crate::e::X\"; fn f(b: crate::a::B) {}"),
        ("d.rs", "fn f() { crate::a::helper() }\n#[cfg(test)]\nmod tests { use crate::e; }"),
        ("e.rs", "use super::d;"),
        ("a/tests.rs", "use crate::e;"),
    ]);
    assert_eq!(circles(&files), ["src/a/b.rs -> src/a/c.rs -> src/a/b.rs"]);
    let files = sample(&[
        ("one.rs", "use crate::two as second; fn f() { second::Two }"),
        ("two.rs", "mod inline { use super::super::three::Three; }"),
        ("three/mod.rs", "mod four; mod five; use self::five::Five;"),
        ("three/four.rs", "fn f() { crate::one::go() }"),
        ("three/five.rs", "use super::four;"),
    ]);
    // The module imports what is below it, and is no file of the circle.
    assert_eq!(circles(&files), <[&str; 0]>::default());
    let mut files = files;
    files.insert("two.rs".into(), "mod inline { use super::super::three::four::Four; }".into());
    let circle = "src/one.rs -> src/two.rs -> src/three/four.rs -> src/one.rs";
    assert_eq!(circles(&files), [circle]);
}

/// The shortest way round from each file that is in a circle and in none that was named before.
fn circles(files: &Files) -> Vec<String> {
    let tree = Tree::read(files);
    let imports = tree.imports();
    let mut named = BTreeSet::new();
    let mut found = Vec::new();
    for start in imports.keys().filter(|start| !named.contains(*start)).collect::<Vec<_>>() {
        let Some(way) = way_round(start, &imports) else { continue };
        if way.iter().any(|file| named.contains(file)) {
            continue;
        }
        named.extend(way.iter().copied());
        found.push(way.iter().map(|file| format!("src/{file}")).collect::<Vec<_>>().join(" -> "));
    }
    found
}

/// The shortest way from a file by its imports to itself.
fn way_round<'a>(start: &'a str, imports: &Imports<'a>) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in imports.get(way.last()?).into_iter().flatten() {
                let way = [&way[..], &[*next]].concat();
                if *next == start {
                    return Some(way);
                }
                if seen.insert(*next) {
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}

/// The files that each file imports.
type Imports<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// The modules by their paths, each with its file and what it uses.
struct Tree<'a>(BTreeMap<Vec<String>, Module<'a>>);

struct Module<'a> {
    file: &'a str,
    uses: Vec<Use>,
    /// The paths in its code, as they are written but for where they begin.
    paths: Vec<Vec<String>>,
}

struct Use {
    is_public: bool,
    name: String,
    path: Vec<String>,
}

impl<'a> Tree<'a> {
    fn read(files: &'a Files) -> Self {
        let is_module = |path: &&String| {
            !is_test(path) && !path.starts_with("bin/") && !path.starts_with("build")
        };
        let module = |file: &'a String| {
            let mut path: Vec<String> = match file.trim_end_matches(".rs") {
                "lib" => Vec::new(),
                name => name.split('/').map(str::to_owned).collect(),
            };
            path.pop_if(|last| last == "mod");
            let (uses, paths) = uses(without_tests(&files[file]), &path);
            (path, Module { file, uses, paths })
        };
        Self(files.keys().filter(is_module).map(module).collect())
    }

    fn imports(&self) -> Imports<'a> {
        let mut imports = Imports::new();
        for (path, module) in &self.0 {
            let found = imports.entry(module.file).or_default();
            // What is handed on is imported by who takes it.
            let used = module.uses.iter().filter(|one| !one.is_public).map(|one| one.path.clone());
            let named = module.paths.iter().map(|named| self.rooted(path, named));
            for target in used.chain(named) {
                let Some(target) = self.module_of(&target, 0) else { continue };
                if !target.starts_with(path) && !path.starts_with(target) {
                    found.insert(self.0[target].file);
                }
            }
        }
        imports
    }

    /// A path of code from the crate's root: it may begin with a module that is used or declared.
    fn rooted(&self, module: &[String], path: &[String]) -> Vec<String> {
        let Some((first, rest)) = path.split_first() else { return Vec::new() };
        if first == "crate" {
            return rest.to_vec();
        }
        let child = [module, std::slice::from_ref(first)].concat();
        let mut used = self.0[module].uses.iter();
        let used = used.find(|one| one.name == *first).map(|one| &one.path);
        match used.or_else(|| self.0.contains_key(&child).then_some(&child)) {
            Some(start) => [start, rest].concat(),
            None => Vec::new(),
        }
    }

    /// The module that has what a path from the root names, or hands it on from nowhere else.
    fn module_of(&self, path: &[String], handed_on: usize) -> Option<&Vec<String>> {
        let known = (1..=path.len()).rev().find(|length| self.0.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(known);
        let (module, Module { uses, .. }) = self.0.get_key_value(module)?;
        let from = rest.first().and_then(|name| {
            uses.iter().find(|one| one.is_public && one.name == *name && handed_on < 8)
        });
        let from = from.map(|one| [&one.path, &rest[1..]].concat());
        from.and_then(|from| self.module_of(&from, handed_on + 1)).or(Some(module))
    }
}

/// The `use` declarations of the module at `module`, and the paths in its code.
fn uses(text: &str, module: &[String]) -> (Vec<Use>, Vec<Vec<String>>) {
    let tokens = tokens(text);
    let word = |at: usize| tokens.get(at).map_or("", |token| token.1.as_str());
    let (mut uses, mut paths, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let inline = blocks.iter().filter(|is_module| **is_module).count();
        let is_use = word(at) == "use" && word(at + 1) != "<";
        let begins_path = word(at + 1) == "::" && ![".", "::"].contains(&word(at.max(1) - 1));
        match word(at) {
            "{" => blocks.push(at >= 2 && word(at - 2) == "mod"),
            "}" => drop(blocks.pop()),
            _ if is_use || begins_path => {
                let is_public = is_use && ["pub", ")"].contains(&word(at.max(1) - 1));
                let mut next = at + usize::from(is_use);
                let mut found = Vec::new();
                group(&tokens, &mut next, &[], &mut found);
                for (name, path) in found {
                    let path = climbed(module, inline, path);
                    match is_use {
                        // What an inline module uses has no name outside it.
                        true if inline > 0 => paths.push(path),
                        true => uses.push(Use { is_public, name, path: within(module, path) }),
                        false => paths.push(path),
                    }
                }
                at = next.max(at + 1);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    (uses, paths)
}

/// A path without `self` and `super` at its start; from `crate` where it had some.
fn climbed(module: &[String], inline: usize, path: Vec<String>) -> Vec<String> {
    let climbs = path.iter().take_while(|part| ["self", "super"].contains(&part.as_str())).count();
    if climbs == 0 {
        return path;
    }
    let up = path[..climbs].iter().filter(|part| *part == "super").count();
    let start = &module[..module.len().saturating_sub(up.saturating_sub(inline))];
    [&["crate".to_owned()], start, &path[climbs..]].concat()
}

/// A path of a declaration from the crate's root; of the modules outside, none is known.
fn within(module: &[String], path: Vec<String>) -> Vec<String> {
    match path.split_first() {
        Some((first, rest)) if first == "crate" => rest.to_vec(),
        _ => [module, &path].concat(),
    }
}

/// The paths of a tree such as `a::{b, c::d as e}`, each with the name that it has here.
fn group(
    tokens: &[(usize, String)],
    at: &mut usize,
    before: &[String],
    found: &mut Vec<(String, Vec<String>)>,
) {
    let word = |at: usize| tokens.get(at).map_or("", |token| token.1.as_str());
    let is_name = |word: &str| word.starts_with(|one: char| one.is_alphanumeric() || one == '_');
    let mut path = before.to_vec();
    loop {
        if word(*at) == "{" {
            *at += 1;
            while *at < tokens.len() && word(*at) != "}" {
                match word(*at) {
                    "," => *at += 1,
                    _ => group(tokens, at, &path, found),
                }
            }
            *at += 1;
            return;
        }
        path.push(word(*at).to_owned());
        *at += 1;
        if word(*at) != "::" || !(is_name(word(*at + 1)) || ["{", "*"].contains(&word(*at + 1))) {
            break;
        }
        *at += 1;
    }
    if path.len() > 1 {
        path.pop_if(|last| ["self", "*"].contains(&last.as_str()));
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if word(*at) == "as" {
        word(*at + 1).clone_into(&mut name);
        *at += 2;
    }
    found.push((name, path));
}

/// How many `super` lead from a file's top to the crate's root: 1 for `net.rs` and `net/mod.rs`.
fn depth(path: &str) -> usize {
    let parts = path.split('/').count();
    if path.ends_with("/mod.rs") { parts - 1 } else { parts }
}

/// The modules at the crate's root that a file names, with the lines.
fn imports(text: &str, depth: usize) -> Vec<(usize, String)> {
    paths(text, depth, &["crate"])
}

/// The rooms of `module` that a file of it names, which is `depth` levels below it.
fn imports_below(text: &str, depth: usize, module: &str) -> Vec<(usize, String)> {
    paths(text, depth, &["crate", module])
}

/// The first names of the paths that begin at `root`, written out or climbed to from `depth` levels
/// below.
fn paths(text: &str, depth: usize, root: &[&str]) -> Vec<(usize, String)> {
    let tokens = tokens(text);
    let is_root = |at: usize| {
        let mut words = root.iter().enumerate();
        words.all(|(index, name)| {
            let at = at + 2 * index;
            tokens.get(at).is_some_and(|token| token.1 == *name)
                && tokens.get(at + 1).is_some_and(|token| token.1 == "::")
        })
    };
    let word = |at: usize| tokens.get(at).map_or("", |token| token.1.as_str());
    let mut found = Vec::new();
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match word(at) {
            "{" => blocks.push(at >= 2 && word(at - 2) == "mod"),
            "}" => drop(blocks.pop()),
            // In the middle of a path `crate` and `super` mean something else: `pub(in a::super)`.
            "crate" | "super" if at == 0 || word(at - 1) != "::" => {
                let inline = blocks.iter().filter(|is_module| **is_module).count();
                let mut climbed = 0;
                let mut next = at;
                while word(next) == "super" && word(next + 1) == "::" {
                    climbed += 1;
                    next += 2;
                }
                if is_root(at) {
                    climbed = depth + inline;
                    next = at + 2 * root.len();
                }
                if climbed > 0 && climbed == depth + inline {
                    found.extend(heads(&tokens, next));
                }
                at = next.max(at + 1);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The first names of a path's rest: one, or those of a group in braces.
fn heads(tokens: &[(usize, String)], start: usize) -> Vec<(usize, String)> {
    let Some(first) = tokens.get(start) else { return Vec::new() };
    if first.1 != "{" {
        return vec![first.clone()];
    }
    let mut found = Vec::new();
    let mut open = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.1.as_str() {
            "{" => open += 1,
            "}" => open -= 1,
            _ if open == 1 && ["{", ","].contains(&tokens[at - 1].1.as_str()) => {
                found.push(token.clone());
            }
            _ => {}
        }
        if open == 0 {
            break;
        }
    }
    found
}

/// Names, `::` and single signs, with their lines; comments, strings and lifetimes left out.
fn tokens(text: &str) -> Vec<(usize, String)> {
    let letters: Vec<char> = text.chars().collect();
    let letter = |at: usize| letters.get(at).copied().unwrap_or('\0');
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < letters.len() {
        let start = at;
        if letter(at) == '/' && letter(at + 1) == '/' {
            while at < letters.len() && letter(at) != '\n' {
                at += 1;
            }
        } else if letter(at) == '/' && letter(at + 1) == '*' {
            at = after_comment(&letters, at);
        } else if letter(at) == '"' {
            at = after_string(&letters, at);
        } else if letter(at) == 'r' && raw_hashes(&letters, at).is_some() {
            at = after_raw_string(&letters, at);
        } else if letter(at) == '\'' {
            at = after_quote(&letters, at);
        } else if is_word(letter(at)) {
            while is_word(letter(at)) {
                // The `b` of b"..." and the `br` of br"..." end before what they announce.
                at += 1;
                if letter(at) == 'r' && raw_hashes(&letters, at).is_some() {
                    break;
                }
            }
            found.push((line, letters[start..at].iter().collect()));
        } else if letter(at) == ':' && letter(at + 1) == ':' {
            found.push((line, "::".to_owned()));
            at += 2;
        } else {
            if !letter(at).is_whitespace() {
                found.push((line, letter(at).to_string()));
            }
            at += 1;
        }
        line += letters[start..at.min(letters.len())].iter().filter(|l| **l == '\n').count();
    }
    found
}

fn after_comment(letters: &[char], mut at: usize) -> usize {
    let mut open = 0_usize;
    while at < letters.len() {
        match letters[at..].get(..2) {
            Some(['/', '*']) => open += 1,
            Some(['*', '/']) => open -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if open == 0 {
            break;
        }
    }
    at
}

fn after_string(letters: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < letters.len() && letters[at] != '"' {
        at += if letters[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// The number of `#` of the raw string that begins here.
fn raw_hashes(letters: &[char], at: usize) -> Option<usize> {
    let hashes = letters[at + 1..].iter().take_while(|letter| **letter == '#').count();
    (letters.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

fn after_raw_string(letters: &[char], start: usize) -> usize {
    let hashes = raw_hashes(letters, start).unwrap();
    let mut at = start + hashes + 2;
    while at < letters.len() {
        let closes = letters[at] == '"'
            && letters[at + 1..].iter().take_while(|letter| **letter == '#').count() >= hashes;
        at += 1;
        if closes {
            return at + hashes;
        }
    }
    at
}

/// A character literal is skipped whole, of a lifetime only the quote.
fn after_quote(letters: &[char], at: usize) -> usize {
    match letters[at + 1..] {
        ['\\', _, ..] => {
            // The escaped sign may be a quote itself.
            let rest = letters[at + 3..].iter().take_while(|letter| **letter != '\'').count();
            at + 3 + rest + 1
        }
        [_, '\'', ..] => at + 3,
        _ => at + 1,
    }
}

fn is_test(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("tests/")
}

fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

/// Words that only some files may use, and which: a seam that is open in two places is none. Each
/// word is one token, or several in a row. Tests may use what they like.
const MAY_KNOW: &[(&str, &[&str], &[&str])] = &[
    (
        "waits and measures by the kernel's clock; a clock is handed in",
        &["Timer", "Instant", "SystemTime"],
        &["clock.rs", "clock/alarm.rs"],
    ),
    (
        "makes a clock; one is handed in",
        &["SystemClock"],
        &[
            "clock.rs",
            "net/tls.rs",
            "satellite/check.rs",
            "satellite/doctor.rs",
            "satellite/doctor/serve.rs",
            "satellite/mod.rs",
            "satellite/run.rs",
            "satellite/look.rs",
            "satellite/show.rs",
        ],
    ),
    (
        "opens sockets",
        &["TcpStream", "TcpListener", "UdpSocket", "UnixDatagram", "UnixListener", "UnixStream"],
        &[
            "net/dial.rs",
            "net/http/server.rs",
            "net/http/session.rs",
            "net/http/wire.rs",
            "net/listen.rs",
            "satellite/notify.rs",
        ],
    ),
    (
        "spawns tasks or threads",
        &[". spawn ("],
        &[
            "blob/io/lane.rs",
            "net/resolve.rs",
            "satellite/daemon.rs",
            "satellite/doctor.rs",
            "satellite/mod.rs",
            "satellite/run.rs",
            "satellite/service.rs",
        ],
    ),
    (
        "hands work to the threads for what blocks",
        &["unblock"],
        &[
            "blob/io/lane.rs",
            "blob/io/queue.rs",
            "blob/io/syncing.rs",
            "net/http/resident.rs",
            "serve/users.rs",
        ],
    ),
    (
        "prints",
        &["println", "eprintln", "stdout", "stderr"],
        &["satellite/log.rs", "satellite/look.rs", "satellite/show.rs"],
    ),
    ("reads arguments", &["env :: args", "env :: args_os"], &["satellite/args/mod.rs"]),
    (
        "reads the environment",
        &["env :: var", "env :: var_os", "env :: vars"],
        &[
            "net/proxy.rs",
            "net/tls/files.rs",
            "satellite/args/mod.rs",
            "satellite/log.rs",
            "satellite/notify.rs",
            "satellite/zone.rs",
        ],
    ),
    (
        "opens what is written",
        &["OpenOptions"],
        &[
            "flash/block.rs",
            "flash/file.rs",
            "flash/file/layout.rs",
            "flash/mtd.rs",
            "flash/ubi.rs",
        ],
    ),
    (
        "is outside the rules of memory",
        &["unsafe"],
        &["flash/ioctl.rs", "satellite/mod.rs", "satellite/user.rs"],
    ),
];

#[test]
fn what_a_file_may_know_is_known_nowhere_else() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = read_files(&source, &source);
    let problems: Vec<String> = MAY_KNOW.iter().flat_map(|rule| offenders(rule, &files)).collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn a_file_that_may_not_know_is_named_and_so_is_one_that_does_not_any_more() {
    let files = sample(&[
        ("clock.rs", "// Instant\nfn f() {}"),
        ("blob/gc.rs", "use std::time::Instant;\n#[cfg(test)]\nmod tests { use smol::Timer; }"),
        ("blob/tests.rs", "use smol::Timer;"),
        ("net.rs", "executor.spawn(x); (self.spawn)(x);"),
    ]);
    let rule = ("waits", &["Timer", "Instant", ". spawn ("][..], &["clock.rs"][..]);
    assert_eq!(
        offenders(&rule, &files),
        [
            "src/blob/gc.rs:1 says `Instant`: it waits",
            "src/net.rs:1 says `. spawn (`: it waits",
            "src/clock.rs says none of `Timer`, `Instant`, `. spawn (` any more",
        ]
    );
}

/// The device's files that use words which are not theirs, and those that need not any more.
fn offenders((what, words, places): &(&str, &[&str], &[&str]), files: &Files) -> Vec<String> {
    let mut problems = Vec::new();
    let mut unused = places.to_vec();
    for (path, text) in files {
        let apart = ["ground/", "bin/", "build"].iter().any(|start| path.starts_with(start));
        // What a simulation is made of.
        if is_test(path) || apart || path.ends_with("/sim.rs") {
            continue;
        }
        let tokens = tokens(without_tests(text));
        for words in words.iter() {
            let sequence: Vec<&str> = words.split(' ').collect();
            let mut found = tokens.windows(sequence.len()).filter(|window| {
                window.iter().map(|token| token.1.as_str()).eq(sequence.iter().copied())
            });
            let Some(first) = found.next() else { continue };
            unused.retain(|place| place != path);
            if !places.contains(&path.as_str()) {
                problems.push(format!("src/{path}:{} says `{words}`: it {what}", first[0].0));
            }
        }
    }
    let all = words.iter().map(|words| format!("`{words}`")).collect::<Vec<_>>().join(", ");
    problems.extend(unused.iter().map(|place| format!("src/{place} says none of {all} any more")));
    problems
}
