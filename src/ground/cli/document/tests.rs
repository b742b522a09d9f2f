use super::*;

fn problems(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    parse("f.yaml", text, Path::new(""), &mut problems);
    problems
}

fn only(head: &str, spec: &str) -> String {
    let found = problems(&format!(
        "apiVersion: moonlet/v1\nkind: {head}\nmetadata: {{name: a}}\nspec: {spec}\n"
    ));
    assert_eq!(found.len(), 1, "{spec}: {found:?}");
    found.first().cloned().unwrap_or_default()
}

#[test]
fn every_error_names_document_and_field() {
    for (head, spec, part) in [
        (
            "Group",
            "{artifacts: [{repository: x, tag: [1.25]}]}",
            "spec.artifacts[0].tag[0]: invalid type: floating point `1.25`, expected a string in quotes",
        ),
        (
            "Group",
            "{artifacts: [{repository: x, tags: ['1']}]}",
            "spec.artifacts.0.tags: an unknown field",
        ),
        ("Group", "{artifacts: [{repository: ../x, tag: ['1']}]}", "spec: repository"),
        ("Group", "{group: b}", "spec.group: expected"),
        ("Group", "[]", "spec: expected fields"),
        ("Config", "{app_config: {heartbeat_interval: 30s}}", "spec: heartbeat_interval"),
        (
            "Config",
            "{app_config: {metrics: {collect_cpu: 1}}}",
            "spec.app_config.metrics.collect_cpu: invalid type",
        ),
        ("Config", "{app_config: {heartbeat: x}}", "spec.app_config.heartbeat: an unknown field"),
        ("Satellite", "{groups: [a]}", "spec: missing field `config`"),
        ("Satellite", "{config: c, labels: {'a b': x}}", "spec.labels: label"),
        ("Planet", "{}", "kind \"Planet\": expected Config, Group, Satellite or Rollout"),
    ] {
        let found = only(head, spec);
        let start = format!("f.yaml: document 1, {head} \"a\": {part}");
        assert!(found.starts_with(&start), "{found}\n{start}");
    }
}

#[test]
fn all_documents_are_looked_at() {
    let good = "apiVersion: moonlet/v1\nkind: Group\nmetadata: {name: g}\nspec: {}\n";
    let bad = good.replace("name: g", "name: G");
    let found = problems(&format!("{good}---\n{bad}---\n{good}---\nkind: Group\n---\n3\n"));
    let expected = [
        "document 2, Group \"G\": metadata.name",
        "document 4: missing field `apiVersion`",
        "document 5: expected fields",
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(&format!("f.yaml: {expected}")), "{found}");
    }
    let found = problems("a: [1\n---\n");
    assert!(found.iter().all(|problem| problem.contains("line")), "{found:?}");
    let many = "a: 1\n---\n".repeat(DOCUMENTS_MAX + 1);
    assert_eq!(problems(&many).len(), 1);
    let deep = "[".repeat(DEPTH_MAX + 10);
    assert_eq!(problems(&deep).len(), 1);
}

#[test]
fn secrets_come_from_elsewhere() {
    let file = std::env::temp_dir().join(format!("ground_document_{}", std::process::id()));
    std::fs::write(&file, "hidden\n").unwrap();
    let registry = |field: &str| {
        json!({"moonlet": {"registries": [
            {"url": "https://r", "username": "u", field: file.to_str().unwrap()}]}})
    };
    let Ok(Spec::Config(config)) = config(registry("passwordFile"), Path::new("/")) else {
        panic!("refused");
    };
    let found = config.pointer("/moonlet/registries/0/password");
    assert_eq!(found, Some(&json!("hidden")));
    let errors = super::config(registry("passwordEnv"), Path::new("/")).unwrap_err();
    assert!(errors[0].starts_with("spec.moonlet.registries[0].passwordEnv: "), "{errors:?}");
    std::fs::remove_file(&file).unwrap();
    let errors = super::config(registry("passwordFile"), Path::new("/")).unwrap_err();
    assert!(errors[0].starts_with("spec.moonlet.registries[0].passwordFile: "), "{errors:?}");
}
