//! Signatures of images as cosign writes them with a key.
//!
//! | form | where the signature is |
//! |---|---|
//! | simple signing (sigstore/cosign, specs/SIGNATURE_SPEC.md) | each layer is a payload that names the image's digest; an annotation of the layer is the signature of its bytes |
//! | bundle (sigstore/protobuf-specs, bundle v0.1 to v0.3) | the layer is a document with a DSSE envelope (secure-systems-lab/dsse) of an in-toto statement |
//!
//! An attestation has the form of a bundle too, and may be by the same key; it says something of the
//! image, and not that the image is to be run. So the type of what is signed counts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::Keys;
use crate::oci::Digest;

/// Something in a manifest that may be a signature of an image; its bytes are a blob.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    /// The blob.
    pub blob: Digest,
    form: Form,
}

#[derive(Debug, PartialEq, Eq)]
enum Form {
    /// The blob is signed, and this is the signature.
    Payload(Vec<u8>),
    /// The blob has both.
    Bundle,
}

/// The claims in a manifest that accompanies an image, [`CLAIMS_MAX`] at most; none in what is no
/// such manifest.
pub fn claims(manifest: &[u8]) -> Vec<Claim> {
    let Ok(Signatures { layers }) = serde_json::from_slice(manifest) else { return Vec::new() };
    let claim = |layer: Layer| {
        let form = if layer.media_type == SIMPLE_SIGNING {
            let signature = layer.annotations?.signature?;
            Form::Payload(STANDARD.decode(signature).ok()?)
        } else if layer.media_type.starts_with(BUNDLE) {
            Form::Bundle
        } else {
            return None;
        };
        let fits = layer.size <= CLAIM_BYTES_MAX;
        fits.then_some(Claim { blob: layer.digest, form })
    };
    layers.into_iter().filter_map(claim).take(CLAIMS_MAX).collect()
}

impl Claim {
    /// Whether it is a signature of `image` by one of `keys`; `blob` are its bytes.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self, blob: &[u8], image: &Digest, keys: &Keys) -> Result<(), &'static str> {
        match &self.form {
            Form::Payload(signature) => {
                if !keys.verify(blob, signature) {
                    return Err(FOREIGN);
                }
                let payload: Payload = serde_json::from_slice(blob).map_err(|_| UNREADABLE)?;
                let Critical { image: signed, kind } = payload.critical;
                if kind != SIGNATURE_TYPE {
                    return Err(OTHER_TYPE);
                }
                is_same(signed.digest == image.to_string())
            }
            Form::Bundle => {
                let bundle: Bundle = serde_json::from_slice(blob).map_err(|_| UNREADABLE)?;
                let Envelope { payload, payload_type, signatures } =
                    bundle.envelope.ok_or(OTHER_TYPE)?;
                let payload = STANDARD.decode(payload).map_err(|_| UNREADABLE)?;
                let message = pre_authentication_encoding(&payload_type, &payload);
                let is_good = |signature: &Signature| {
                    let bytes = STANDARD.decode(&signature.sig);
                    bytes.is_ok_and(|bytes| keys.verify(&message, &bytes))
                };
                if !signatures.iter().take(CLAIMS_MAX).any(is_good) {
                    return Err(FOREIGN);
                }
                if payload_type != IN_TOTO {
                    return Err(OTHER_TYPE);
                }
                let statement: Statement =
                    serde_json::from_slice(&payload).map_err(|_| UNREADABLE)?;
                if statement.predicate_type != SIGN_PREDICATE {
                    return Err(OTHER_TYPE);
                }
                is_same(statement.subject.iter().any(|subject| subject.digest.names(image)))
            }
        }
    }
}

fn is_same(is_same: bool) -> Result<(), &'static str> {
    if is_same { Ok(()) } else { Err("is of another image") }
}

/// What a DSSE signature is of (secure-systems-lab/dsse, protocol.md).
fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

#[derive(Deserialize)]
struct Signatures {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: Digest,
    size: u64,
    annotations: Option<Annotations>,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "dev.cosignproject.cosign/signature")]
    signature: Option<String>,
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Signed,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Signed {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

#[derive(Deserialize)]
struct Bundle {
    #[serde(rename = "dsseEnvelope")]
    envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    subject: Vec<Subject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digests,
}

#[derive(Deserialize)]
struct Digests {
    sha256: Option<String>,
    sha512: Option<String>,
}

impl Digests {
    fn names(&self, digest: &Digest) -> bool {
        let (algorithm, hex) = match digest {
            Digest::Sha256(_) => ("sha256", &self.sha256),
            Digest::Sha512(_) => ("sha512", &self.sha512),
        };
        hex.as_ref().is_some_and(|hex| format!("{algorithm}:{hex}") == digest.to_string())
    }
}

/// Signatures of one image in one manifest.
pub const CLAIMS_MAX: usize = 32;
/// The blob of a signature; a bundle with a certificate and an entry of a log has about 10 KiB.
pub const CLAIM_BYTES_MAX: u64 = 64 << 10;
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The version follows.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
const IN_TOTO: &str = "application/vnd.in-toto+json";
const SIGNATURE_TYPE: &str = "cosign container image signature";
const SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
const FOREIGN: &str = "is by another key";
const UNREADABLE: &str = "is unreadable";
const OTHER_TYPE: &str = "is no signature of an image";

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &[u8] = include_bytes!("../../tests/data/cosign/image.json");
    const SIMPLE: [&[u8]; 2] = [
        include_bytes!("../../tests/data/cosign/simple.manifest.json"),
        include_bytes!("../../tests/data/cosign/simple.json"),
    ];
    const BUNDLE: [&[u8]; 2] = [
        include_bytes!("../../tests/data/cosign/bundle.manifest.json"),
        include_bytes!("../../tests/data/cosign/bundle.json"),
    ];
    const ATTESTATION: [&[u8]; 2] = [
        include_bytes!("../../tests/data/cosign/attestation.manifest.json"),
        include_bytes!("../../tests/data/cosign/attestation.json"),
    ];

    fn keys(name: &str) -> Keys {
        let path = format!("{}/tests/data/cosign/{name}", env!("CARGO_MANIFEST_DIR"));
        Keys::parse(&std::fs::read(path).unwrap()).unwrap()
    }

    fn check(
        [manifest, blob]: [&[u8]; 2],
        image: &Digest,
        keys: &Keys,
    ) -> Result<(), &'static str> {
        let [claim] = claims(manifest).try_into().unwrap();
        assert_eq!(claim.blob, Digest::sha256(blob));
        claim.check(blob, image, keys)
    }

    #[test]
    fn what_cosign_signed_is_signed() {
        let (image, good, other) = (Digest::sha256(IMAGE), keys("cosign.pub"), keys("other.pub"));
        for signature in [SIMPLE, BUNDLE] {
            assert_eq!(check(signature, &image, &good), Ok(()));
            assert_eq!(check(signature, &image, &other), Err(FOREIGN));
            let another = Digest::sha256(b"another image");
            assert_eq!(check(signature, &another, &good), Err("is of another image"));
        }
    }

    #[test]
    fn an_attestation_is_no_signature() {
        let image = Digest::sha256(IMAGE);
        assert_eq!(check(ATTESTATION, &image, &keys("cosign.pub")), Err(OTHER_TYPE));
    }

    #[test]
    fn what_was_changed_is_not_signed() {
        let (image, keys) = (Digest::sha256(IMAGE), keys("cosign.pub"));
        for [manifest, blob] in [SIMPLE, BUNDLE] {
            let [claim] = claims(manifest).try_into().unwrap();
            for at in 0..blob.len() {
                let mut changed = blob.to_vec();
                changed[at] ^= 1;
                let checked = claim.check(&changed, &image, &keys);
                // What is neither the payload nor its signature is not signed.
                let is_outside = manifest == BUNDLE[0] && {
                    let same: serde_json::Value = serde_json::from_slice(blob).unwrap();
                    let now = serde_json::from_slice::<serde_json::Value>(&changed);
                    now.is_ok_and(|now| now["dsseEnvelope"] == same["dsseEnvelope"])
                };
                assert!(checked.is_err() || is_outside, "byte {at}: {checked:?}");
            }
        }
    }

    #[test]
    fn what_is_no_signature_has_no_claims() {
        for manifest in [IMAGE, b"", b"{}", b"[1]", b"{\"layers\":{}}"] {
            assert_eq!(claims(manifest), []);
        }
        let layer = format!(
            r#"{{"mediaType":"{SIMPLE_SIGNING}","digest":"{}","size":1,
                "annotations":{{"dev.cosignproject.cosign/signature":"AA=="}}}}"#,
            Digest::sha256(b"x")
        );
        let many = |count| format!(r#"{{"layers":[{}]}}"#, vec![layer.as_str(); count].join(","));
        assert_eq!(claims(many(2).as_bytes()).len(), 2);
        assert_eq!(claims(many(1000).as_bytes()).len(), CLAIMS_MAX);
        let long = many(1).replace("\"size\":1", "\"size\":65537");
        assert_eq!(claims(long.as_bytes()), [], "a claim has a limit of its size");
        let bare = many(1).replace("dev.cosignproject", "dev.other");
        assert_eq!(claims(bare.as_bytes()), []);
    }
}
