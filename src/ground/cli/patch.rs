//! Patches of JSON (RFC 7396), and what they change, for people.

use serde_json::{Map, Value};

/// What must be merged into `from` so that it becomes `to`; nothing when they are the same.
///
/// Only objects are looked into: a list is replaced as a whole.
pub fn between(from: &Value, to: &Value) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (from, to) else {
        return (from != to).then(|| to.clone());
    };
    let mut patch = Map::new();
    for (key, value) in after {
        let changed = match before.get(key) {
            Some(before) => between(before, value),
            None => Some(value.clone()),
        };
        patch.extend(changed.map(|changed| (key.clone(), changed)));
    }
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    patch.extend(gone.map(|key| (key.clone(), Value::Null)));
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// A line for each value that differs: `app_config.log_level: "info" -> "debug"`.
pub fn lines(from: &Value, to: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", from, to, &mut lines);
    lines
}

fn compare(path: &str, from: &Value, to: &Value, lines: &mut Vec<String>) {
    let empty = Map::new();
    let fields = |value: &Value| match value {
        Value::Object(fields) => fields.clone(),
        _ => empty.clone(),
    };
    if from.is_object() || to.is_object() {
        let (before, after) = (fields(from), fields(to));
        let added = after.keys().filter(|key| !before.contains_key(*key));
        for key in before.keys().chain(added) {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let side = |fields: &Map<String, Value>| fields.get(key).cloned().unwrap_or_default();
            compare(&path, &side(&before), &side(&after), lines);
        }
    } else if from != to {
        let shown = |value: &Value| match value {
            Value::Null => "nothing".to_owned(),
            value => value.to_string(),
        };
        lines.push(format!("{path}: {} -> {}", shown(from), shown(to)));
    }
}

/// Sets the value at a dotted path, or takes it away; objects on the way are made. A list is a value
/// as a whole: the path of one that is on the way is the error.
pub fn set<'p>(target: &mut Value, path: &'p str, value: Option<Value>) -> Result<(), &'p str> {
    let mut at = target;
    let mut end = 0_usize;
    for key in path.split('.') {
        if at.is_array() {
            return Err(path.get(..end.saturating_sub(1)).unwrap_or_default());
        }
        end += key.len() + 1;
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(fields) = at else { return Ok(()) };
        if end <= path.len() {
            at = fields.entry(key).or_insert(Value::Null);
            continue;
        }
        match value {
            Some(value) => drop(fields.insert(key.to_owned(), value)),
            None => drop(fields.remove(key)),
        }
        return Ok(());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_has_what_differs() {
        let from = json!({"a": {"b": 1, "c": 2}, "d": [1], "e": {"f": 1}});
        assert_eq!(between(&from, &from), None);
        let to = json!({"a": {"b": 1, "c": 3}, "d": [1, 2], "g": {}});
        let patch = between(&from, &to).unwrap();
        assert_eq!(patch, json!({"a": {"c": 3}, "d": [1, 2], "e": null, "g": {}}));
        assert_eq!(
            lines(&from, &to),
            ["a.c: 2 -> 3", "d: [1] -> [1,2]", "e.f: 1 -> nothing"],
            "an empty object says nothing"
        );
    }

    #[test]
    fn a_path_is_set() {
        let mut value = json!({"a": {"b": 1}, "c": 1});
        set(&mut value, "a.d.e", Some(json!("x"))).unwrap();
        set(&mut value, "a.b", None).unwrap();
        set(&mut value, "c.f", Some(json!(2))).unwrap();
        assert_eq!(value, json!({"a": {"d": {"e": "x"}}, "c": {"f": 2}}));
        set(&mut value, "a.l", Some(json!([1]))).unwrap();
        assert_eq!(set(&mut value, "a.l.0", Some(json!(2))), Err("a.l"));
        assert_eq!(set(&mut value, "a.l.0.x", None), Err("a.l"));
        set(&mut value, "a.l", None).unwrap();
    }
}
