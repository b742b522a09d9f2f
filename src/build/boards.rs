//! Resolves the files of `boards/`: the one place that knows how they inherit. The build script
//! packs what comes of them into `moonlet`, and scripts ask `moonlet board show NAME --json`.
//!
//! A file inherits with `inherit = "base"`: its own keys take the place of the inherited ones, key
//! by key. One without a `name` is only there to be inherited. Every key has its reader: those of
//! [flash], [geometry] and `why` the person before `board show`, `target` and `cpu` scripts/cross,
//! [budget] scripts/size and scripts/bench, [geometry] also the tests of the store, [config]
//! `board config`. What states a figure of hardware says in the same table where it is from.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use toml::de::{DeTable, DeValue};

/// A board with all that it inherits.
pub struct Board {
    /// As its file is called.
    pub name: String,
    /// By the place of their key in [`KEYS`].
    values: BTreeMap<usize, Value>,
}

/// Reads every board of a directory, ordered by name.
///
/// # Errors
/// The first mistake: the file, what it has and what was expected.
pub fn read(directory: &Path) -> Result<Vec<Board>, String> {
    let listing = fs::read_dir(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|e| format!("{}: {e}", directory.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".toml").map(str::to_owned));
    }
    names.sort();
    let mut boards = Vec::new();
    for name in names {
        let values =
            resolve(directory, &name, 0).map_err(|e| format!("boards/{name}.toml: {e}"))?;
        let board = Board { name: name.clone(), values };
        if board.text("", "name").is_some() {
            board.check().map_err(|e| format!("boards/{name}.toml: {e}"))?;
            boards.push(board);
        }
    }
    Ok(boards)
}

/// What the program carries: the table of `board ls`, then of each board its name, what `show`
/// prints, the same as JSON, and its configuration. [`FIELD`] stands behind each.
///
/// # Errors
/// A template that has changed its shape.
pub fn pack(boards: &[Board], template: &str) -> Result<String, String> {
    let mut packed = list(boards);
    packed.push(FIELD);
    for board in boards {
        for field in [board.name.clone(), board.toml(), board.json(), board.config(template)?] {
            packed.push_str(&field);
            packed.push(FIELD);
        }
    }
    Ok(packed)
}

impl Board {
    /// A value; none where the board has none.
    fn value(&self, table: &str, key: &str) -> Option<&Value> {
        self.values.get(&place(table, key)?)
    }

    /// A value that is text.
    fn text(&self, table: &str, key: &str) -> Option<&str> {
        match self.value(table, key)? {
            Value::Text(text) => Some(text),
            Value::Number(_) | Value::Flag(_) => None,
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.text("", "name") != Some(&self.name) {
            return Err(format!("expected name = {:?}, as the file is called", self.name));
        }
        for (table, key) in NEEDED {
            if self.value(table, key).is_none() {
                return Err(format!("no {}, neither its own nor inherited", shown(table, key)));
            }
        }
        let has = |key| self.text("config", key).is_some();
        let is_file = self.text("flash", "back_end") == Some("file");
        let locations = (has("store_path"), has("store_size_max"), has("store_device"));
        match (is_file, locations) {
            (true, (true, true, false)) | (false, (false, false, true)) => Ok(()),
            _ => Err("[config]: expected store_path and store_size_max where [flash] back_end is \
                      \"file\", else store_device alone"
                .to_owned()),
        }
    }

    fn toml(&self) -> String {
        let mut text = String::new();
        let mut table = "";
        for (key, value) in self.keys() {
            if key.table != table {
                table = key.table;
                text.push_str(&format!("\n[{table}]\n"));
            }
            text.push_str(&format!("{} = {}\n", key.name, value.written()));
        }
        text
    }

    fn json(&self) -> String {
        let mut tables = BTreeMap::<&str, Vec<String>>::new();
        for (key, value) in self.keys() {
            let member = format!("\"{}\": {}", key.name, value.written());
            tables.entry(key.table).or_default().push(member);
        }
        let mut members = tables.remove("").unwrap_or_default();
        for (table, inner) in tables {
            members.push(format!("\"{table}\": {{\n    {}\n  }}", inner.join(",\n    ")));
        }
        format!("{{\n  {}\n}}\n", members.join(",\n  "))
    }

    /// The configuration to begin with: that of the packages, with the store and the link of this
    /// board.
    fn config(&self, template: &str) -> Result<String, String> {
        let text = |table, key| self.text(table, key).unwrap_or_default();
        let mut head = format!("Board {}: {}.", self.name, text("", "why"));
        let parts = ["medium", "note"].map(|key| self.text("flash", key));
        let parts: Vec<&str> = parts.into_iter().flatten().collect();
        if !parts.is_empty() {
            head.push_str(&format!(" The flash: {}.", parts.join("; ")));
        }
        let mut config = comment(&head) + "\n";
        let mut replaced = 0;
        for line in template.lines() {
            let new = match line.split_once(' ').map_or(line, |(first, _)| first) {
                "path" => match self.text("config", "store_path") {
                    Some(path) => vec![entry("path", path, "or: device = \"/dev/mmcblk0p3\"")],
                    None => {
                        let device = text("config", "store_device");
                        vec![entry("device", device, "all of it is used")]
                    }
                },
                "size_max" => match self.text("config", "store_size_max") {
                    Some(size) => vec![entry("size_max", size, "taken once, at the first start")],
                    None => Vec::new(),
                },
                "#" if line.starts_with("# [link]") => vec!["[link]".to_owned()],
                "#" if line.starts_with("# rate_max = ") => {
                    let rate = text("config", "link_rate_max");
                    vec![entry("rate_max", rate, "all downloads together")]
                }
                _ => {
                    config.push_str(&format!("{line}\n"));
                    continue;
                }
            };
            replaced += 1;
            new.iter().for_each(|line| config.push_str(&format!("{line}\n")));
        }
        if replaced != TEMPLATE_LINES {
            return Err(format!(
                "boards/service/moonlet.toml: {replaced} lines for a board's store and link, \
                 expected {TEMPLATE_LINES}: path, size_max, # [link], # rate_max"
            ));
        }
        Ok(config)
    }

    fn keys(&self) -> impl Iterator<Item = (&'static Key, &Value)> {
        KEYS.iter().enumerate().filter_map(|(at, key)| Some((key, self.values.get(&at)?)))
    }
}

fn resolve(directory: &Path, name: &str, depth: usize) -> Result<BTreeMap<usize, Value>, String> {
    if depth > INHERITANCE_MAX {
        return Err(format!("inherits through more than {INHERITANCE_MAX} files"));
    }
    let file = directory.join(format!("{name}.toml"));
    let text = fs::read_to_string(&file).map_err(|e| format!("{name}.toml: {e}"))?;
    let (parent, own) = parse(&text)?;
    let mut values = match parent {
        Some(parent) => resolve(directory, &parent, depth + 1)?,
        None => BTreeMap::new(),
    };
    // What another board is called says nothing of this one.
    values.retain(|at, _| KEYS.get(*at).is_some_and(|key| key.name != "name"));
    values.extend(own);
    Ok(values)
}

/// Whom a file inherits from, and its own values.
fn parse(text: &str) -> Result<(Option<String>, BTreeMap<usize, Value>), String> {
    let document = DeTable::parse(text).map_err(|e| e.to_string())?;
    let mut parent = None;
    let mut values = BTreeMap::new();
    for (key, value) in document.into_inner() {
        let key = key.into_inner();
        match value.into_inner() {
            DeValue::Table(table) => {
                for (inner, value) in table {
                    let (at, value) = known(&key, inner.get_ref(), value.get_ref())?;
                    values.insert(at, value);
                }
            }
            value if key == "inherit" => {
                let name = value.as_str().ok_or("inherit: expected the name of a file")?;
                parent = Some(name.to_owned());
            }
            value => {
                let (at, value) = known("", &key, &value)?;
                values.insert(at, value);
            }
        }
    }
    for (at, key) in KEYS.iter().enumerate() {
        let source = place(key.table, "source").is_some_and(|source| values.contains_key(&source));
        if key.is_figure && values.contains_key(&at) && !source {
            let (what, table) = (shown(key.table, key.name), shown(key.table, "source"));
            return Err(format!(
                "{what} without {table}: expected the data sheet that it is from, or \"not from a \
                 data sheet\" and what it is from"
            ));
        }
    }
    Ok((parent, values))
}

fn known(table: &str, name: &str, value: &DeValue<'_>) -> Result<(usize, Value), String> {
    let what = shown(table, name);
    let Some((at, key)) = place(table, name).and_then(|at| Some((at, KEYS.get(at)?))) else {
        let keys: Vec<String> = KEYS.iter().map(|key| shown(key.table, key.name)).collect();
        return Err(format!("unknown key {what}: expected one of {}", keys.join(", ")));
    };
    let value = match (key.kind, value) {
        // Then it is written alike in TOML, in JSON and in a comment.
        (Kind::Text, DeValue::String(text))
            if text.chars().all(|c| matches!(c, ' '..='~') && c != '"' && c != '\\') =>
        {
            Some(Value::Text(text.to_string()))
        }
        (Kind::OneOf(few), DeValue::String(text)) if few.contains(&&**text) => {
            Some(Value::Text(text.to_string()))
        }
        (Kind::Number, DeValue::Integer(number)) => {
            number.as_str().parse().ok().filter(|number| *number > 0).map(Value::Number)
        }
        (Kind::Flag, DeValue::Boolean(flag)) => Some(Value::Flag(*flag)),
        _ => None,
    };
    match value {
        Some(value) => Ok((at, value)),
        None => Err(format!("{what} = {value:?}: expected {}", key.kind.expected())),
    }
}

fn place(table: &str, name: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.table == table && key.name == name)
}

fn shown(table: &str, name: &str) -> String {
    if table.is_empty() { name.to_owned() } else { format!("[{table}] {name}") }
}

fn list(boards: &[Board]) -> String {
    let rows: Vec<[&str; 4]> = boards
        .iter()
        .map(|board| {
            let text = |table, key| board.text(table, key).unwrap_or("-");
            [&*board.name, text("", "cpu"), text("flash", "back_end"), text("", "why")]
        })
        .collect();
    let head = ["BOARD", "CPU", "STORE", "WHAT IT IS"];
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]).filter_map(|row| row.get(column));
        cells.map(|cell| cell.len()).max().unwrap_or(0)
    };
    let (first, second, third) = (width(0), width(1), width(2));
    let line = |[name, cpu, store, why]: &[&str; 4]| {
        format!("{name:first$}  {cpu:second$}  {store:third$}  {why}\n")
    };
    [head].iter().chain(&rows).map(line).collect()
}

fn entry(key: &str, value: &str, comment: &str) -> String {
    format!("{:<35} # {comment}", format!("{key} = \"{value}\""))
}

/// Comment lines of at most [`COMMENT_COLUMNS`] columns.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    let mut line = "#".to_owned();
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > COMMENT_COLUMNS {
            lines.push_str(&format!("{line}\n"));
            line = "#".to_owned();
        }
        line.push(' ');
        line.push_str(word);
    }
    lines + &line + "\n"
}

/// A key that a file may have.
struct Key {
    /// Empty for the top.
    table: &'static str,
    name: &'static str,
    kind: Kind,
    /// Says something of hardware, so that its table needs a source.
    is_figure: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    OneOf(&'static [&'static str]),
    Number,
    Flag,
}

impl Kind {
    fn expected(self) -> String {
        match self {
            Self::Text => "text in ASCII without quotes and backslashes".to_owned(),
            Self::OneOf(few) => format!("one of {}", few.join(", ")),
            Self::Number => "a number above 0".to_owned(),
            Self::Flag => "true or false".to_owned(),
        }
    }
}

#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Number(u64),
    Flag(bool),
}

impl Value {
    /// As TOML and JSON both have it.
    fn written(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{text}\""),
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

const fn key(table: &'static str, name: &'static str, kind: Kind) -> Key {
    Key { table, name, kind, is_figure: false }
}

const fn figure(table: &'static str, name: &'static str, kind: Kind) -> Key {
    Key { table, name, kind, is_figure: true }
}

/// In the order in which they are shown.
const KEYS: [Key; 20] = [
    key("", "name", Kind::Text),
    key("", "why", Kind::Text),
    key("", "target", Kind::OneOf(&TARGETS)),
    figure("", "cpu", Kind::Text),
    key("", "source", Kind::Text),
    key("flash", "back_end", Kind::OneOf(&BACK_ENDS)),
    figure("flash", "medium", Kind::Text),
    key("flash", "note", Kind::Text),
    key("flash", "source", Kind::Text),
    figure("geometry", "segment_bytes", Kind::Number),
    figure("geometry", "program_bytes", Kind::Number),
    figure("geometry", "reprogram", Kind::Flag),
    key("geometry", "source", Kind::Text),
    key("config", "store_path", Kind::Text),
    key("config", "store_size_max", Kind::Text),
    key("config", "store_device", Kind::Text),
    key("config", "link_rate_max", Kind::Text),
    key("budget", "binary_bytes_max", Kind::Number),
    key("budget", "memory_idle_bytes_max", Kind::Number),
    key("budget", "memory_busy_bytes_max", Kind::Number),
];
const NEEDED: [(&str, &str); 10] = [
    ("", "why"),
    ("", "target"),
    ("flash", "back_end"),
    ("geometry", "segment_bytes"),
    ("geometry", "program_bytes"),
    ("geometry", "reprogram"),
    ("config", "link_rate_max"),
    ("budget", "binary_bytes_max"),
    ("budget", "memory_idle_bytes_max"),
    ("budget", "memory_busy_bytes_max"),
];
const TARGETS: [&str; 2] = ["armv7-unknown-linux-musleabihf", "aarch64-unknown-linux-musl"];
const BACK_ENDS: [&str; 4] = ["file", "block", "mtd", "ubi"];
/// Stands behind every field of what is packed; no text has it.
pub const FIELD: char = '\0';
/// Lines of the packages' configuration that a board has its own of.
const TEMPLATE_LINES: usize = 4;
const INHERITANCE_MAX: usize = 4;
const COMMENT_COLUMNS: usize = 98;
