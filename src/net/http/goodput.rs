//! Whether a body comes at a rate that is worth waiting for.
//!
//! A peer that sends a byte now and then never runs into a deadline for silence. Only the time that
//! was spent waiting for it counts: a reader that is slow itself, or that keeps to a pace, finds
//! what came meanwhile and has not waited for it.

use std::time::Duration;

/// What came of late, and how long that was waited for.
#[derive(Debug)]
pub(super) struct Goodput {
    span: Duration,
    bytes: u64,
    waited: Duration,
}

impl Goodput {
    /// Looks at `span` of waiting at a time.
    pub fn new(span: Duration) -> Self {
        Self { span, bytes: 0, waited: Duration::ZERO }
    }

    /// After `bytes` that came in `waited`: whether too little came in the last span.
    pub fn is_too_low(&mut self, bytes: u64, waited: Duration) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.waited += waited;
        if self.waited < self.span {
            return false;
        }
        let expected = u128::from(BYTES_PER_SECOND_MIN) * self.waited.as_millis() / 1_000;
        let is_too_low = u128::from(self.bytes) < expected;
        *self = Self::new(self.span);
        is_too_low
    }
}

/// The least that is worth waiting for. A link that carries no more brings a layer of 20 MB in six
/// hours, and holds up everything else meanwhile.
pub(super) const BYTES_PER_SECOND_MIN: u64 = 1 << 10;

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::rc::Rc;

    use super::super::{Client, ClientLimits, ClientRequest, Headers, Method};
    use super::*;
    use crate::clock::SystemClock;
    use crate::kind::Kind;
    use crate::net::{Network, tls};

    #[test]
    fn only_time_spent_waiting_counts() {
        let seconds = Duration::from_secs;
        let too_low = |pieces: &[(u64, u64)]| {
            let mut goodput = Goodput::new(seconds(60));
            let mut pieces = pieces.iter();
            pieces.any(|(bytes, waited)| goodput.is_too_low(*bytes, seconds(*waited)))
        };
        assert!(too_low(&[(1, 20), (1, 20), (1, 20)]));
        assert!(!too_low(&[(1, 20), (1, 20), (70 << 10, 20)]));
        assert!(!too_low(&[(1, 0); 500]), "a reader that never waits");
        assert!(!too_low(&[(30 << 10, 29), (31 << 10, 31), (1, 59)]));
        assert!(too_low(&[(99 << 10, 60), (1, 60)]), "each span by itself");
    }

    #[test]
    fn a_drip_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 x\r\nContent-Length: 9000000\r\n\r\n").unwrap();
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let clock = Rc::new(SystemClock::new());
        let trust = tls::Trust::new(tls::ClientOptions::default(), clock);
        let goodput_span = Duration::from_millis(200);
        let limits = ClientLimits { goodput_span, ..ClientLimits::default() };
        let client = Client::new(trust, Network::default(), limits);
        let (method, headers) = (Method::Get, Headers::new());
        let request =
            ClientRequest { method, url: url.parse().unwrap(), headers, body: Vec::new() };
        let error = smol::block_on(async {
            let response = client.send(request).await.unwrap();
            response.body.bytes(9_000_000).await.unwrap_err()
        });
        assert_eq!(error.kind(), Kind::Retry);
        assert!(error.to_string().contains("less than 1 KiB/s"), "{error}");
    }
}
