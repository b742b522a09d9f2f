//! What the commands print: tables for people, JSON and YAML for programs.
//!
//! What a server or a satellite says may hold anything; to a terminal no control character of it is
//! passed on.

use std::io::{IsTerminal as _, Write as _};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::Failure;

/// How a command prints.
#[derive(Args, Clone, Copy)]
pub struct Output {
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// A way to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns
    Table,
    /// More columns
    Wide,
    /// JSON; documents that apply reads
    Json,
    /// YAML; documents that apply reads
    Yaml,
}

impl Output {
    /// Whether more than the columns of a list is printed.
    pub fn is_full(self) -> bool {
        self.output != Format::Table
    }

    /// Prints one thing.
    pub fn one(self, value: &Value, table: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.output {
            Format::Table | Format::Wide => print(&table()),
            Format::Json => print(&(json(value)? + "\n")),
            Format::Yaml => print(&yaml(value)?),
        }
    }

    /// Prints a list: an array in JSON, one document after the other in YAML.
    pub fn many(self, values: &[Value], table: &Table) -> Result<(), Failure> {
        match self.output {
            Format::Table | Format::Wide => print(&table.draw()),
            Format::Json => print(&(json(values)? + "\n")),
            Format::Yaml => {
                let documents = values.iter().map(yaml).collect::<Result<Vec<_>, _>>()?;
                print(&documents.join("---\n"))
            }
        }
    }
}

/// Columns with a head.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|name| (*name).to_owned()).collect()] }
    }

    /// Adds a row; of text that is empty a dash is shown.
    pub fn row(&mut self, cells: Vec<String>) {
        let cells = cells.into_iter().map(|cell| match cell.as_str() {
            "" => "-".to_owned(),
            text => plain(text),
        });
        self.rows.push(cells.collect());
    }

    /// A line a row, columns as wide as their longest cell.
    pub fn draw(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// Text without what a terminal would obey.
pub fn plain(text: &str) -> String {
    text.chars().map(|sign| if sign.is_control() { '?' } else { sign }).collect()
}

/// A string field of an answer, or nothing.
pub fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The strings of a list in an answer.
pub fn texts(value: &Value, field: &str) -> Vec<String> {
    let list = value.get(field).and_then(Value::as_array);
    let list = list.map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The elements of a list in an answer.
pub fn elements(value: Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list,
        _ => Vec::new(),
    }
}

/// Prints to standard output; a reader that has gone is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(format!("standard output: {error}").into())
        }
        _ => Ok(()),
    }
}

/// Prints a line.
pub fn say(line: &str) -> Result<(), Failure> {
    print(&format!("{}\n", plain(line)))
}

/// Says what went wrong, or what is worth knowing; on standard error, a line each.
pub fn complain(text: &str) {
    for line in text.lines() {
        // Where standard error is closed no one would read it.
        let _ = writeln!(std::io::stderr().lock(), "ground-control: {}", plain(line));
    }
}

/// Whether standard output is a terminal.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

fn json(value: &(impl serde::Serialize + ?Sized)) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| format!("writing JSON: {error}").into())
}

fn yaml(value: &Value) -> Result<String, Failure> {
    serde_saphyr::to_string(value).map_err(|error| format!("writing YAML: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(vec!["gateway-17".to_owned(), String::new()]);
        table.row(vec!["a\x1b[2J".to_owned(), "Online".to_owned()]);
        assert_eq!(table.draw(), "NAME        STATE\ngateway-17  -\na?[2J       Online\n");
    }
}
