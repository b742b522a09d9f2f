//! Reads of what may have left the page cache: those wait for flash, and on a device with one
//! thread everybody would wait with them. What is in the cache is read at once (`RWF_NOWAIT`); the
//! rest is read aside.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::io::{Errno, ReadWriteFlags};

/// Waits until a slice is in the page cache: what has left it would stop everybody for as long as
/// flash takes. Its ends are asked for; what lies between them came and goes with them.
pub(super) async fn make_resident(file: &Arc<File>, offset: u64, len: usize) {
    let last = offset.saturating_add(length_of(len)).saturating_sub(1);
    let mut byte = [0];
    let is_resident = |at: u64, byte: &mut [u8]| {
        // A file system that cannot report this is read as it always was.
        !matches!(read_now(file, byte, at), Some(Err(_)))
    };
    if is_resident(offset, &mut byte) && is_resident(last, &mut byte) {
        return;
    }
    let file = Arc::clone(file);
    smol::unblock(move || {
        let mut block = vec![0; BLOCK_BYTES];
        let mut at = offset;
        while at <= last {
            match file.read_at(&mut block, at) {
                // What cannot be read is found when it is sent.
                Ok(0) | Err(_) => return,
                Ok(got) => at = at.saturating_add(length_of(got)),
            }
        }
    })
    .await;
}

/// Reads what is in the page cache; an error for what is not, nothing where that cannot be asked.
fn read_now(file: &File, block: &mut [u8], offset: u64) -> Option<io::Result<usize>> {
    let mut blocks = [IoSliceMut::new(block)];
    match rustix::io::preadv2(file, &mut blocks, offset, ReadWriteFlags::NOWAIT) {
        Ok(got) => Some(Ok(got)),
        Err(Errno::AGAIN) => Some(Err(io::ErrorKind::WouldBlock.into())),
        Err(_) => None,
    }
}

/// Hands a block of a file to `take`: through `shared`, which is free again when `take` is done, or
/// through memory of its own where it has to come from flash.
pub(super) async fn with_block<T>(
    file: &Arc<File>,
    (offset, len): (u64, usize),
    shared: &RefCell<Vec<u8>>,
    take: impl FnOnce(&[u8]) -> io::Result<T>,
) -> io::Result<T> {
    {
        let mut shared = shared.borrow_mut();
        if shared.len() < len {
            *shared = vec![0; len];
        }
        let block = shared.get_mut(..len).unwrap_or_default();
        let got = match read_now(file, block, offset) {
            None => Some(file.read_at(block, offset)?),
            Some(got) => got.ok(),
        };
        if let Some(got) = got {
            return take(block.get(..got).unwrap_or_default());
        }
    }
    let file = Arc::clone(file);
    let read = smol::unblock(move || {
        let mut bytes = vec![0; len];
        let got = file.read_at(&mut bytes, offset)?;
        bytes.truncate(got);
        Ok::<_, io::Error>(bytes)
    });
    take(&read.await?)
}

fn length_of(len: usize) -> u64 {
    len as u64
}

/// What is read aside at a time.
const BLOCK_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_the_cache_is_read_all_the_same() {
        let path = std::env::temp_dir().join(format!("moonlet-resident-{}", std::process::id()));
        let bytes: Vec<u8> = (0..BLOCK_BYTES * 5 + 7).map(|at| at.to_le_bytes()[1]).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        let read = || {
            let mut got = Vec::new();
            let shared = RefCell::default();
            smol::block_on(async {
                loop {
                    let wanted = (length_of(got.len()), BLOCK_BYTES);
                    let block = with_block(&file, wanted, &shared, |block| Ok(block.to_vec()));
                    match block.await.unwrap() {
                        block if block.is_empty() => return got,
                        block => got.extend_from_slice(&block),
                    }
                }
            })
        };
        let evict = || {
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        };
        for _ in 0..2 {
            evict();
            assert_eq!(read(), bytes);
        }
        evict();
        smol::block_on(make_resident(&file, 0, bytes.len()));
        // Where the file system reports this, all of it is there now.
        let mut block = [0];
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            assert!(!matches!(read_now(&file, &mut block, length_of(at)), Some(Err(_))), "{at}");
        }
        smol::block_on(make_resident(&file, 0, bytes.len() + 10 * BLOCK_BYTES));
        std::fs::remove_file(path).unwrap();
    }
}
