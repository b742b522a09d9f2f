//! What the kernel reports of a device under `/sys`: text files of one value each.
//!
//! The root is a parameter, so that tests bring a tree of their own. Nothing here is an error: an
//! attribute that is not there, or reads as nonsense, is left out.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where sysfs is.
pub const ROOT: &str = "/sys";

/// A device's directory.
#[derive(Clone, Debug)]
pub struct Node(PathBuf);

impl Node {
    /// The block device of number `number`, as `stat` returns it.
    pub fn of_block(root: &Path, number: u64) -> Option<Self> {
        Self::of_number(root, "block", number)
    }

    /// The character device of number `number`.
    pub fn of_char(root: &Path, number: u64) -> Option<Self> {
        Self::of_number(root, "char", number)
    }

    /// A device by its class and name.
    pub fn of_class(root: &Path, class: &str, name: &str) -> Option<Self> {
        Self::at(&root.join("class").join(class).join(name))
    }

    /// All devices of a class.
    pub fn all_of_class(root: &Path, class: &str) -> Vec<Self> {
        let entries = fs::read_dir(root.join("class").join(class)).into_iter().flatten();
        entries.filter_map(|entry| Self::at(&entry.ok()?.path())).collect()
    }

    fn of_number(root: &Path, class: &str, number: u64) -> Option<Self> {
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        Self::at(&root.join("dev").join(class).join(format!("{major}:{minor}")))
    }

    /// Links are followed: the last part of the path is the kernel's name for the device, and the
    /// one before it what the device is a part of.
    fn at(path: &Path) -> Option<Self> {
        fs::canonicalize(path).ok().map(Self)
    }

    /// The kernel's name: `mmcblk0p3`, `mtd0`, `ubi0_0`.
    pub fn name(&self) -> &str {
        self.0.file_name().and_then(|name| name.to_str()).unwrap_or("")
    }

    /// What kind of device it is: `block`, `mtd`, `ubi`.
    pub fn subsystem(&self) -> Option<String> {
        let path = fs::canonicalize(self.0.join("subsystem")).ok()?;
        Some(path.file_name()?.to_str()?.to_owned())
    }

    /// The disk of a partition; a disk is its own.
    pub fn disk(&self) -> Self {
        let parent = self.0.parent().filter(|_| self.0.join("partition").exists());
        Self(parent.unwrap_or(&self.0).to_owned())
    }

    /// An attribute's value.
    pub fn text(&self, attribute: &str) -> Option<String> {
        let text = fs::read_to_string(self.0.join(attribute)).ok()?;
        Some(text.trim().to_owned())
    }

    /// An attribute's value as a decimal number.
    pub fn number<T: FromStr>(&self, attribute: &str) -> Option<T> {
        self.text(attribute)?.parse().ok()
    }
}
