//! Who may do what in the registry that this server signs tokens for.
//!
//! The state below `satellite/` is written by this server alone, and each satellite reads its own and
//! the images of its groups. People read images, and those who may change the fleet push them. What
//! is not granted is left out of the token, as the token specification has it: the registry refuses it.

use std::collections::BTreeSet;

use super::app::App;
use super::auth::{authenticate_robot, check_password};
use super::fault::Fault;
use super::limit::Peer;
use super::publisher::Publisher;
use super::signer::Access;
use super::store::{Role, Rows, Satellite};
use crate::fleet::state::{config_repository, satellite_repository};

/// What is asked for: `repository:NAME:ACTION,ACTION`, as often as it is asked.
pub fn scopes(query: &str) -> Vec<(String, BTreeSet<String>)> {
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    let asked = pairs.filter(|(name, _)| name == "scope");
    let texts: Vec<String> = asked.map(|(_, scope)| scope.into_owned()).collect();
    // Some clients put several into one, with spaces between.
    let each = texts.iter().flat_map(|text| text.split(' '));
    let scopes = each.filter_map(|scope| {
        let rest = scope.strip_prefix("repository:")?;
        let (repository, actions) = rest.rsplit_once(':')?;
        Some((repository.to_owned(), actions.split(',').map(str::to_owned).collect()))
    });
    scopes.take(SCOPES_MAX).collect()
}

/// What of that is granted to these credentials; None where they are not known.
pub async fn decide(
    app: &App,
    publisher: &Publisher,
    peer: Option<Peer>,
    (username, password): (&str, String),
    asked: Vec<(String, BTreeSet<String>)>,
) -> Result<Option<Vec<Access>>, Fault> {
    if publisher.is_own(username, &password) {
        return Ok(Some(access(asked, |repository| match is_state(repository) {
            true => &ALL,
            false => &PULL,
        })));
    }
    if let Some(satellite) = authenticate_robot(app, username, &password).await? {
        if !app.limits.reads.take(satellite.id) {
            return Err(Fault::too_many());
        }
        let mut read = app.store.read().await?;
        let mut rows = read.rows();
        let mut own = images(&mut rows, publisher, &satellite).await?;
        for (repository, _) in &asked {
            if is_state(repository) && is_own(&mut rows, &satellite, repository).await? {
                own.insert(repository.clone());
            }
        }
        return Ok(Some(access(asked, |repository| match own.contains(repository) {
            true => &PULL,
            false => &[],
        })));
    }
    let user = match check_password(app, peer, username, password).await {
        Ok(user) => user,
        Err(fault) if fault.status == axum::http::StatusCode::UNAUTHORIZED => return Ok(None),
        Err(fault) => return Err(fault),
    };
    Ok(Some(access(asked, |repository| match (is_state(repository), user.role >= Role::Admin) {
        (true, _) => &[],
        (false, true) => &ALL,
        (false, false) => &PULL,
    })))
}

fn access(
    asked: Vec<(String, BTreeSet<String>)>,
    granted: impl Fn(&str) -> &'static [&'static str],
) -> Vec<Access> {
    let each = asked.into_iter().filter_map(|(repository, wanted)| {
        let granted = granted(&repository).iter().copied();
        let actions: Vec<_> = granted.filter(|action| wanted.contains(*action)).collect();
        (!actions.is_empty()).then_some(Access { repository, actions })
    });
    each.collect()
}

fn is_state(repository: &str) -> bool {
    repository.starts_with(STATE)
}

/// The repositories of a satellite's images in that registry, by its groups and what rollouts brought
/// to it.
async fn images(
    rows: &mut Rows<'_>,
    publisher: &Publisher,
    satellite: &Satellite,
) -> Result<BTreeSet<String>, Fault> {
    let mut repositories = BTreeSet::new();
    for group in rows.satellite_versions(satellite.id).await? {
        let staged = group.state.staged.iter().map(|one| (&one.registry, &one.artifacts));
        let lists = staged.chain([(&group.state.registry, &group.state.artifacts)]);
        for (registry, artifacts) in lists {
            if registry.is_empty() || publisher.url.eq_ignore_ascii_case(registry) {
                repositories.extend(artifacts.iter().map(|one| one.repository.clone()));
            }
        }
    }
    Ok(repositories)
}

/// Whether an artifact is for a satellite.
pub async fn is_own(
    rows: &mut Rows<'_>,
    satellite: &Satellite,
    repository: &str,
) -> Result<bool, Fault> {
    if repository == satellite_repository(&satellite.name) {
        return Ok(true);
    }
    if repository == config_repository(&rows.satellite_config(satellite.id).await?) {
        return Ok(true);
    }
    // All versions of its groups: one that was taken back may have been named a moment ago.
    let groups = rows.satellite_groups(satellite.id).await?;
    let part = repository.strip_prefix(GROUPS).and_then(|rest| rest.split('/').next());
    Ok(part.is_some_and(|name| groups.iter().any(|group| group == name)))
}

/// What the repositories of groups begin with.
const GROUPS: &str = "satellite/group-state/";
const STATE: &str = "satellite/";
const PULL: [&str; 1] = ["pull"];
const ALL: [&str; 3] = ["pull", "push", "delete"];
/// Of one token.
const SCOPES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_taken_apart() {
        let asked = "service=x&scope=repository:a/b:pull,push&scope=repository:h:5000/c:pull%20\
            repository:d:delete&scope=registry:catalog:*&scope=repository:e";
        let found: Vec<_> = scopes(asked)
            .into_iter()
            .map(|(name, actions)| (name, actions.into_iter().collect::<Vec<_>>().join(",")))
            .collect();
        let expected = [("a/b", "pull,push"), ("h:5000/c", "pull"), ("d", "delete")];
        assert_eq!(found, expected.map(|(name, actions)| (name.to_owned(), actions.to_owned())));
        let many = "scope=repository:a:pull&".repeat(1000);
        assert_eq!(scopes(&many).len(), SCOPES_MAX);
        // Nothing is granted that was not asked for.
        let asked = scopes("scope=repository:a:push,x&scope=repository:b:pull");
        let granted = access(asked, |repository| if repository == "a" { &ALL } else { &[] });
        assert_eq!(granted.len(), 1);
        assert_eq!(granted.first().map(|one| one.actions.clone()), Some(vec!["push"]));
    }
}
