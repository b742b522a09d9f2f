//! The desired state as it was last read and found good: what is kept in the log. Pure, as what it
//! means for the configuration is.

pub mod wanted;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fleet::config::Taken;
use crate::fleet::interval;
use crate::fleet::state::{Artifact, GroupState, SatelliteState, Staged};
use crate::oci::Digest;

/// The state artifacts, each as it was last read and found good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// The digest of the satellite-state.
    pub digest: Option<Digest>,
    /// The satellite's groups, in its order.
    pub groups: Vec<Group>,
    /// Its config, if it has one.
    pub config: Option<Remote>,
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Where its artifact is.
    pub url: String,
    /// What that was; none while it could never be read.
    pub digest: Option<Digest>,
    /// What it holds.
    content: Content,
    /// What is to take the place of that, and when, if that is decided.
    staged: Option<(Option<u64>, Content)>,
}

/// Images of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    /// Their registry, as a URL.
    registry: String,
    platforms: Vec<String>,
    images: Vec<(String, Vec<String>, Option<Digest>)>,
}

/// What a satellite takes from its config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Where its artifact is.
    pub url: String,
    /// What that was; none while it could never be read.
    pub digest: Option<Digest>,
    /// Seconds between two looks at the state.
    poll_seconds: Option<u64>,
    /// Seconds between two reports.
    report_seconds: Option<u64>,
    /// URL, name and password.
    registries: Vec<(String, String, String)>,
    /// What it changes that could cut the satellite off.
    pub ways: Ways,
    /// For how many seconds that is tried.
    trial_seconds: Option<u64>,
    /// The one that is to take its place again, while it is on trial.
    before: Option<Box<Remote>>,
    /// How often the program began with it on trial.
    starts: u8,
    /// What was taken back, and why.
    pub refused: Option<(Digest, String)>,
}

/// Whom to obey, where to listen, and which proxy to go through; empty where the satellite's own
/// file counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ways {
    pub ground_control: String,
    listen: Vec<String>,
    proxy: String,
}

impl Desired {
    /// This state with the groups and the config that `state` names: what is known of those that
    /// stay is kept, of the others nothing is known yet.
    pub fn with(&self, digest: Digest, state: &SatelliteState) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for url in &state.states {
            if groups.iter().any(|group| group.url == *url) {
                continue;
            }
            let known = self.groups.iter().find(|group| group.url == *url).cloned();
            groups.push(known.unwrap_or_else(|| Group { url: url.clone(), ..Group::default() }));
        }
        let config = Some(&state.config).filter(|url| !url.is_empty()).map(|url| {
            let known = self.config.clone().unwrap_or_default();
            // What another one said counts until this one was read.
            if known.url == *url { known } else { known.good().at(url) }
        });
        Self { digest: Some(digest), groups, config }
    }

    /// A state of one group and nothing else.
    pub fn of_group(place: String, digest: Digest, state: GroupState) -> Self {
        let group = Group { url: place, ..Group::default() }.with(digest, state);
        Self { digest: Some(digest), groups: vec![group], config: None }
    }

    /// Whether all of it was read. A group that never could be may have what others had before.
    pub fn is_whole(&self) -> bool {
        self.digest.is_some() && self.groups.iter().all(|group| group.digest.is_some())
    }

    /// How many images it names.
    pub fn image_count(&self) -> usize {
        let staged = self.groups.iter().filter_map(|group| group.staged.as_ref());
        let contents = staged.map(|(_, staged)| staged);
        self.groups
            .iter()
            .map(|group| &group.content)
            .chain(contents)
            .flat_map(|content| &content.images)
            .map(|(_, tags, _)| tags.len().max(1))
            .sum()
    }

    /// Puts what is staged and whose time has come in the place of what it follows. Once that is
    /// kept, a clock that goes back does not undo it.
    /// Whether there was any.
    pub fn activate(&mut self, now: u64) -> bool {
        let mut any = false;
        for group in &mut self.groups {
            if let Some((_, content)) =
                group.staged.take_if(|(at, _)| at.is_some_and(|at| at <= now))
            {
                group.content = content;
                any = true;
            }
        }
        any
    }

    /// When something that is staged takes its place next.
    pub fn activates_at(&self) -> Option<u64> {
        self.groups.iter().filter_map(|group| group.staged.as_ref()?.0).min()
    }

    /// For how long the config is tried, if it is.
    pub fn trial_span(&self) -> Option<Duration> {
        let config = self.config.as_ref().filter(|config| config.before.is_some())?;
        Some(config.trial_seconds.map_or(TRIAL, Duration::from_secs).min(TRIAL_MAX))
    }

    /// Which config is on trial, if one is.
    pub fn trial_digest(&self) -> Option<Digest> {
        self.config.as_ref().filter(|config| config.before.is_some())?.digest
    }

    /// Counts a start with a config on trial.
    pub fn count_start(&mut self) -> u8 {
        let starts = self.config.as_mut().map(|config| &mut config.starts);
        starts.map_or(0, |starts| {
            *starts = starts.saturating_add(1);
            *starts
        })
    }

    /// The config that is on trial stays.
    pub fn end_trial(&mut self) {
        if let Some(config) = &mut self.config {
            config.before = None;
        }
    }

    /// The config before the one that is on trial takes its place again.
    pub fn roll_back(&mut self, why: &str) {
        if let Some(config) = &mut self.config
            && let Some(before) = config.before.take()
        {
            let (url, digest) = (&config.url, config.digest);
            let name = digest.map(|digest| digest.to_string()).unwrap_or_default();
            let why = format!("{url}: configuration {name} was rolled back: {why}");
            let why = why.chars().take(WHY_CHARS_MAX).collect();
            *config = Remote { refused: digest.map(|digest| (digest, why)), ..*before };
        }
    }

    /// The time between two looks at the state, if the config says one.
    pub fn poll_interval(&self) -> Option<Duration> {
        self.config.as_ref()?.poll_seconds.map(Duration::from_secs)
    }

    /// The time between two reports, if the config says one.
    pub fn report_interval(&self) -> Option<Duration> {
        self.config.as_ref()?.report_seconds.map(Duration::from_secs)
    }
}

impl Group {
    /// This group as `state` has it now; what is to be deleted is left out.
    pub fn with(&self, digest: Digest, state: GroupState) -> Self {
        let staged = state.staged.map(|staged| {
            let at = staged.activate_at().ok().flatten();
            let Staged { registry, platforms, artifacts, .. } = staged;
            (at, Content::new(registry, platforms, artifacts))
        });
        let content = Content::new(state.registry, state.platforms, state.artifacts);
        Self { url: self.url.clone(), digest: Some(digest), content, staged }
    }
}

impl Content {
    fn new(registry: String, platforms: Vec<String>, artifacts: Vec<Artifact>) -> Self {
        let images = artifacts.into_iter().filter(|artifact| !artifact.deleted);
        let images = images.map(|artifact| {
            let digest = artifact.digest().ok().flatten();
            (artifact.repository, artifact.tags, digest)
        });
        Self { registry, platforms, images: images.collect() }
    }
}

impl Remote {
    /// What was last seen to work.
    fn good(self) -> Self {
        match self.before {
            Some(before) => *before,
            None => self,
        }
    }

    /// The same, until what is at `url` was read.
    fn at(self, url: &str) -> Self {
        Self { url: url.to_owned(), digest: None, refused: None, ..self }
    }

    /// This config as `config` has it now; on trial, if it changes a way.
    pub fn with(&self, digest: Digest, config: Taken) -> Self {
        let good = self.clone().good();
        let ways = Ways {
            ground_control: config.app_config.ground_control_url,
            listen: config.moonlet.listen,
            proxy: config.moonlet.proxy,
        };
        let before = (ways != good.ways).then(|| Box::new(Self { refused: None, ..good }));
        let seconds = |text: &str| interval::parse(text).ok().map(|every| every.as_secs());
        let registries = config.moonlet.registries.into_iter();
        let registries =
            registries.map(|registry| (registry.url, registry.username, registry.password));
        Self {
            url: self.url.clone(),
            digest: Some(digest),
            poll_seconds: seconds(&config.app_config.state_replication_interval),
            report_seconds: seconds(&config.app_config.heartbeat_interval),
            registries: registries.collect(),
            ways,
            trial_seconds: seconds(&config.moonlet.rollback_after),
            before,
            starts: 0,
            refused: None,
        }
    }
}

/// As long as a modem takes to come up again, and a person to look.
const TRIAL: Duration = Duration::from_mins(10);
const TRIAL_MAX: Duration = Duration::from_hours(24);
const WHY_CHARS_MAX: usize = 400;

#[cfg(test)]
mod tests {
    use super::wanted::{Own, Wanted};
    use super::*;
    use crate::config::Activation;
    use crate::fleet::enrol::Credentials;
    use crate::net::tls;

    fn digest(number: u8) -> Digest {
        Digest::sha256(&[number])
    }

    fn enrolment() -> Own {
        let auth = Credentials {
            url: "https://harbor.test".into(),
            username: "robot$edge1".into(),
            password: "secret".into(),
        };
        let tls = tls::ClientOptions { ca_file: Some("/ca".into()), client_cert: None };
        Own { auth, state: "https://harbor.test".into(), tls }
    }

    fn desired(groups: &[&str], config: &str) -> Desired {
        let states = (0..groups.len()).map(|index| format!("https://harbor.test/g{index}:latest"));
        let state = SatelliteState {
            states: states.collect(),
            config: "https://harbor.test/c:latest".into(),
        };
        let mut desired = Desired::default().with(digest(0), &state);
        for (group, text) in desired.groups.iter_mut().zip(groups) {
            let state: GroupState = serde_json::from_str(text).unwrap();
            state.check().unwrap();
            *group = group.with(digest(1), state);
        }
        let config: Taken = serde_json::from_str(config).unwrap();
        config.check().unwrap();
        desired.config = desired.config.map(|known| known.with(digest(2), config));
        desired
    }

    fn names(wanted: &Wanted) -> Vec<String> {
        wanted.images.iter().map(|image| image.reference.to_string()).collect()
    }

    #[test]
    fn images_come_from_the_groups_registry_or_from_where_the_state_is() {
        let one = r#"{"group":"a","artifacts":[{"repository":"library/x","tag":["1","2"]}]}"#;
        let two = r#"{"group":"b","registry":"http://10.0.0.1:5000","platforms":["linux/arm64"],
            "artifacts":[{"repository":"y","tag":["1"]},{"repository":"z","tag":["1"],
            "deleted":true}]}"#;
        let config = r#"{"moonlet":{"registries":[
            {"url":"http://10.0.0.1:5000","username":"u","password":"p"}]}}"#;
        let wanted = desired(&[one, two], config).wanted(&enrolment());
        assert_eq!(
            names(&wanted),
            ["harbor.test/library/x:1", "harbor.test/library/x:2", "10.0.0.1:5000/y:1"]
        );
        let who: Vec<_> = wanted.upstreams.iter().map(|up| up.username.as_deref()).collect();
        assert_eq!(who, [Some("robot$edge1"), Some("u")]);
        assert_eq!(wanted.upstreams[1].url.as_str(), "http://10.0.0.1:5000/");
        assert_eq!(wanted.images[2].platforms[0].to_string(), "linux/arm64");
        assert!(wanted.problems.is_empty(), "{:?}", wanted.problems);
        assert!(!format!("{wanted:?}").contains("secret"));
    }

    #[test]
    fn credentials_go_to_their_registry_only() {
        let group = r#"{"group":"a","registry":"https://other.test",
            "artifacts":[{"repository":"x","tag":["1"]}]}"#;
        let wanted = desired(&[group], "{}").wanted(&enrolment());
        let other = &wanted.upstreams[0];
        assert_eq!((&other.username, &other.password, &other.ca_file), (&None, &None, &None));
    }

    #[test]
    fn what_opens_the_state_opens_the_images_beside_it() {
        let group = r#"{"group":"a","artifacts":[{"repository":"x","tag":["1"]}]}"#;
        let mut own = enrolment();
        for url in ["https://harbor.test/", ""] {
            own.auth.url = url.to_owned();
            let wanted = desired(&[group], "{}").wanted(&own);
            let upstream = &wanted.upstreams[0];
            assert_eq!(upstream.username.as_deref(), Some("robot$edge1"), "{url:?}");
            assert_eq!(upstream.ca_file.as_deref(), Some(std::path::Path::new("/ca")));
        }
    }

    #[test]
    fn an_image_of_two_groups_is_held_once() {
        let pinned = digest(7);
        let one = r#"{"group":"a","platforms":["linux/arm64"],
            "artifacts":[{"repository":"x","tag":["1"]}]}"#;
        let two = format!(
            r#"{{"group":"b","platforms":["linux/amd64","linux/arm64"],
            "artifacts":[{{"repository":"x","tag":["1"],"digest":"{pinned}"}}]}}"#
        );
        let same = desired(&[one, &one.replace("arm64", "amd64")], "{}").wanted(&enrolment());
        assert_eq!((names(&same).len(), same.images[0].platforms.len()), (1, 2));
        assert!(same.problems.is_empty());
        let differs = desired(&[one, &two], "{}").wanted(&enrolment());
        assert_eq!(names(&differs), ["harbor.test/x:1"]);
        assert!(differs.problems[0].contains("/g1:latest: harbor.test/x:1@sha256:"));
    }

    #[test]
    fn what_is_staged_takes_its_place_at_its_time_and_not_before() {
        let group = r#"{"group":"a","artifacts":[{"repository":"x","tag":["1"]},
            {"repository":"y","tag":["1"]}],"staged":{"activateAt":"2026-12-01T02:00:00Z",
            "artifacts":[{"repository":"x","tag":["2"]},{"repository":"y","tag":["1"]}]}}"#;
        let mut desired = desired(&[group], "{}");
        let at = 1_796_090_400;
        assert_eq!(desired.activates_at(), Some(at));
        assert!(!desired.activate(at - 1));
        let wanted = desired.wanted(&enrolment());
        assert_eq!(names(&wanted), ["harbor.test/x:1", "harbor.test/y:1", "harbor.test/x:2"]);
        let activations: Vec<_> = wanted.images.iter().map(|image| image.activation).collect();
        assert_eq!(activations, [Activation::Now, Activation::Now, Activation::At(at)]);
        assert!(desired.activate(at));
        let wanted = desired.wanted(&enrolment());
        assert_eq!(names(&wanted), ["harbor.test/x:2", "harbor.test/y:1"]);
        assert!(wanted.images.iter().all(|image| !image.is_staged()));
        assert_eq!(desired.activates_at(), None);
        let undecided = group.replace(r#""activateAt":"2026-12-01T02:00:00Z","#, "");
        let mut undecided = self::desired(&[&undecided], "{}");
        assert!(!undecided.activate(u64::MAX));
        let wanted = undecided.wanted(&enrolment());
        assert_eq!(wanted.images[2].activation, Activation::Undecided);
    }

    #[test]
    fn what_stays_is_kept_when_the_list_of_groups_changes() {
        let one = r#"{"group":"a","artifacts":[{"repository":"x","tag":["1"]}]}"#;
        let before = desired(&[one, one], "{}");
        let state = SatelliteState {
            states: vec![before.groups[1].url.clone(), "https://harbor.test/new:latest".into()],
            config: String::new(),
        };
        let after = before.with(digest(9), &state);
        assert_eq!(after.groups[0], before.groups[1]);
        assert_eq!((after.groups[1].digest, after.config), (None, None));
    }

    #[test]
    fn it_is_read_again_as_it_was_written() {
        let group = r#"{"group":"a","artifacts":[{"repository":"x","digest":"sha256:
            "}]}"#;
        let group = group.replace("sha256:\n            ", &digest(3).to_string());
        let config = r#"{"app_config":{"heartbeat_interval":"@every 60s"}}"#;
        let before = desired(&[&group], config);
        let bytes = postcard::to_allocvec(&before).unwrap();
        assert_eq!(postcard::from_bytes::<Desired>(&bytes).unwrap(), before);
        assert_eq!(before.report_interval(), Some(Duration::from_secs(60)));
        assert_eq!(before.poll_interval(), None);
        assert_eq!(names(&before.wanted(&enrolment()))[0], format!("harbor.test/x@{}", digest(3)));
    }
}
