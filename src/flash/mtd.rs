//! Raw MTD: NAND or NOR through `/dev/mtdN`, without a layer that moves data.
//!
//! [`ubi`](super::ubi) is the better choice wherever the kernel has it: it replaces blocks that go
//! bad, evens out wear over the whole chip and re-writes data whose bits begin to flip. Here the
//! log does what it can: it leaves bad blocks out and finds rot.
//!
//! Programs are whole pages, once each, in ascending order within an erased segment: the log does
//! so, and data sheets ask for it. A segment is bad if any of its erase blocks is.
//!
//! **Errors of reading.** `read` on an MTD device returns what could be read and calls it success,
//! even where the error correction failed. So the device's counters are read before and after:
//! where more reads have failed since, the read is made once more (the counters are everybody's),
//! and then reported as [`Kind::Corrupt`]. Bits that were put right are data like any other.
//!
//! **Time.** A write returns when the chip is done, so there is nothing to sync and no thread is
//! worth its stack. All calls are made where the program's only thread runs: an erase of NAND takes
//! about 2 ms a block, 64 ms for the largest segment of the usual blocks, which is what a request
//! over the network takes as well, and comes once for 4 MiB. NOR takes up to a second for a block
//! of 128 KiB and answers nothing meanwhile, from whatever thread it is asked: a store on NOR is
//! for what is written once.
//!
//! Refused: what UBI or a mount has taken, memory whose pages are programmed in pairs (`mlc-nand`:
//! a cut would harm pages that were synced long ago), what has no erase blocks.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use log::debug;
use rustix::io::Errno;

use super::erase_blocks::{EraseBlocks, Piece};
use super::ioctl::{self, EccStats};
use super::sysfs::{self, Node};
use super::{Error, Geometry, Health, health, lock};
use crate::kind::Kind;

/// An open MTD device.
pub struct Device {
    file: File,
    blocks: EraseBlocks,
    node: Node,
    path: PathBuf,
    /// Why nothing can be programmed.
    read_only: Option<String>,
    /// Held while reading, so that the counters are those of one read.
    reading: Mutex<()>,
    /// Erase blocks that could not be read, programmed or erased, by number.
    failed: Mutex<BTreeSet<u64>>,
}

impl Device {
    /// Opens all of the device at `path`, which is `node`. One that may only be read is opened for
    /// that.
    ///
    /// # Errors
    /// They name the path: no permission, in use, a kind of memory that is refused.
    pub fn open(path: &Path, node: Node) -> Result<Self, Error> {
        let at = |error| Error::io(format!("store {}", path.display()), error);
        let opened = OpenOptions::new().read(true).write(true).open(path).map_err(at);
        match opened {
            Ok(file) => Self::with(path, node, file, None),
            Err(error) if error.kind() == Kind::ReadOnly => {
                let file = File::open(path).map_err(at)?;
                Self::with(path, node, file, Some(error.to_string()))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the device at `path`, which is `node`, to look at it; nothing is changed.
    ///
    /// # Errors
    /// As for [`Device::open`].
    pub fn inspect(path: &Path, node: Node) -> Result<Self, Error> {
        let at = |error| Error::io(format!("store {}", path.display()), error);
        let file = File::open(path).map_err(at)?;
        Self::with(path, node, file, Some("it was opened to be looked at".to_owned()))
    }

    fn with(path: &Path, node: Node, file: File, read_only: Option<String>) -> Result<Self, Error> {
        let at =
            |what: String| Error::new(Kind::Invalid, format!("store {}: {what}", path.display()));
        if let Some(user) = user_of(Path::new(sysfs::ROOT), &node) {
            return Err(at(user));
        }
        let how = if read_only.is_some() { File::try_lock_shared } else { File::try_lock };
        lock::take(&file, path, how)?;
        let memory = node.text("type").unwrap_or_default();
        if !MEMORIES.contains(&memory.as_str()) {
            let all = MEMORIES.join(", ");
            return Err(at(format!("memory of type {memory:?}, expected one of {all}")));
        }
        // Not MEMGETINFO: it counts the size in 32 bits.
        let size: u64 = node.number("size").unwrap_or(0);
        let erase: u32 = node.number("erasesize").unwrap_or(0);
        let write = node.number("writesize").unwrap_or(0);
        let count = size.checked_div(u64::from(erase)).unwrap_or(0);
        let blocks =
            EraseBlocks::new(count, erase, write).map_err(|error| at(error.to_string()))?;
        Ok(Self {
            file,
            blocks,
            node,
            path: path.to_owned(),
            read_only,
            reading: Mutex::default(),
            failed: Mutex::default(),
        })
    }

    /// Whether all that was read is right, or was put right.
    fn read_once(&self, piece: Piece, buffer: &mut [u8]) -> Result<bool, Error> {
        let before = self.ecc_stats();
        let read = self.file.read_exact_at(buffer, piece.position);
        read.map_err(|error| self.note("reading", piece.block, error))?;
        let after = self.ecc_stats();
        let corrected = after.corrected.wrapping_sub(before.corrected);
        if corrected > 0 {
            let path = self.path.display();
            debug!("{path}, erase block {}: {corrected} bits put right", piece.block);
        }
        Ok(after.failed == before.failed)
    }

    fn read_piece(&self, piece: Piece, buffer: &mut [u8]) -> Result<(), Error> {
        for _ in 0..READS_MAX {
            if self.read_once(piece, buffer)? {
                return Ok(());
            }
        }
        self.remember(piece.block);
        let what = format!(
            "reading {}, erase block {}: more wrong bits than can be put right",
            self.path.display(),
            piece.block
        );
        Err(Error::new(Kind::Corrupt, what))
    }

    /// Memory without error correction counts nothing.
    fn ecc_stats(&self) -> EccStats {
        ioctl::mtd_ecc_stats(&self.file).unwrap_or(EccStats { corrected: 0, failed: 0 })
    }

    fn error(&self, doing: &str, block: u64, error: io::Error) -> Error {
        Error::io(format!("{doing} {}, erase block {block}", self.path.display()), error)
    }

    /// The same, of an erase block at fault.
    fn note(&self, doing: &str, block: u64, error: io::Error) -> Error {
        self.remember(block);
        self.error(doing, block, error)
    }

    fn remember(&self, block: u64) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(block);
    }
}

impl super::Device for Device {
    fn geometry(&self) -> Geometry {
        self.blocks.geometry()
    }

    fn read(&self, segment: u32, offset: u32, buffer: &mut [u8]) -> Result<(), Error> {
        let _turn = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        self.blocks.read((segment, offset), buffer, |piece, here| self.read_piece(piece, here))
    }

    fn program(&self, segment: u32, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        self.blocks.program((segment, offset), bytes, |piece, here| {
            let written = self.file.write_all_at(here, piece.position);
            written.map_err(|error| self.note("programming", piece.block, error))
        })
    }

    fn erase(&self, segment: u32) -> Result<(), Error> {
        let length = self.blocks.position(1);
        // One by one: so it is known which of them failed.
        for block in self.blocks.of_segment(segment)? {
            let erased = ioctl::mtd_erase(&self.file, self.blocks.position(block), length);
            erased.map_err(|error| self.note("erasing", block, error))?;
            // What could not be read any more may have decayed, and be as good as new now.
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(&block);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }

    fn is_slow(&self) -> bool {
        true
    }

    fn read_only(&self) -> Option<&str> {
        self.read_only.as_deref()
    }

    fn give_up_from(&self, _: u32) -> Result<(), Error> {
        Ok(())
    }

    fn file_span(&self, _: u32, _: u32) -> Option<(Arc<File>, u64)> {
        None
    }

    fn is_bad(&self, segment: u32) -> Result<bool, Error> {
        for block in self.blocks.of_segment(segment)? {
            let is_bad = ioctl::mtd_is_bad(&self.file, self.blocks.position(block));
            match is_bad {
                Ok(false) => {}
                Ok(true) => return Ok(true),
                Err(error) if is_unsupported(&error) => return Ok(false),
                Err(error) => return Err(self.error("asking for bad blocks", block, error)),
            }
        }
        Ok(false)
    }

    /// Marks those erase blocks of the segment that failed; its first where none did before our
    /// eyes, so that the segment is known as bad and no more of the chip is lost than that. NOR
    /// has no such marks.
    fn mark_bad(&self, segment: u32) -> Result<(), Error> {
        let all = self.blocks.of_segment(segment)?;
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut those: Vec<u64> = failed.range(all.clone()).copied().collect();
        if those.is_empty() {
            those.push(all.start);
        }
        for block in those {
            match ioctl::mtd_mark_bad(&self.file, self.blocks.position(block)) {
                Ok(()) => {}
                Err(error) if is_unsupported(&error) => return Ok(()),
                Err(error) => return Err(self.error("marking as bad", block, error)),
            }
            failed.remove(&block);
        }
        Ok(())
    }

    fn may_be_anothers(&self) -> bool {
        true
    }

    fn health(&self) -> Option<Health> {
        health::of_mtd(&self.node)
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::OPNOTSUPP | Errno::NOTTY))
}

/// Who has taken the device and would not notice us: opening one is never exclusive.
fn user_of(sys: &Path, node: &Node) -> Option<String> {
    let name = node.name();
    let number = name.strip_prefix("mtd")?;
    let ubis = Node::all_of_class(sys, "ubi");
    if let Some(ubi) = ubis.iter().find(|ubi| ubi.text("mtd_num").as_deref() == Some(number)) {
        let ubi = ubi.name();
        return Some(format!("it is {ubi}'s, expected one of its volumes, such as /dev/{ubi}_0"));
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let label = node.text("name").map(|label| format!("mtd:{label}"));
    let is_ours = |source: &str| {
        source == name
            || source.strip_prefix("/dev/mtdblock") == Some(number)
            || label.as_deref() == Some(source)
    };
    let mount = mounts.lines().find(|line| line.split(' ').next().is_some_and(is_ours))?;
    let place = mount.split(' ').nth(1).unwrap_or("");
    Some(format!("it is mounted at {place}, expected a device that no one else has"))
}

/// As `/sys/class/mtd/mtdN/type` has them; `ram` is what stands in for flash where there is none.
const MEMORIES: [&str; 4] = ["nand", "nor", "dataflash", "ram"];
/// A second time for the case that somebody else's read failed, or ours for a passing reason.
const READS_MAX: u32 = 2;
