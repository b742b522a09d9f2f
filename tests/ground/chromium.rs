//! Chromium without a window, driven as a person drives it: real clicks and real typing, at the size
//! of a phone or of a desk, by day or by night.
//!
//! It is spoken to over a pipe, in the DevTools protocol: JSON with a NUL behind each message.
//! `PAGE_SHOTS=DIRECTORY` keeps pictures for people to look at.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::common::{Directory, PATIENCE, Running, find_program};
use crate::harness::{PASSWORD, Server};

pub struct Chromium {
    input: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    calls: u64,
    base: String,
    _child: Running,
    _profile: Directory,
}

impl Chromium {
    /// A browser with one page, which shows nothing yet.
    pub fn start(server: &Server) -> Self {
        let program = find_program("chromium").unwrap();
        let profile = Directory::new("chromium");
        // The pipe is 3 and 4, which are its input and output here.
        let script = "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>\"$LOG\"";
        let mut command = Command::new("sh");
        command.env("LOG", profile.join("log")).args(["-c", script, "sh"]).arg(program);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update"]);
        command.args(["--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while output.read_until(0, &mut bytes).is_ok_and(|length| length > 0) {
                bytes.pop();
                let message = serde_json::from_slice(&bytes).unwrap_or_default();
                bytes.clear();
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let (session, base) = (String::new(), format!("http://{}", server.address));
        let (child, profile) = (Running(child), profile);
        let mut browser =
            Self { input, messages, session, calls: 0, base, _child: child, _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        browser.call("Page.enable", json!({}));
        browser.size(1280, false);
        browser
    }

    /// The same, with the first page after the log-in.
    pub fn logged_in(server: &Server) -> Self {
        let mut browser = Self::start(server);
        browser.open("/console");
        browser.fill("User", "admin");
        browser.fill("Password", PASSWORD);
        browser.click("Log in");
        browser.await_text("Fleet:");
        browser
    }

    fn try_call(&mut self, method: &str, parameters: Value) -> Result<Value, String> {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.input.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let answer = self.messages.recv_timeout(PATIENCE);
            let mut answer = answer.unwrap_or_else(|error| panic!("{method}: {error}"));
            if answer["id"] == self.calls {
                let error = answer["error"].take();
                return if error.is_null() {
                    Ok(answer["result"].take())
                } else {
                    Err(error.to_string())
                };
            }
        }
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.try_call(method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// What a script of the test finds in the page. While a page makes way for another there is none.
    fn try_eval(&mut self, script: &str) -> Option<Value> {
        let asked = json!({ "expression": script, "returnByValue": true });
        let mut answer = self.try_call("Runtime.evaluate", asked).ok()?;
        assert!(answer["exceptionDetails"].is_null(), "{script}: {answer}");
        Some(answer["result"]["value"].take())
    }

    /// Waits until a script finds something.
    pub fn await_value(&mut self, script: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        // In one step: a page that is loaded may make way for another right after.
        let when_loaded =
            format!("document.readyState === 'complete' && !window.left ? ({script}) : null");
        loop {
            if let Some(value) = self.try_eval(&when_loaded)
                && !value.is_null()
                && value != json!(false)
            {
                return value;
            }
            if Instant::now() > deadline {
                let seen = self.try_eval("location.href + '\\n' + document.body?.innerText");
                panic!("{script}: not in {}", seen.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn open(&mut self, path: &str) {
        let url = format!("{}{path}", self.base);
        self.call("Page.navigate", json!({ "url": url }));
        self.await_value("location.href !== 'about:blank'");
    }

    pub fn await_text(&mut self, part: &str) {
        self.await_value(&format!("document.body.innerText.includes({})", json!(part)));
    }

    /// Loads the page again until it says something.
    pub fn await_text_after_reload(&mut self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.await_value("document.body.innerText");
            let text = text.as_str().unwrap();
            if text.contains(part) {
                return;
            }
            assert!(Instant::now() < deadline, "{part}: not in {text}");
            std::thread::sleep(Duration::from_millis(300));
            self.call("Page.reload", json!({}));
        }
    }

    /// Clicks the first button or link of this name that is seen.
    pub fn click(&mut self, name: &str) {
        let find = format!(
            "(() => {{ const all = [...document.querySelectorAll('a, button, summary')]; \
             const one = all.find(e => e.innerText.trim() === {name} && e.offsetParent); \
             if (!one) return null; one.scrollIntoView({{ block: 'center', behavior: 'instant' }}); \
             const box = one.getClientRects()[0]; \
             return {{ x: box.x + box.width / 2, y: box.y + box.height / 2, \
             leaves: one.tagName !== 'SUMMARY' }} }})()",
            name = json!(name)
        );
        let place = self.await_value(&find);
        // The next page does not have this.
        if place["leaves"] == true {
            self.try_eval("window.left = true");
        }
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": place["x"], "y": place["y"], "button": "left",
                "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Types into the field of this label, in the place of what it has, or chooses of its list.
    pub fn fill(&mut self, label: &str, text: &str) {
        let find = format!(
            "(() => {{ const labels = [...document.querySelectorAll('label')]; \
             const one = labels.find(e => e.innerText.trim().startsWith({label})); \
             if (!one) return null; const field = one.querySelector('input, textarea, select'); \
             field.focus(); if (field.select) field.select(); \
             if (field.tagName === 'SELECT') field.value = {text}; \
             return field.tagName }})()",
            label = json!(label),
            text = json!(text)
        );
        if self.await_value(&find) != "SELECT" {
            self.call("Input.insertText", json!({ "text": text }));
        }
    }

    /// A window so many pixels wide; a narrow one is a phone's.
    pub fn size(&mut self, width: u32, is_dark: bool) {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1,
            "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if is_dark { "dark" } else { "light" };
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// Keeps a picture of the whole page, where pictures are wanted.
    pub fn shot(&mut self, name: &str) {
        let Some(directory) = std::env::var_os("PAGE_SHOTS").map(PathBuf::from) else { return };
        let wanted = json!({ "captureBeyondViewport": true });
        let shot = self.call("Page.captureScreenshot", wanted);
        let picture = STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        std::fs::write(directory.join(format!("{name}.png")), picture).unwrap();
    }
}
