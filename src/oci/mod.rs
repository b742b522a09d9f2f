//! The words of the OCI specifications: digests, references, platforms, manifests, challenges.
//!
//! Pure values: nothing here reads a clock, a file or a socket. Sources: OCI image-spec 1.1,
//! distribution-spec (main, 2026), and Docker's manifest schema 2.

pub mod challenge;
mod digest;
mod json;
mod manifest;
pub mod media_type;
mod pattern;
mod platform;
mod reference;
mod selection;

pub use digest::{Algorithm, DIGEST_FORM, Digest, DigestError, Hasher, SHA512_LEFT_OUT};
pub use manifest::{
    Child, Descriptor, LISTED_MAX, Listed, MANIFEST_BYTES_MAX, Manifest, ManifestError,
    ManifestKind,
};
pub use pattern::{Pattern, PatternError};
pub use platform::{Platform, platform_list};
pub use reference::{
    Reference, ReferenceError, registry_name, valid_registry, valid_repository, valid_tag,
};
pub use selection::Selection;
