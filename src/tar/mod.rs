//! Tars and gzip: what images and state artifacts are packed in.
//!
//! Reading: POSIX ustar and pax, and what GNU and Go write (long names, sizes beyond 8 GiB). One
//! header at a time, from any source of bytes; names are text and open no file. Writing: a
//! regular file of no owner and of no time, so that the same content makes the same bytes.

mod gzip;

use crate::units::to_usize;
use std::io::{self, Read};

pub use gzip::{Gunzip, is_gzip};

/// What stands at the head of an entry; its content follows, padded to whole blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path, without a leading `./`.
    pub name: String,
    /// Bytes of the content.
    pub size: u64,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A symbolic or a hard link, and where to.
    Link(String),
    /// A directory, a device and all else.
    Other,
}

impl Entry {
    /// Bytes from the head to the next one.
    pub fn padded_size(&self) -> u64 {
        self.size.next_multiple_of(BLOCK_BYTES as u64)
    }
}

/// Reads the next head; none at the end. The caller passes over the content before it asks again.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] for what is no head; [`io::ErrorKind::UnexpectedEof`] for one
/// that is cut short; the source's own.
pub fn next_entry(source: &mut impl Read) -> io::Result<Option<Entry>> {
    let mut long = Long::default();
    for _ in 0..EXTENSIONS_MAX {
        let Some(block) = block(source)? else { return Ok(None) };
        let (mut entry, kind) = parse(&block)?;
        match kind {
            b'x' => long.pax(&extension(source, &entry)?)?,
            b'L' => long.name = Some(c_string(&extension(source, &entry)?)),
            b'K' => long.link = Some(c_string(&extension(source, &entry)?)),
            b'g' => drop(extension(source, &entry)?),
            _ => {
                if let Some(name) = long.name {
                    entry.name = without_dot(&name).to_owned();
                }
                entry.size = long.size.unwrap_or(entry.size);
                if let (EntryKind::Link(link), Some(long)) = (&mut entry.kind, long.link) {
                    *link = long;
                }
                if entry.size > SIZE_MAX {
                    let what = format!("{:?} of {} bytes", entry.name, entry.size);
                    return Err(invalid(&format!("{what}, expected at most {SIZE_MAX}")));
                }
                return Ok(Some(entry));
            }
        }
    }
    Err(invalid(&format!("more than {EXTENSIONS_MAX} extended heads before one entry")))
}

/// The head, or heads, of a file of `size` bytes.
pub fn head(name: &str, size: u64) -> Vec<u8> {
    let mut heads = Vec::new();
    if name.len() > NAME_BYTES {
        let record = pax_record("path", name);
        heads.extend(plain_head("././@PaxHeader", record.len() as u64, b'x'));
        heads.extend(record.as_bytes());
        heads.resize(heads.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    let shown = name.get(..name.len().min(NAME_BYTES)).unwrap_or_default();
    heads.extend(plain_head(shown, size, b'0'));
    heads
}

/// Bytes that stand behind a file of `size` bytes.
pub fn padding(size: u64) -> &'static [u8] {
    let bytes = to_usize(size.next_multiple_of(BLOCK_BYTES as u64) - size);
    END.get(..bytes).unwrap_or_default()
}

/// The end of a tar.
pub const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

fn plain_head(name: &str, size: u64, kind: u8) -> [u8; BLOCK_BYTES] {
    let mut head = [0; BLOCK_BYTES];
    let octal = format!("{size:011o}\0");
    let fields: [(usize, &[u8]); 9] = [
        (0, name.as_bytes()),
        (100, b"0000644\0"),
        (108, b"0000000\0"),
        (116, b"0000000\0"),
        (124, octal.as_bytes()),
        (136, b"00000000000\0"),
        (148, b"        "),
        (156, &[kind]),
        (257, b"ustar\x0000"),
    ];
    for (at, bytes) in fields {
        let place = head.iter_mut().skip(at);
        place.zip(bytes).for_each(|(place, byte)| *place = *byte);
    }
    if size > OCTAL_MAX {
        // As GNU, Go and all who follow them write what does not fit.
        let big = [0x80, 0, 0, 0].into_iter().chain(size.to_be_bytes());
        head.iter_mut().skip(124).zip(big).for_each(|(place, byte)| *place = byte);
    }
    let sum = format!("{:06o}\0 ", checksum(&head));
    head.iter_mut().skip(148).zip(sum.as_bytes()).for_each(|(place, byte)| *place = *byte);
    head
}

/// `<length> <key>=<value>\n`, whose length counts itself.
fn pax_record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while format!("{length}{rest}").len() != length {
        length = format!("{length}{rest}").len();
    }
    format!("{length}{rest}")
}

/// What extended heads say of the entry behind them.
#[derive(Default)]
struct Long {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl Long {
    fn pax(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let malformed = || invalid("a malformed pax head");
        while !bytes.is_empty() {
            let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let length = bytes.get(..space).and_then(|text| std::str::from_utf8(text).ok());
            let length: usize = length.and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
            let record = bytes.get(space + 1..length).ok_or_else(malformed)?;
            bytes = bytes.get(length..).ok_or_else(malformed)?;
            let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
            let record = String::from_utf8_lossy(record);
            let (key, value) = record.split_once('=').ok_or_else(malformed)?;
            match key {
                "path" => self.name = Some(value.to_owned()),
                "linkpath" => self.link = Some(value.to_owned()),
                "size" => self.size = Some(value.parse().map_err(|_| malformed())?),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The next block; none at the end, which is a block of zeros or where nothing follows.
fn block(source: &mut impl Read) -> io::Result<Option<[u8; BLOCK_BYTES]>> {
    let mut block = [0; BLOCK_BYTES];
    let mut length = 0;
    while let Some(rest) = block.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) if length == 0 => return Ok(None),
            Ok(0) => return Err(short()),
            Ok(bytes) => length += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(block.iter().any(|byte| *byte != 0).then_some(block))
}

/// The content of an extended head.
fn extension(source: &mut impl Read, entry: &Entry) -> io::Result<Vec<u8>> {
    if entry.size > EXTENSION_BYTES_MAX {
        let expected = format!("expected at most {EXTENSION_BYTES_MAX}");
        return Err(invalid(&format!("an extended head of {} bytes, {expected}", entry.size)));
    }
    let mut bytes = Vec::new();
    let padded = entry.padded_size();
    if source.take(padded).read_to_end(&mut bytes)? as u64 != padded {
        return Err(short());
    }
    bytes.truncate(to_usize(entry.size));
    Ok(bytes)
}

fn parse(head: &[u8; BLOCK_BYTES]) -> io::Result<(Entry, u8)> {
    let field = |from: usize, length: usize| head.get(from..from + length).unwrap_or_default();
    if number(field(148, 8)) != Some(u64::from(checksum(head))) {
        return Err(invalid("a malformed tar: its checksum is wrong"));
    }
    let size = number(field(124, 12)).ok_or_else(|| invalid("a malformed tar: a wrong size"))?;
    let mut name = c_string(field(0, NAME_BYTES));
    // GNU has other things there.
    let prefix = c_string(field(345, 155));
    if field(257, 6) == b"ustar\0" && !prefix.is_empty() {
        name = format!("{prefix}/{name}");
    }
    let type_flag = head.get(156).copied().unwrap_or(0);
    let kind = match type_flag {
        0 | b'0' | b'7' => EntryKind::File,
        b'1' | b'2' => EntryKind::Link(c_string(field(157, 100))),
        _ => EntryKind::Other,
    };
    // Whatever it says, a link, a device or a directory has no content.
    let size = if (b'1'..=b'6').contains(&type_flag) { 0 } else { size };
    Ok((Entry { name: without_dot(&name).to_owned(), size, kind }, type_flag))
}

/// Octal digits with spaces around them, or a big-endian number behind the byte 0x80.
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, rest @ ..] = field {
        let (high, low) = rest.split_at_checked(rest.len().checked_sub(8)?)?;
        let low = low.try_into().ok().map(u64::from_be_bytes);
        return low.filter(|_| high.iter().all(|byte| *byte == 0));
    }
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    if text.is_empty() || !text.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 8).ok()
}

/// The sum of all bytes, with spaces in place of the sum.
fn checksum(head: &[u8; BLOCK_BYTES]) -> u32 {
    let bytes = head.iter().enumerate();
    bytes.map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum()
}

fn c_string(field: &[u8]) -> String {
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn without_dot(name: &str) -> &str {
    name.strip_prefix("./").unwrap_or(name)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the tar is cut short")
}

/// Everything in a tar is a multiple of this.
pub const BLOCK_BYTES: usize = 512;
/// What a head has room for.
const NAME_BYTES: usize = 100;
/// The largest size that eleven octal digits say.
const OCTAL_MAX: u64 = 0o777_7777_7777;
/// No file is longer; sums with it stay far from overflowing.
const SIZE_MAX: u64 = 1 << 50;
/// Heads that only extend the next one.
const EXTENSIONS_MAX: usize = 8;
/// Bytes of one of those.
const EXTENSION_BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn only(mut tar: &[u8]) -> io::Result<Option<Entry>> {
        next_entry(&mut tar)
    }

    /// A head whose sum is right again after `change`.
    fn changed(change: impl Fn(&mut [u8])) -> Vec<u8> {
        let mut bytes = head("name", 5);
        change(&mut bytes);
        let sum = format!("{:06o}\0 ", checksum(bytes[..].try_into().unwrap()));
        bytes[148..156].copy_from_slice(sum.as_bytes());
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let long = format!("blobs/sha512/{}", "a".repeat(128));
        for name in ["a", "blobs/sha256/x", &"n".repeat(100), &"n".repeat(101), &long] {
            for size in [0, 1, 511, 512, 513, OCTAL_MAX, OCTAL_MAX + 1, SIZE_MAX] {
                let bytes = head(name, size);
                assert!(bytes.len().is_multiple_of(BLOCK_BYTES));
                let entry = only(&bytes).unwrap().unwrap();
                let kind = EntryKind::File;
                assert_eq!(entry, Entry { name: name.to_owned(), size, kind });
            }
        }
        assert_eq!((padding(0).len(), padding(1).len(), padding(512).len()), (0, 511, 0));
        assert_eq!(only(&END).unwrap(), None);
        assert_eq!(only(b"").unwrap(), None);
    }

    #[test]
    fn names_and_links_of_all_kinds() {
        let prefixed = changed(|head| head[345..348].copy_from_slice(b"dir"));
        assert_eq!(only(&prefixed).unwrap().unwrap().name, "dir/name");
        let dotted = changed(|head| head[..6].copy_from_slice(b"./name"));
        assert_eq!(only(&dotted).unwrap().unwrap().name, "name");
        let link = changed(|head| {
            head[156] = b'2';
            head[157..160].copy_from_slice(b"../");
        });
        let entry = only(&link).unwrap().unwrap();
        assert_eq!((entry.kind, entry.size), (EntryKind::Link("../".to_owned()), 0));
        let mut gnu = changed(|head| head[156] = b'L');
        gnu.extend(b"long\0");
        gnu.resize(2 * BLOCK_BYTES, 0);
        gnu.extend(head("short", 7));
        let entry = only(&gnu).unwrap().unwrap();
        assert_eq!((entry.name.as_str(), entry.size), ("long", 7));
    }

    #[test]
    fn what_is_no_tar_is_refused() {
        let good = head("name", 5);
        for length in 1..BLOCK_BYTES {
            let error = only(&good[..length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length} bytes");
        }
        for at in [0, 124, 156, 300] {
            let mut wrong = good.clone();
            wrong[at] ^= 1;
            assert!(only(&wrong).unwrap_err().to_string().contains("checksum"), "{at}");
        }
        let huge = changed(|head| head[124..136].copy_from_slice(&[0xff; 12]));
        assert!(only(&huge).unwrap_err().to_string().contains("a wrong size"));
        let huge = changed(|head| {
            head[124..136].fill(0xff);
            head[124..128].copy_from_slice(&[0x80, 0, 0, 0]);
        });
        assert!(only(&huge).unwrap_err().to_string().contains("expected at most"));
        for kind in [b'x', b'L'] {
            let bomb = changed(|head| {
                head[156] = kind;
                head[124..136].copy_from_slice(b"00077777777\0");
            });
            let error = only(&bomb).unwrap_err().to_string();
            assert!(error.contains("extended head of"), "{error}");
        }
        let endless: Vec<u8> = std::iter::repeat_n(changed(|head| head[156] = b'g'), 99)
            .flat_map(|head| [head, vec![0; BLOCK_BYTES]].concat())
            .collect();
        assert!(only(&endless).unwrap_err().to_string().contains("extended heads"));
        for record in ["5", "99 path=x\n", "0 x\n", "9 path=x y", "10 size=x\n", "7 pathx\n"] {
            assert!(Long::default().pax(record.as_bytes()).is_err(), "{record:?}");
        }
    }
}
