//! Reading a blob once, from front to back, and knowing at its end whether it was right.

use std::io;

use super::{Error, Reader, Store};
use crate::kind::Kind;
use crate::oci::{Digest, Hasher};

/// A held blob as a stream. What was read is to be believed after [`Checked::finish`] only.
pub struct Checked {
    reader: Reader,
    digest: Digest,
    hash: Hasher,
    at: u64,
    failure: Option<Error>,
}

impl Store {
    /// Opens a blob of at most `max` bytes that is held, to read it in pieces; it counts as looked
    /// at, not as used.
    ///
    /// # Errors
    /// [`Kind::Missing`] when it is not held, [`Kind::Invalid`] when it has more bytes.
    pub fn checked(&self, digest: &Digest, max: u64) -> Result<Checked, Error> {
        let reader = self.look(digest)?;
        if reader.size() > max {
            let has = reader.size();
            let what = format!("{digest}: has {has} bytes, expected {max} or fewer");
            return Err(Error::new(Kind::Invalid, what));
        }
        let hash = Hasher::new(digest.algorithm());
        Ok(Checked { reader, digest: *digest, hash, at: 0, failure: None })
    }
}

impl Checked {
    /// Reads what is left, and compares the whole with its digest.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] when the bytes are not those of the digest; the device's own.
    pub fn finish(mut self) -> Result<(), Error> {
        let mut buffer = [0; BUFFER_BYTES];
        while self.failure.is_none() && io::Read::read(&mut self, &mut buffer).unwrap_or(0) > 0 {}
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let found = self.hash.finish();
        if found != self.digest {
            let digest = self.digest;
            let what = format!("{digest}: rotten on flash, its bytes have digest {found}");
            return Err(Error::new(Kind::Corrupt, what));
        }
        Ok(())
    }
}

impl io::Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.reader.read_at(self.at, buffer) {
            Ok(length) => {
                self.hash.update(buffer.get(..length).unwrap_or_default());
                self.at += length as u64;
                Ok(length)
            }
            Err(error) => {
                let text = error.to_string();
                self.failure = Some(error);
                Err(io::Error::other(text))
            }
        }
    }
}

const BUFFER_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::flash::{Geometry, sim};
    use crate::metrics::Metrics;

    #[test]
    fn what_is_wrong_is_known_at_the_end() {
        let geometry =
            Geometry { segment_count: 9, segment_bytes: 65536, program_bytes: 64, reprogram: true };
        let device = Arc::new(sim::Device::new(geometry));
        let (store, _) = Store::open(device, Rc::new(Metrics::default())).unwrap();
        let bytes = vec![7; 20_000];
        let digest = Digest::sha256(&bytes);
        smol::block_on(store.put(&digest, &bytes, None)).unwrap();
        let mut checked = store.checked(&digest, 20_000).unwrap();
        let mut read = Vec::new();
        checked.read_to_end(&mut read).unwrap();
        assert!(checked.finish().is_ok() && read == bytes);
        assert!(store.checked(&digest, 20_000).unwrap().finish().is_ok());
        let wrong =
            Checked { digest: Digest::sha256(b"x"), ..store.checked(&digest, 20_000).unwrap() };
        assert_eq!(wrong.finish().map_err(|error| error.kind()), Err(Kind::Corrupt));
        let refused = store.checked(&digest, 19_999).map(|_| ()).map_err(|error| error.kind());
        assert_eq!(refused, Err(Kind::Invalid));
    }
}
