//! Reading a blob once, from front to back, and knowing at its end whether it was right.

use std::io;
use std::sync::Arc;

use crate::blob::format::Extent;
use crate::blob::format::layout;
use crate::blob::{Error, Reader, Store};
use crate::flash::Device;
use crate::kind::Kind;
use crate::oci::{Digest, Hasher};

/// A held blob as a stream. What was read is to be believed after [`HashedReader::finish`] only.
pub struct HashedReader {
    device: Arc<dyn Device>,
    extents: Vec<Extent>,
    size: u64,
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
    pub fn open_hashed(&self, digest: &Digest, max: u64) -> Result<HashedReader, Error> {
        let reader = self.look(digest)?;
        HashedReader::new(Arc::clone(self.shared_device()), &reader, max)
    }

    /// All bytes of a blob that is held.
    ///
    /// # Errors
    /// Those of [`Store::open_hashed`] and [`HashedReader::finish`].
    pub fn read_all(&self, digest: &Digest, max: u64) -> Result<Vec<u8>, Error> {
        // No more than memory can have.
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let mut reader = self.open_hashed(digest, max as u64)?;
        let mut bytes = vec![0; usize::try_from(reader.size).unwrap_or(max)];
        // What failed is known at the end.
        let _ = io::Read::read_exact(&mut reader, &mut bytes);
        reader.finish().map(|()| bytes)
    }

    /// As `work` says of the stream of [`Store::open_hashed`], on another thread where the device's
    /// calls may take long, so that it holds up nothing here.
    ///
    /// # Errors
    /// Those of [`Store::open_hashed`] and [`HashedReader::finish`].
    pub async fn hashed_aside<T: Send + 'static>(
        &self,
        digest: &Digest,
        max: u64,
        work: impl FnOnce(&mut HashedReader) -> T + Send + 'static,
    ) -> Result<T, Error> {
        // It keeps the blob's room from being used again.
        let reader = self.look(digest)?;
        let mut checked = HashedReader::new(Arc::clone(self.shared_device()), &reader, max)?;
        let work = move || {
            let value = work(&mut checked);
            checked.finish().map(|()| value)
        };
        self.aside(work).await
    }
}

impl HashedReader {
    fn new(device: Arc<dyn Device>, reader: &Reader, max: u64) -> Result<Self, Error> {
        let digest = *reader.digest();
        if reader.size() > max {
            let has = reader.size();
            let what = format!("{digest}: has {has} bytes, expected {max} or fewer");
            return Err(Error::new(Kind::Invalid, what));
        }
        Ok(Self {
            device,
            extents: reader.record.extents.clone(),
            size: reader.size(),
            digest,
            hash: Hasher::new(digest.algorithm()),
            at: 0,
            failure: None,
        })
    }

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
            let what = format!("{digest}: corrupt on flash, its bytes have digest {found}");
            return Err(Error::new(Kind::Corrupt, what));
        }
        Ok(())
    }
}

impl io::Read for HashedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        match layout::read(self.device.as_ref(), &self.extents, self.at, buffer) {
            Ok(()) => {
                self.hash.update(buffer);
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
        let mut reader = store.open_hashed(&digest, 20_000).unwrap();
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert!(reader.finish().is_ok() && read == bytes);
        assert!(store.open_hashed(&digest, 20_000).unwrap().finish().is_ok());
        assert_eq!(store.read_all(&digest, u64::MAX).map_err(|error| error.kind()), Ok(bytes));
        let wrong = HashedReader {
            digest: Digest::sha256(b"x"),
            ..store.open_hashed(&digest, 20_000).unwrap()
        };
        assert_eq!(wrong.finish().map_err(|error| error.kind()), Err(Kind::Corrupt));
        let length = |checked: &mut HashedReader| io::copy(checked, &mut io::sink()).unwrap();
        let aside = smol::block_on(store.hashed_aside(&digest, 20_000, length));
        assert_eq!(aside.map_err(|error| error.kind()), Ok(20_000));
        let refused = store.open_hashed(&digest, 19_999).map(|_| ()).map_err(|error| error.kind());
        assert_eq!(refused, Err(Kind::Invalid));
    }
}
