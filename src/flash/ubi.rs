//! A UBI volume, `/dev/ubiX_Y`: raw NAND without its troubles.
//!
//! UBI replaces blocks that go bad, spreads wear over the chip and moves data whose bits begin to
//! flip, below the log and without its doing. A segment is one or more logical erase blocks (LEBs).
//! A volume is written in place once it is set to allow that
//! (`UBI_VOL_PROP_DIRECT_WRITE`); what was written survives a cut, page by page, in order.
//!
//! **Erasing** is `UBI_IOCEBUNMAP` and not `UBI_IOCEBER`: the LEB reads as erased at once, the
//! block behind it is erased in the background and goes back into the pool, so the program's only
//! thread does not wait for it. The price: after a cut an unmapped LEB may have its old contents
//! again. The log expects that of every device. `UBI_IOCEBER` waits for all erases that are due.
//!
//! **Time.** A write returns when the chip has it. A sync asks for what the driver may still hold,
//! which is nothing on most, and is not worth a thread.
//!
//! Refused: the UBI device itself (`/dev/ubi0`), static volumes (they are written once, from
//! beginning to end), volumes whose update was cut short, and such that somebody else writes, a
//! mounted UBIFS for one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::erase_blocks::EraseBlocks;
use super::sysfs::{self, Node};
use super::{Error, Geometry, Health, health, ioctl, lock};
use crate::kind::Kind;
use crate::units::to_u32;

/// An open volume.
pub struct Device {
    file: File,
    blocks: EraseBlocks,
    /// The UBI device that the volume is on.
    ubi: Node,
    path: PathBuf,
    /// Why nothing can be programmed.
    read_only: Option<String>,
}

impl Device {
    /// Opens all of the volume at `path`, which is `node`. One that may only be read is opened for
    /// that.
    ///
    /// # Errors
    /// They name the path: no permission, in use, a volume that is refused.
    pub fn open(path: &Path, node: &Node) -> Result<Self, Error> {
        let at = |error| Error::io(format!("store {}", path.display()), error);
        let (ubi, blocks) = shape(path, node)?;
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let refusal = match opened {
            Ok(file) if ubi.text("ro_mode").as_deref() != Some("1") => {
                lock::take(&file, path, File::try_lock)?;
                ioctl::ubi_write_in_place(&file).map_err(at)?;
                return Ok(Self { file, blocks, ubi, path: path.to_owned(), read_only: None });
            }
            Ok(_) => {
                let name = ubi.name();
                format!("store {}: {name} was made read-only after an error", path.display())
            }
            Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => {
                let what = format!(
                    "store {} is in use: mounted, or open in another moonlet; expected a volume \
                     that no one else has",
                    path.display()
                );
                return Err(Error::new(Kind::Invalid, what));
            }
            Err(error) => {
                let error = at(error);
                if error.kind() != Kind::ReadOnly {
                    return Err(error);
                }
                error.to_string()
            }
        };
        Self::to_read(path, ubi, blocks, refusal)
    }

    /// Opens the volume at `path`, which is `node`, to look at it; nothing is changed.
    ///
    /// # Errors
    /// As for [`Device::open`].
    pub fn inspect(path: &Path, node: &Node) -> Result<Self, Error> {
        let (ubi, blocks) = shape(path, node)?;
        Self::to_read(path, ubi, blocks, "it was opened to be looked at".to_owned())
    }

    fn to_read(path: &Path, ubi: Node, blocks: EraseBlocks, why: String) -> Result<Self, Error> {
        let at = |error| Error::io(format!("store {}", path.display()), error);
        let file = File::open(path).map_err(at)?;
        lock::take(&file, path, File::try_lock_shared)?;
        Ok(Self { file, blocks, ubi, path: path.to_owned(), read_only: Some(why) })
    }

    fn error(&self, doing: &str, block: u64, error: io::Error) -> Error {
        let what = format!("{doing} {}, logical erase block {block}", self.path.display());
        if Errno::from_io_error(&error) == Some(Errno::BADMSG) {
            let why = ": more wrong bits than can be put right";
            return Error::new(Kind::Corrupt, what + why);
        }
        Error::io(what, error)
    }

    fn unmap(&self, doing: &str, segment: u32) -> Result<(), Error> {
        for block in self.blocks.of_segment(segment)? {
            // A volume counts its LEBs in 31 bits.
            let unmapped = ioctl::ubi_unmap(&self.file, to_u32(block));
            unmapped.map_err(|error| self.error(doing, block, error))?;
        }
        Ok(())
    }
}

impl super::Device for Device {
    fn geometry(&self) -> Geometry {
        self.blocks.geometry()
    }

    /// UBI re-writes what had bits to put right, and says nothing of it.
    fn read(&self, segment: u32, offset: u32, buffer: &mut [u8]) -> Result<(), Error> {
        self.blocks.read((segment, offset), buffer, |piece, here| {
            let read = self.file.read_exact_at(here, piece.position);
            read.map_err(|error| self.error("reading", piece.block, error))
        })
    }

    fn program(&self, segment: u32, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        self.blocks.program((segment, offset), bytes, |piece, here| {
            let written = self.file.write_all_at(here, piece.position);
            written.map_err(|error| self.error("programming", piece.block, error))
        })
    }

    fn erase(&self, segment: u32) -> Result<(), Error> {
        self.unmap("erasing", segment)
    }

    fn sync(&self) -> Result<(), Error> {
        let synced = self.file.sync_data();
        synced.map_err(|error| Error::io(format!("syncing {}", self.path.display()), error))
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

    /// The blocks behind the segment go into the pool that UBI evens out wear with.
    fn trim(&self, segment: u32) -> Result<(), Error> {
        self.unmap("trimming", segment)
    }

    fn may_be_anothers(&self) -> bool {
        true
    }

    fn health(&self) -> Option<Health> {
        health::of_ubi(&self.ubi)
    }
}

/// The volume's UBI device, and how its segments lie.
fn shape(path: &Path, node: &Node) -> Result<(Node, EraseBlocks), Error> {
    let refused =
        |what: &str| Error::new(Kind::Invalid, format!("store {}: {what}", path.display()));
    let name = node.name();
    let Some((ubi, _)) = name.split_once('_') else {
        let what = format!("it is all of a UBI device, expected a volume, such as /dev/{name}_0");
        return Err(refused(&what));
    };
    let ubi = Node::of_class(Path::new(sysfs::ROOT), "ubi", ubi)
        .ok_or_else(|| refused("its UBI device is not in /sys/class/ubi, expected it there"))?;
    let kind = node.text("type").unwrap_or_default();
    if kind != "dynamic" {
        let what = format!(
            "a {kind} volume, expected a dynamic one: ubimkvol makes one without --type=static"
        );
        return Err(refused(&what));
    }
    if node.text("upd_marker").as_deref() == Some("1") {
        let what = "an update of the volume was cut short, expected a whole one: ubiupdatevol \
                    --truncate empties it";
        return Err(refused(what));
    }
    let count = node.number("reserved_ebs").unwrap_or(0);
    let bytes = node.number("usable_eb_size").unwrap_or(0);
    let blocks = EraseBlocks::new(count, bytes, ubi.number("min_io_size").unwrap_or(0));
    let blocks = blocks.map_err(|error| refused(&error.to_string()))?;
    Ok((ubi, blocks))
}
