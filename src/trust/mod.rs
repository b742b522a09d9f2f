//! Who signed what: public keys, and the signatures that cosign puts beside images.
//!
//! Pure: bytes in, a verdict out. Nothing is asked of a transparency log or of an authority; the keys
//! are those that the configuration names.

mod cosign;
mod keys;

pub use cosign::{CLAIM_BYTES_MAX, Claim, claims};
pub use keys::Keys;
