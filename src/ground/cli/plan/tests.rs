use super::*;

fn group(name: &str, images: &[(&str, &str)]) -> GroupState {
    let artifacts = images.iter().map(|(repository, tag)| Artifact {
        repository: (*repository).to_owned(),
        tags: vec![(*tag).to_owned()],
        ..Artifact::default()
    });
    GroupState { group: name.to_owned(), artifacts: artifacts.collect(), ..Default::default() }
}

fn document(name: &str, spec: Spec) -> Document {
    Document { place: "f: document 1".to_owned(), name: name.to_owned(), spec }
}

fn satellite(config: &str, groups: &[&str]) -> Satellite {
    let groups = groups.iter().map(|name| (*name).to_owned()).collect();
    Satellite { config: config.to_owned(), groups, labels: BTreeMap::new() }
}

fn fleet() -> Fleet {
    let groups = [group("a", &[("x", "1")]), group("b", &[("x", "1"), ("y", "2")])];
    Fleet {
        modes: BTreeMap::new(),
        configs: [("c".to_owned(), json!({"moonlet": {"registries": [{"password": mask::MASK}]}}))]
            .into(),
        groups: groups.map(|group| (group.group.clone(), group)).into(),
        satellites: [("s", satellite("c", &["a"])), ("t", satellite("c", &[]))]
            .map(|(name, satellite)| (name.to_owned(), satellite))
            .into(),
        rollouts: BTreeMap::new(),
        versions: [((Kind::Satellite, "s".to_owned()), Expected::Tag("v".to_owned()))].into(),
    }
}

#[test]
fn what_a_satellite_holds_is_merged_before_it_is_compared() {
    let documents = [
        document("s", Spec::Satellite(satellite("c", &["a", "b"]))),
        document("b", Spec::Group(group("b", &[("x", "1"), ("z", "3")]), None)),
    ];
    let plan = Plan::make(&documents, &fleet(), false).unwrap();
    let [first, second] = &plan.steps[..] else { panic!("{:?}", plan.steps) };
    assert_eq!((first.kind, first.action), (Kind::Group, Action::Change), "groups come first");
    assert_eq!(first.lines, ["- y:2", "+ z:3"]);
    assert_eq!(second.lines, ["group + b", "holds + z:3"]);
    let body = Some(json!({ "groups": ["a", "b"] }));
    let mut request = Request::new(Method::Patch, &["api", "satellites", "s"], body);
    request.expected = Expected::Tag("v".to_owned());
    assert_eq!(second.requests, [request]);
}

#[test]
fn a_secret_is_sent_again_and_never_shown() {
    let config = json!({"moonlet": {"registries": [{"password": "hidden"}]}});
    let step = config_step("c", fleet().configs.get("c"), &config);
    assert_eq!((step.action, step.requests.len()), (Action::Keep, 1));
    let step = config_step("d", None, &config);
    assert_eq!(step.action, Action::Create);
    assert!(!step.lines.join("\n").contains("hidden"), "{:?}", step.lines);
    let step = config_step("c", Some(&json!({})), &json!({}));
    assert_eq!((step.action, step.requests.len()), (Action::Keep, 0));
}

#[test]
fn names_that_lead_nowhere_are_refused() {
    let documents = [document("s", Spec::Satellite(satellite("d", &["a", "e"])))];
    let message = Plan::make(&documents, &fleet(), false).unwrap_err().message;
    assert!(message.contains("f: document 1, Satellite \"s\": spec.config \"d\""), "{message}");
    assert!(message.contains("spec.groups \"e\""), "{message}");
}

#[test]
fn only_kinds_that_documents_have_are_pruned() {
    let documents = [document("s", Spec::Satellite(satellite("c", &["a"])))];
    let plan = Plan::make(&documents, &fleet(), true).unwrap();
    let removed: Vec<_> = plan.steps.iter().filter(|step| step.action == Action::Remove).collect();
    assert_eq!(removed.len(), 1);
    assert_eq!((removed[0].kind, removed[0].name.as_str()), (Kind::Satellite, "t"));
}
