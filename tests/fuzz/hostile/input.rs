//! Bytes that are read as decisions. Every sequence of bytes means something, and behind its end
//! there are zeros for ever, so that a fuzzer may cut and change it at will.

/// What is left of the input.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// From its beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// The next two bytes.
    pub fn pair(&mut self) -> u32 {
        u32::from(self.byte()) << 8 | u32::from(self.byte())
    }

    /// A number less than `limit`, from one byte.
    pub fn below(&mut self, limit: u32) -> u32 {
        u32::from(self.byte()) % limit.max(1)
    }

    /// One of a few.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize]
    }

    /// The next bytes, `count` or what is left.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    /// A number with a bias to those where arithmetic goes wrong; `near` are such, too.
    pub fn number(&mut self, near: &[u64]) -> u64 {
        let choice = self.byte();
        let around = |number: u64| match choice >> 6 {
            0 | 3 => number,
            1 => number.wrapping_add(1),
            _ => number.wrapping_sub(1),
        };
        match (choice & 63) as usize {
            index if index < near.len() => around(near[index]),
            choice @ 16..32 => around(EDGES[choice - 16]),
            32..48 => u64::from(self.byte()),
            48..56 => u64::from(self.pair()),
            _ => self.take(8).iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
        }
    }
}

/// Where integers end, and the format's own limits.
const EDGES: [u64; 16] = [
    0,
    1 << 7,
    1 << 8,
    1 << 16,
    1 << 17,
    1 << 18,
    1 << 20,
    1 << 31,
    1 << 32,
    7 << 30,
    1 << 40,
    1 << 48,
    1 << 62,
    1 << 63,
    u64::MAX - (1 << 18),
    u64::MAX,
];
