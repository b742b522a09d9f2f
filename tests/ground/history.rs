//! The past of satellites: what reports leave behind, what programs can read of it, and the charts.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::chromium::Chromium;
use crate::cli::Person;
use crate::common::missing;
use crate::console::Browser;
use crate::harness::{Database, Server, enrolled, on_each_store};

fn report(received: u64, written: u64, storage: u64) -> String {
    json!({ "name": "edge1", "state_report_interval": "@every 00h00m10s",
        "storage_used_bytes": storage, "cached_images": [], "moonlet": { "version": "0.1.0",
        "platform": "linux/arm64", "storage_size_bytes": 4_u64 << 30, "received_bytes": received,
        "flash_written_bytes": written, "flash_used_percent": 12.5, "plan_day":
        { "used_bytes": 190_u64 << 20, "max_bytes": 200_u64 << 20, "until": 1_800_000_000 } } })
    .to_string()
}

fn hour_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs() / 3600).unwrap()
}

/// Rows of the satellite `edge1` for 30 days: an outage, an image that fails, wear.
fn put_month(database: &Database) {
    let now = hour_now();
    let rows = (0..192_i64).map(|row| {
        let (at, hours) = if row < 84 {
            (now - now.rem_euclid(6) - 30 * 24 + (row + 1) * 6, 6_i64)
        } else {
            (now - 109 + (row - 83), 1)
        };
        let is_away = (150..158).contains(&row);
        let online = if is_away { 0 } else { hours * 3_600_000_000 };
        let received = if row % 12 == 0 { 90_000_000 * hours } else { 40_000 * hours };
        let behind = if (166..172).contains(&row) { 2 } else { 0 };
        let health = if behind > 0 { 2 } else { i64::from(row == 130) };
        format!(
            "((SELECT id FROM satellites WHERE name = 'edge1'), {}, {}, {online}, {received}, {}, \
             {}, {}, 5, {behind}, {health})",
            at * 3_600_000_000,
            hours * 3_600_000_000,
            received + received / 50,
            100_000 + row * 130,
            900_000_000 + row * 9_000_000
        )
    });
    // Of hours that were reported twice the later counts.
    let rows: Vec<String> = rows.collect();
    database.execute(&format!(
        "INSERT INTO history (satellite_id, at, micros, online, received, written, worn, storage, \
         images, behind, health) VALUES {} ON CONFLICT DO NOTHING;",
        rows.join(",")
    ));
    let fleet = (1..72_i64).map(|hour| {
        let away = i64::from((30..40).contains(&hour)) * 3;
        format!("({}, {}, {away}, 1, 2)", (now - hour) * 3_600_000_000, 9 - away)
    });
    let fleet: Vec<String> = fleet.collect();
    database.execute(&format!(
        "INSERT INTO fleet_history (at, online, stale, offline, unknown) VALUES {} \
         ON CONFLICT DO NOTHING;",
        fleet.join(",")
    ));
}

#[test]
fn reports_leave_an_hour_behind_and_pages_have_cursors() {
    if missing("reports_leave_an_hour_behind_and_pages_have_cursors", &["sqlite3"]) {
        return;
    }
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = enrolled(&server);
        let path = "/api/satellites/edge1/history";
        assert_eq!(admin.expect(200, "GET", path, "").json(), json!([]));
        let browser = Browser::log_in(&server);
        let page = browser.get("/console/satellites/edge1").text();
        assert!(page.contains("the first figures come with its first report"), "{page}");

        let robot = satellite.client(&server);
        for (received, written, storage) in [(1000, 50, 7), (1600, 90, 9), (200, 95, 8)] {
            robot.expect(200, "POST", "/satellites/sync", &report(received, written, storage));
        }
        let hours = admin.get(path).json();
        let sum = |key: &str| -> i64 {
            hours.as_array().unwrap().iter().map(|hour| hour[key].as_i64().unwrap()).sum()
        };
        // One, or two where an hour ended between the reports.
        assert_eq!((sum("received_bytes"), sum("flash_written_bytes")), (800, 45), "{hours}");
        let last = &hours[hours.as_array().unwrap().len() - 1];
        assert_eq!((&last["seconds"], &last["flash_used_percent"]), (&json!(3600), &json!(12.5)));
        assert_eq!((&last["images"], &last["images_behind"]), (&json!(1), &json!(1)));
        assert_eq!(last["health"], "Healthy");

        put_month(&database);
        let all = admin.get(path).json();
        let all = all.as_array().unwrap().clone();
        assert!(all.len() > 150, "{}", all.len());
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = admin.get(&format!("{path}?limit=50&after={after}")).json();
            let page = page.as_array().unwrap().clone();
            let Some(last) = page.last() else { break };
            after = last["at"].as_str().unwrap().to_owned();
            seen.extend(page);
        }
        assert_eq!(seen, all, "nothing is left out and nothing comes twice");
        let at = |row: &Value| row["at"].as_str().unwrap().to_owned();
        assert!(all.windows(2).all(|pair| at(&pair[0]) < at(&pair[1])));
        for (query, named) in [
            ("after=yesterday", "yesterday"),
            ("limit=0", "limit \\\"0"),
            ("limit=x", "limit \\\"x"),
            ("after=2026-13-01T00:00:00Z", "2026-13-01"),
        ] {
            for path in [path, "/api/history"] {
                let answer = admin.ask("GET", &format!("{path}?{query}"), "");
                let text = answer.text();
                assert!(answer.status == 400 && text.contains(named), "{query}: {text}");
            }
        }
        admin.expect(404, "GET", "/api/satellites/none/history", "");
        server.anyone().expect(401, "GET", path, "");
        robot.expect(401, "GET", "/api/history", "");
        let fleet = admin.get("/api/history").json();
        assert_eq!(fleet[0]["online"], 9, "{fleet}");
        let now = fleet.as_array().unwrap().last().unwrap();
        assert_eq!(now["seconds"], 3600, "this server counts by itself: {now}");

        // The charts: what they show is said, with nothing from outside and no script.
        let page = browser.get("/console/satellites/edge1?days=30").text();
        for said in [
            "Connection and health, last 30 days: connected",
            "Images in sync, last 30 days: up to 2 of 5 behind",
            "Received, last 30 days: ",
            "Storage in use, last 30 days: at most 2.4 GiB of 4 GiB",
            "Written to flash, last 30 days: ",
            "of its rated life is used; at the pace of these 29 days the rest lasts",
        ] {
            assert!(page.contains(said), "{said}: not in {page}");
        }
        assert!(!page.contains("<script") && page.len() < 60 << 10, "{} bytes", page.len());
        let short = browser.get("/console/satellites/edge1").text();
        assert!(short.contains("last 3 days") && short.len() < page.len());
        let wrong = browser.get("/console/satellites/edge1?days=7");
        assert!(wrong.status == 400 && wrong.text().contains("expected 3 or 30"));
        let overview = browser.get("/console").text();
        assert!(overview.contains("Satellites, last 3 days: "), "{overview}");
        // The same by the command line.
        let person = Person::logged_in(&database, &server);
        let table = person.succeeds(&["satellite", "history", "edge1", "--days", "30"]);
        assert!(table.starts_with("AT ") && table.contains("2 of 5"), "{table}");
        let json = person.succeeds(&["satellite", "history", "edge1", "-o", "json"]);
        let hours = serde_json::from_str::<Value>(&json).unwrap().as_array().unwrap().len();
        assert!((23..=26).contains(&hours), "a day: {hours}");
        assert!(person.fails(&["satellite", "history", "none"]).contains("none"));
        assert!(person.fails(&["satellite", "history", "edge1", "--days", "31"]).contains("31"));
        // It ends with its satellite.
        admin.expect(200, "DELETE", "/api/satellites/edge1", "");
        admin.expect(404, "GET", path, "");
    });
}

/// What sticks out of the window, and the figures of each chart: its size, and the least contrast of
/// its bars and of the text beside them against what is behind.
const MEASURE: &str = r#"(() => {
  const part = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = c => 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2]);
  const rgb = text => text.match(/[\d.]+/g).map(Number);
  const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c } return rgb(getComputedStyle(document.body).backgroundColor) };
  const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const of = (e, colour) => contrast(light(rgb(colour)), light(behind(e)));
  const bars = [...document.querySelectorAll('figure path')].map(e => of(e.parentElement, getComputedStyle(e).fill));
  const texts = [...document.querySelectorAll('figure figcaption *, figure .most, figure .axis span')];
  return { wide: document.scrollingElement.scrollWidth - document.documentElement.clientWidth,
    charts: [...document.querySelectorAll('figure svg')].map(e => [e.clientWidth, e.clientHeight]),
    labels: [...document.querySelectorAll('figure svg[role=img]')].filter(e => e.getAttribute('aria-label')).length,
    bars: Math.min(...bars), count: bars.length,
    text: Math.min(...texts.map(e => of(e, getComputedStyle(e).color))),
    small: Math.min(...texts.map(e => parseFloat(getComputedStyle(e).fontSize))) } })()"#;

#[test]
fn charts_can_be_read_on_a_phone_and_in_the_dark() {
    if missing("charts_can_be_read_on_a_phone_and_in_the_dark", &["chromium", "sqlite3"]) {
        return;
    }
    let database = Database::sqlite();
    let server = Server::start(&database);
    let (_, satellite) = enrolled(&server);
    satellite.client(&server).expect(200, "POST", "/satellites/sync", &report(1, 2, 1 << 30));
    put_month(&database);
    let mut browser = Chromium::logged_in(&server);
    for (width, is_dark) in [(390, false), (390, true), (1280, true), (1280, false)] {
        browser.size(width, is_dark);
        for (name, path, charts) in [
            ("satellite-3", "/console/satellites/edge1", 5),
            ("satellite-30", "/console/satellites/edge1?days=30", 5),
            ("fleet", "/console", 1),
        ] {
            browser.open(path);
            let found = browser.await_value(MEASURE);
            let place = format!("{name} {width} dark={is_dark}: {found}");
            assert!(found["wide"].as_i64().unwrap() <= 0, "too wide: {place}");
            assert_eq!(found["charts"].as_array().unwrap().len(), charts, "{place}");
            assert_eq!(found["labels"], charts, "{place}");
            for chart in found["charts"].as_array().unwrap() {
                let (width, height) = (chart[0].as_i64().unwrap(), chart[1].as_i64().unwrap());
                assert!(width > 280 && height > 60, "{place}");
            }
            // WCAG 2.2: 1.4.3 for text, 1.4.11 for what is drawn.
            assert!(found["text"].as_f64().unwrap() >= 4.5, "{place}");
            assert!(found["bars"].as_f64().unwrap() >= 3.0, "{place}");
            assert!(found["small"].as_f64().unwrap() >= 12.0, "{place}");
            if name == "satellite-3" {
                browser.click("Figures by day (UTC)");
                browser.await_text("Error");
            }
            browser.shot(&format!("{name}-{width}-{}", if is_dark { "dark" } else { "light" }));
        }
    }
}
