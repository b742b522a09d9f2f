//! The words of the OCI specifications: digests, references, platforms, manifests.
//!
//! Pure values: nothing here reads a clock, a file or a socket. Sources: OCI image-spec 1.1,
//! distribution-spec (main, 2026), and Docker's manifest schema 2.

mod digest;

pub use digest::{Algorithm, Digest, DigestError, Hasher};
