//! JSON from registries, read as it comes: only what is asked for is built, everything else is
//! passed over.
//!
//! As leniently as Go's `encoding/json`, which most clients use: the case of member names does not
//! matter, of members that come twice the last counts, `null` stands for what is left out.
//! [`Guard`] bounds what the parser itself would hold: the length of a string and the nesting.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufReader, Read};
use std::marker::PhantomData;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::Digest;

/// Reads one JSON document into a `T`; `null` is read as nothing. The parser is compiled for one
/// kind of source: for each more it would be there once more.
pub(super) fn read<T: Members>(source: &mut dyn Read) -> serde_json::Result<Option<T>> {
    let buffered = BufReader::with_capacity(BUFFER_BYTES, Guard::new(source));
    let mut deserializer = serde_json::Deserializer::from_reader(buffered);
    let value = Object(PhantomData).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Something that is read from a JSON object, member by member.
pub(super) trait Members: Default {
    /// Takes the value of the member `name`, which is in lower case, and empty when it is longer
    /// than [`NAME_BYTES_MAX`].
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;
}

/// Passes over the value of a member.
pub(super) fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(|_| ())
}

/// An object or `null`.
pub(super) struct Object<T>(pub PhantomData<T>);

impl<'de, T: Members> DeserializeSeed<'de> for Object<T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Members> Visitor<'de> for Object<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut value = T::default();
        while let Some(name) = map.next_key_seed(Name)? {
            value.member(&name, &mut map)?;
        }
        Ok(Some(value))
    }
}

/// A list or `null`, of which each item but `null` is handed on as it comes.
pub(super) struct List<T, F> {
    item: PhantomData<T>,
    each: F,
}

impl<T: Members, F: FnMut(T) -> Result<(), String>> List<T, F> {
    /// Calls `each` with every item; what it says is wrong ends the reading.
    pub fn new(each: F) -> Self {
        Self { item: PhantomData, each }
    }
}

impl<'de, T: Members, F: FnMut(T) -> Result<(), String>> DeserializeSeed<'de> for List<T, F> {
    /// Whether there is a list.
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Members, F: FnMut(T) -> Result<(), String>> Visitor<'de> for List<T, F> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<bool, A::Error> {
        while let Some(item) = list.next_element_seed(Object::<T>(PhantomData))? {
            (self.each)(item.unwrap_or_default()).map_err(A::Error::custom)?;
        }
        Ok(true)
    }
}

/// A text of at most so many bytes; `null` and longer ones are read as nothing.
pub(super) struct Text(pub usize);

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Text {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok((text.len() <= self.0).then(|| text.to_owned()))
    }
}

/// Texts by name, as annotations are; those that do not fit into so many bytes in all are left out.
pub(super) struct Texts(pub usize);

impl<'de> DeserializeSeed<'de> for Texts {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Texts {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut texts = BTreeMap::new();
        let mut room = self.0;
        while let Some(name) = map.next_key::<String>()? {
            let Some(left) = room.checked_sub(name.len() + TEXT_OVERHEAD_BYTES) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if let Some(text) = map.next_value_seed(Text(left))? {
                room = left - text.len();
                texts.insert(name, text);
            }
        }
        Ok(texts)
    }
}

/// A digest as text; one of another form is read as nothing.
pub(super) struct DigestText;

impl<'de> DeserializeSeed<'de> for DigestText {
    type Value = Option<Digest>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let text = Text(DIGEST_BYTES_MAX).deserialize(deserializer)?;
        Ok(text.and_then(|text| text.parse().ok()))
    }
}

/// A number of zero or more; `null` is read as nothing.
pub(super) struct Number;

impl<'de> DeserializeSeed<'de> for Number {
    type Value = Option<u64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Number {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of zero or more")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number))
    }
}

/// The name of a member, in lower case.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = heapless::String<NAME_BYTES_MAX>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = heapless::String<NAME_BYTES_MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        let mut name = heapless::String::try_from(text).unwrap_or_default();
        name.make_ascii_lowercase();
        Ok(name)
    }
}

/// Lets JSON through until a string is longer, or a value nested deeper, than anything needs: the
/// parser holds a whole string, and a byte for each level.
struct Guard<'a> {
    source: &'a mut dyn Read,
    depth: usize,
    /// Bytes of the string at hand; none outside of strings.
    string: Option<usize>,
    is_escaped: bool,
}

impl<'a> Guard<'a> {
    fn new(source: &'a mut dyn Read) -> Self {
        Self { source, depth: 0, string: None, is_escaped: false }
    }

    fn check(&mut self, byte: u8) -> Result<(), String> {
        match (&mut self.string, byte) {
            (Some(_), _) if self.is_escaped => self.is_escaped = false,
            (Some(_), b'\\') => self.is_escaped = true,
            (string @ Some(_), b'"') => *string = None,
            (Some(length), _) if *length >= STRING_BYTES_MAX => {
                return Err(format!("a string of more than {STRING_BYTES_MAX} bytes"));
            }
            (Some(length), _) => *length += 1,
            (string @ None, b'"') => *string = Some(0),
            (None, b'{' | b'[') if self.depth >= DEPTH_MAX => {
                return Err(format!("more than {DEPTH_MAX} levels of nesting"));
            }
            (None, b'{' | b'[') => self.depth += 1,
            (None, b'}' | b']') => self.depth = self.depth.saturating_sub(1),
            (None, _) => {}
        }
        Ok(())
    }
}

impl Read for Guard<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        let bytes = buffer.get(..length).unwrap_or_default();
        bytes.iter().try_for_each(|byte| self.check(*byte)).map_err(io::Error::other)?;
        Ok(length)
    }
}

/// A longer string is in no manifest that serves a purpose; annotations hold certificates and
/// signatures of some kilobytes.
const STRING_BYTES_MAX: usize = 256 << 10;
/// Levels of nesting, of which manifests need five.
const DEPTH_MAX: usize = 64;
/// Bytes of the longest name that is looked for.
const NAME_BYTES_MAX: usize = 32;
/// Bytes of the longest digest: `sha512:` and 128 digits.
const DIGEST_BYTES_MAX: usize = 135;
/// What a text of [`Texts`] takes besides its bytes.
const TEXT_OVERHEAD_BYTES: usize = 64;
const BUFFER_BYTES: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Probe(Option<u64>);

    impl Members for Probe {
        fn member<'de, A: MapAccess<'de>>(
            &mut self,
            name: &str,
            map: &mut A,
        ) -> Result<(), A::Error> {
            match name {
                "size" => self.0 = map.next_value_seed(Number)?,
                _ => skip(map)?,
            }
            Ok(())
        }
    }

    fn probe(json: &str) -> Result<Option<u64>, String> {
        let read = read::<Probe>(&mut json.as_bytes()).map_err(|error| error.to_string())?;
        Ok(read.and_then(|probe| probe.0))
    }

    #[test]
    fn as_go_reads_it() {
        assert_eq!(probe(r#"{"size":1,"SIZE":2}"#), Ok(Some(2)));
        assert_eq!(probe(r#"{"siz\u0065":3,"x":{"size":[{}]}}  "#), Ok(Some(3)));
        assert_eq!(probe(r#"{"size":null}"#), Ok(None));
        assert_eq!(probe("null"), Ok(None));
        for wrong in ["", "{", "[]", "1", r#"{"size":-1}"#, r#"{"size":"1"}"#, r#"{"size":1.5}"#] {
            assert!(probe(wrong).is_err(), "{wrong}");
        }
        assert!(probe("{} x").is_err() && probe("{}{}").is_err());
    }

    #[test]
    fn strings_and_nesting_are_bounded() {
        let string = |length| format!(r#"{{"x":"{}","size":1}}"#, "y".repeat(length));
        assert_eq!(probe(&string(STRING_BYTES_MAX)), Ok(Some(1)));
        assert!(probe(&string(STRING_BYTES_MAX + 1)).unwrap_err().contains("a string of more"));
        let name = format!(r#"{{"{}":1}}"#, "y".repeat(STRING_BYTES_MAX + 1));
        assert!(probe(&name).unwrap_err().contains("a string of more"));
        let nested =
            |depth| format!(r#"{{"x":{}{},"size":1}}"#, "[".repeat(depth), "]".repeat(depth));
        assert_eq!(probe(&nested(DEPTH_MAX - 1)), Ok(Some(1)));
        assert!(probe(&nested(DEPTH_MAX)).unwrap_err().contains("levels of nesting"));
        // Brackets and quotes in strings are text.
        let text = format!(r#"{{"x":"{}\"{}","size":1}}"#, "[".repeat(99), "{".repeat(99));
        assert_eq!(probe(&text), Ok(Some(1)));
    }
}
