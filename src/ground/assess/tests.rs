use super::*;
use crate::fleet::report::CachedImage;
use crate::fleet::state::{Artifact, Staged};

const A: &str = "sha256:3e38f337856c3763a9ffe3a11da3bf216616964dcc7454c918229773c6d8a56a";
const B: &str = "sha256:4e38f337856c3763a9ffe3a11da3bf216616964dcc7454c918229773c6d8a56a";

fn groups() -> Vec<GroupState> {
    let image = |repository: &str, tag: &str, digest: &str, deleted| Artifact {
        repository: repository.into(),
        tags: vec![tag.into()],
        digest: digest.into(),
        deleted,
        ..Artifact::default()
    };
    let artifacts = vec![
        image("app", "1", A, false),
        image("web", "2", "", false),
        image("old", "1", "", true),
    ];
    let group = "g1".to_owned();
    vec![GroupState {
        group,
        registry: "https://r.example:5000/".into(),
        artifacts,
        ..GroupState::default()
    }]
}

fn status(reference: &str, state: &str, digest: &str) -> ImageStatus {
    ImageStatus {
        reference: reference.into(),
        state: state.into(),
        digest: digest.into(),
        ..ImageStatus::default()
    }
}

fn moonlet(images: Vec<ImageStatus>) -> Report {
    Report { moonlet: Some(Details { images, ..Details::default() }), ..Report::default() }
}

fn judged(report: &Report) -> (Updated, Health, String) {
    let found = assess("http://ground", &groups(), &Published::default(), report);
    (found.updated, found.health, found.reason)
}

#[test]
fn a_moonlet_is_judged_by_digest() {
    let (app, web) = ("r.example:5000/app:1", "r.example:5000/web:2");
    let good = vec![status(app, "held", A), status(web, "held (gone upstream)", B)];
    assert_eq!(judged(&moonlet(good)), (Updated::UpToDate, Health::Healthy, String::new()));
    let away = vec![status(app, "held", A), status(web, "held (registry unavailable)", B)];
    let reason = format!("{web}: held (registry unavailable)");
    assert_eq!(judged(&moonlet(away)), (Updated::UpToDate, Health::Degraded, reason));
    let other = vec![status(app, "held", B), status(web, "held", B)];
    assert_eq!(
        judged(&moonlet(other)),
        (Updated::OutOfDate, Health::Healthy, format!("{app}: held: another digest is desired"))
    );
    let coming = vec![status(app, "syncing", ""), status(web, "pending", "")];
    let reason = format!("{app}: syncing (and 1 more)");
    assert_eq!(judged(&moonlet(coming)), (Updated::Updating, Health::Healthy, reason));
    let failed = vec![status(app, "held", A), status(web, "failed", "")];
    let reason = format!("{web}: failed");
    assert_eq!(judged(&moonlet(failed)), (Updated::OutOfDate, Health::Error, reason));
    let (updated, _, reason) = judged(&moonlet(Vec::new()));
    assert_eq!(updated, Updated::OutOfDate);
    assert!(reason.contains("has not said anything"), "{reason}");
    let removed = vec![
        status(app, "held", A),
        status(web, "held", B),
        status("r.example:5000/old:1", "held", B),
    ];
    let (updated, _, reason) = judged(&moonlet(removed));
    assert_eq!((updated, reason.contains("to be removed")), (Updated::OutOfDate, true));
}

/// That the tag could not be looked at again changes nothing of what is there.
#[test]
fn what_is_whole_under_its_digest_is_in_sync() {
    let (app, web) = ("r.example:5000/app:1", "r.example:5000/web:2");
    let held = |state: &str, digest: &str, held_bytes| ImageStatus {
        held_bytes,
        total_bytes: 9,
        ..status(app, state, digest)
    };
    let judged = |image| judged(&moonlet(vec![image, status(web, "held", B)])).0;
    for state in ["waiting", "failed", "syncing"] {
        assert_eq!(judged(held(state, A, 9)), Updated::UpToDate, "{state}");
    }
    assert_eq!(judged(held("waiting", A, 8)), Updated::Updating);
    assert_eq!(judged(held("failed", B, 9)), Updated::OutOfDate);
}

#[test]
fn images_by_digest_alone_are_told_apart() {
    let artifact = |digest: &str| Artifact {
        repository: "app".into(),
        digest: digest.into(),
        ..Artifact::default()
    };
    let group = GroupState {
        registry: "https://r.example".into(),
        artifacts: vec![artifact(A), artifact(B)],
        ..GroupState::default()
    };
    let groups = [group];
    let in_sync = |report: &Report| {
        let images = standings("http://ground", &groups, Some(report));
        images.iter().map(|image| image.in_sync).collect::<Vec<_>>()
    };
    let by = |digest: &str| format!("r.example/app@{digest}");
    let images = vec![status(&by(A), "held", A), status(&by(B), "held", B)];
    assert_eq!(in_sync(&moonlet(images)), [true, true]);
    assert_eq!(in_sync(&moonlet(vec![status(&by(B), "held", B)])), [false, true]);
    let cached = |digest: &str| CachedImage {
        reference: format!("10.0.0.1:8585/app@{digest}"),
        size_bytes: 5,
    };
    let gone = Report { cached_images: vec![cached(B)], ..Report::default() };
    assert_eq!(in_sync(&gone), [false, true]);
    assert_eq!(held(&gone).first().unwrap().0, format!("app@{B}"));
}

#[test]
fn what_is_staged_is_in_sync_beside_what_is_held() {
    let image = |repository: &str, tag: &str, digest: &str, deleted| Artifact {
        repository: repository.into(),
        tags: vec![tag.into()],
        digest: digest.into(),
        deleted,
        ..Artifact::default()
    };
    // One image stays, one tag moves, one is new, and one goes.
    let now = vec![
        image("same", "1", "", false),
        image("app", "1", A, false),
        image("old", "1", "", false),
        image("back", "1", "", true),
    ];
    let later = vec![
        image("same", "1", "", false),
        image("app", "1", B, false),
        image("web", "2", "", false),
        image("old", "1", "", true),
        image("back", "1", "", false),
    ];
    let registry = "https://r.example".to_owned();
    let staged = Staged { registry: registry.clone(), artifacts: later, ..Staged::default() };
    let group = GroupState {
        group: "g1".into(),
        registry,
        artifacts: now,
        staged: Some(staged),
        ..GroupState::default()
    };
    let groups = [group];
    let judged = |report: &Report| {
        let found = assess("http://ground", &groups, &Published::default(), report);
        let behind = found.images.iter().filter(|image| !image.in_sync);
        (found.updated, behind.map(|image| image.name.clone()).collect::<Vec<_>>())
    };
    let held = [("same:1", "held", A), ("app:1", "held", A), ("old:1", "held", A)];
    let staged = |app, web, back| {
        let staged = [("app:1", app, B), ("web:2", web, B), ("back:1", back, B)];
        let all = held.into_iter().chain(staged);
        moonlet(
            all.map(|(name, word, digest)| {
                status(
                    &format!("r.example/{name}"),
                    word,
                    if word == "syncing" { "" } else { digest },
                )
            })
            .collect(),
        )
    };
    assert_eq!(judged(&staged("staged", "staged", "staged")), (Updated::UpToDate, vec![]));
    let (updated, behind) = judged(&staged("syncing", "staged", "staged"));
    assert_eq!((updated, &*behind), (Updated::Updating, &["app:1".to_owned()][..]));
    let (updated, behind) = judged(&staged("staged", "failed", "staged"));
    assert_eq!((updated, &*behind), (Updated::OutOfDate, &["web:2".to_owned()][..]));
    // What has taken its place is there; what only is staged is not what is desired now.
    assert_eq!(judged(&staged("staged", "held", "staged")).0, Updated::UpToDate);
    let early = moonlet(vec![status("r.example/same:1", "staged", A)]);
    assert!(judged(&early).1.contains(&"same:1".to_owned()));
    // A Go satellite holds what it held until the images are the group's own.
    let cached =
        |name: &str| CachedImage { reference: format!("r.example/{name}@{A}"), size_bytes: 1 };
    let cached_images = ["same:1", "app:1", "old:1"].map(cached).to_vec();
    let go = Report { cached_images, ..Report::default() };
    assert_eq!(judged(&go), (Updated::UpToDate, vec![]));
}

#[test]
fn a_go_satellite_is_judged_by_tag() {
    let cached = |names: &[&str]| Report {
        cached_images: names
            .iter()
            .map(|name| CachedImage { reference: format!("10.0.0.1:8585/{name}"), size_bytes: 5 })
            .collect(),
        ..Report::default()
    };
    let both = cached(&[&format!("app:1@{B}"), "web:2"]);
    assert_eq!(judged(&both).0, Updated::UpToDate);
    assert_eq!(judged(&cached(&["app:1"])).0, Updated::OutOfDate);
    let expected = [("app:1", B), ("web:2", "")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(held(&both), BTreeSet::from(expected));
}

#[test]
fn a_device_in_need_is_not_healthy() {
    let with = |change: fn(&mut Report, &mut Details)| {
        let (mut report, mut details) = (Report::default(), Details::default());
        change(&mut report, &mut details);
        report.moonlet = Some(details);
        let found = assess("http://ground", &[], &Published::default(), &report);
        assert_eq!(found.updated, Updated::UpToDate);
        (found.health, found.reason)
    };
    let (health, reason) = with(|_, details| details.flash_used_percent = Some(93.4));
    assert_eq!(health, Health::Degraded);
    assert_eq!(reason, "flash: 93 % of its rated life is used");
    let (health, reason) = with(|report, details| {
        (report.storage_used_bytes, details.storage_size_bytes) = (97 << 20, 100 << 20);
    });
    assert_eq!(health, Health::Degraded);
    assert_eq!(reason, "storage: 97 MiB of 100 MiB are in use");
    let (health, _) = with(|report, details| {
        (report.storage_used_bytes, details.storage_size_bytes) = (97 << 20, 100 << 20);
        details.storage_cached_bytes = 3 << 20;
    });
    assert_eq!(health, Health::Healthy, "the cache may be evicted");
    let (health, reason) = with(|_, details| details.problems = vec!["clock".into()]);
    assert_eq!((health, &*reason), (Health::Degraded, "clock"));
    assert_eq!(with(|_, _| {}), (Health::Healthy, String::new()));
    let never = standings("http://ground", &groups(), None);
    assert_eq!(never.first().unwrap().state, "unknown");
}
