//! The whole story of a satellite, clicked in a real browser: it enrols, gets images, a rollout
//! fails on it and is taken back, and it leaves the fleet. What it does is done by the real
//! program.

use crate::chromium::Chromium;
use crate::common::missing;
use crate::harness::{Server, on_each_store};
use crate::members::{await_image, prepare};
use crate::registry::Registry;
use crate::satellite::wait_until;

#[test]
fn a_satellite_is_clicked_from_its_token_to_its_end() {
    let case = "a_satellite_is_clicked_from_its_token_to_its_end";
    if missing(case, &["chromium", "docker-registry"]) {
        return;
    }
    on_each_store(|database| {
        let server = Server::start(&database);
        let registry = Registry::start(&database);
        registry.push("library/app", "1", "layer one");
        let admin = server.admin();
        let mut browser = Chromium::logged_in(&server);
        browser.size(390, false);
        browser.await_text("No satellite yet");

        // What every satellite has: here, to look and report each second.
        browser.click("configuration");
        browser.fill("Name", "c1");
        let second = r#"{"app_config":{"state_replication_interval":"@every 1s",
            "heartbeat_interval":"@every 1s"}}"#;
        browser.fill("JSON", second);
        browser.click("Save");
        browser.await_text("Configuration c1");

        // A group, before there is anyone to hold it.
        browser.click("Groups");
        browser.await_text("No group yet");
        browser.fill("Name", "web");
        browser.click("Choose its images");
        browser.fill("Registry the images come from", &registry.url());
        browser.fill("Images, one a line", "library/app:1");
        browser.click("Show what changes");
        browser.await_text("+ library/app:1");
        browser.click("Save");
        browser.await_text("Satellites: 0");

        // Enrolment: the token is on the page, this once.
        browser.click("Fleet");
        browser.fill("Name", "edge1");
        browser.fill("Configuration", "c1");
        browser.click("Add");
        browser.await_text("edge1 may enrol");
        let token = browser.await_value("document.querySelector('.notice code').innerText");
        let mut satellite = prepare("story", &server, token.as_str().unwrap());
        satellite.start_again();
        browser.click("Its groups and its state");
        browser.await_text_after_reload("Enrolled");
        browser.await_text("Its groups want none.");

        // A group is set, and the page shows it arrive.
        browser.fill("Names, with spaces between", "web");
        browser.click("Save");
        browser.await_text_after_reload("Desired images: 1, in sync: 1");
        browser.await_text_after_reload("UpToDate");
        browser.await_text("library/app:1");
        await_image(&satellite, "library/app", "1", 200);
        browser.await_text("Connection and health");
        browser.await_value("document.scrollingElement.scrollWidth <= 390");
        browser.shot("story-converged");

        // A rollout of an image that there is not: it fails, and is taken back by rule. No one
        // reloads that page.
        browser.click("Groups");
        browser.click("web");
        browser.click("Change its images batch by batch");
        browser.fill("Name of the rollout", "web-2");
        browser.fill("The group's new images, one a line", "library/app:2");
        browser.fill("Batches, one a line", "all");
        browser.fill("Time of a satellite", "20s");
        browser.click("Start");
        browser.await_text("Rollout web-2");
        // What a page loaded again would have lost.
        browser.await_value("window.isSame = true");
        browser.await_text("1 failed");
        browser.await_text("RolledBack");
        browser.await_value("window.isSame === true");
        browser.await_text("1 of 1 failed, which reaches 50%");
        browser.shot("story-rolled-back");
        browser.click("edge1");
        browser.await_text_after_reload("UpToDate");
        await_image(&satellite, "library/app", "1", 200);
        let group = admin.get("/api/groups/web").json();
        assert_eq!(group["Artifacts"][0]["tag"][0], "1", "{group}");
        browser.click("Events");
        for event in ["enrolled", "rollout_started", "rollout_failed", "rollout_withdrawn"] {
            browser.await_text(event);
        }

        // Its end, which a wrong name does not bring about.
        browser.click("Fleet");
        browser.click("edge1");
        browser.fill("Its name, to decommission it", "edge2");
        browser.click("Decommission");
        browser.await_text("expected edge1, to decommission it");
        browser.open("/console/satellites/edge1");
        browser.fill("Its name, to decommission it", "edge1");
        browser.click("Decommission");
        browser.await_text("No satellite yet");
        admin.expect(404, "GET", "/api/satellites/edge1", "");
        // What it holds it serves, without a fleet.
        satellite.await_line("401");
        wait_until(|| satellite.get("/v2/library/app/manifests/1").0 == 200, || satellite.log());
        browser.click("Audit");
        browser.await_text("satellite.delete");
        browser.click("Log out");
        browser.await_text("Ground Control");
        browser.open("/console");
        browser.await_value("location.pathname === '/console/login'");
    });
}
