//! Bytes and numbers drawn from a seed.

use moonlet::oci::Digest;

/// Xorshift64* (Vigna 2014).
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next one.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number less than `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 32) % limit
    }

    /// A size such that each doubling between `least` and `most` is as likely as the others.
    pub fn size(&mut self, least: u64, most: u64) -> u64 {
        let share = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let doublings = (most as f64 / least as f64).log2();
        ((least as f64) * (share * doublings).exp2()) as u64
    }
}

/// A blob of `length` bytes that nothing makes smaller, and its name.
pub fn blob(seed: u64, length: u64) -> (Digest, Vec<u8>) {
    let mut random = Random::new(seed);
    let mut bytes = Vec::with_capacity(length as usize + 8);
    while (bytes.len() as u64) < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(length as usize);
    (Digest::sha256(&bytes), bytes)
}
