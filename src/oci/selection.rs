//! Which children of an index serve a platform.

use std::collections::BTreeSet;

use super::{Child, Digest, Platform};

/// The children of an index, each digest once and in the index's order, by what they are to those
/// who want certain platforms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// They serve one of them, or say of no platform that they are for it.
    pub chosen: Vec<Digest>,
    /// They are attestations of such that serve one of them.
    pub attestations: Vec<Digest>,
    /// They serve others.
    pub others: Vec<Digest>,
}

impl Selection {
    /// Sorts `children`: for each of `platforms` the best match is chosen, the first of equals.
    pub fn new(children: &[Child], platforms: &[Platform]) -> Self {
        let serving = serving(children, platforms);
        let mut selection = Self::default();
        let mut seen = BTreeSet::new();
        for child in children.iter().filter(|child| seen.insert(child.digest)) {
            let list = match (child.attests, &child.platform) {
                _ if serving.contains(&child.digest) => &mut selection.chosen,
                (Some(attested), _) if serving.contains(&attested) => &mut selection.attestations,
                (None, None) => &mut selection.chosen,
                _ => &mut selection.others,
            };
            list.push(child.digest);
        }
        selection
    }
}

/// Of the children that have a platform, the best match for each of `platforms`.
fn serving(children: &[Child], platforms: &[Platform]) -> BTreeSet<Digest> {
    let known = || {
        children.iter().filter_map(|child| {
            let platform = child.platform.as_ref().filter(|platform| !platform.is_unknown());
            platform.map(|platform| (platform, child.digest))
        })
    };
    let best = |wanted: &Platform| {
        let offered = known().filter_map(|(platform, digest)| {
            wanted.distance(platform).map(|distance| (distance, digest))
        });
        offered.min_by_key(|(distance, _)| *distance).map(|(_, digest)| digest)
    };
    if platforms.iter().any(Platform::is_all) {
        return known().map(|(_, digest)| digest).collect();
    }
    platforms.iter().filter_map(best).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(platform: &str) -> Child {
        let digest = Digest::sha256(platform.as_bytes());
        Child { digest, size: 1, platform: platform.parse().ok(), attests: None }
    }

    fn pick(offered: &[&str], wanted: &[&str]) -> Vec<String> {
        let children: Vec<_> = offered.iter().map(|text| child(text)).collect();
        let wanted: Vec<Platform> = wanted.iter().map(|text| text.parse().unwrap()).collect();
        let chosen = Selection::new(&children, &wanted).chosen.into_iter();
        let child = |digest| children.iter().find(|child| child.digest == digest).unwrap();
        chosen.map(|digest| child(digest).platform.as_ref().unwrap().to_string()).collect()
    }

    #[test]
    fn older_variants_and_fewer_bits_are_fallen_back_to() {
        let all = ["linux/amd64", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"];
        assert_eq!(pick(&all, &["linux/arm/v7"]), ["linux/arm/v7"]);
        assert_eq!(pick(&all[..3], &["linux/arm/v7"]), ["linux/arm/v6"]);
        assert_eq!(pick(&all[..2], &["linux/arm/v7"]), ["linux/arm/v5"]);
        assert_eq!(pick(&all, &["linux/arm/v6"]), ["linux/arm/v6"]);
        assert!(pick(&all[3..4], &["linux/arm/v6"]).is_empty());
        assert_eq!(pick(&all, &["linux/arm64"]), ["linux/arm64/v8"]);
        assert_eq!(pick(&all[..4], &["linux/arm64"]), ["linux/arm/v7"]);
        assert!(pick(&all[4..], &["linux/arm/v7"]).is_empty());
        assert_eq!(pick(&all, &["linux/amd64", "linux/arm64/v8"]).len(), 2);
        assert!(pick(&["windows/amd64"], &["linux/amd64"]).is_empty());
        let levels = ["linux/386", "linux/amd64", "linux/amd64/v3", "linux/arm64/v8.2"];
        assert_eq!(pick(&levels, &["linux/amd64/v2"]), ["linux/amd64"]);
        assert_eq!(pick(&levels, &["linux/amd64/v4"]), ["linux/amd64/v3"]);
        assert_eq!(pick(&levels[..1], &["linux/amd64"]), ["linux/386"]);
        assert_eq!(pick(&levels, &["linux/arm64/v9"]), ["linux/arm64/v8.2"]);
        assert!(pick(&levels, &["linux/arm64"]).is_empty());
        assert!(pick(&["linux/mips/softfloat"], &["linux/mips"]).is_empty());
    }

    #[test]
    fn all_is_everything_but_what_is_unknown() {
        let children = ["linux/amd64", "windows/amd64", "unknown/unknown"].map(child);
        let selection = Selection::new(&children, &[Platform::all()]);
        let [linux, windows, unknown] = children.map(|child| child.digest);
        let expected = Selection {
            chosen: vec![linux, windows],
            others: vec![unknown],
            ..Selection::default()
        };
        assert_eq!(selection, expected);
    }

    #[test]
    fn attestations_of_what_is_chosen_come_along() {
        let image = child("linux/amd64");
        let other = child("linux/arm64");
        let attest = |of: &Child| {
            let digest = Digest::sha256(&of.digest.bytes()[..4]);
            Child { digest, attests: Some(of.digest), ..child("unknown/unknown") }
        };
        let bare = Child { platform: None, ..child("x/y") };
        let twice = image.clone();
        let children = [image.clone(), other.clone(), attest(&image), attest(&other), bare, twice];
        let selection = Selection::new(&children, &["linux/amd64".parse().unwrap()]);
        let [image, other, attestation, of_other, bare, _] = children.map(|child| child.digest);
        let expected = Selection {
            chosen: vec![image, bare],
            attestations: vec![attestation],
            others: vec![other, of_other],
        };
        assert_eq!(selection, expected);
    }
}
