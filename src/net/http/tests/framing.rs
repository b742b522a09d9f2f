//! Requests that two readers could take for different ones, on the wire.

use super::*;

/// What a request is answered with; the connection must end after it, whatever follows.
async fn refused(fixture: &Fixture, request: &[u8]) {
    let mut socket = raw(fixture).await;
    // What follows must never be taken for a request.
    let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    socket.write_all(&[request, smuggled].concat()).await.unwrap();
    let answer = rest(&mut socket).await;
    let shown = String::from_utf8_lossy(request);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{shown:?}: {answer}");
    assert!(answer.contains("connection: close\r\n"), "{shown:?}: {answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{shown:?}: {answer}");
}

#[test]
fn ambiguous_lengths_are_refused_and_end_the_connection() {
    let heads: [&[u8]; 12] = [
        b"Content-Length: 3\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nContent-Length: 0\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Content-Length: 3\xc2\xa0\r\n",
        b"Content-Length: 3\x0c\r\n",
        b"Content-Length : 3\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\xc2\xa0\r\n",
        b"Transfer-Encoding: chunked\x0b\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"X: a\r\n Transfer-Encoding: chunked\r\n",
        b"X: a\rTransfer-Encoding: chunked\r\n",
    ];
    plain(async |fixture| {
        for lines in heads {
            let request = [b"PUT /x HTTP/1.1\r\nHost: h\r\n", lines, b"\r\nabc"].concat();
            refused(&fixture, &request).await;
        }
    });
}

#[test]
fn garbage_in_chunk_framing_is_refused_and_ends_the_connection() {
    let bodies: [&[u8]; 9] = [
        b"3 x\r\nabc\r\n0\r\n\r\n",
        b"3\x0b\r\nabc\r\n0\r\n\r\n",
        b"3\xc2\xa0\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"3;x\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"0\r\n\n",
    ];
    plain(async |fixture| {
        for body in bodies {
            let head = b"PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
            refused(&fixture, &[head.as_slice(), body].concat()).await;
        }
    });
}

#[test]
fn what_cannot_begin_a_request_is_refused_at_its_first_byte() {
    // Nothing else would end these connections within the test.
    let patient = Duration::from_hours(1);
    let limits = ServerLimits { head_deadline: patient, ..ServerLimits::default() };
    with_server(limits, None, Echo::default(), async |fixture| {
        for (byte, why) in [(0x16, "http, not tls"), (0x80, "a method"), (0, "a method")] {
            let mut socket = raw(&fixture).await;
            socket.write_all(&[byte]).await.unwrap();
            let answer = rest(&mut socket).await;
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(why), "{answer}");
        }
        let mut socket = raw(&fixture).await;
        say(&mut socket, "\r\n\r\nGET /x HTTP/1.0\r\n\r\n").await;
        assert!(rest(&mut socket).await.starts_with("HTTP/1.1 200 "));
    });
}
