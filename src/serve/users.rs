//! Who may read: anyone, or the users of an htpasswd file (`htpasswd -B`: bcrypt).
//!
//! bcrypt is slow on purpose, a tenth of a second on a small device, so that it runs aside, one at a
//! time, and what was found right is remembered: by a keyed hash, for a client sends its password
//! with every request. A wrong one is never remembered, and only so many wait for their turn that
//! guessing can take neither memory nor the executor.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use smol::lock::Mutex;

use super::access::{basic, refusal};
use super::problem;
use crate::config::{Stamp, stamp};
use crate::net::http::{ClientAddress, ServerResponse};

/// The users of a file.
pub struct Users {
    path: PathBuf,
    /// What the file was when it was read last, and what it said.
    read: RefCell<(Option<Stamp>, Result<Hashes, String>)>,
    /// What was found right, with the number of its last use.
    verified: RefCell<BTreeMap<[u8; 32], u64>>,
    uses: Cell<u64>,
    turn: Mutex<()>,
    waiting: RefCell<Vec<ClientAddress>>,
    /// Made at the start: what is remembered means nothing to anybody else.
    key: [u8; 32],
}

/// bcrypt hashes by user.
type Hashes = BTreeMap<String, String>;

impl Users {
    /// Reads nothing yet.
    pub fn new(path: PathBuf, key: [u8; 32]) -> Self {
        Self {
            path,
            read: RefCell::new((None, Ok(Hashes::new()))),
            verified: RefCell::default(),
            uses: Cell::new(0),
            turn: Mutex::new(()),
            waiting: RefCell::default(),
            key,
        }
    }

    /// What is wrong with the file now, if anything is.
    pub fn problem(&self) -> Option<String> {
        self.refresh();
        self.read.borrow().1.as_ref().err().cloned()
    }

    /// The user whose credentials these are, which `client` has shown; else what is answered.
    pub async fn admit(
        &self,
        credentials: Option<&str>,
        client: ClientAddress,
    ) -> Result<String, ServerResponse> {
        self.refresh();
        let Some((user, password)) = credentials.and_then(basic) else {
            return Err(refusal("credentials are needed"));
        };
        let hash = match &self.read.borrow().1 {
            Ok(hashes) => hashes.get(&user).cloned(),
            Err(_) => return Err(problem(503, "UNAUTHORIZED", "no users can be read now")),
        };
        let Some(hash) = hash else { return Err(refusal("the credentials are wrong")) };
        let mark = self.mark(&user, &password, &hash);
        if self.is_verified(mark) {
            return Ok(user);
        }
        let waiting = self.waiting.borrow().len();
        let own = self.waiting.borrow().iter().filter(|one| **one == client).count();
        if waiting >= WAITING_MAX || own >= WAITING_EACH_MAX {
            let mut response = problem(429, "TOOMANYREQUESTS", "too many passwords to verify");
            response.headers.append("retry-after", "1");
            return Err(response);
        }
        let _waiting = Waiting::new(&self.waiting, client);
        let _turn = self.turn.lock().await;
        // The one before may have been the same.
        if self.is_verified(mark) {
            return Ok(user);
        }
        let right = smol::unblock(move || bcrypt::verify(password, &hash).unwrap_or(false)).await;
        if !right {
            return Err(refusal("the credentials are wrong"));
        }
        self.remember(mark);
        Ok(user)
    }

    /// Reads the file if it is another one by now.
    fn refresh(&self) {
        let now = stamp(&self.path);
        let mut read = self.read.borrow_mut();
        if now.is_none() || read.0 != now {
            *read = (now, hashes(&self.path));
        }
    }

    fn mark(&self, user: &str, password: &[u8], hash: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in [user.as_bytes(), password, hash.as_bytes()] {
            hasher.update(&part.len().to_le_bytes());
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }

    fn is_verified(&self, mark: [u8; 32]) -> bool {
        self.uses.set(self.uses.get() + 1);
        let mut verified = self.verified.borrow_mut();
        verified.get_mut(&mark).is_some_and(|used| {
            *used = self.uses.get();
            true
        })
    }

    fn remember(&self, mark: [u8; 32]) {
        let mut verified = self.verified.borrow_mut();
        if verified.len() >= VERIFIED_MAX
            && let Some((oldest, _)) = verified.iter().min_by_key(|(_, used)| **used)
        {
            let oldest = *oldest;
            verified.remove(&oldest);
        }
        verified.insert(mark, self.uses.get());
    }
}

/// One of those that wait, until it is dropped.
struct Waiting<'a>(&'a RefCell<Vec<ClientAddress>>, ClientAddress);

impl<'a> Waiting<'a> {
    fn new(all: &'a RefCell<Vec<ClientAddress>>, client: ClientAddress) -> Self {
        all.borrow_mut().push(client);
        Self(all, client)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut all = self.0.borrow_mut();
        if let Some(place) = all.iter().position(|one| *one == self.1) {
            all.swap_remove(place);
        }
    }
}

/// The users of an htpasswd file: `name:hash` a line.
fn hashes(path: &PathBuf) -> Result<Hashes, String> {
    let name = path.display();
    let mut text = String::new();
    let file = File::open(path).map_err(|error| format!("htpasswd {name}: {error}"))?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("htpasswd {name}: {error}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("htpasswd {name}: expected at most {FILE_BYTES_MAX} bytes"));
    }
    let mut hashes = Hashes::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let expected = || {
            format!(
                "htpasswd {name}, line {number}: expected user:$2y$..., as htpasswd -B writes it"
            )
        };
        let (user, hash) = line.split_once(':').ok_or_else(expected)?;
        if user.is_empty() || !is_bcrypt(hash) {
            return Err(expected());
        }
        hashes.insert(user.to_owned(), hash.to_owned());
    }
    match hashes.is_empty() {
        true => Err(format!("htpasswd {name}: no users, expected user:$2y$...")),
        false => Ok(hashes),
    }
}

/// `$2y$05$` and 53 signs; above [`COST_MAX`] one log-in would take minutes on a small device.
fn is_bcrypt(hash: &str) -> bool {
    let kinds = ["$2a$", "$2b$", "$2y$"];
    let Some(rest) = kinds.iter().find_map(|kind| hash.strip_prefix(kind)) else { return false };
    let Some((cost, salted)) = rest.split_once('$') else { return false };
    let is_cost = cost.parse::<u32>().is_ok_and(|cost| (4..=COST_MAX).contains(&cost));
    let is_sign = |sign: u8| sign.is_ascii_alphanumeric() || b"./".contains(&sign);
    is_cost && salted.len() == 53 && salted.bytes().all(is_sign)
}

const FILE_BYTES_MAX: u64 = 64 << 10;
/// Clients that are remembered.
const VERIFIED_MAX: usize = 64;
/// Passwords that wait to be verified.
const WAITING_MAX: usize = 16;
/// The same of one client: who guesses keeps no other from logging in.
const WAITING_EACH_MAX: usize = 4;
const COST_MAX: u32 = 14;

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn status(users: &Users, authorization: Option<&str>) -> u16 {
        let admitted = smol::block_on(users.admit(authorization, client(1)));
        admitted.err().map_or(200, |response| response.status)
    }

    fn client(number: u8) -> ClientAddress {
        ClientAddress::of([192, 0, 2, number].into())
    }

    #[test]
    fn who_guesses_keeps_no_other_from_logging_in() {
        let path = std::env::temp_dir().join(format!("moonlet-htpasswd-c-{}", std::process::id()));
        std::fs::write(&path, format!("edge:{}\n", bcrypt_of("right"))).unwrap();
        let users = Users::new(path.clone(), [7; 32]);
        let guess = |number: usize| header(&format!("edge:{number}"));
        let guesses: Vec<String> = (0..=WAITING_EACH_MAX).map(guess).collect();
        let right = header("edge:right");
        smol::block_on(async {
            // Held, none of them has its turn: this one has it.
            let _turn = users.turn.lock().await;
            let mut waiting = Vec::new();
            for guess in &guesses {
                let mut admitted = Box::pin(users.admit(Some(guess), client(1)));
                match smol::future::poll_once(&mut admitted).await {
                    None => waiting.push(admitted),
                    Some(answer) => assert_eq!(answer.err().map(|answer| answer.status), Some(429)),
                }
            }
            assert_eq!(waiting.len(), WAITING_EACH_MAX);
            let mut other = Box::pin(users.admit(Some(&right), client(2)));
            assert!(smol::future::poll_once(&mut other).await.is_none(), "it may wait");
            drop(_turn);
            assert_eq!(
                smol::future::zip(other, async { drop(waiting) }).await.0.ok(),
                Some("edge".to_owned())
            );
        });
        assert!(users.waiting.borrow().is_empty());
        std::fs::remove_file(path).unwrap();
    }

    fn bcrypt_of(password: &str) -> String {
        bcrypt::hash_with_salt(password, 4, [9; 16]).unwrap().to_string()
    }

    fn header(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn only_the_users_of_the_file_are_admitted() {
        let path = std::env::temp_dir().join(format!("moonlet-htpasswd-{}", std::process::id()));
        let hash = bcrypt_of("pass:word");
        let users = Users::new(path.clone(), [7; 32]);
        assert!(users.problem().unwrap().contains("No such file"));
        assert_eq!(status(&users, Some(&header("edge:pass:word"))), 503);
        std::fs::write(&path, format!("# people\n\nedge:{hash}\n")).unwrap();
        assert_eq!(users.problem(), None);
        for _ in 0..2 {
            assert_eq!(status(&users, Some(&header("edge:pass:word"))), 200);
        }
        assert_eq!(users.verified.borrow().len(), 1);
        let bearer = header("edge:pass:word").replace("Basic", "Bearer");
        for wrong in [header("edge:pass"), header("other:pass:word"), header("edge"), bearer] {
            assert_eq!(status(&users, Some(&wrong)), 401, "{wrong}");
        }
        assert_eq!(status(&users, None), 401);
        assert_eq!(users.verified.borrow().len(), 1, "what is wrong is not remembered");
        let other = bcrypt_of("other");
        std::fs::write(&path, format!("edge:{other}\nmore:{other}\n")).unwrap();
        assert_eq!(status(&users, Some(&header("edge:pass:word"))), 401, "a new password counts");
        assert_eq!(status(&users, Some(&header("more:other"))), 200);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_is_none_is_named_with_its_line() {
        let path = std::env::temp_dir().join(format!("moonlet-htpasswd-b-{}", std::process::id()));
        let users = Users::new(path.clone(), [7; 32]);
        let good = bcrypt_of("x");
        for (text, expected) in [
            (String::new(), "no users"),
            (format!("edge:{good}\nedge\n"), "line 2"),
            ("edge:$apr1$abc$def\n".to_owned(), "htpasswd -B"),
            (format!(":{good}\n"), "line 1"),
            (format!("edge:{}\n", good.replace("$04$", "$31$")), "line 1"),
            ("#".repeat(70_000), "at most 65536 bytes"),
        ] {
            std::fs::write(&path, text).unwrap();
            let problem = users.problem().unwrap();
            assert!(problem.contains(expected), "{problem}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn only_so_many_are_remembered() {
        let users = Users::new(PathBuf::new(), [7; 32]);
        for number in 0..2 * VERIFIED_MAX {
            users.remember(users.mark(&number.to_string(), b"", ""));
            assert!(users.is_verified(users.mark("0", b"", "")));
        }
        assert_eq!(users.verified.borrow().len(), VERIFIED_MAX);
    }
}
