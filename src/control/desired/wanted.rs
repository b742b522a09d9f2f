//! What a desired state adds to the configuration: images, where they come from, and the ways.

use std::net::SocketAddr;

use super::{Content, Desired, Remote};
use crate::config::{Activation, Image, Secret, Upstream};
use crate::fleet::enrol::Credentials;
use crate::fleet::state::ALL_PLATFORMS;
use crate::net::tls;
use crate::oci::{Platform, Reference, registry_name};

/// The registry of the state, and what opens it: images without a registry of their own come from
/// there, as a Go satellite has it.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Of the enrolment.
    pub auth: Credentials,
    /// Scheme and host of the satellite-state.
    pub state: String,
    /// How TLS is spoken there.
    pub tls: tls::ClientOptions,
}

impl Own {
    /// Whether credentials and certificates are for the registry at `base`.
    pub fn is_at(&self, base: &str) -> bool {
        is_same(&self.auth.url, base) || is_same(&self.state, base)
    }

    /// Where it is.
    fn base(&self) -> &str {
        if self.auth.url.is_empty() { &self.state } else { &self.auth.url }
    }
}

/// What a desired state adds to the configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What to hold, each once.
    pub images: Vec<Image>,
    /// Where that comes from.
    pub upstreams: Vec<Upstream>,
    /// What of it cannot be, a line each.
    pub problems: Vec<String>,
    /// Where to listen; where a list is empty, where the file says. The first is wanted, the second
    /// is kept beside it while that is on trial.
    pub listen: Vec<Vec<SocketAddr>>,
    /// The proxy to go through, in place of the file's.
    pub proxy: Option<url::Url>,
}

impl Desired {
    /// What it adds to the configuration.
    pub fn wanted(&self, own: &Own) -> Wanted {
        let mut wanted = Wanted::default();
        if let Some(config) = &self.config {
            let both = [Some(config), config.before.as_deref()];
            let listen = |one: &Remote| one.ways.listen.iter().flat_map(|a| a.parse()).collect();
            wanted.listen = both.into_iter().flatten().map(listen).collect();
            wanted.proxy = config.ways.proxy.parse().ok();
        }
        for group in &self.groups {
            self.add(&group.url, &group.content, Activation::Now, own, &mut wanted);
        }
        // Behind all that is to be held now.
        for group in &self.groups {
            if let Some((at, content)) = &group.staged {
                let activation = at.map_or(Activation::Undecided, Activation::At);
                self.add(&group.url, content, activation, own, &mut wanted);
            }
        }
        wanted
    }

    fn add(
        &self,
        group: &str,
        content: &Content,
        activation: Activation,
        own: &Own,
        wanted: &mut Wanted,
    ) {
        let base = match content.registry.as_str() {
            "" => own.base(),
            registry => registry,
        };
        if content.images.is_empty() {
            return;
        }
        let Some(upstream) = self.upstream(base, own) else {
            wanted.problems.push(format!("{group}: images of {base:?}, no registry"));
            return;
        };
        let registry = upstream.registry.clone();
        if wanted.upstreams.iter().all(|other| other.registry != registry) {
            wanted.upstreams.push(upstream);
        } else if wanted.upstreams.iter().all(|other| *other != upstream) {
            let what = format!("{group}: {registry} is {base} here and another address in");
            wanted.problems.push(format!("{what} a group before it, which counts"));
        }
        let platforms: Vec<Platform> = match content.platforms.as_slice() {
            [] => vec![Platform::device()],
            all if all.iter().any(|one| one == ALL_PLATFORMS) => vec![Platform::all()],
            some => some.iter().filter_map(|one| one.parse().ok()).collect(),
        };
        for (repository, tags, digest) in &content.images {
            let untagged = tags.is_empty().then_some(None);
            for tag in tags.iter().cloned().map(Some).chain(untagged) {
                let (registry, repository) = (registry.clone(), repository.clone());
                let reference = Reference { registry, repository, tag, digest: *digest };
                let image = Image { reference, platforms: platforms.clone(), activation };
                wanted.image(image, group);
            }
        }
    }

    fn upstream(&self, base: &str, own: &Own) -> Option<Upstream> {
        let url: url::Url = base.parse().ok()?;
        let host = url.host_str()?;
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let given = self.config.as_ref().map(|config| config.registries.as_slice());
        let given = given.unwrap_or_default().iter().find(|(at, ..)| is_same(at, base));
        let own = Some(own).filter(|own| own.is_at(base));
        let credentials = match (given, own) {
            (Some((_, name, password)), _) => Some((name.clone(), password.clone())),
            (None, Some(own)) => Some((own.auth.username.clone(), own.auth.password.clone())),
            (None, None) => None,
        };
        let tls = own.map(|own| own.tls.clone()).unwrap_or_default();
        let (client_cert, client_key) = tls.client_cert.unzip();
        let (username, password) = credentials.unzip();
        Some(Upstream {
            registry: registry_name(&host)?,
            url,
            username,
            password_file: None,
            password: password.map(Secret),
            ca_file: tls.ca_file,
            client_cert,
            client_key,
            pull_through: None,
        })
    }
}

impl Wanted {
    /// Adds an image; one that is in several groups is held for the platforms of all.
    fn image(&mut self, image: Image, group: &str) {
        // What is held already has nothing to wait for.
        if image.is_staged() && self.images.iter().any(|one| one.reference == image.reference) {
            return;
        }
        let is_same = |other: &&mut Image| {
            other.is_staged() == image.is_staged() && other.reference.is_same_tag(&image.reference)
        };
        let Some(first) = self.images.iter_mut().find(is_same) else {
            return self.images.push(image);
        };
        if first.reference.digest != image.reference.digest {
            let (one, other) = (&first.reference, &image.reference);
            self.problems.push(format!("{group}: {other}, and a group before it has {one}"));
        }
        for platform in image.platforms {
            if !first.platforms.contains(&platform) {
                first.platforms.push(platform);
            }
        }
    }
}

/// Whether two URLs are the same registry.
pub fn is_same(one: &str, other: &str) -> bool {
    let origin = |text: &str| text.parse::<url::Url>().ok().map(|url| url.origin());
    origin(one).is_some() && origin(one) == origin(other)
}
