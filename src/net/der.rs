//! As much of DER (ITU-T X.690) as it takes to write a certificate.

/// An element: its tag, the length of its contents, and these.
pub fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = contents.len().to_be_bytes();
    let blank = length.iter().take_while(|byte| **byte == 0).count();
    let length = length.get(blank..).unwrap_or_default();
    let mut bytes = vec![tag];
    match length {
        [] => bytes.push(0),
        [short @ 0..0x80] => bytes.push(*short),
        long => {
            // Eight bytes at most.
            bytes.push(LONG | u8::try_from(long.len()).unwrap_or_default());
            bytes.extend_from_slice(long);
        }
    }
    bytes.extend_from_slice(&contents);
    bytes
}

/// A sequence of elements.
pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, parts)
}

/// Bits, all of them used.
pub fn bits(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes])
}

/// Set in the first byte of a length: the number of bytes that have it.
const LONG: u8 = 0x80;
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
/// The tag of TRUE and FALSE.
pub const BOOLEAN: u8 = 0x01;
/// The tag of a whole number.
pub const INTEGER: u8 = 0x02;
/// The tag of bytes.
pub const OCTET_STRING: u8 = 0x04;
/// The tag of an object identifier.
pub const OBJECT: u8 = 0x06;
/// The tag of text.
pub const UTF8_STRING: u8 = 0x0c;
/// The tag of a time with two digits of the year.
pub const UTC_TIME: u8 = 0x17;
/// The tag of a time with four.
pub const GENERALIZED_TIME: u8 = 0x18;
/// The tag of a set.
pub const SET: u8 = 0x31;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_as_few_bytes_as_they_can() {
        for (length, expected) in [
            (0, vec![4, 0]),
            (1, vec![4, 1]),
            (127, vec![4, 127]),
            (128, vec![4, 0x81, 128]),
            (255, vec![4, 0x81, 255]),
            (256, vec![4, 0x82, 1, 0]),
            (65_536, vec![4, 0x83, 1, 0, 0]),
        ] {
            let bytes = element(OCTET_STRING, &[&vec![7; length]]);
            assert_eq!(&bytes[..bytes.len() - length], expected, "{length}");
        }
        assert_eq!(sequence(&[&bits(&[5]), &[9]]), [0x30, 5, 3, 2, 0, 5, 9]);
    }
}
