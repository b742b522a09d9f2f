//! The commands as people type them: what is printed where, and the exit codes. The built binary is
//! what runs.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory that is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("moonlet-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// A configuration with a store of its own and `more`.
    fn config(&self, more: &str) -> PathBuf {
        let path = self.0.join("moonlet.toml");
        let store = self.0.join("store");
        let text = format!("[store]\npath = {store:?}\nsize_max = \"8MiB\"\n{more}");
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Exit code, standard output, standard error.
fn moonlet(words: &[&str], config: Option<&Path>) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moonlet"));
    command.args(words).env_remove("MOONLET_CONFIG").env_remove("JOURNAL_STREAM");
    if let Some(config) = config {
        command.arg("-c").arg(config);
    }
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn help_is_an_answer_and_a_mistake_is_not() {
    for words in [&["--help"][..], &["-h"], &["help"], &["run", "--help"], &["help", "store"]] {
        let (code, out, err) = moonlet(words, None);
        assert!(code == 0 && out.contains("Usage: moonlet") && err.is_empty(), "{words:?}: {err}");
    }
    for words in [&["-V"][..], &["-v"], &["run", "--version"]] {
        let (code, out, _) = moonlet(words, None);
        assert!(code == 0 && out.starts_with("moonlet 0."), "{words:?}: {out}");
        let features = "\nfeatures: airgap boards client-certs doctor embedded-roots htpasswd proxy \
                        pull-through raw-flash serve-tls sha512 status tls12 verify\n";
        assert!(out.ends_with(features), "{words:?}: {out}");
    }
    let (code, out, err) = moonlet(&[], None);
    assert!(code == 2 && out.is_empty() && err.contains("Commands:"), "{code} {err}");
    let (code, _, err) = moonlet(&["stauts"], None);
    assert!(code == 2 && err.contains("did you mean status?"), "{code} {err}");
}

#[test]
fn a_configuration_is_named_before_or_after_the_command() {
    let directory = Directory::new("anywhere");
    let config = directory.config("name = 5\n");
    let name = config.to_str().unwrap();
    let long = format!("--config={name}");
    for words in [
        &["check", "--config", name][..],
        &["--config", name, "check"],
        &["-c", name, "check"],
        &["check", &long],
        &["--log-level", "error", "check", "-c", name],
    ] {
        let (code, _, err) = moonlet(words, None);
        assert!(code == 2 && err.contains("moonlet.toml:4: [store] name"), "{words:?}: {err}");
    }
}

#[test]
fn check_warns_and_goes_on_or_refuses() {
    let directory = Directory::new("check");
    let password = directory.0.join("password");
    std::fs::write(&password, "s3cret\n").unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o644)).unwrap();
    let missing = directory.0.join("missing");
    let upstream = format!(
        "[[upstream]]\nregistry = \"up.test\"\nurl = \"https://up.test/v2/\"\nusername = \"u\"\n\
         password_file = {password:?}\nca_file = {missing:?}\n"
    );
    let config = directory.config(&upstream);
    let (code, out, err) = moonlet(&["check"], Some(&config));
    assert_eq!(code, 0, "{err}");
    for part in ["no image is from it", "others can read it", "missing\": No such file"] {
        assert!(err.contains(part), "no {part:?} in {err}");
    }
    assert!(err.lines().all(|line| line.starts_with("moonlet: warning: ")), "{err}");
    assert!(out.contains("url = \"https://up.test/\"") && !out.contains("s3cret"), "{out}");

    let huge = directory.config("").with_file_name("huge.toml");
    let text = std::fs::read_to_string(directory.0.join("moonlet.toml")).unwrap();
    std::fs::write(&huge, text.replace("8MiB", "400GiB")).unwrap();
    // A test machine may have more than any device: then it is no mistake there.
    let (code, _, err) = moonlet(&["check"], Some(&huge));
    assert!(code == 0 || err.contains("size_max = 400GiB: the file system of"), "{code} {err}");

    let small = std::fs::read_to_string(&huge).unwrap().replace("400GiB", "320KiB");
    std::fs::write(&huge, small).unwrap();
    let (code, _, err) = moonlet(&["check"], Some(&huge));
    assert!(
        code == 2 && err.contains("huge.toml:1: [store] size_max below 384KiB"),
        "{code} {err}"
    );
}

#[test]
fn status_says_when_no_satellite_answers() {
    let directory = Directory::new("status");
    let config = directory.config("[admin]\nlisten = \"127.0.0.1:1\"\n");
    assert_eq!(moonlet(&["sync", "--once"], Some(&config)).0, 0);
    let (code, out, err) = moonlet(&["status"], Some(&config));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("! moonlet run: no satellite answers at http://127.0.0.1:1"), "{out}");
    assert!(!out.contains("! store"), "{out}");
    let (_, out, _) = moonlet(&["--json", "status"], Some(&config));
    assert!(out.contains("\"part\": \"moonlet run\""), "{out}");
}
