//! The user that `moonlet run` becomes, started by root for the sake of a device or a port.
//!
//! It goes in two steps, because what a thread may do is its own affair in Linux. While there is one
//! thread, whatever more an executed program could be given goes, and all groups do: threads that
//! start later have what this one has. Root is left when devices and ports are open, in all threads at
//! once; with it the kernel takes their capabilities. Then each thread's own account of itself is read,
//! and an attempt is made to come back: a drop that did not happen must not go unnoticed.
//!
//! Until then files are opened as the user, so that what is made belongs to it and what could not be
//! opened later is found out at once.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use log::info;
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::config::{Config, file_problems};

/// A user that is to be become.
pub struct User {
    /// As the configuration names it.
    name: String,
    uid: Uid,
    gid: Gid,
}

impl User {
    /// The user of the configuration, if there is one and it is not this process's already. From here
    /// on the process is root with none of root's groups, and gains nothing by executing a program.
    pub fn prepare(config: &Config) -> Result<Option<Self>, Error> {
        let Some(user) = Self::of(config)? else { return Ok(None) };
        let now = geteuid();
        if now == user.uid {
            return Ok(None);
        }
        if !now.is_root() {
            let what = format!(
                "user = {:?}: this is user {now}: expected to be started by root, or by {}",
                user.name, user.uid
            );
            return Err(Error(what));
        }
        user.restrict().map_err(|error| user.failed("giving up root's groups", &error))?;
        Ok(Some(user))
    }

    /// The user that the configuration names.
    fn of(config: &Config) -> Result<Option<Self>, Error> {
        let Some(name) = config.user.clone() else { return Ok(None) };
        let passwd = fs::read_to_string(PASSWD).unwrap_or_default();
        let (uid, gid) = ids(&name, &passwd)
            .map_err(|expected| Error(format!("user = {name:?}: expected {expected}")))?;
        Ok(Some(Self { name, uid: Uid::from_raw(uid), gid: Gid::from_raw(gid) }))
    }

    fn restrict(&self) -> io::Result<()> {
        set_no_new_privs(true)?;
        // Root in a container may lack the right to; nothing is gained by executing all the same.
        for bit in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << bit);
            if remove_capability_from_bounding_set(one).is_err() {
                break;
            }
        }
        set_thread_groups(&[])?;
        set_thread_res_gid(self.gid, self.gid, self.gid)?;
        Ok(())
    }

    /// Refuses a configuration with files that the user may not read: they are read again later.
    pub fn check_files(&self, config: &Config, path: &Path) -> Result<(), Error> {
        let _as_user = AsUser::take(self)?;
        let mut denied: Vec<String> = Vec::new();
        if let Err(error) = fs::File::open(path) {
            denied.push(format!("{}: {error}; it is read again at a reload", path.display()));
        }
        let problems = file_problems(config).into_iter().filter(|problem| problem.is_denied);
        denied.extend(problems.map(|problem| problem.text));
        match denied.is_empty() {
            true => Ok(()),
            false => {
                let what = denied.join("\n");
                Err(Error(format!("user {:?} may not read what it needs:\n{what}", self.name)))
            }
        }
    }

    /// Becomes the user for good.
    pub fn become_it(&self) -> Result<(), Error> {
        let uid = self.uid.as_raw();
        set_all_uids(uid).map_err(|error| self.failed("leaving root", &error))?;
        // The kernel has taken all but what may be handed on to executed programs.
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        let cleared = set_capabilities(None, sets).and_then(|()| clear_ambient_capability_set());
        cleared.map_err(|error| self.failed("giving up capabilities", &error.into()))?;
        if set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).is_ok() {
            return Err(Error(format!("user = {:?}: root could be had back", self.name)));
        }
        for thread in fs::read_dir(THREADS).into_iter().flatten().flatten() {
            let status = fs::read_to_string(thread.path().join("status"));
            // One that has ended has nothing any more.
            let Ok(status) = status else { continue };
            if let Some(line) = kept(&status, uid, self.gid.as_raw()) {
                let what = format!("user = {:?}: a thread still has {line:?}", self.name);
                return Err(Error(what));
            }
        }
        info!("runs as {}, user {} and group {}", self.name, self.uid, self.gid);
        Ok(())
    }

    fn failed(&self, what: &str, error: &io::Error) -> Error {
        Error(format!("user = {:?}: {what}: {error}", self.name))
    }
}

/// Files are opened as the user for as long as this lives. Only of this thread, and of those that it
/// starts meanwhile.
pub struct AsUser {
    /// The group before.
    gid: Gid,
}

impl AsUser {
    /// As [`AsUser::take`] of the user that the configuration names, where this is root.
    pub fn of(config: &Config) -> Result<Option<Self>, Error> {
        match User::of(config)? {
            Some(user) if geteuid().is_root() => Self::take(&user).map(Some),
            _ => Ok(None),
        }
    }

    fn take(user: &User) -> Result<Self, Error> {
        let gid = getegid();
        let group = set_thread_res_gid(None, user.gid, None);
        let both = group.and_then(|()| set_thread_res_uid(None, user.uid, None));
        both.map_err(|error| user.failed("opening files as it", &error.into()))?;
        Ok(Self { gid })
    }
}

impl Drop for AsUser {
    fn drop(&mut self) {
        // Root's real user is kept, so that this cannot fail; if it did, less would be allowed.
        let _ = set_thread_res_uid(None, Uid::ROOT, None);
        let _ = set_thread_res_gid(None, self.gid, None);
    }
}

/// Why a user cannot be become, or files not be opened as it.
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// User and group of a name, by the lines of `/etc/passwd`, or of numbers; else what was expected.
fn ids(name: &str, passwd: &str) -> Result<(u32, u32), String> {
    let numbers = |user: &str, group: &str| Some((user.parse().ok()?, group.parse().ok()?));
    let listed = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [user, _, uid, gid, ..] if *user == name => numbers(uid, gid),
            _ => None,
        }
    });
    let found = listed.or_else(|| name.split_once(':').and_then(|(uid, gid)| numbers(uid, gid)));
    match found {
        Some((0, _)) => Err("another user than root".to_owned()),
        // The system calls take this for none.
        Some((u32::MAX, _) | (_, u32::MAX)) | None => {
            Err(format!("a user of {PASSWD}, or numbers such as \"990:990\""))
        }
        Some(found) => Ok(found),
    }
}

/// The line of a thread's status that says that it has more than the user and its group.
fn kept(status: &str, uid: u32, gid: u32) -> Option<&str> {
    let is_all = |rest: &str, id: u32| rest.split_whitespace().all(|one| one.parse() == Ok(id));
    status.lines().find(|line| match line.split_once(':') {
        Some(("Uid", rest)) => !is_all(rest, uid),
        Some(("Gid", rest)) => !is_all(rest, gid),
        Some(("Groups", rest)) => !is_all(rest, gid),
        Some(("CapPrm" | "CapEff" | "CapAmb", rest)) => !is_all(rest, 0),
        Some(("NoNewPrivs", rest)) => !is_all(rest, 1),
        _ => false,
    })
}

/// Makes `uid` the real, effective and saved user of every thread, as POSIX has it and the system call
/// does not: the C library, which knows the threads, lets each of them do it.
#[allow(unsafe_code)]
fn set_all_uids(uid: u32) -> io::Result<()> {
    unsafe extern "C" {
        fn setresuid(real: u32, effective: u32, saved: u32) -> i32;
    }
    // SAFETY: it takes numbers, and touches no memory of ours.
    match unsafe { setresuid(uid, uid, uid) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

const PASSWD: &str = "/etc/passwd";
const THREADS: &str = "/proc/self/task";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_or_two_numbers() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\nbroken:x\nodd:x:a:b:\n\
                      moonlet:x:990:991::/var/lib/moonlet:/usr/sbin/nologin\ntoor:x:0:5::/:/bin/sh\n";
        for (name, expected) in [("moonlet", (990, 991)), ("123:456", (123, 456))] {
            assert_eq!(ids(name, passwd), Ok(expected), "{name}");
        }
        for name in ["root", "toor", "0:0", "0:5"] {
            assert!(ids(name, passwd).unwrap_err().contains("than root"), "{name}");
        }
        for name in ["moon", "broken", "odd", "990", "", "x", "1:", "4294967295:1", "1:4294967296"]
        {
            assert!(ids(name, passwd).unwrap_err().contains("990:990"), "{name}");
        }
    }

    #[test]
    fn whatever_a_thread_has_kept_is_seen() {
        let good = "Name:\tmoonlet\nUid:\t9\t9\t9\t9\nGid:\t8\t8\t8\t8\nGroups:\t \n\
                    CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
                    CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\n\
                    CapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";
        assert_eq!(kept(good, 9, 8), None);
        for (line, other) in [
            ("Uid:\t9\t9\t9\t9", "Uid:\t9\t9\t0\t9"),
            ("Gid:\t8\t8\t8\t8", "Gid:\t8\t0\t8\t8"),
            ("Groups:\t ", "Groups:\t0 8 "),
            ("CapPrm:\t0000000000000000", "CapPrm:\t0000000000000400"),
            ("CapEff:\t0000000000000000", "CapEff:\t0000000000000001"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
        ] {
            assert_eq!(kept(&good.replace(line, other), 9, 8), Some(other));
        }
    }
}
