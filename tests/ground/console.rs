//! The console as a browser without scripts sees it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use percent_encoding::NON_ALPHANUMERIC;

use crate::harness::{Answer, Client, Database, PASSWORD, Server, on_each_store};

pub struct Browser {
    anyone: Client,
    cookie: String,
}

impl Browser {
    pub fn log_in(server: &Server) -> Self {
        Self::log_in_as(server, &format!("username=admin&password={PASSWORD}"))
    }

    pub fn log_in_as(server: &Server, body: &str) -> Self {
        let answer = post(&server.anyone(), "", "/console/login", body);
        assert_eq!(answer.status, 303, "{}", answer.text());
        let cookie = answer.header("set-cookie").unwrap();
        assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
        let cookie = cookie.split(';').next().unwrap().to_owned();
        Self { anyone: server.anyone(), cookie }
    }

    pub fn get(&self, path: &str) -> Answer {
        let cookie = &self.cookie;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: a=b; {cookie}\r\n\r\n"
        );
        self.anyone.send(head.as_bytes())
    }

    /// Asks for a stream of events, as EventSource does: its status, and its lines as they come.
    pub fn watch(&self, path: &str) -> (u16, impl Iterator<Item = String> + use<>) {
        let mut stream = TcpStream::connect(self.anyone.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: {}\r\n\r\n",
            self.cookie
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let first = lines.next().unwrap();
        (first.split(' ').nth(1).unwrap().parse().unwrap(), lines)
    }

    /// Sends a form of the page at `from`, with what that hides in it.
    pub fn submit(&self, from: &str, path: &str, fields: &str) -> Answer {
        self.send(&self.get(from).text(), path, fields)
    }

    /// The same of a page that was shown before.
    pub fn send(&self, page: &str, path: &str, fields: &str) -> Answer {
        let own = |form: &&str| form.contains(&format!("action=\"{path}\""));
        // A form without an action is for its page, which has the other one, to log out, too.
        let form = page.split("<form").find(own).or(page.split("<form").nth(2)).unwrap();
        let form = form.split("</form>").next().unwrap();
        let mut body = String::new();
        for field in form.split("type=\"hidden\" name=\"").skip(1) {
            let (name, rest) = field.split_once("\" value=\"").unwrap();
            if fields.starts_with(&format!("{name}=")) || fields.contains(&format!("&{name}=")) {
                continue;
            }
            let value = rest.split('"').next().unwrap();
            let value = value.replace("&quot;", "\"").replace("&amp;", "&");
            let value = percent_encoding::utf8_percent_encode(&value, NON_ALPHANUMERIC);
            body += &format!("{name}={value}&");
        }
        post(&self.anyone, &self.cookie, path, &(body + fields))
    }
}

fn post(client: &Client, cookie: &str, path: &str, body: &str) -> Answer {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: {cookie}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client.send(head.as_bytes())
}

#[test]
fn a_fleet_is_set_up_by_clicking() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        let browser = Browser::log_in(&server);
        assert!(browser.get("/console").text().contains("No satellite yet"));
        admin.expect(201, "POST", "/api/configs", r#"{"config_name":"c1","config":{}}"#);
        let added = browser.submit("/console", "/console/satellites", "name=edge1&config_name=c1");
        let page = added.text();
        let (_, token) = page.split_once("<code>").unwrap();
        let path = format!("/satellites/ztr/{}", token.split('<').next().unwrap());
        server.anyone().expect(200, "GET", &path, "");

        let bad = "registry=http%3A%2F%2Fr.example&images=library%2Fnginx%3A1.25%0Aa+b";
        let answer = browser.submit("/console/groups/g1", "/console/groups/g1", bad);
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("a b</textarea>"), "what was typed is kept");
        let good = bad.replace("%0Aa+b", "");
        let answer = browser.submit("/console/groups/g1", "/console/groups/g1", &good);
        assert_eq!(answer.status, 303);
        let member = browser.submit(
            "/console/satellites/edge1",
            "/console/satellites/edge1/groups",
            "groups=g1",
        );
        assert_eq!(member.status, 303);
        let groups = admin.get("/api/satellites/edge1").json()["Groups"].clone();
        assert_eq!(groups, serde_json::json!(["g1"]));
        let fleet = browser.get("/console?state=Unknown&q=edge").text();
        assert!(fleet.contains("/console/satellites/edge1"));
        for none in ["q=%25", "q=_", "q=!", "q=edge2", "state=Stale", "state=%27", "after=edge1"] {
            let text = browser.get(&format!("/console?{none}")).text();
            assert!(text.contains("No satellite matches"), "{none}");
        }
        let chosen = browser.get("/console/groups?name=g2");
        assert_eq!(chosen.header("location"), Some("/console/groups/g2"));
        assert_eq!(browser.get("/console/groups?name=..%2F%2Fevil.example").status, 200);
        assert!(!browser.get("/console?state=Online").text().contains("/console/satellites/edge1"));
    });
}

#[test]
fn saving_a_group_keeps_what_the_form_does_not_show() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        let group = r#"{"group":"g1","platforms":["linux/arm/v7","all"],"artifacts":[
            {"repository":"a","tag":["1","2"],"labels":["x"],"type":"CHART"},
            {"repository":"b","tag":["1"],"type":"IMAGE","deleted":true}]}"#;
        let before = admin.expect(200, "POST", "/api/groups/sync", group).json();
        let browser = Browser::log_in(&server);
        let page = "/console/groups/g1";
        let form = browser.get(page).text();
        assert!(form.contains("a:1\na:2\n</textarea>"));
        assert!(form.contains("value=\"linux/arm/v7 all\""));
        assert_eq!(before["Platforms"], serde_json::json!(["linux/arm/v7", "all"]));
        let images = |lines: &str| {
            let answer = browser.submit(
                page,
                page,
                &format!("registry=&platforms=linux%2Farm%2Fv7+all&images={lines}"),
            );
            assert_eq!(answer.status, 303);
            let group = admin.get("/api/groups/g1").json();
            assert_eq!(group["Platforms"], before["Platforms"]);
            group["Artifacts"].clone()
        };
        assert_eq!(images("a%3A1%0Aa%3A2"), before["Artifacts"]);
        let fewer = images("a%3A2%0Ac%3A1");
        assert_eq!(fewer[0]["labels"], serde_json::json!(["x"]));
        assert_eq!(fewer[1]["repository"], "c");
        assert_eq!(fewer[2], before["Artifacts"][1]);
    });
}

#[test]
fn another_site_can_do_nothing() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let browser = Browser::log_in(&server);
        let forged = post(
            &server.anyone(),
            &browser.cookie,
            "/console/groups/g1",
            "form_token=0&images=a%3A1&registry=",
        );
        assert_eq!(forged.status, 403);
        // The API does not look at cookies, and the console at nothing else.
        assert_eq!(browser.get("/api/groups").status, 401);
        assert_eq!(server.admin().get("/console").status, 303);
        // Another session's token is not this one's.
        let other = Browser::log_in(&server);
        let page = other.get("/console/groups").text();
        let (_, rest) = page.split_once("name=\"form_token\" value=\"").unwrap();
        let body = format!("form_token={}", rest.split('"').next().unwrap());
        let path = "/console/logout";
        assert_eq!(post(&server.anyone(), &browser.cookie, path, &body).status, 403);
        assert_eq!(post(&server.anyone(), &other.cookie, path, &body).status, 303);
        assert_eq!(other.get("/console").status, 303);
    });
}

#[test]
fn what_a_satellite_says_is_text() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        admin.expect(201, "POST", "/api/configs", r#"{"config_name":"c1","config":{}}"#);
        let body = r#"{"name":"edge1","config_name":"c1"}"#;
        let token = admin.expect(200, "POST", "/api/satellites", body).json();
        let path = format!("/satellites/ztr/{}", token["token"].as_str().unwrap());
        let answer = server.anyone().expect(200, "GET", &path, "");
        let robot = crate::harness::Satellite::from_answer(&answer).client(&server);
        let report = r#"{"activity":"<script>alert(1)</script>",
            "cached_images":[{"reference":"\"><img src=x onerror=alert(1)>","size_bytes":-5}]}"#;
        robot.expect(200, "POST", "/satellites/sync", report);
        let browser = Browser::log_in(&server);
        for path in ["/console", "/console/satellites/edge1", "/console?q=%3Cscript%3E&state=%22"] {
            let answer = browser.get(path);
            assert_eq!(answer.status, 200);
            let text = answer.text();
            assert!(!text.contains("<script") && !text.contains("<img"), "{text}");
            let policy = answer.header("content-security-policy").unwrap();
            assert!(policy.starts_with("default-src 'none'"), "{policy}");
        }
    });
}

#[test]
fn a_large_fleet_is_shown_page_by_page() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let admin = server.admin();
    admin.expect(201, "POST", "/api/configs", r#"{"config_name":"c1","config":{}}"#);
    for number in 0..103 {
        let body = format!(r#"{{"name":"edge{number:03}","config_name":"c1"}}"#);
        admin.expect(200, "POST", "/api/satellites", &body);
    }
    let browser = Browser::log_in(&server);
    let rows = |page: &str| page.matches("<a href=\"/console/satellites/").count();
    let first = browser.get("/console?q=edge").text();
    assert_eq!(rows(&first), 100);
    let (_, next) = first.split_once("rel=\"next\" href=\"").unwrap();
    let next = next.split('"').next().unwrap().replace("&amp;", "&");
    let second = browser.get(&next).text();
    assert_eq!(rows(&second), 3);
    assert!(second.contains("edge102") && !second.contains("rel=\"next\""), "{second}");
}

#[test]
fn a_rollout_is_started_and_taken_back_by_clicking() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, _) = crate::harness::enrolled(&server);
        let browser = Browser::log_in(&server);
        assert!(browser.get("/console/rollouts").text().contains("No rollout yet"));
        let new = "/console/rollouts/new?group=g1";
        let form = browser.get(new).text();
        assert!(form.contains("library/nginx:1.25@sha256:3e38"), "{form}");
        let start = |fields: &str| browser.submit(new, "/console/rollouts", fields);
        let images = "images=library%2Fnginx%3A1.27&success=90%25&error=50%25&timeout=1d";
        let bad = start(&format!("name=web-2&group=g1&batches=x&max_unavailable=&{images}"));
        assert_eq!(bad.status, 400);
        let text = bad.text();
        assert!(text.contains("library/nginx:1.27</textarea>"), "what was typed is kept: {text}");
        assert!(text.contains("limit &quot;x&quot;"), "{text}");
        let fields = "name=web-2&group=g1&batches=1+site%3Dnorth&max_unavailable=2&budget_by=site\
            &approval=manual&activation=staged&activate_at=2099-01-01T00%3A00%3A00Z";
        let early = start(&format!("{}&{images}", fields.replace("=staged", "=")));
        assert_eq!(early.status, 400);
        assert!(early.text().contains("expected no time of activation"), "{}", early.text());
        let started = start(&format!("{fields}&{images}"));
        assert_eq!(
            started.header("location"),
            Some("/console/rollouts/web-2"),
            "{}",
            started.text()
        );
        let policy = admin.get("/api/rollouts/web-2").json()["policy"].clone();
        assert_eq!(policy["sequence"][0]["selector"], "site=north");
        assert_eq!(policy["disruptionBudget"]["maxUnavailable"], 2);
        assert_eq!(policy["approval"], "manual");
        assert_eq!(policy["downloadOnly"], true);
        assert_eq!(policy["activateAt"], "2099-01-01T00:00:00Z");
        let page = "/console/rollouts/web-2";
        let shown = browser.get(page);
        assert!(shown.text().contains(&format!("data-live=\"{page}/live\"")), "{}", shown.text());
        assert!(shown.text().contains("<noscript><meta http-equiv=\"refresh\""));
        let (status, mut events) = browser.watch(&format!("{page}/live"));
        assert_eq!(status, 200);
        await_line(&mut events, "event: content");
        await_line(&mut events, "library/nginx:1.27");
        // Who logs out sees no more of it.
        let other = Browser::log_in(&server);
        let (_, mut others) = other.watch(&format!("{page}/live"));
        await_line(&mut others, "event: content");
        assert_eq!(other.submit("/console", "/console/logout", "").status, 303);
        await_line(&mut others, "event: reload");
        assert_eq!(others.find(|line| line.starts_with("event:")), None);
        assert!(shown.text().contains("library/nginx:1.27"), "{}", shown.text());
        assert!(shown.text().contains("activates at 2099-01-01T00:00:00Z"), "{}", shown.text());
        // A group is not changed from under it.
        let taken =
            browser.submit("/console/groups/g1", "/console/groups/g1", "registry=&images=a%3A1");
        assert_eq!(taken.status, 409);
        assert_eq!(browser.submit(page, &format!("{page}/abort"), "").status, 303);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !browser.get(page).text().contains(">Aborted<") {
            assert!(Instant::now() < deadline, "{}", browser.get(page).text());
            std::thread::sleep(Duration::from_millis(100));
        }
        await_line(&mut events, ">Aborted<");
        await_line(&mut events, "event: end");
        assert!(!browser.get(page).text().contains("data-live"));
        assert_eq!(browser.get("/console/rollouts/web-3/live").status, 404);
        assert!(browser.get("/console/rollouts").text().contains(page));
        let events = browser.get("/console/events").text();
        assert!(events.contains("rollout_withdrawn"), "{events}");
    });
}

#[test]
fn what_a_group_would_change_is_shown_before_it_is_saved() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, _) = crate::harness::enrolled(&server);
        let browser = Browser::log_in(&server);
        let page = "/console/groups/g1";
        let before = admin.get("/api/groups/g1").json();
        let look = |fields: &str| browser.submit(page, page, &format!("{fields}&step=look"));
        let digest = "sha256%3A3e38f337856c3763a9ffe3a11da3bf216616964dcc7454c918229773c6d8a56a";
        let same = format!(
            "registry=http%3A%2F%2F127.0.0.1%3A5000%2F&images=library%2Fnginx%3A1.25%40{digest}"
        );
        let answer = look(&same);
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("Nothing changes."), "{}", answer.text());
        let other = "registry=https%3A%2F%2Fr.example&platforms=linux%2Farm64&tags=pin&images=library%2Fnginx%3A1.26";
        let text = look(other).text();
        for said in [
            "for 1 satellites",
            "- <code>library/nginx:1.25@sha256:3e38",
            "+ <code>library/nginx:1.26</code>",
            "registry: <code>http://127.0.0.1:5000</code> becomes <code>https://r.example</code>",
            "platforms: <code>-</code> becomes <code>linux/arm64</code>",
            "tags: <code>off</code> becomes <code>pin</code>",
            "library/nginx:1.26</textarea>",
        ] {
            assert!(text.contains(said), "{said}: not in {text}");
        }
        assert_eq!(admin.get("/api/groups/g1").json(), before, "nothing was saved");
        let bad = look("registry=&images=a+b");
        assert!(bad.status == 400 && bad.text().contains("a b</textarea>"));
        // What was shown is saved from the same page.
        let shown = look(other).text();
        assert_eq!(browser.send(&shown, page, other).status, 303);
        assert_eq!(admin.get("/api/groups/g1").json()["Registry"], "https://r.example");
    });
}

#[test]
fn users_are_managed_by_clicking() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let browser = Browser::log_in(&server);
        let page = "/console/users";
        let add = |password: &str| {
            browser.submit(page, page, &format!("username=vic&password={password}&role=viewer"))
        };
        assert_eq!(add("short").status, 400);
        assert_eq!(add("Correct-horse-2").status, 303);
        assert_eq!(add("Correct-horse-2").status, 409);
        let vic = Browser::log_in_as(&server, "username=vic&password=Correct-horse-2");
        let shown = vic.get(page).text();
        assert!(shown.contains("Your password") && !shown.contains("Add a user"), "{shown}");
        // A form of another's page does not make a viewer an administrator.
        let token = shown.split("name=\"form_token\" value=\"").nth(1).unwrap();
        let token = token.split('"').next().unwrap();
        for path in [page, "/console/users/admin/password", "/console/users/admin/remove"] {
            let body = format!("form_token={token}&username=x&password=Correct-horse-3&role=admin");
            assert_eq!(post(&server.anyone(), &vic.cookie, path, &body).status, 403, "{path}");
        }
        let own = |current: &str, new: &str| {
            vic.submit(page, "/console/password", &format!("current={current}&password={new}"))
        };
        assert_eq!(own("Wrong-horse-2", "Correct-horse-3").status, 401);
        assert_eq!(own("Correct-horse-2", "short").status, 400);
        let stale = vic.get(page).text();
        let set = "/console/users/vic/password";
        assert_eq!(browser.submit(page, set, "password=Correct-horse-4").status, 303);
        assert_eq!(vic.get("/console").status, 303, "it ended the sessions");
        let vic = Browser::log_in_as(&server, "username=vic&password=Correct-horse-4");
        let late = vic.send(
            &stale,
            "/console/password",
            "current=Correct-horse-4&password=Correct-horse-5",
        );
        assert_eq!(late.status, 403, "the form is of a session that ended");
        let own = vic.submit(
            page,
            "/console/password",
            "current=Correct-horse-4&password=Correct-horse-5",
        );
        assert_eq!(own.header("location"), Some("/console/login"), "{}", own.text());
        Browser::log_in_as(&server, "username=vic&password=Correct-horse-5");
        assert_eq!(browser.submit(page, "/console/users/vic/remove", "").status, 303);
        assert!(!browser.get(page).text().contains("/console/users/vic/"));
        let log = server.admin().get("/api/audit").text();
        assert!(log.contains("user.delete") && !log.contains("Correct-horse"), "{log}");
    });
}

#[test]
fn configurations_are_made_and_changed_by_clicking() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = crate::harness::enrolled(&server);
        let browser = Browser::log_in(&server);
        let (list, own) = ("/console/configs", "/console/configs/c1");
        let encode =
            |text: &str| percent_encoding::utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let save = |from: &str, fields: &str, config: &str| {
            browser.submit(from, from, &format!("{fields}config={}", encode(config)))
        };
        let bad = save(list, "name=c2&", "{\"app_config\":\n{hunter2}");
        let text = bad.text();
        assert!(bad.status == 400 && text.contains("line 2, column 2: expected JSON"), "{text}");
        assert!(text.contains("{hunter2}</textarea>"), "what was typed is kept: {text}");
        for wrong in ["[]", "{\"app_config\":7}"] {
            assert_eq!(save(list, "name=c2&", wrong).status, 400, "{wrong}");
        }
        assert_eq!(save(list, "name=..&", "{}").status, 400);
        assert_eq!(save(list, "name=c1&", "{}").status, 409);
        let made = save(list, "name=c2&", "{}");
        assert_eq!(made.header("location"), Some("/console/configs/c2"), "{}", made.text());

        // A secret is masked, and the mask keeps it; satellites read it.
        let config = |password: &str, level: &str| {
            serde_json::json!({ "app_config": { "log_level": level }, "moonlet": { "registries": [
                { "url": "https://r.example", "username": "u", "password": password }] } })
            .to_string()
        };
        let stale = browser.get(own).text();
        assert_eq!(save(own, "", &config("hunter2", "info")).status, 303);
        let shown = browser.get(own).text();
        assert!(shown.contains("********") && !shown.contains("hunter2"), "{shown}");
        assert_eq!(save(own, "", &config("********", "warn")).status, 303);
        let url = format!("http://{}/satellite/config-state/c1/state:latest", server.address);
        let (_, given) = satellite.read(&server, &url).unwrap();
        assert_eq!(given["moonlet"]["registries"][0]["password"], "hunter2", "{given}");
        assert_eq!(given["app_config"]["log_level"], "warn");
        let late = browser.send(&stale, own, &format!("config={}", encode(&config("x", "debug"))));
        assert_eq!(late.status, 412, "{}", late.text());
        assert!(late.text().contains("debug"), "what was typed is kept");
        // What a satellite has stays.
        assert_eq!(browser.submit(own, "/console/configs/c1/remove", "").status, 400);
        assert_eq!(
            browser.submit("/console/configs/c2", "/console/configs/c2/remove", "").status,
            303
        );
        assert_eq!(browser.get("/console/configs/c2").status, 404);
        let log = admin.get("/api/audit").text();
        assert!(log.contains("config.create") && !log.contains("hunter2"), "{log}");
    });
}

#[test]
fn watched_pages_are_counted_and_end_with_the_server() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let _edge = crate::harness::enrolled(&server);
    let browser = Browser::log_in(&server);
    let fields = "name=r1&group=g1&batches=all&max_unavailable=&images=library%2Fnginx%3A9\
        &success=90%25&error=50%25&timeout=1d";
    let started = browser.submit("/console/rollouts/new?group=g1", "/console/rollouts", fields);
    assert_eq!(started.status, 303, "{}", started.text());
    let watch = || browser.watch("/console/rollouts/r1/live");
    let mut watched: Vec<_> = (0..64).map(|_| watch()).collect();
    assert!(watched.iter().all(|(status, _)| *status == 200));
    let (status, mut lines) = watch();
    assert_eq!(status, 503);
    assert!(lines.any(|line| line == "retry-after: 5"));
    // A place is free again when its page is left.
    watched.pop();
    let deadline = Instant::now() + Duration::from_secs(60);
    while watch().0 == 503 {
        assert!(Instant::now() < deadline, "no place became free");
    }
    let (_, mut events) = watched.pop().unwrap();
    assert!(events.any(|line| line == "event: content"));
    // The stop ends them, and is not held up until what is under way is cut off: that has no last chunk.
    assert!(server.stop());
    let rest: Vec<String> = events.collect();
    assert!(rest.iter().any(|line| line == "0"), "{rest:?}");
    assert!(!rest.iter().any(|line| line == "event: end"), "its browser comes back");
}

#[test]
fn assets_are_kept_for_as_long_as_they_are_what_they_are() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let browser = Browser::log_in(&server);
    let page = browser.get("/console").text();
    let (_, rest) = page.split_once("href=\"/console/style.css?v=").unwrap();
    let version = rest.split('"').next().unwrap();
    for (asked, kept) in [
        (format!("?v={version}"), "max-age=31536000, immutable"),
        ("?v=0123456789abcdef".to_owned(), "no-store"),
        (String::new(), "no-store"),
    ] {
        let style = browser.get(&format!("/console/style.css{asked}"));
        assert_eq!((style.status, style.header("cache-control")), (200, Some(kept)), "{asked}");
        assert_eq!(style.header("content-type"), Some("text/css; charset=utf-8"));
    }
    let script = browser.get("/console/live.js");
    assert_eq!(script.header("content-type"), Some("text/javascript; charset=utf-8"));
}

fn await_line(events: &mut impl Iterator<Item = String>, expected: &str) {
    let is_there = events.any(|line| line.contains(expected));
    assert!(is_there, "no {expected:?} before the end");
}
