//! Images that came from files and that are not desired: they stay until they are removed.
//!
//! Who carries an image to a device carries it far, and the reconciler removes what is not desired
//! at its next pass. So the log has a document of their names, a line each.

use super::{Error, Store};
use crate::kind::Kind;
use crate::oci::Reference;

/// The names of those images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imports(Vec<Reference>);

impl Imports {
    /// What the log has of them.
    pub fn of(store: &Store) -> Self {
        let bytes = store.document(DOCUMENT).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        // A line of a newer version is of no use to this one.
        Self(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// All names.
    pub fn names(&self) -> &[Reference] {
        &self.0
    }

    /// Adds a name.
    ///
    /// # Errors
    /// [`Kind::Full`] when all names would have more than [`NAMES_BYTES_MAX`].
    pub fn add(&mut self, name: &Reference) -> Result<(), Error> {
        if self.0.iter().any(|known| known.is_same_tag(name)) {
            return Ok(());
        }
        let bytes: usize = self.0.iter().chain([name]).map(|name| name.to_string().len() + 1).sum();
        if bytes > NAMES_BYTES_MAX {
            let what = format!(
                "{name}: {} images were imported that no [[image]] names, expected no more: name \
                 some, or remove them",
                self.0.len()
            );
            return Err(Error::new(Kind::Full, what));
        }
        self.0.push(name.clone());
        Ok(())
    }

    /// Takes a name away; whether it was there.
    pub fn remove(&mut self, name: &Reference) -> bool {
        let before = self.0.len();
        self.0.retain(|known| !known.is_same_tag(name));
        self.0.len() < before
    }

    /// Makes the log say so; durable when it returns.
    ///
    /// # Errors
    /// The log's own.
    pub async fn record(&self, store: &Store) -> Result<(), Error> {
        let lines: String = self.0.iter().map(|name| format!("{name}\n")).collect();
        store.set_document(DOCUMENT, lines.as_bytes()).await
    }
}

const DOCUMENT: &str = "imported";
/// Some hundred names; a document may have twice as much.
const NAMES_BYTES_MAX: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::flash::{Geometry, sim};
    use crate::metrics::Metrics;

    #[test]
    fn names_are_kept_once_and_bounded() {
        let geometry = Geometry {
            segment_count: 32,
            segment_bytes: 262_144,
            program_bytes: 64,
            reprogram: true,
        };
        let device = Arc::new(sim::Device::new(geometry));
        let (store, _) = Store::open(device, Rc::new(Metrics::default())).unwrap();
        let name = |text: &str| text.parse::<Reference>().unwrap();
        let mut imports = Imports::of(&store);
        assert_eq!(imports, Imports::default());
        for text in ["registry.test/app:1", "app:2", "docker.io/library/app:2"] {
            imports.add(&name(text)).unwrap();
        }
        smol::block_on(imports.record(&store)).unwrap();
        let mut found = Imports::of(&store);
        assert_eq!(found.names(), [name("registry.test/app:1"), name("app:2")]);
        assert!(found.remove(&name("app:2")) && !found.remove(&name("app:2")));
        let refused = (0..).find_map(|number| found.add(&name(&format!("app:x{number}"))).err());
        assert_eq!(refused.unwrap().kind(), Kind::Full);
        smol::block_on(found.record(&store)).unwrap();
        smol::block_on(Imports::default().record(&store)).unwrap();
        assert!(store.document(DOCUMENT).is_none());
    }
}
