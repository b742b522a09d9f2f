//! Server and client over TLS, and certificates that fail.

use super::*;

/// Certificates for one test.
struct Pki {
    folder: PathBuf,
}

impl Pki {
    fn new(name: &str) -> Self {
        let folder = format!("moonlet-pki-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn authority(&self, name: &str) -> rcgen::CertifiedIssuer<'static, rcgen::KeyPair> {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        std::fs::write(self.path(name), issuer.pem()).unwrap();
        issuer
    }

    /// Writes NAME.crt and NAME.key.
    fn leaf(
        &self,
        name: &str,
        host: &str,
        last_year: i32,
        issuer: &rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    ) -> (PathBuf, PathBuf) {
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        let paths = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        std::fs::write(&paths.0, certificate.pem()).unwrap();
        std::fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn tls_client(options: &tls::ClientOptions) -> Client {
    let trust = tls::Trust::new(options.clone(), clock());
    Client::new(trust, Network::default(), ClientLimits::default())
}

#[test]
fn tls_carries_large_and_small_bodies() {
    let pki = Pki::new("round-trip");
    let (cert, key) = pki.leaf("server", "127.0.0.1", 4000, &pki.authority("ca"));
    let (file, bytes, path) = numbered_file();
    let handler = Echo { file: Some(file), ..Echo::default() };
    let config = tls::server_config(&cert, &key, None).unwrap();
    with_server(ServerLimits::default(), Some(config), handler, async |fixture| {
        let ca_file = Some(pki.path("ca"));
        let options = tls::ClientOptions { ca_file, ..Default::default() };
        let client = tls_client(&options);
        for _ in 0..2 {
            let url = format!("https://{}/files", fixture.address);
            assert!(get(&client, &url).await.unwrap() == spans_of(&bytes));
            let url = format!("https://{}/small", fixture.address);
            assert_eq!(get(&client, &url).await.unwrap(), b"GET /small []");
        }
        assert_eq!(client.network.meter.connections(), 1);
        let gated = format!("https://{}/gated", fixture.address);
        let error = get(&client, &gated).await.unwrap_err().to_string();
        assert!(error.ends_with("body ended at byte 3000001 of 3070006"), "{error}");
        let url = format!("https://{}/short", fixture.address);
        let error = get(&client, &url).await.unwrap_err();
        assert!(error.to_string().ends_with("body ended at byte 60 of 100"), "{error}");
    });
    std::fs::remove_file(path).unwrap();
}

#[test]
fn certificates_that_fail_are_explained() {
    let pki = Pki::new("explained");
    let issuer = pki.authority("ca");
    let trusting = tls::ClientOptions { ca_file: Some(pki.path("ca")), ..Default::default() };
    let cases = [
        ("unknown", "127.0.0.1", 4000, tls::ClientOptions::default(), "signed by an unknown ca"),
        ("expired", "127.0.0.1", 2021, trusting.clone(), "expired on 2021-01-01, and today is"),
        ("name", "registry.example", 4000, trusting, "is for registry.example: expected 127.0.0.1"),
    ];
    for (name, host, last_year, options, expected) in cases {
        let (cert, key) = pki.leaf(name, host, last_year, &issuer);
        let config = tls::server_config(&cert, &key, None).unwrap();
        with_server(ServerLimits::default(), Some(config), Echo::default(), async |fixture| {
            let client = tls_client(&options);
            let error = get(&client, &format!("https://{}/", fixture.address)).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
            let begin = format!("certificate of {}", fixture.address);
            let text = error.to_string();
            assert!(text.starts_with(&begin) && text.contains(expected), "{text}");
        });
    }
    plain(async |fixture| {
        let client = client(ClientLimits::default());
        let error = get(&client, &format!("https://{}/", fixture.address)).await.unwrap_err();
        assert!(error.to_string().contains("does not speak tls"), "{error}");
    });
}

#[test]
fn clients_without_a_certificate_are_refused() {
    let pki = Pki::new("mutual");
    let issuer = pki.authority("ca");
    let (cert, key) = pki.leaf("server", "127.0.0.1", 4000, &issuer);
    let client_cert = Some(pki.leaf("client", "satellite", 4000, &issuer));
    let config = tls::server_config(&cert, &key, Some(&pki.path("ca"))).unwrap();
    with_server(ServerLimits::default(), Some(config), Echo::default(), async |fixture| {
        let url = format!("https://{}/x", fixture.address);
        let mut options =
            tls::ClientOptions { ca_file: Some(pki.path("ca")), ..Default::default() };
        let error = get(&tls_client(&options), &url).await.unwrap_err();
        assert!(error.to_string().contains("refused our client certificate"), "{error}");
        options.client_cert = client_cert;
        let body = get(&tls_client(&options), &url).await.unwrap();
        assert_eq!(body, b"GET /x []");
    });
}
