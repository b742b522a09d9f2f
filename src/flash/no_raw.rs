//! In place of `raw` where a build leaves raw flash out: such a device is refused.

use std::path::Path;
use std::sync::Arc;

use super::sysfs::Node;
use super::{Device, Error};
use crate::config::lacking;
use crate::kind::Kind;

pub fn open_mtd(path: &Path, _: Node) -> Result<Arc<dyn Device>, Error> {
    refuse(path)
}

pub fn open_ubi(path: &Path, _: &Node) -> Result<Arc<dyn Device>, Error> {
    refuse(path)
}

pub fn inspect_mtd(path: &Path, _: Node) -> Result<Arc<dyn Device>, Error> {
    refuse(path)
}

pub fn inspect_ubi(path: &Path, _: &Node) -> Result<Arc<dyn Device>, Error> {
    refuse(path)
}

fn refuse(path: &Path) -> Result<Arc<dyn Device>, Error> {
    let what = format!("store {}", path.display());
    Err(Error::new(Kind::Invalid, lacking(&what, "raw-flash")))
}
