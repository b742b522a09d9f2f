//! Words that only some files may use.

use std::path::Path;

use super::files::{Files, is_test, read_files, sample, without_tests};
use super::paths::tokens;

/// Words that only some files may use, and which: a seam that is open in two places is none. Each
/// word is one token, or several in a row. Tests may use what they like.
const MAY_KNOW: &[(&str, &[&str], &[&str])] = &[
    (
        "waits and measures by the kernel's clock; a clock is handed in",
        &["Timer", "Instant", "SystemTime"],
        &["clock.rs", "clock/alarm.rs"],
    ),
    (
        "makes a clock; one is handed in",
        &["SystemClock"],
        &[
            "clock.rs",
            "net/tls.rs",
            "satellite/check.rs",
            "satellite/doctor.rs",
            "satellite/doctor/serve.rs",
            "satellite/mod.rs",
            "satellite/run.rs",
            "satellite/look.rs",
            "satellite/show.rs",
        ],
    ),
    (
        "opens sockets",
        &["TcpStream", "TcpListener", "UdpSocket", "UnixDatagram", "UnixListener", "UnixStream"],
        &[
            "net/dial.rs",
            "net/http/server.rs",
            "net/http/session.rs",
            "net/http/wire.rs",
            "net/listen.rs",
            "satellite/notify.rs",
        ],
    ),
    (
        "spawns tasks or threads",
        &[". spawn ("],
        &[
            "blob/io/lane.rs",
            "net/resolve.rs",
            "satellite/daemon.rs",
            "satellite/doctor.rs",
            "satellite/mod.rs",
            "satellite/run.rs",
            "satellite/service.rs",
        ],
    ),
    (
        "hands work to the threads for what blocks",
        &["unblock"],
        &[
            "blob/io/lane.rs",
            "blob/io/queue.rs",
            "blob/io/syncing.rs",
            "net/http/resident.rs",
            "serve/users.rs",
        ],
    ),
    (
        "prints",
        &["println", "eprintln", "stdout", "stderr"],
        &["satellite/log.rs", "satellite/look.rs", "satellite/show.rs"],
    ),
    ("reads arguments", &["env :: args", "env :: args_os"], &["satellite/args/mod.rs"]),
    (
        "reads the environment",
        &["env :: var", "env :: var_os", "env :: vars"],
        &[
            "net/proxy.rs",
            "net/tls/files.rs",
            "satellite/args/mod.rs",
            "satellite/log.rs",
            "satellite/notify.rs",
            "satellite/zone.rs",
        ],
    ),
    (
        "opens what is written",
        &["OpenOptions"],
        &[
            "flash/block.rs",
            "flash/file.rs",
            "flash/file/layout.rs",
            "flash/mtd.rs",
            "flash/ubi.rs",
        ],
    ),
    (
        "is outside the rules of memory",
        &["unsafe"],
        &["flash/ioctl.rs", "satellite/mod.rs", "satellite/user.rs"],
    ),
];

#[test]
fn what_a_file_may_know_is_known_nowhere_else() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = read_files(&source, &source);
    let problems: Vec<String> = MAY_KNOW.iter().flat_map(|rule| offenders(rule, &files)).collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn a_file_that_may_not_know_is_named_and_so_is_one_that_does_not_any_more() {
    let files = sample(&[
        ("clock.rs", "// Instant\nfn f() {}"),
        ("blob/gc.rs", "use std::time::Instant;\n#[cfg(test)]\nmod tests { use smol::Timer; }"),
        ("blob/tests.rs", "use smol::Timer;"),
        ("net.rs", "executor.spawn(x); (self.spawn)(x);"),
    ]);
    let rule = ("waits", &["Timer", "Instant", ". spawn ("][..], &["clock.rs"][..]);
    assert_eq!(
        offenders(&rule, &files),
        [
            "src/blob/gc.rs:1 says `Instant`: it waits",
            "src/net.rs:1 says `. spawn (`: it waits",
            "src/clock.rs says none of `Timer`, `Instant`, `. spawn (` any more",
        ]
    );
}

/// The device's files that use words which are not theirs, and those that need not any more.
fn offenders((what, words, places): &(&str, &[&str], &[&str]), files: &Files) -> Vec<String> {
    let mut problems = Vec::new();
    let mut unused = places.to_vec();
    for (path, text) in files {
        let apart = ["ground/", "bin/", "build"].iter().any(|start| path.starts_with(start));
        // What a simulation is made of.
        if is_test(path) || apart || path.ends_with("/sim.rs") {
            continue;
        }
        let tokens = tokens(without_tests(text));
        for words in words.iter() {
            let sequence: Vec<&str> = words.split(' ').collect();
            let mut found = tokens.windows(sequence.len()).filter(|window| {
                window.iter().map(|token| token.1.as_str()).eq(sequence.iter().copied())
            });
            let Some(first) = found.next() else { continue };
            unused.retain(|place| place != path);
            if !places.contains(&path.as_str()) {
                problems.push(format!("src/{path}:{} says `{words}`: it {what}", first[0].0));
            }
        }
    }
    let all = words.iter().map(|words| format!("`{words}`")).collect::<Vec<_>>().join(", ");
    problems.extend(unused.iter().map(|place| format!("src/{place} says none of {all} any more")));
    problems
}
