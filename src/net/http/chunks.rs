//! The chunked transfer coding (RFC 9112 section 7.1), without the bytes.
//!
//! The decoder is shown what is buffered and says how much of it was framing; between frames it
//! says how many bytes of the body follow, which the caller may read wherever it likes. Chunk
//! extensions and trailers are skipped, under a limit, for nothing here has a use for them.

/// Where in the coding the stream is.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    state: State,
    /// Bytes of extensions, or of trailers, so far.
    skipped: usize,
}

/// What follows in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More framing: show more bytes.
    Framing,
    /// This many bytes of the body.
    Data(u64),
    /// Nothing: the body is complete.
    End,
}

/// The stream is not in the chunked coding.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Chunks {
    pub(super) fn next(&self) -> Next {
        match self.state {
            State::Data(rest) => Next::Data(rest),
            State::End => Next::End,
            _ => Next::Framing,
        }
    }

    /// Takes framing from `input` until data or the end follows; says how many bytes it took.
    pub(super) fn advance(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        let mut taken = 0;
        for byte in input {
            if self.next() != Next::Framing {
                break;
            }
            self.step(*byte)?;
            taken += 1;
        }
        Ok(taken)
    }

    /// Notes that `bytes` of the data were read.
    pub(super) fn data_taken(&mut self, bytes: u64) {
        if let State::Data(rest) = &mut self.state {
            *rest = rest.saturating_sub(bytes);
            if *rest == 0 {
                self.state = State::DataEnd;
            }
        }
    }

    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        self.state = match (self.state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                let size = size.checked_mul(16).ok_or(Malformed)? + digit;
                if digits >= DIGITS_MAX {
                    return Err(Malformed);
                }
                State::Size { size, digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err(Malformed),
            (State::Size { size, .. } | State::Padding(size), b' ' | b'\t') => {
                self.skip()?;
                State::Padding(size)
            }
            (State::Size { size, .. } | State::Padding(size), b';') => State::Extension(size),
            (State::Size { size, .. } | State::Padding(size) | State::Extension(size), b'\r') => {
                State::SizeEnd(size)
            }
            (State::Extension(size), _) if byte != b'\n' => {
                self.skip()?;
                State::Extension(size)
            }
            (State::SizeEnd(size), b'\n') => {
                self.skipped = 0;
                if size == 0 { State::TrailerStart } else { State::Data(size) }
            }
            (State::DataEnd, b'\r') => State::DataEndLine,
            (State::DataEndLine, b'\n') => State::Size { size: 0, digits: 0 },
            (State::TrailerStart, b'\r') => State::LastLine,
            (State::LastLine, b'\n') => State::End,
            (State::Trailer, b'\r') => State::TrailerEnd,
            (State::TrailerEnd, b'\n') => State::TrailerStart,
            (State::TrailerStart | State::Trailer, _) if byte != b'\n' => {
                self.skip()?;
                State::Trailer
            }
            _ => return Err(Malformed),
        };
        Ok(())
    }

    fn skip(&mut self) -> Result<(), Malformed> {
        self.skipped += 1;
        if self.skipped > SKIPPED_BYTES_MAX { Err(Malformed) } else { Ok(()) }
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In the size, after so many digits.
    Size {
        size: u64,
        digits: u32,
    },
    /// In white space after the size.
    Padding(u64),
    /// In what extends the size.
    Extension(u64),
    /// After the CR of the size's line.
    SizeEnd(u64),
    /// In the data: this much of it is to come.
    Data(u64),
    /// At the line end after the data.
    DataEnd,
    /// After its CR.
    DataEndLine,
    /// At the start of a trailer line.
    TrailerStart,
    /// Inside a trailer line.
    Trailer,
    /// After its CR.
    TrailerEnd,
    /// After the CR of the last line, which is empty.
    LastLine,
    End,
}

impl Default for State {
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

/// Digits of a size, leading zeros included.
const DIGITS_MAX: u32 = 16;
/// Bytes of one chunk's extensions, or of all trailers.
const SKIPPED_BYTES_MAX: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input` shown in pieces of `piece` bytes.
    fn decode(input: &[u8], piece: usize) -> Result<(Vec<u8>, Next), Malformed> {
        let (mut chunks, mut body) = (Chunks::default(), Vec::new());
        for mut shown in input.chunks(piece) {
            while !shown.is_empty() && chunks.next() != Next::End {
                let taken = chunks.advance(shown)?;
                shown = &shown[taken..];
                if let Next::Data(rest) = chunks.next() {
                    let take = shown.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
                    body.extend(&shown[..take]);
                    shown = &shown[take..];
                    chunks.data_taken(u64::try_from(take).unwrap());
                }
            }
        }
        Ok((body, chunks.next()))
    }

    #[test]
    fn any_split_gives_the_same_body() {
        let input = b"4;name=value\r\nWiki\r\n005 \t\r\npedia\r\n0\r\nExpires: \xff\r\n\r\n";
        for piece in 1..=input.len() {
            assert_eq!(decode(input, piece), Ok((b"Wikipedia".to_vec(), Next::End)), "{piece}");
        }
        assert_eq!(decode(b"4\r\nWi", 3), Ok((b"Wi".to_vec(), Next::Data(2))));
    }

    #[test]
    fn malformed_input_is_refused() {
        let endless = [b"1;".as_slice(), &[b'x'; SKIPPED_BYTES_MAX + 1]].concat();
        let padding = [b"1".as_slice(), &[b' '; SKIPPED_BYTES_MAX + 1]].concat();
        let cases: [&[u8]; 21] = [
            b"\r\n",
            b"x\r\n",
            b"-1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"11111111111111111\r\n",
            b"00000000000000001\r\n",
            b"1\r\nab",
            b"1 x\r\na\r\n",
            b"1 1\r\na\r\n",
            b"1\x0b\r\na\r\n",
            b"1\xa0\r\na\r\n",
            // What ends a line for one reader and not for another.
            b"1\na\r\n0\r\n\r\n",
            b"1;x\na\r\n",
            b"1\rx\r\na\r\n",
            b"1\r\na\n0\r\n\r\n",
            b"1\r\na\r\r\n",
            b"0\r\n\n",
            b"0\r\n\r\r\n",
            &endless,
            &padding,
        ];
        for input in cases {
            assert_eq!(decode(input, 7), Err(Malformed), "{:?}", String::from_utf8_lossy(input));
        }
    }
}
