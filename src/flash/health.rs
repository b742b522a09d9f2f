//! What hardware says of its wear.
//!
//! An eMMC reports what its standard requires (JEDEC JESD84-B51, EXT_CSD bytes 267 to 269), in
//! steps of ten percent; SD cards and USB sticks say nothing. MTD and UBI count erase blocks that
//! are out of use, UBI erases as well. It is reported and never acted upon: too coarse to steer by.

use std::path::Path;

use super::sysfs::Node;
use super::{Health, Reserve};

/// Of the disk that the block device of number `number` is, or is a partition of.
pub fn of_block(sys: &Path, number: u64) -> Option<Health> {
    let disk = Node::of_block(sys, number)?.disk();
    let life = disk.text("device/life_time");
    // One estimate for each kind of memory in the device: the more worn one is what matters.
    let used = life.iter().flat_map(|text| text.split_whitespace()).filter_map(life_used).max();
    let reserve = match disk.text("device/pre_eol_info").and_then(|text| hexadecimal(&text)) {
        Some(1) => Some(Reserve::Normal),
        Some(2) => Some(Reserve::Warning),
        Some(3) => Some(Reserve::Urgent),
        _ => None,
    };
    if_any(Health { life_used_percent: used, reserve, ..Health::default() })
}

/// Of an MTD device.
pub fn of_mtd(node: &Node) -> Option<Health> {
    if_any(Health { bad_blocks: node.number("bad_blocks"), ..Health::default() })
}

/// Of a UBI device, which all its volumes share.
pub fn of_ubi(node: &Node) -> Option<Health> {
    let (bad_blocks, erases_max) = (node.number("bad_peb_count"), node.number("max_ec"));
    if_any(Health { bad_blocks, erases_max, ..Health::default() })
}

fn if_any(health: Health) -> Option<Health> {
    (health != Health::default()).then_some(health)
}

/// 1 is up to ten percent, 11 is more than a hundred; 0 is not defined, the rest is reserved.
fn life_used(text: &str) -> Option<u8> {
    let steps = hexadecimal(text)?;
    (1..=LIFE_STEPS_MAX).contains(&steps).then(|| steps * 10)
}

fn hexadecimal(text: &str) -> Option<u8> {
    u8::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

const LIFE_STEPS_MAX: u8 = 11;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let path = format!("moonlet-health-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(path);
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn link(&self, path: &str, target: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(self.0.join(target), path).unwrap();
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_partition_is_as_worn_as_its_disk() {
        let tree = Tree::new("disk");
        tree.file("devices/mmc0/life_time", "0x02 0x03\n");
        tree.file("devices/mmc0/pre_eol_info", "0x02\n");
        tree.file("devices/mmc0/block/mmcblk0/size", "8\n");
        tree.file("devices/mmc0/block/mmcblk0/mmcblk0p3/partition", "3\n");
        tree.link("devices/mmc0/block/mmcblk0/device", "devices/mmc0");
        tree.link("dev/block/179:0", "devices/mmc0/block/mmcblk0");
        tree.link("dev/block/179:3", "devices/mmc0/block/mmcblk0/mmcblk0p3");
        let expected = Health {
            life_used_percent: Some(30),
            reserve: Some(Reserve::Warning),
            ..Health::default()
        };
        for minor in [0, 3] {
            let number = rustix::fs::makedev(179, minor);
            assert_eq!(of_block(&tree.0, number), Some(expected), "179:{minor}");
        }
        tree.file("devices/mmc0/life_time", "0x0b 0x00\n");
        tree.file("devices/mmc0/pre_eol_info", "0x00\n");
        let beyond = Health { life_used_percent: Some(110), ..Health::default() };
        assert_eq!(of_block(&tree.0, rustix::fs::makedev(179, 3)), Some(beyond));
    }

    #[test]
    fn what_is_not_told_is_none() {
        let tree = Tree::new("none");
        tree.file("devices/sd/block/sda/device/life_time", "0x00 0xff\n");
        tree.file("devices/sd/block/sdb/size", "8\n");
        tree.link("dev/block/8:0", "devices/sd/block/sda");
        tree.link("dev/block/8:16", "devices/sd/block/sdb");
        for minor in [0, 16, 32] {
            assert_eq!(of_block(&tree.0, rustix::fs::makedev(8, minor)), None, "8:{minor}");
        }
    }

    #[test]
    fn mtd_and_ubi_count_blocks() {
        let tree = Tree::new("ubi");
        tree.file("class/mtd/mtd3/bad_blocks", "4\n");
        tree.file("class/ubi/ubi0/bad_peb_count", "2\n");
        tree.file("class/ubi/ubi0/max_ec", "17\n");
        let mtd = Node::of_class(&tree.0, "mtd", "mtd3").unwrap();
        assert_eq!(of_mtd(&mtd), Some(Health { bad_blocks: Some(4), ..Health::default() }));
        let ubi = Node::of_class(&tree.0, "ubi", "ubi0").unwrap();
        let expected = Health { bad_blocks: Some(2), erases_max: Some(17), ..Health::default() };
        assert_eq!(of_ubi(&ubi), Some(expected));
        assert_eq!(of_mtd(&ubi), None);
    }
}
