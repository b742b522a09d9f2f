//! Power cuts at every operation.

use std::sync::Arc;

use moonlet::flash::Geometry;
use moonlet::flash::sim::Device;

use crate::model::{Blobs, Model, Step, check, churn, finish_partials, mount, run, workload};
use crate::{EMMC, NAND, NOR};

#[test]
fn emmc_survives_a_cut_anywhere() {
    survive(EMMC, &workload());
}

#[test]
fn nand_survives_a_cut_anywhere() {
    survive(NAND, &workload());
}

#[test]
fn nor_survives_a_cut_anywhere() {
    survive(NOR, &workload());
}

#[test]
fn copying_survives_a_cut_anywhere() {
    for shape in [EMMC, NAND, NOR] {
        // Beside META, room for five segments and the one that is kept free.
        let segment_count = if shape.reprogram { 10 } else { 14 };
        survive(Geometry { segment_count, segment_bytes: 64 << 10, ..shape }, &churn());
    }
}

/// The harness is only worth something if it sees a device that acknowledges syncs it never did.
#[test]
fn a_lying_device_is_found_out() {
    let blobs = Blobs::new();
    let steps = workload();
    let found = (20..220).step_by(7).find_map(|cut| {
        let device = Arc::new(Device::new(EMMC));
        device.lie_about_sync(usize::MAX);
        device.cut_after(cut);
        let done = run(&device, &blobs, &steps);
        let (before, after) = models(&steps, done);
        let survivor = Arc::new(device.survivor(3));
        let (store, _) = mount(&survivor).ok()?;
        check(&store, &blobs, &before, &after).err()
    });
    assert!(found.is_some(), "a device that lies about every sync passed every check");
}

fn survive(geometry: Geometry, steps: &[Step]) {
    let blobs = Blobs::new();
    let whole = Arc::new(Device::new(geometry));
    assert_eq!(run(&whole, &blobs, steps), steps.len(), "the workload, without a cut");
    let operations = whole.operations();
    assert!(operations > 100, "only {operations} operations");
    for cut in 0..operations {
        let device = Arc::new(Device::new(geometry));
        device.cut_after(cut);
        let done = run(&device, &blobs, steps);
        assert!(done < steps.len(), "operation {cut} was never reached");
        let (before, after) = models(steps, done);
        for seed in 0..SEEDS {
            let what = format!("cut at {cut} of {operations} in step {done}, seed {seed}");
            let survivor = Arc::new(device.survivor(seed));
            recover(&survivor, &blobs, &before, &after, &what);
            if seed == cut % SEEDS {
                cut_again(&device.survivor(seed), &blobs, (&before, &after), &what);
                let done_again = run(&survivor, &blobs, steps.get(done..).unwrap_or_default());
                assert_eq!(done + done_again, steps.len(), "{what}: finishing the workload");
                let end = models(steps, steps.len()).0;
                let (store, _) = mount(&survivor).unwrap();
                check(&store, &blobs, &end, &end).unwrap_or_else(|why| panic!("{what}: {why}"));
            }
        }
    }
}

/// Mounts, checks, and finishes what was under way.
fn recover(device: &Arc<Device>, blobs: &Blobs, before: &Model, after: &Model, what: &str) {
    let (store, report) = mount(device).unwrap_or_else(|error| panic!("{what}: {error}"));
    let checked = check(&store, blobs, before, after);
    checked.unwrap_or_else(|why| panic!("{what}: {why}; {report}"));
    let copy = Arc::new(device.survivor(1));
    let (store, _) = mount(&copy).unwrap_or_else(|error| panic!("{what}: again: {error}"));
    let finished = finish_partials(&store, blobs);
    finished.unwrap_or_else(|why| panic!("{what}: {why}; {report}"));
}

/// Cuts the power at every operation of the mount, too.
fn cut_again(device: &Device, blobs: &Blobs, models: (&Model, &Model), what: &str) {
    for cut in 0..MOUNT_OPERATIONS_MAX {
        let second = Arc::new(device.survivor(1));
        second.cut_after(cut);
        let mounted = mount(&second).is_ok();
        let third = Arc::new(second.survivor(cut + 2));
        let what = format!("{what}, then at {cut} of the mount");
        recover(&third, blobs, models.0, models.1, &what);
        if mounted {
            return;
        }
    }
    panic!("{what}: a mount took more than {MOUNT_OPERATIONS_MAX} operations");
}

fn models(steps: &[Step], done: usize) -> (Model, Model) {
    let before = steps.iter().take(done).fold(Model::default(), |model, step| model.after(*step));
    let after = steps.get(done).map_or_else(|| before.clone(), |step| before.after(*step));
    (before, after)
}

/// Fates of what was not synced: none of it, all of it, and subsets.
const SEEDS: u64 = 5;
const MOUNT_OPERATIONS_MAX: u64 = 50;
