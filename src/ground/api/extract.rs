//! Who asks, and what they say: the extractors that every handler starts with.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use crate::fleet::{shown, valid_name};
use crate::ground::app::App;
use crate::ground::fault::Fault;
use crate::ground::journal::{self, Kind};
use crate::ground::limit::Peer;
use crate::ground::model::Lifecycle;
use crate::ground::store::{Role, Satellite, User};
use crate::ground::tls::Certified;
use crate::ground::{clock, secret};

/// A body of JSON, whatever its content type: Go does not look at that either. The routes limit its
/// length, as that of forms.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Body<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Fault> {
        let bytes = Bytes::from_request(request, app).await.map_err(|rejection| match rejection
            .status()
        {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "body: longer than this request may have")
            }
            _ => Fault::bad("Invalid request body"),
        })?;
        // What the parser says may quote the body, and a body may hold a password.
        serde_json::from_slice(&bytes).map(Self).map_err(|_| Fault::bad("Invalid request body"))
    }
}

/// The fields of a query; what is none of them is refused as any other input is.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Query<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Fault> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|fields| Self(fields.0))
            .map_err(|rejection| Fault::bad(format!("query: {}", rejection.body_text())))
    }
}

/// A person with any role, by a session, a password or a token of theirs.
pub struct Person {
    pub user: User,
    /// What may be done: the user's role, or less with a token.
    pub role: Role,
    pub is_token: bool,
    /// Who it is in the audit log.
    pub actor: String,
}

impl Person {
    /// Refuses tokens: what one that was stolen made would outlive it.
    pub fn in_person(&self, refused: &str) -> Result<(), Fault> {
        if self.is_token {
            return Err(Fault::new(StatusCode::FORBIDDEN, refused));
        }
        Ok(())
    }
}

/// A person who may change the fleet.
pub struct Editor(pub Person);

/// A person who may do all.
pub struct SystemAdmin(pub Person);

impl FromRequestParts<Arc<App>> for Person {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Fault> {
        let header = authorization(&parts.headers).ok_or_else(Fault::unauthorized)?;
        let of = |user: User| Self {
            role: user.role,
            actor: user.username.clone(),
            is_token: false,
            user,
        };
        match secret::bearer(header) {
            Some(token) if token.starts_with(TOKEN_PREFIX) => by_token(app, token).await,
            Some(token) => {
                let mut read = app.store.read().await?;
                let user = read.rows().session_user(&secret::hash(token), clock::now()).await?;
                user.map(of).ok_or_else(Fault::unauthorized)
            }
            None => {
                let basic = secret::basic(header).ok_or_else(Fault::unauthorized)?;
                let peer = parts.extensions.get::<Peer>().copied();
                check_password(app, peer, &basic.0, basic.1).await.map(of)
            }
        }
    }
}

async fn by_token(app: &App, text: &str) -> Result<Person, Fault> {
    let now = clock::now();
    let found = app.store.read().await?.rows().token_by_hash(&secret::hash(text), now).await?;
    let (token, user) = found.ok_or_else(Fault::unauthorized)?;
    if token.used_at.is_none_or(|used_at| now - used_at > TOKEN_USED_SECONDS * clock::SECOND) {
        let mut write = app.store.write().await?;
        write.rows().set_token_used(&token.name, now).await?;
        write.commit().await?;
    }
    Ok(Person {
        role: token.role.min(user.role),
        is_token: true,
        actor: format!("{} (token {})", user.username, token.name),
        user,
    })
}

impl FromRequestParts<Arc<App>> for Editor {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Fault> {
        at_least(Role::Admin, parts, app).await.map(Self)
    }
}

impl FromRequestParts<Arc<App>> for SystemAdmin {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Fault> {
        at_least(Role::SystemAdmin, parts, app).await.map(Self)
    }
}

async fn at_least(role: Role, parts: &mut Parts, app: &Arc<App>) -> Result<Person, Fault> {
    let person = Person::from_request_parts(parts, app).await?;
    if person.role >= role {
        return Ok(person);
    }
    Err(Fault::new(StatusCode::FORBIDDEN, "Forbidden"))
}

/// The one place where a person's password is checked, for log-ins and for Basic alike: five wrong
/// ones in a row lock the user for five minutes, and while it is locked no password is looked at.
pub async fn check_password(
    app: &App,
    peer: Option<Peer>,
    username: &str,
    password: String,
) -> Result<User, Fault> {
    let refused = || Fault::new(StatusCode::UNAUTHORIZED, "Invalid credentials");
    let principal = (peer.map(|peer| peer.0), username);
    let network = peer.map(|peer| network(peer.0));
    if !app.limits.addresses.take(network) || !app.limits.logins.take(principal) {
        return Err(Fault::too_many());
    }
    let user = app.store.read().await?.rows().user(username).await?;
    if user.as_ref().is_some_and(|user| user.locked_until > clock::now()) {
        return Err(refused());
    }
    let hash = user.as_ref().map(|user| user.password_hash.clone());
    let right = app.passwords.verify(password, hash).await?;
    let Some(user) = user else {
        app.metrics.logins_failed.add_one();
        return Err(refused());
    };
    if !right {
        app.metrics.logins_failed.add_one();
        let until = clock::now() + LOCK_SECONDS * clock::SECOND;
        let mut write = app.store.write().await?;
        write.rows().count_failure(user.id, FAILURES_MAX, until).await?;
        write.commit().await?;
        return Err(refused());
    }
    // Others may have been wrong meanwhile, or the password changed: what counts is what the
    // database has now.
    let mut write = app.store.write().await?;
    let confirmed =
        write.rows().confirm_password(user.id, &user.password_hash, clock::now()).await?;
    write.commit().await?;
    if !confirmed {
        return Err(refused());
    }
    // Wrong passwords are limited, not a script that sends the right one each time.
    app.limits.logins.give_back(principal);
    app.limits.addresses.give_back(network);
    Ok(user)
}

/// What one attacker has of addresses at no cost: an IPv4 address, or a /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

/// A satellite, by the credentials it was given at its enrolment, or by its certificate.
pub struct Robot(pub Satellite);

impl FromRequestParts<Arc<App>> for Robot {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Fault> {
        let refused = || Fault::new(StatusCode::UNAUTHORIZED, "Invalid credentials");
        let Some(header) = authorization(&parts.headers) else {
            let certified = parts.extensions.get::<Certified>().ok_or_else(refused)?;
            let found = app.store.read().await?.rows().satellite(&certified.name).await?;
            let is_in = |one: &Satellite| {
                !matches!(one.lifecycle(), Lifecycle::Revoked | Lifecycle::Waiting)
            };
            return found.filter(is_in).map(Self).ok_or_else(refused);
        };
        let (username, password) = secret::basic(header).ok_or_else(refused)?;
        authenticate_robot(app, &username, &password).await?.map(Self).ok_or_else(refused)
    }
}

/// The satellite that the credentials are of.
///
/// The first use of new credentials makes them the only ones, and spends the enrolment token.
pub async fn authenticate_robot(
    app: &App,
    username: &str,
    password: &str,
) -> Result<Option<Satellite>, Fault> {
    let Some(name) = username.strip_prefix(ROBOT_PREFIX) else { return Ok(None) };
    let satellite = app.store.read().await?.rows().satellite(name).await?;
    let Some(mut satellite) = satellite else { return Ok(None) };
    let hash = secret::hash(password);
    if satellite.next_secret_hash.as_ref() == Some(&hash) {
        let now = clock::now();
        let mut write = app.store.write().await?;
        let accepted = write.rows().accept_secret(satellite.id, &hash, now).await?;
        // A refreshed secret is none of an enrolment.
        if accepted && satellite.enrolment_expires_at != 0 {
            let message = "a device used the credentials of its enrolment";
            let event = journal::event(Kind::Enrolled, &satellite.name, "", message);
            write.rows().add_event(&event).await?;
        }
        write.commit().await?;
        if !accepted {
            // Another request may have used the same secret first.
            let satellite = app.store.read().await?.rows().satellite(name).await?;
            return Ok(satellite.filter(|now| now.secret_hash.as_ref() == Some(&hash)));
        }
        satellite.secret_hash = satellite.next_secret_hash.take();
        satellite.secret_at = now;
        satellite.enrolment_expires_at = 0;
        return Ok(Some(satellite));
    }
    Ok((satellite.secret_hash.as_ref() == Some(&hash)).then_some(satellite))
}

/// The text of the `Authorization` header.
pub fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()
}

/// Holds the name of something new to the grammar; `reserved` are the paths beside such names.
pub fn check_name(what: &str, name: &str, reserved: &[&str]) -> Result<(), Fault> {
    if !valid_name(name) {
        let name = shown(name);
        return Err(Fault::bad(format!(
            "{what} {name}: expected lower-case letters, digits and . _ - between"
        )));
    }
    if reserved.contains(&name) {
        return Err(Fault::bad(format!("{what} {name:?}: expected another name")));
    }
    Ok(())
}

/// What the user names of satellites begin with, as in Harbor.
pub const ROBOT_PREFIX: &str = "robot$";
/// What API tokens begin with, to differ from sessions, and to be found where they leaked.
pub const TOKEN_PREFIX: &str = "gct_";
/// The use of a token is noted at most so often.
const TOKEN_USED_SECONDS: i64 = 3600;
const FAILURES_MAX: i64 = 5;
const LOCK_SECONDS: i64 = 5 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_one_principal() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!((of("192.0.2.1"), of("::ffff:192.0.2.1")), (of("192.0.2.1"), of("192.0.2.1")));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
