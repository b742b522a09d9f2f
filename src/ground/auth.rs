//! Whose a name and a password are: a person's, or a satellite's.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::{HeaderMap, StatusCode, header};

use super::app::App;
use super::fault::Fault;
use super::journal::Kind;
use super::limit::Peer;
use super::secret::ROBOT_PREFIX;
use super::store::{Satellite, User};
use super::{clock, journal, secret};

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
