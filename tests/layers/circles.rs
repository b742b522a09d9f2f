//! No two files import each other, directly or by way of others: each can be read after those that
//! it imports. A module and the files below it are one, so what they have of each other does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::files::{Files, is_test, read_files, sample, without_tests};
use super::paths::tokens;

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
