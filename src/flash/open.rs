//! Which device a path means.
//!
//! What is there decides, not its name: `/dev/disk/by-partlabel/store` is as good as `/dev/sda3`.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use super::sysfs::{self, Node};
use super::{Device, Error, block, file, raw};
use crate::kind::Kind;

/// Opens what is at `path`: a raw partition, an MTD device or a UBI volume, all of it; or, where
/// `size_max` says how large, a store in a directory, which is made where there is nothing yet.
///
/// # Errors
/// [`Kind::Missing`] where there is nothing; [`Kind::Invalid`] for anything else, and for what
/// somebody else uses; the device's own.
pub fn open(path: &Path, size_max: Option<u64>) -> Result<Arc<dyn Device>, Error> {
    match (found(path)?, size_max) {
        (Found::Directory | Found::Nothing, Some(size_max)) => {
            Ok(Arc::new(file::Device::open(path, size_max)?))
        }
        (Found::Directory, None) => Err(no_device(path, "a directory")),
        (Found::Nothing, None) => Err(nothing(path)),
        (Found::Block, _) => Ok(Arc::new(block::Device::open(path)?)),
        (Found::Mtd(node), _) => raw::open_mtd(path, node),
        (Found::Ubi(node), _) => raw::open_ubi(path, &node),
    }
}

/// Opens what is at `path` to look at it; nothing is changed.
///
/// # Errors
/// As for [`open`].
pub fn inspect(path: &Path) -> Result<Arc<dyn Device>, Error> {
    match found(path)? {
        Found::Directory | Found::Nothing => Ok(Arc::new(file::Device::inspect(path)?)),
        Found::Block => Ok(Arc::new(block::Device::inspect(path)?)),
        Found::Mtd(node) => raw::inspect_mtd(path, node),
        Found::Ubi(node) => raw::inspect_ubi(path, &node),
    }
}

enum Found {
    Nothing,
    Directory,
    Block,
    Mtd(Node),
    Ubi(Node),
}

fn found(path: &Path) -> Result<Found, Error> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(Error::io(format!("store {}", path.display()), error)),
    };
    let kind = metadata.file_type();
    if kind.is_dir() {
        Ok(Found::Directory)
    } else if kind.is_block_device() {
        block(path, &metadata)
    } else if kind.is_char_device() {
        character(path, &metadata)
    } else {
        Err(no_device(path, "a file"))
    }
}

fn block(path: &Path, metadata: &Metadata) -> Result<Found, Error> {
    let node = Node::of_block(Path::new(sysfs::ROOT), metadata.rdev());
    let name = node.as_ref().map_or("", Node::name);
    // Both stand for another device of the same numbers.
    let better = [("mtdblock", "mtd"), ("ubiblock", "ubi")].into_iter();
    let mut better = better.filter_map(|(worse, better)| {
        name.strip_prefix(worse).map(|number| format!("/dev/{better}{number}"))
    });
    match better.next() {
        None => Ok(Found::Block),
        Some(better) => Err(expected(path, &format!("{name} hides erase blocks"), &better)),
    }
}

fn character(path: &Path, metadata: &Metadata) -> Result<Found, Error> {
    let node = Node::of_char(Path::new(sysfs::ROOT), metadata.rdev());
    let Some(node) = node else { return Err(no_device(path, "unknown to /sys/dev/char")) };
    let name = node.name();
    match node.subsystem().as_deref() {
        Some("mtd") => match name.strip_suffix("ro") {
            None => Ok(Found::Mtd(node)),
            Some(better) => Err(expected(path, "it cannot be written", &format!("/dev/{better}"))),
        },
        Some("ubi") => Ok(Found::Ubi(node)),
        _ => Err(no_device(path, &format!("the character device {name}"))),
    }
}

fn expected(path: &Path, what: &str, better: &str) -> Error {
    let what = format!("store {}: {what}, expected {better}", path.display());
    Error::new(Kind::Invalid, what)
}

fn no_device(path: &Path, what: &str) -> Error {
    expected(path, &format!("it is {what}"), DEVICES)
}

fn nothing(path: &Path) -> Error {
    let what = format!("store {}: nothing is there, expected {DEVICES}", path.display());
    Error::new(Kind::Missing, what)
}

const DEVICES: &str = "a block device, an MTD device (/dev/mtd0) or a UBI volume (/dev/ubi0_0)";
