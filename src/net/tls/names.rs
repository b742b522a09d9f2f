//! The names in a certificate that a client has shown and that was verified: its DNS names, and the
//! common name of its subject, which is what most tools write and TLS itself does not look at.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// None of one that cannot be read.
pub fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(read) = EndEntityCert::try_from(certificate) else { return Vec::new() };
    let dns = read.valid_dns_names().map(str::to_owned);
    dns.chain(common_name(read.subject())).take(NAMES_MAX).collect()
}

/// The last common name of a subject: RFC 5280 section 4.1.2.4 puts what is larger first.
fn common_name(subject: &[u8]) -> Option<String> {
    let (mut found, mut sets) = (None, subject);
    while let Some((_, set, rest)) = element(sets) {
        sets = rest;
        let mut pairs = set;
        while let Some((_, pair, rest)) = element(pairs) {
            pairs = rest;
            let Some((OBJECT_ID, COMMON_NAME, value)) = element(pair) else { continue };
            if let Some((UTF8_STRING | PRINTABLE_STRING | IA5_STRING, text, _)) = element(value) {
                found = std::str::from_utf8(text).ok().map(str::to_owned);
            }
        }
    }
    found
}

/// Tag and contents of the first element of DER, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(*short), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        // No name is that long.
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((*tag, contents, rest))
}

const OBJECT_ID: u8 = 0x06;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
/// Names that are looked at; a certificate of a client has one or two.
const NAMES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(common_names: &[&str], dns: &[&str]) -> CertificateDer<'static> {
        let dns = dns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = rcgen::CertificateParams::new(dns).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "o".repeat(200));
        for name in common_names {
            params.distinguished_name.push(rcgen::DnType::CommonName, *name);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn dns_names_and_the_common_name() {
        assert_eq!(names(&certificate(&["edge 1"], &[])), ["edge 1"]);
        assert_eq!(
            names(&certificate(&["edge"], &["a.test", "b.test"])),
            ["a.test", "b.test", "edge"]
        );
        assert_eq!(names(&certificate(&[], &[])), [""; 0]);
        assert_eq!(names(&CertificateDer::from(b"none".as_slice())), [""; 0]);
    }

    #[test]
    fn a_subject_that_ends_anywhere_has_no_name_or_its_name() {
        let pair = [&[0x30, 9, 6, 3][..], COMMON_NAME, &[0x0c, 2, b'a', b'b']].concat();
        let subject = [&[0x31, 11][..], &pair].concat();
        assert_eq!(common_name(&subject).as_deref(), Some("ab"));
        for end in 0..subject.len() {
            assert_eq!(common_name(&subject[..end]), None, "{end}");
        }
        let twice = [subject.clone(), subject.clone()].concat();
        for at in 0..twice.len() {
            for bit in 0..8 {
                let mut flipped = twice.clone();
                flipped[at] ^= 1 << bit;
                let _ = common_name(&flipped);
            }
        }
    }
}
