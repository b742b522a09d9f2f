//! What a configuration says that contradicts itself, or that would silently do nothing.

use std::net::SocketAddr;
use std::ops::Range;

use super::table::Reader;
use super::{Image, Upstream, nearest};
use crate::oci::Platform;

impl Reader<'_> {
    /// An upstream is named once, and is that of some image, or of one that Ground Control may
    /// name.
    pub fn check_upstreams(
        &mut self,
        upstreams: &[(Range<usize>, Upstream)],
        images: &[(Range<usize>, Image)],
        others_may_come: bool,
    ) {
        let named = |name: &str| upstreams.iter().any(|(_, up)| up.registry == name);
        let wanted: Vec<&str> =
            images.iter().map(|(_, image)| image.reference.registry.as_str()).collect();
        for (index, (span, upstream)) in upstreams.iter().enumerate() {
            let name = &upstream.registry;
            let first = upstreams.iter().take(index).find(|(_, other)| other.registry == *name);
            if let Some((first, _)) = first {
                let expected =
                    format!("each registry once, and line {} has it", self.line(first.clone()));
                self.problem(span.clone(), "[[upstream]] registry", &quoted(name), &expected);
                continue;
            }
            let may_be_asked = others_may_come || upstream.pull_through.is_some();
            if wanted.contains(&name.as_str()) || may_be_asked {
                continue;
            }
            let unnamed: Vec<&str> = wanted.iter().copied().filter(|name| !named(name)).collect();
            if let Some(meant) = unnamed.iter().find(|other| host(other) == host(name)) {
                let expected = format!("{meant:?}, as an image has it");
                self.problem(span.clone(), "[[upstream]] registry", &quoted(name), &expected);
                continue;
            }
            let hint = match nearest(name, &unnamed) {
                "" => String::new(),
                meant => format!("; did you mean {meant}?"),
            };
            self.warn(span.clone(), &format!("[[upstream]] {name}: no image is from it{hint}"));
        }
        if upstreams.is_empty() {
            return;
        }
        for (index, (span, image)) in images.iter().enumerate() {
            let name = image.reference.registry.as_str();
            if !named(name) && !wanted.iter().take(index).any(|other| *other == name) {
                let what = "no [[upstream]] has this registry, it is asked over https";
                self.warn(span.clone(), &format!("[[image]] {}: {what}", image.reference));
            }
        }
    }

    /// Each image once: platforms of one that is named several times are put together. What is held
    /// under one tag cannot be two things.
    pub fn merge_images(&mut self, images: Vec<(Range<usize>, Image)>) -> Vec<Image> {
        let mut merged: Vec<(usize, Image)> = Vec::new();
        for (span, image) in images {
            let reference = &image.reference;
            let same = |other: &Image| other.reference.is_same_tag(reference);
            let Some((line, first)) = merged.iter_mut().find(|(_, first)| same(first)) else {
                merged.push((self.line(span), image));
                continue;
            };
            if first.reference.digest != reference.digest {
                let expected = format!("one digest for a tag, and line {line} has another");
                let key = "[[image]] reference";
                self.problem(span, key, &quoted(&reference.to_string()), &expected);
                continue;
            }
            let what = "again; the platforms of both are held";
            self.warn(span, &format!("[[image]] {reference}: line {line} has it {what}"));
            for platform in image.platforms {
                if !first.platforms.contains(&platform) {
                    first.platforms.push(platform);
                }
            }
        }
        merged.into_iter().map(|(_, image)| image).collect()
    }

    /// Every address can be had beside the others. `[::]` leaves IPv4 to an address of IPv4 on the
    /// same port.
    pub fn check_addresses(
        &mut self,
        serve: &[(Range<usize>, SocketAddr)],
        admin: &[(Range<usize>, SocketAddr)],
        proxy: &[(Range<usize>, SocketAddr)],
    ) {
        let keyed = serve.iter().map(|one| ("[serve] listen", one));
        let keyed = keyed.chain(admin.iter().map(|one| ("[admin] listen", one)));
        let keyed = keyed.chain(proxy.iter().map(|one| ("[proxy] listen", one)));
        let all: Vec<_> = keyed.collect();
        for (index, (key, (span, address))) in all.iter().enumerate() {
            let taken = |other: &SocketAddr| {
                let overlaps = other.ip() == address.ip()
                    || other.is_ipv4() == address.is_ipv4()
                        && (other.ip().is_unspecified() || address.ip().is_unspecified());
                other.port() == address.port() && address.port() != 0 && overlaps
            };
            if let Some((_, (_, other))) = all.iter().take(index).find(|(_, one)| taken(&one.1)) {
                let expected = format!("an address that {other} does not cover");
                self.problem(span.clone(), key, &quoted(&address.to_string()), &expected);
            }
        }
    }

    /// Without TLS only this device is faced: anybody else could read what is served and, with
    /// passwords, those too.
    pub fn check_loopback(&mut self, serve: &[(Range<usize>, SocketAddr)], has_passwords: bool) {
        for (span, address) in serve {
            if !address.ip().is_loopback() {
                let what = if has_passwords { " (passwords would cross it in clear)" } else { "" };
                let expected = format!(
                    "a loopback address, tls_cert and tls_key to face a network, or insecure = \
                     true to face it without{what}"
                );
                let value = quoted(&address.to_string());
                self.problem(span.clone(), "[serve] listen", &value, &expected);
            }
        }
    }

    /// An architecture that no image is made for is a spelling that finds nothing.
    pub fn check_platform(&mut self, span: Range<usize>, platform: &Platform) {
        let Platform { os, architecture, .. } = platform;
        if *platform == Platform::all() {
            return;
        }
        if os != "linux" {
            self.warn(span, &format!("platform {platform}: only linux runs here"));
        } else if !ARCHITECTURES.contains(&architecture.as_str()) {
            let known = ARCHITECTURES.join(", ");
            let what = format!("no image is made for {architecture:?}; known are {known}");
            self.warn(span, &format!("platform {platform}: {what}"));
        }
    }
}

/// A registry's name without its port.
fn host(registry: &str) -> &str {
    match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// As Go names them, in which images are labelled.
const ARCHITECTURES: [&str; 12] = [
    "amd64", "arm", "arm64", "386", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64le",
    "riscv64", "s390x",
];
