//! Inflates gzip (RFC 1952) as it is read: 32 KiB of window and one buffer are all that is held.
//!
//! Its checksums are not looked at: whatever comes out is checked by its digest.

use std::io::{self, Read};

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

/// What a gzip file holds; of several one after the other, all of it.
pub struct Gunzip<R> {
    source: R,
    state: Box<InflateState>,
    input: Vec<u8>,
    /// What of `input` is not inflated yet.
    rest: std::ops::Range<usize>,
    /// Whether a member was begun and is not at its end.
    is_within: bool,
    members: usize,
}

/// Whether bytes begin as gzip does.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

impl<R: Read> Gunzip<R> {
    /// Inflates `source` from its beginning.
    pub fn new(source: R) -> Self {
        Self {
            source,
            state: InflateState::new_boxed(DataFormat::Raw),
            input: vec![0; BUFFER_BYTES],
            rest: 0..0,
            is_within: false,
            members: 0,
        }
    }

    /// Reads more input where there is none; whether there is any.
    fn fill(&mut self) -> io::Result<bool> {
        while self.rest.is_empty() {
            match self.source.read(&mut self.input) {
                Ok(0) => return Ok(false),
                Ok(length) => self.rest = 0..length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn byte(&mut self) -> io::Result<u8> {
        if !self.fill()? {
            return Err(short());
        }
        let byte = self.input.get(self.rest.start).copied().unwrap_or(0);
        self.rest.start += 1;
        Ok(byte)
    }

    fn pass(&mut self, bytes: usize) -> io::Result<()> {
        (0..bytes).try_for_each(|_| self.byte().map(|_| ()))
    }

    /// Begins the next member; false where there is none. What is behind the last one and is no
    /// member is padding.
    fn begin(&mut self) -> io::Result<bool> {
        if !self.fill()? {
            return if self.members == 0 { Err(short()) } else { Ok(false) };
        }
        let [id1, id2] = MAGIC;
        let is_member = self.byte()? == id1 && self.byte().is_ok_and(|byte| byte == id2);
        if !is_member {
            return if self.members == 0 { Err(malformed()) } else { Ok(false) };
        }
        let (method, flags) = (self.byte()?, self.byte()?);
        if method != DEFLATE || flags & !(HEADER_CRC | EXTRA | NAME | COMMENT | TEXT) != 0 {
            return Err(malformed());
        }
        self.pass(6)?;
        if flags & EXTRA != 0 {
            let length = u16::from_le_bytes([self.byte()?, self.byte()?]);
            self.pass(usize::from(length))?;
        }
        for flag in [NAME, COMMENT] {
            if flags & flag != 0 {
                while self.byte()? != 0 {}
            }
        }
        if flags & HEADER_CRC != 0 {
            self.pass(2)?;
        }
        self.state.reset(DataFormat::Raw);
        (self.is_within, self.members) = (true, self.members + 1);
        Ok(true)
    }
}

impl<R: Read> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.is_within && !self.begin()? {
                return Ok(0);
            }
            let has_input = self.fill()?;
            let input = self.input.get(self.rest.clone()).unwrap_or_default();
            let outcome = inflate(&mut self.state, input, buffer, MZFlush::None);
            self.rest.start += outcome.bytes_consumed;
            match outcome.status {
                Ok(MZStatus::StreamEnd) => {
                    self.is_within = false;
                    // A checksum and a length.
                    self.pass(8)?;
                }
                Ok(_) | Err(MZError::Buf) => {}
                Err(_) => return Err(malformed()),
            }
            if outcome.bytes_written > 0 {
                return Ok(outcome.bytes_written);
            }
            if self.is_within && !has_input {
                return Err(short());
            }
        }
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed gzip")
}

fn short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the gzip is cut short")
}

const MAGIC: [u8; 2] = [0x1f, 0x8b];
const DEFLATE: u8 = 8;
const TEXT: u8 = 1;
const HEADER_CRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const BUFFER_BYTES: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn gunzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        Gunzip::new(bytes).read_to_end(&mut all).map(|_| all)
    }

    fn packed(content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        bytes.extend(miniz_oxide::deflate::compress_to_vec(content, 6));
        bytes.extend([0; 8]);
        bytes
    }

    #[test]
    fn every_field_and_every_member() {
        assert_eq!(gunzip(&packed(b"text")).unwrap(), b"text");
        let mut fields = vec![0x1f, 0x8b, 8, 2 + 4 + 8 + 16, 0, 0, 0, 0, 0, 3, 2, 0, b'a', b'b'];
        fields.extend(b"name\0comment\0\x01\x02");
        fields.extend(miniz_oxide::deflate::compress_to_vec(b"text", 6));
        fields.extend([0; 8]);
        assert_eq!(gunzip(&fields).unwrap(), b"text");
        for length in 0..fields.len() {
            assert!(gunzip(&fields[..length]).is_err(), "{length} bytes");
        }
        let several = [packed(b"one "), packed(b""), packed(b"two"), vec![0; 100]].concat();
        assert_eq!(gunzip(&several).unwrap(), b"one two");
        for wrong in [&b"plain text that is longer"[..], &[0x1f, 0x8b, 9, 0, 0, 0, 0, 0, 0, 3, 0]] {
            assert!(gunzip(wrong).is_err());
        }
    }

    #[test]
    fn much_is_read_piece_by_piece() {
        let mut content = vec![0; 1 << 20];
        blake3::Hasher::new().finalize_xof().fill(content.get_mut(1000..400_000).unwrap());
        let bytes = packed(&content);
        assert_eq!(gunzip(&bytes).unwrap(), content);
        let mut reader = Gunzip::new(bytes.as_slice());
        let (mut found, mut piece) = (Vec::new(), [0; 7]);
        loop {
            match reader.read(&mut piece).unwrap() {
                0 => break,
                length => found.extend_from_slice(&piece[..length]),
            }
        }
        assert_eq!(found, content);
        let mut wrong = bytes.clone();
        wrong[2000] ^= 0x55;
        assert!(gunzip(&wrong).is_ok_and(|found| found != content) || gunzip(&wrong).is_err());
    }
}
