//! What container runtimes pull from: whether it answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::{Finding, within};
use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::kind::Kind;
use crate::net::http::{Client, ClientLimits, ClientRequest, Headers, Method};
use crate::net::{Error, Network, tls};

/// Looks at every address of `[serve]`.
pub async fn listens(config: &Config, is_running: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for address in &config.serve.listen {
        findings.push(answers(*address, config.serve.tls.is_some(), is_running).await);
    }
    findings
}

async fn answers(address: SocketAddr, is_tls: bool, is_running: bool) -> Finding {
    let check = format!("serve {address}");
    // From here, any address is this device.
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let address = SocketAddr::new(ip, address.port());
    let advice = match is_running {
        true => "see the log of moonlet run: the address may not be up, or another has the port",
        false => "start moonlet: nothing is served before",
    };
    match within(DEADLINE, ask(address, is_tls)).await {
        Some(Ok(seen)) => Finding::ok(check, seen),
        Some(Err(error)) => Finding::fail(check, error.to_string(), advice),
        None => {
            let seen = format!("no answer within {} s", DEADLINE.as_secs());
            Finding::fail(check, seen, advice)
        }
    }
}

/// What answers. With TLS only that something listens is looked at: whom its certificate is for is
/// a matter of the clients' network.
async fn ask(address: SocketAddr, is_tls: bool) -> Result<String, Error> {
    let clock: SharedClock = Rc::new(SystemClock::new());
    let trust = tls::Trust::new(tls::ClientOptions::default(), clock);
    let client = Client::new(trust, Network::default(), ClientLimits::default());
    let url = format!("http://{address}/v2/").parse();
    let url = url.map_err(|error| Error::new(Kind::Invalid, format!("{address}: {error}")))?;
    if is_tls {
        client.connect(&url).await?;
        return Ok("listens, with TLS".to_owned());
    }
    let request = ClientRequest { method: Method::Get, url, headers: Headers::new(), body: vec![] };
    match client.send(request).await?.status {
        200 => Ok("answers".to_owned()),
        401 => Ok("answers those who have a password".to_owned()),
        503 => {
            let what = "status 503 from /v2/: its users cannot be read, see moonlet status";
            Err(Error::new(Kind::Invalid, what))
        }
        status => {
            let what = format!("status {status} from /v2/, expected 200: is it another program?");
            Err(Error::new(Kind::Invalid, what))
        }
    }
}

const DEADLINE: Duration = Duration::from_secs(3);
