//! An error's line says all there is to say, once; its sources lead down to what the system said.

use std::error::Error;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::clock::sim::SimulatedClock;
use crate::net::{Network, tls};
use crate::registry::{self, Registry};
use crate::satellite::unmounted::Unmounted;
use crate::{archive, blob, control, fetch, flash, pull};

/// As the layers put it into their lines: in lower case, without the number.
fn words(error: &dyn Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap().to_owned()
}

/// Checks every error of a chain, and returns the last one's kind and the number of errors.
fn walk(error: &(dyn Error + 'static)) -> (io::ErrorKind, usize) {
    let (mut last, mut count) = (error, 1);
    while let Some(source) = last.source() {
        let (line, cause) = (words(last), words(source));
        assert_eq!(line.matches(&cause).count(), 1, "{cause:?} in {line:?}");
        (last, count) = (source, count + 1);
    }
    let system = last.downcast_ref::<io::Error>();
    (system.unwrap_or_else(|| panic!("{error}: ends with {last:?}")).kind(), count)
}

/// The error of a registry that does not listen.
fn unreachable() -> registry::Error {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options = registry::Options {
        registry: "nobody.test".to_owned(),
        url: format!("http://127.0.0.1:{port}").parse().unwrap(),
        username: None,
        password: None,
        tls: tls::ClientOptions::default(),
    };
    let clock: SharedClock = Rc::new(SimulatedClock::new(0));
    let registry = Registry::new(options, Network::default(), clock);
    smol::block_on(registry.ping()).unwrap_err()
}

fn no_device() -> flash::Error {
    flash::inspect(Path::new("/dev/null/log")).map(drop).unwrap_err()
}

#[test]
fn a_line_holds_its_cause_once_and_the_source_is_the_systems() {
    let refused = (io::ErrorKind::ConnectionRefused, 3);
    assert_eq!(walk(&unreachable()), refused, "registry, net, system");
    let line = pull::Error::from(unreachable()).about("nobody.test/app:1");
    assert_eq!(walk(&line), (refused.0, 4));
    assert_eq!(walk(&pull::Error::shared(Rc::new(line))).1, 5);
    assert_eq!(walk(&control::Error::from(unreachable())), (refused.0, 4));

    let nowhere = io::ErrorKind::NotADirectory;
    assert_eq!(walk(&no_device()), (nowhere, 2));
    assert_eq!(walk(&blob::Error::from(no_device())), (nowhere, 3));
    assert_eq!(walk(&fetch::Error::from(blob::Error::from(no_device()))), (nowhere, 4));
    assert_eq!(walk(&archive::Error::from(blob::Error::from(no_device()))), (nowhere, 4));
    assert_eq!(walk(&archive::read_keys(Path::new("/dev/null/key")).err().unwrap()).0, nowhere);

    assert_eq!(walk(&Unmounted::from(no_device())), (nowhere, 3));
    assert_eq!(walk(&Unmounted::from(blob::Error::from(no_device()))), (nowhere, 4));
}

#[test]
fn what_is_held_back_has_no_cause_of_the_systems() {
    let error = crate::net::Error::held_back("day budget used", Duration::from_secs(1));
    assert!(error.source().is_none());
}
