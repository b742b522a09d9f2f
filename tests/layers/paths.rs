//! What a file imports, by its tokens.

/// How many `super` lead from a file's top to the crate's root: 1 for `net.rs` and `net/mod.rs`.
pub fn depth(path: &str) -> usize {
    let parts = path.split('/').count();
    if path.ends_with("/mod.rs") { parts - 1 } else { parts }
}

/// The modules at the crate's root that a file names, with the lines.
pub fn imports(text: &str, depth: usize) -> Vec<(usize, String)> {
    paths(text, depth, &["crate"])
}

/// The rooms of `module` that a file of it names, which is `depth` levels below it.
pub fn imports_below(text: &str, depth: usize, module: &str) -> Vec<(usize, String)> {
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
pub fn tokens(text: &str) -> Vec<(usize, String)> {
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
