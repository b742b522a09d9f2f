//! Parts of blobs, one and several, as RFC 9110 section 14 has them: of what is held and of what is
//! still landing, byte by byte.
// One range among lists of ranges is one.
#![allow(clippy::single_range_in_vec_init)]

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::client::Client;
use crate::many_images::ManyImages;
use crate::registry::Image;
use crate::through::{asked_bytes, gate, layer_path, pulling};

/// The parts of a `multipart/byteranges` body, each as the range that it says it is and its bytes.
fn parts(client: Client) -> Vec<(Range<usize>, Vec<u8>)> {
    assert_eq!((client.status, client.line("content-range")), (206, None), "{}", client.head);
    let kind = client.line("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert!(boundary.len() <= 70 && boundary.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let (delimiter, end) = (format!("\r\n--{boundary}\r\n"), format!("\r\n--{boundary}--\r\n"));
    let length: usize = client.line("content-length").unwrap().parse().unwrap();
    let body = client.rest();
    assert_eq!(body.len(), length);
    let mut rest = body.strip_suffix(end.as_bytes()).unwrap();
    let mut found = Vec::new();
    while !rest.is_empty() {
        rest = rest.strip_prefix(delimiter.as_bytes()).unwrap();
        let head = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        let lines = std::str::from_utf8(&rest[..head]).unwrap();
        let said = lines.strip_prefix("content-type: application/octet-stream\r\n").unwrap();
        let said = said.strip_prefix("content-range: bytes ").unwrap();
        let (range, size) = said.split_once('/').unwrap();
        assert_eq!(size.parse(), Ok(LAYER_BYTES));
        let (first, last) = range.split_once('-').unwrap();
        let range = first.parse().unwrap()..last.parse::<usize>().unwrap() + 1;
        let bytes = &rest[head + 4..];
        found.push((range.clone(), bytes[..range.len()].to_vec()));
        rest = &bytes[range.len()..];
    }
    found
}

#[test]
fn several_ranges_come_in_parts() {
    let registry = ManyImages::start();
    let image = Image::new(1, LAYER_BYTES);
    registry.push("1", &image);
    let satellite = pulling("ranges", &registry, &["registry.test/app:1"], "");
    satellite.await_line("held at");
    let path = layer_path(&image);
    let ask = |method: &str, ranges: &str| {
        Client::ask(&satellite.served, method, &path, &format!("Range: {ranges}\r\n"))
    };
    let many: Vec<String> = (0..16).map(|at| format!("{}-{}", at * 1000, at * 1000 + 9)).collect();
    let many = format!("bytes={}", many.join(","));
    let sixteen: Vec<_> = (0..16).map(|at| at * 1000..at * 1000 + 10).collect();
    let (size, last) = (LAYER_BYTES, LAYER_BYTES - 1);
    for (text, expected) in [
        ("bytes=0-0,2-3".to_owned(), vec![0..1, 2..4]),
        // More than one write, over the ends of chunks, and against the order of the blob.
        ("bytes=700000-1999999, 5-299999".to_owned(), vec![700_000..2_000_000, 5..300_000]),
        ("bytes=10-19 ,, -5".to_owned(), vec![10..20, size - 5..size]),
        (format!("bytes=-5,0-{}", size - 6), vec![size - 5..size, 0..size - 5]),
        ("bytes=7-9,99999999-".to_owned(), vec![7..10]),
        (format!("bytes=0-9,{last}-99999999999999999999999"), vec![0..10, last..size]),
        (many.clone(), sixteen),
    ] {
        let head = ask("HEAD", &text).head;
        let client = ask("GET", &text);
        assert_eq!(client.head, head, "{text}");
        let found = parts(client);
        let ranges: Vec<_> = found.iter().map(|(range, _)| range.clone()).collect();
        assert_eq!(ranges, expected, "{text}");
        assert!(found.iter().all(|(range, bytes)| image.layer[range.clone()] == *bytes), "{text}");
    }
    for whole in [
        format!("{many},20000-20001"),
        "bytes=0-5,5-9".to_owned(),
        format!("bytes=-5,{}-", size - 9),
        "bytes=0-,0-,0-".to_owned(),
        "bytes=0-1,x".to_owned(),
        "bytes=".to_owned(),
        "lines=1-2,3-4".to_owned(),
        "bytes=0-1,2-3\r\nIf-Range: \"other\"".to_owned(),
    ] {
        assert_eq!(ask("HEAD", &whole).head, ask("GET", &whole).head, "{whole}");
        let client = ask("GET", &whole);
        assert_eq!(client.line("content-range"), None);
        assert!(client.status == 200 && client.rest() == image.layer, "{whole}");
    }
    for outside in ["bytes=3145728-,9999999-", "bytes=-0,3145728-", "bytes=5-4,0-1", "bytes=500-0"]
    {
        let client = ask("GET", outside);
        let said = client.line("content-range");
        assert_eq!((client.status, said), (416, Some("bytes */3145728")), "{outside}");
        assert_eq!(ask("HEAD", outside).head, client.head);
    }
    let digest = path.rsplit('/').next().unwrap();
    let same = format!("bytes=0-1,2-3\r\nIf-Range: \"{digest}\"");
    assert_eq!(parts(ask("GET", &same)).len(), 2);
}

#[test]
fn several_ranges_of_what_lands_come_in_parts() {
    let registry = ManyImages::start();
    let image = Image::new(2, LAYER_BYTES);
    registry.push("1", &image);
    let satellite = pulling("ranges-growing", &registry, &[], "");
    let gate = gate(&registry);
    let path = layer_path(&image);
    let first = Client::ask(&satellite.served, "GET", &path, "Range: bytes=0-9\r\n");
    assert!(first.status == 206 && first.rest() == image.layer[..10]);
    let ask = |method: &str, ranges: &str| {
        let range = format!("Range: bytes={ranges}\r\n");
        Client::ask(&satellite.served, method, &path, &range)
    };
    let here = parts(ask("GET", "5-104,1000-1999"));
    assert!(
        here == [
            (5..105, image.layer[5..105].into()),
            (1000..2000, image.layer[1000..2000].into())
        ]
    );
    assert_eq!(ask("GET", "0-9,5-14,3145728-").line("content-length"), Some("3145728"));
    assert_eq!(ask("GET", "3145728-,-0").status, 416);
    let ranges = "3100000-,7-9,2000000-2999999";
    let head = ask("HEAD", ranges).head;
    let later = ask("GET", ranges);
    assert_eq!(later.head, head);
    gate.store(true, Ordering::Relaxed);
    let found = parts(later);
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|(range, bytes)| image.layer[range.clone()] == *bytes));
    assert_eq!(asked_bytes(&registry, &image.layer), LAYER_BYTES);
}

const LAYER_BYTES: usize = 3 << 20;
