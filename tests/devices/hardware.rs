//! The same promises from real devices: a loop device where this machine has them, and whatever
//! device that the environment names.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use moonlet::blob::Store;
use moonlet::flash::{self, Device};
use moonlet::kind::Kind;
use moonlet::metrics::Metrics;

use super::Scratch;
use super::suite::{belongs_to_one, carries_the_log, conforms};

/// A loop device over a file of its own; both are gone at the end.
struct Loop {
    device: PathBuf,
    _scratch: Scratch,
}

impl Loop {
    /// Nothing, said on stderr with the reason, where it cannot be had.
    fn new(name: &str, options: &[&str]) -> Option<Self> {
        let scratch = Scratch::new(name);
        std::fs::create_dir_all(&scratch.0).unwrap();
        let file = scratch.0.join("disk");
        File::create(&file).unwrap().set_len(16 << 20).unwrap();
        let output = Command::new("losetup")
            .args(options)
            .args(["--find", "--show"])
            .arg(&file)
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .output();
        let device = match output {
            Ok(output) if output.status.success() => String::from_utf8(output.stdout).unwrap(),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                eprintln!("skipped {name}: it needs root and loop devices: {why}");
                return None;
            }
            Err(error) => {
                eprintln!("skipped {name}: it needs losetup: {error}");
                return None;
            }
        };
        Some(Self { device: PathBuf::from(device.trim()), _scratch: scratch })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.device)
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .status();
    }
}

#[test]
fn a_raw_partition_keeps_its_promises() {
    let Some(disk) = Loop::new("a_raw_partition_keeps_its_promises", &[]) else { return };
    keeps_its_promises(&disk.device);
    let device = flash::open(&disk.device, None).unwrap();
    let geometry = device.geometry();
    assert_eq!((geometry.segment_count, geometry.segment_bytes), (64, 256 << 10));
    assert_eq!((geometry.program_bytes, geometry.reprogram), (4096, true));
    assert!(device.file_span(0, 0).is_some(), "it is served by sendfile");
    let odd = device.program(0, 0, &[0; 512]).unwrap_err();
    assert_eq!(odd.kind(), Kind::Invalid, "{odd}");
}

/// Programs go past the page cache that reads go through, and others read all the while.
#[test]
fn a_read_never_sees_what_was_before_a_program() {
    let Some(disk) = Loop::new("a_read_never_sees_what_was_before_a_program", &[]) else { return };
    let device = flash::open(&disk.device, None).unwrap();
    let unit = device.geometry().program_bytes;
    let units = device.geometry().segment_bytes / unit;
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        for length in [1 << 16, 3 << 16] {
            let (device, is_done) = (&device, &is_done);
            scope.spawn(move || {
                let mut bytes = vec![0; length];
                while !is_done.load(Ordering::Relaxed) {
                    device.read(1, 0, &mut bytes).unwrap();
                    let (file, position) = device.file_span(1, 1 << 16).unwrap();
                    file.read_exact_at(&mut bytes, position).unwrap();
                }
            });
        }
        let mut found = vec![0; unit as usize];
        for round in 0..40 * units {
            let (offset, value) = (round % units * unit, round as u8);
            device.program(1, offset, &vec![value; unit as usize]).unwrap();
            device.read(1, offset, &mut found).unwrap();
            let is_new = found.iter().all(|byte| *byte == value);
            is_done.store(!is_new || round + 1 == 40 * units, Ordering::Relaxed);
            assert!(is_new, "round {round}");
        }
    });
    device.sync().unwrap();
}

#[test]
fn large_blocks_are_the_unit() {
    let Some(disk) = Loop::new("large_blocks_are_the_unit", &["--sector-size", "4096"]) else {
        return;
    };
    keeps_its_promises(&disk.device);
}

#[test]
fn a_partition_in_use_is_refused() {
    let Some(disk) = Loop::new("a_partition_in_use_is_refused", &[]) else { return };
    // As a mount does.
    let flags = rustix::fs::OFlags::EXCL.bits().cast_signed();
    let user = OpenOptions::new().read(true).custom_flags(flags).open(&disk.device).unwrap();
    let refused = flash::open(&disk.device, None).err().unwrap();
    assert_eq!(refused.kind(), Kind::Invalid);
    assert!(refused.to_string().contains("is in use: mounted"), "{refused}");
    assert!(flash::inspect(&disk.device).is_ok(), "a look needs no exclusivity");
    drop(user);
    flash::open(&disk.device, None).unwrap();
}

/// A name that was mistyped must not cost somebody's data: file systems leave the first bytes free.
#[test]
fn what_is_not_blank_is_left_alone() {
    let Some(disk) = Loop::new("what_is_not_blank_is_left_alone", &[]) else { return };
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-F"]).arg(&disk.device).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    let made = mke2fs.status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: what_is_not_blank_is_left_alone: no mke2fs here");
        return;
    }
    let before = std::fs::read(&disk.device).unwrap();
    let device = flash::open(&disk.device, None).unwrap();
    let refused = Store::open(device, Rc::new(Metrics::default())).err().unwrap();
    assert_eq!(refused.kind(), Kind::Invalid);
    assert!(refused.to_string().contains("is no log of Moonlet"), "{refused}");
    assert!(std::fs::read(&disk.device).unwrap() == before, "nothing was written");
}

#[test]
fn a_read_only_partition_is_read() {
    let Some(disk) = Loop::new("a_read_only_partition_is_read", &["--read-only"]) else { return };
    let device = flash::open(&disk.device, None).unwrap();
    assert!(device.read_only().is_some());
    let mut byte = [1];
    device.read(63, 0, &mut byte).unwrap();
    assert_eq!(byte, [0]);
    assert_eq!(device.program(0, 0, &[0; 4096]).unwrap_err().kind(), Kind::ReadOnly);
}

/// It takes an MTD device, a UBI volume or a partition to destroy the contents of.
#[test]
fn a_given_device_keeps_its_promises() {
    let Some(path) = std::env::var_os("MOONLET_TEST_DEVICE") else {
        eprintln!(
            "skipped: it needs MOONLET_TEST_DEVICE, a block device, an MTD device or a UBI volume, \
             whose contents it destroys"
        );
        return;
    };
    let path = Path::new(&path);
    keeps_its_promises(path);
    let device = flash::open(path, None).unwrap();
    eprintln!("{}: {:?}, {:?}", path.display(), device.geometry(), device.health());
    if std::env::var_os("MOONLET_TEST_MARK_BAD").is_some() {
        // For ever: only for devices that are simulated.
        let segment = device.geometry().segment_count - 1;
        device.mark_bad(segment).unwrap();
        assert!(device.is_bad(segment).unwrap());
        assert!(device.erase(segment).is_err(), "and cannot be used any more");
        assert!(!device.is_bad(segment - 1).unwrap());
    }
}

fn keeps_its_promises(path: &Path) {
    let open = || flash::open(path, None);
    belongs_to_one(&open, &|| flash::inspect(path));
    let device = open().unwrap();
    assert!(device.may_be_anothers());
    conforms(&*device);
    blank(&*device);
    carries_the_log(&device);
}

/// No log is begun over what is not blank.
fn blank(device: &dyn Device) {
    let geometry = device.geometry();
    for segment in 0..geometry.segment_count {
        if device.is_bad(segment).unwrap() {
            continue;
        }
        device.erase(segment).unwrap();
        if geometry.reprogram {
            device.program(segment, 0, &vec![0; geometry.segment_bytes as usize]).unwrap();
        }
    }
    device.sync().unwrap();
}
