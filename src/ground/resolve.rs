//! The state of a group as satellites get it: with digests in the place of the tags that are known.

use super::fault::Fault;
use super::model::Mode;
use super::store::{Group, GroupTag, Rows};
use crate::fleet::state::{ARTIFACTS_MAX, Artifact, GroupState};

/// The state of a group as satellites get it.
pub async fn resolved(rows: &mut Rows<'_>, group: &Group) -> Result<GroupState, Fault> {
    if group.tags == Mode::Off {
        return Ok(group.state.clone());
    }
    let known = rows.group_tags(group.id).await?;
    let mut state = group.state.clone();
    state.artifacts =
        group.state.artifacts.iter().flat_map(|one| with_digests(one, &known)).collect();
    // A rollout may have brought more tags than a group may be given; satellites take no more.
    Ok(if state.artifacts.len() > ARTIFACTS_MAX { group.state.clone() } else { state })
}

/// Refuses what cannot be resolved: each tag goes out as an artifact of its own.
pub fn check(state: &GroupState, mode: Mode) -> Result<(), Fault> {
    let count: usize = state.artifacts.iter().map(|one| one.tags.len().max(1)).sum();
    if mode != Mode::Off && count > ARTIFACTS_MAX {
        let group = &state.group;
        return Err(Fault::bad(format!(
            "group {group}: {count} tags: expected at most {ARTIFACTS_MAX} with tags {}",
            mode.word()
        )));
    }
    Ok(())
}

/// An artifact, with one for each of its tags whose digest is known.
fn with_digests(artifact: &Artifact, known: &[GroupTag]) -> Vec<Artifact> {
    let mut rest = artifact.clone();
    if !artifact.digest.is_empty() || artifact.deleted {
        return vec![rest];
    }
    let mut made = Vec::new();
    rest.tags.retain(|tag| {
        let found = known.iter().find(|one| {
            one.repository == artifact.repository && one.tag == *tag && !one.digest.is_empty()
        });
        let Some(found) = found else { return true };
        let (tags, digest) = (vec![tag.clone()], found.digest.clone());
        made.push(Artifact { tags, digest, ..artifact.clone() });
        false
    });
    if !rest.tags.is_empty() {
        made.push(rest);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_takes_the_place_of_a_tag() {
        let artifact = Artifact {
            repository: "a/b".into(),
            tags: vec!["1".into(), "2".into(), "3".into()],
            ..Artifact::default()
        };
        let tag = |tag: &str, digest: &str| GroupTag {
            repository: "a/b".into(),
            tag: tag.into(),
            digest: digest.into(),
            ..GroupTag::default()
        };
        let known = [tag("1", "sha256:1"), tag("2", ""), tag("3", "sha256:3")];
        let made = with_digests(&artifact, &known);
        let said: Vec<_> =
            made.iter().map(|one| (one.tags.join(","), one.digest.as_str())).collect();
        let expected = [("1", "sha256:1"), ("3", "sha256:3"), ("2", "")];
        assert_eq!(said, expected.map(|(tags, digest)| (tags.to_owned(), digest)));
        let by_digest = Artifact { digest: "sha256:9".into(), ..artifact };
        assert_eq!(with_digests(&by_digest, &known), [by_digest]);
    }
}
