use super::*;
use crate::ground::assess::Standing;
use crate::ground::model::Health;

fn satellite(last_seen: Option<i64>, stale_at: Option<i64>) -> Satellite {
    Satellite {
        id: 1,
        name: "a".into(),
        secret_hash: None,
        next_secret_hash: None,
        secret_at: 0,
        enrolment_expires_at: 0,
        last_seen,
        heartbeat_interval: None,
        stale_at,
        offline_at: None,
        is_offline: false,
        revoked_at: None,
        home: String::new(),
        batch: None,
        device: None,
        waits_since: None,
        created_at: 0,
        updated_at: 0,
    }
}

fn report(received: u64, storage: u64) -> Report {
    let details = Details { received_bytes: received, ..Details::default() };
    Report { storage_used_bytes: storage, moonlet: Some(details), ..Report::default() }
}

fn assessment(in_sync: &[bool], health: Health) -> Assessment {
    let image = |in_sync: &bool| Standing { in_sync: *in_sync, ..Standing::default() };
    let images: Vec<Standing> = in_sync.iter().map(image).collect();
    let is_behind = in_sync.contains(&false);
    let updated = if is_behind { Updated::OutOfDate } else { Updated::UpToDate };
    Assessment { images, earlier: None, updated, health, reason: String::new() }
}

/// A satellite that reports at these minutes; its rows, and the hour that is not over.
struct Life {
    seen: Option<i64>,
    every: i64,
    status: Option<Status>,
    rows: Vec<Sample>,
}

impl Life {
    fn new(every: i64) -> Self {
        Self { seen: None, every: every * MINUTE, status: None, rows: Vec::new() }
    }

    fn says(&mut self, minute: i64, report: Report, assessment: &Assessment) {
        let now = START + minute * MINUTE;
        let stale_at = self.seen.map(|seen| seen + 3 * self.every);
        let satellite = satellite(self.seen, stale_at);
        let (hour, over) = observe(&satellite, self.status.as_ref(), (&report, assessment), now);
        self.rows.extend(over);
        self.seen = Some(now);
        self.status = Some(Status {
            satellite_id: 1,
            number: 1,
            report,
            reported_at: None,
            created_at: now,
            updated: assessment.updated.word().to_owned(),
            health: assessment.health.word().to_owned(),
            reason: String::new(),
            hour: Some(hour),
        });
    }

    fn hour(&self) -> &Sample {
        self.status.as_ref().unwrap().hour.as_ref().unwrap()
    }
}

#[test]
fn an_hour_has_sums_and_the_worst() {
    let mut life = Life::new(10);
    life.says(0, report(1000, 5), &assessment(&[true, true], Health::Healthy));
    life.says(10, report(1500, 9), &assessment(&[true, false], Health::Error));
    // It was started again: its count begins at zero.
    life.says(20, report(70, 3), &assessment(&[true, true], Health::Healthy));
    let hour = life.hour();
    assert_eq!(hour.received_bytes, Some(570), "what came before the first report is not known");
    assert_eq!((hour.storage_bytes, hour.images, hour.behind), (9, 2, 1));
    assert_eq!((hour.health_word(), hour.online_micros), ("Error", 20 * MINUTE));
    assert!(life.rows.is_empty());
    // Half of these ten minutes is of the hour that is over, and the trouble is.
    life.says(55, report(70, 3), &assessment(&[true, true], Health::Healthy));
    life.says(65, report(80, 3), &assessment(&[true, true], Health::Healthy));
    assert_eq!(life.rows.len(), 1);
    assert_eq!((life.rows[0].at, life.rows[0].online_micros), (START, 25 * MINUTE));
    assert_eq!((life.hour().online_micros, life.hour().received_bytes), (5 * MINUTE, Some(10)));
    assert_eq!((life.hour().health_word(), life.hour().behind), ("Healthy", 0));
}

#[test]
fn a_satellite_away_is_not_online_and_one_that_reports_seldom_is() {
    let well = assessment(&[true], Health::Healthy);
    let mut life = Life::new(10);
    life.says(0, report(0, 1), &well);
    life.says(300, report(9, 1), &well);
    let online: Vec<i64> = life.rows.iter().map(|row| row.online_micros).collect();
    assert_eq!((online, life.hour().online_micros), (vec![0], 0), "nothing is known of between");
    assert_eq!(life.hour().received_bytes, Some(9), "what it received meanwhile is not lost");

    let mut life = Life::new(180);
    life.says(30, report(0, 1), &assessment(&[false], Health::Degraded));
    life.says(30 + 180, report(9, 1), &well);
    let online: Vec<i64> = life.rows.iter().map(|row| row.online_micros / MINUTE).collect();
    assert_eq!((online, life.hour().online_micros), (vec![30, 60, 60], 30 * MINUTE));
    let told: Vec<_> = life.rows.iter().map(|row| (row.behind, row.health_word())).collect();
    assert_eq!(told, vec![(1, "Degraded"); 3], "as the last report had it");
    assert_eq!((life.hour().behind, life.hour().received_bytes), (0, Some(9)));
}

#[test]
fn what_a_satellite_or_a_clock_says_adds_no_rows() {
    let well = assessment(&[true], Health::Healthy);
    let mut life = Life::new(60 * 24 * 365);
    life.says(0, report(u64::MAX, u64::MAX), &well);
    life.says(60 * 24 * 300, report(u64::MAX, u64::MAX), &well);
    assert_eq!(life.rows.len(), 1, "no row for each hour of a year");
    assert_eq!(life.hour().storage_bytes, i64::MAX);
    // The server's clock is set back, and put right.
    life.says(10, report(0, 0), &well);
    assert_eq!((life.rows.len(), life.hour().at), (2, START));
    life.says(60 * 24 * 300, report(0, 0), &well);
    assert_eq!(life.rows.len(), 3);
    let mut percent = report(0, 0);
    for (said, kept) in [(f64::NAN, 0), (-1.0, 0), (1e300, i64::MAX), (12.5, 125_000)] {
        percent.moonlet.as_mut().unwrap().flash_used_percent = Some(said);
        assert_eq!(super::said(0, None, &percent, &well).worn_ppm, Some(kept), "{said}");
    }
    // A Go satellite says nothing of that.
    let go = super::said(0, None, &Report::default(), &well);
    assert_eq!((go.received_bytes, go.worn_ppm), (None, None));
}

const MINUTE: i64 = HOUR / 60;
const START: i64 = 500_000 * HOUR;
