//! Flash without a translation layer, where `open` has found it.

use std::path::Path;
use std::sync::Arc;

use super::sysfs::Node;
use super::{Device, Error, mtd, ubi};

/// Opens an MTD device.
pub fn open_mtd(path: &Path, node: Node) -> Result<Arc<dyn Device>, Error> {
    Ok(Arc::new(mtd::Device::open(path, node)?))
}

/// Opens a UBI volume.
pub fn open_ubi(path: &Path, node: &Node) -> Result<Arc<dyn Device>, Error> {
    Ok(Arc::new(ubi::Device::open(path, node)?))
}

/// Opens an MTD device to look at it.
pub fn inspect_mtd(path: &Path, node: Node) -> Result<Arc<dyn Device>, Error> {
    Ok(Arc::new(mtd::Device::inspect(path, node)?))
}

/// Opens a UBI volume to look at it.
pub fn inspect_ubi(path: &Path, node: &Node) -> Result<Arc<dyn Device>, Error> {
    Ok(Arc::new(ubi::Device::inspect(path, node)?))
}
