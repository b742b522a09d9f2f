//! Power cuts at every operation, and at every operation of what follows.
//!
//! A workload is run once to its end on a device that remembers what each power cut would have
//! left. What a remount finds there is checked against the model, and the workload is finished on
//! it.

use std::sync::Arc;

use moonlet::flash::Geometry;
use moonlet::flash::sim::{Aftermath, Device};

use crate::check::{check, finish_partials};
use crate::model::{Blobs, Model, Step, brief, churn, models, small_churn, workload};
use crate::run::{Trace, mount, run};
use crate::{EMMC, NAND, NOR, boards};

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
fn every_board_survives_a_cut_anywhere() {
    for (name, geometry) in boards() {
        let segment_count = if geometry.reprogram { 8 } else { 14 };
        eprintln!("{name}: {geometry:?}, {segment_count} segments of it");
        survive(Geometry { segment_count, ..geometry }, &brief());
    }
}

#[test]
fn copying_survives_a_cut_anywhere() {
    for shape in [EMMC, NAND, NOR] {
        // Beside META, room for five segments and the one that is kept free.
        let segment_count = if shape.reprogram { 10 } else { 14 };
        let geometry = Geometry { segment_count, segment_bytes: 64 << 10, ..shape };
        survive(geometry, &churn());
        // On NOR most of those are longer than a unit, and each is written to a segment of its own.
        if shape != NOR {
            survive(geometry, &small_churn());
        }
    }
}

/// The second cut comes anywhere in what is done after the first: in the recovery, or in the rest
/// of the workload.
#[test]
fn a_short_trace_survives_any_two_cuts() {
    let blobs = Blobs::new();
    let steps = brief();
    for shape in [EMMC, NAND, NOR] {
        let segment_count = if shape.reprogram { 10 } else { 14 };
        let geometry = Geometry { segment_count, segment_bytes: 64 << 10, ..shape };
        let first = Trace::new(Arc::new(Device::new(geometry)), &blobs, &steps);
        assert!(first.operations() <= 100, "{} operations are not short", first.operations());
        let mut pairs = 0;
        for cut in 0..first.operations() {
            let (device, done) = first.cut(cut).unwrap();
            let seed = cut as u64 % SEEDS;
            let rest = steps.get(done..).unwrap_or_default();
            let survivor = Arc::new(device.survivor(seed));
            let second = Trace::new(Arc::clone(&survivor), &blobs, rest);
            for again in 0..second.operations() {
                let (device, done_again) = second.cut(again).unwrap();
                let what = format!("{geometry:?}: cut at {cut}, seed {seed}, then at {again}");
                let (before, after) = models(&steps, done + done_again);
                // A step that was cut may have been done, and is begun anew.
                let (_, cut_after) = models(&steps, done);
                let before = if done_again == 0 { &models(&steps, done).0 } else { &before };
                let after = if done_again == 0 { &cut_after } else { &after };
                recover(
                    &Arc::new(device.survivor(again as u64 % SEEDS)),
                    &blobs,
                    before,
                    after,
                    &what,
                );
                pairs += 1;
            }
        }
        eprintln!("{pairs} pairs of cuts on {geometry:?}");
        assert!(pairs > 500);
    }
}

/// UBI: what was erased may come back as long as nothing was programmed over it.
#[test]
fn what_was_erased_may_come_back() {
    for (geometry, steps) in [(NAND, workload()), (NOR, workload())] {
        survive_with(geometry, &steps, Aftermath { resurrection: true, decay: false });
    }
    let geometry = Geometry { segment_count: 14, segment_bytes: 64 << 10, ..NAND };
    survive_with(geometry, &churn(), Aftermath { resurrection: true, decay: false });
}

/// The unit that was programmed just before the one at the cut reads back as something else: what
/// it held may be lost if it was acknowledged a moment ago, nothing else may, and nothing wrong is
/// taken for right.
#[test]
fn a_decayed_neighbour_is_noticed() {
    let blobs = Blobs::new();
    let steps = workload();
    for geometry in [EMMC, NAND, NOR] {
        let trace = Trace::new(Arc::new(Device::new(geometry)), &blobs, &steps);
        let mut lost = 0;
        for cut in (0..trace.operations()).step_by(3) {
            let (device, done) = trace.cut(cut).unwrap();
            let (before, after) = models(&steps, done);
            let decayed = device.survivor_of(1, Aftermath { resurrection: false, decay: true });
            let (store, _) = mount(&Arc::new(decayed)).unwrap();
            let what = || format!("{geometry:?}: cut at {cut} in step {done}");
            let held = crate::check::check_served(&store, &blobs)
                .unwrap_or_else(|why| panic!("{}: {why}", what()));
            let missing = before.missing(&after, &held);
            assert!(missing <= 1, "{}: {missing} blobs are gone or corrupt", what());
            lost += missing;
        }
        assert!(lost > 0, "{geometry:?}: no cut spoiled anything");
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

/// As a real device is used: what changes it is done on another thread, and waited for.
#[test]
fn a_device_that_takes_long_survives_a_cut_anywhere() {
    let blobs = Blobs::new();
    for (shape, steps) in [(EMMC, workload()), (NAND, workload()), (NOR, brief()), (EMMC, churn())]
    {
        let small = Geometry { segment_count: 10, segment_bytes: 64 << 10, ..shape };
        let geometry = if steps.len() == churn().len() { small } else { shape };
        let device = Arc::new(Device::new(geometry));
        device.be_slow();
        let trace = Trace::new(device, &blobs, &steps);
        for cut in 0..trace.operations() {
            let (device, done) = trace.cut(cut).unwrap();
            let (before, after) = models(&steps, done);
            let what = format!("{geometry:?}: cut at {cut} in step {done}");
            let survivor = Arc::new(device.survivor(cut as u64));
            recover(&survivor, &blobs, &before, &after, &what);
        }
    }
}

fn survive(geometry: Geometry, steps: &[Step]) {
    survive_with(geometry, steps, Aftermath::default());
}

fn survive_with(geometry: Geometry, steps: &[Step], aftermath: Aftermath) {
    let blobs = Blobs::new();
    let trace = Trace::new(Arc::new(Device::new(geometry)), &blobs, steps);
    let operations = trace.operations();
    assert!(operations > 40, "only {operations} operations");
    // Recovery is cut everywhere after every cut of a short trace, and of a long one after some.
    let thinning = if operations > 200 { 5 } else { 1 };
    for cut in 0..operations {
        let (device, done) = trace.cut(cut).unwrap();
        let (before, after) = models(steps, done);
        // None of what was not synced, all of it, and a subset that is another at each cut.
        for seed in [0, 1, cut as u64 + 2] {
            let what =
                format!("{geometry:?}: cut at {cut} of {operations} in step {done}, seed {seed}");
            let survivor = Arc::new(device.survivor_of(seed, aftermath));
            recover(&survivor, &blobs, &before, &after, &what);
        }
        if cut.is_multiple_of(thinning) {
            let seed = (cut / thinning) as u64;
            let what = format!("{geometry:?}: cut at {cut} in step {done}, seed {seed}");
            let survivor = device.survivor_of(seed, aftermath);
            cut_again(&survivor, &blobs, (&before, &after), &what);
            let survivor = Arc::new(survivor);
            let done_again = run(&survivor, &blobs, steps.get(done..).unwrap_or_default());
            assert_eq!(done + done_again, steps.len(), "{what}: finishing the workload");
            let end = models(steps, steps.len()).0;
            let (store, _) = mount(&survivor).unwrap();
            check(&store, &blobs, &end, &end).unwrap_or_else(|why| panic!("{what}: {why}"));
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
    let mounting = Arc::new(device.survivor(1));
    mounting.remember();
    mount(&mounting).unwrap_or_else(|error| panic!("{what}: {error}"));
    let cuts = (0..).map_while(|cut| Some((cut, mounting.at(cut as usize)?)));
    for (cut, second) in cuts {
        let third = Arc::new(second.survivor(cut + 2));
        let what = format!("{what}, then at {cut} of the mount");
        recover(&third, blobs, models.0, models.1, &what);
    }
}

/// Fates of what was not synced that pairs of cuts take in turn.
const SEEDS: u64 = 5;
