//! The client against servers that answer as they please.

use super::*;

/// A server that plays one script for each connection: read a head, then send the next text.
async fn scripted<F: AsyncFnOnce(Client, String)>(scripts: &[&[&str]], test: F) {
    let listener = smol::Async::<std::net::TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
    let url = format!("http://{}/x", listener.get_ref().local_addr().unwrap());
    let serving = async {
        for script in scripts {
            let (mut socket, _) = listener.accept().await.unwrap();
            for text in *script {
                let mut head = Vec::new();
                let mut byte = [0; 1];
                while !head.ends_with(b"\r\n\r\n") {
                    if socket.read(&mut byte).await.unwrap() == 0 {
                        break;
                    }
                    head.push(byte[0]);
                }
                for piece in text.split('|') {
                    socket.write_all(piece.as_bytes()).await.unwrap();
                    smol::Timer::after(Duration::from_millis(20)).await;
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let limits = ClientLimits {
        head_deadline: Duration::from_millis(500),
        stall_deadline: Duration::from_millis(500),
        ..Default::default()
    };
    let client = client(limits);
    smol::future::or(test(client, url), serving).await;
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_stale_connection_is_replaced_once() {
    smol::block_on(async {
        // The second request dies unanswered on the kept connection.
        scripted(&[&[OK, ""], &[OK]], async |client, url| {
            assert_eq!(get(&client, &url).await.unwrap(), b"ok");
            assert_eq!(get(&client, &url).await.unwrap(), b"ok");
        })
        .await;
        scripted(&[&[OK, ""], &[OK]], async |client, url| {
            assert_eq!(get(&client, &url).await.unwrap(), b"ok");
            let Err(error) = client.send(request(Method::Post, &url)).await else {
                panic!("a POST was repeated")
            };
            assert_eq!(error.kind(), Kind::Retry);
        })
        .await;
        scripted(&[&[""]], async |client, url| {
            let error = get(&client, &url).await.unwrap_err();
            assert!(error.to_string().ends_with("connection closed without a response"));
        })
        .await;
    });
}

#[test]
fn bodies_in_every_framing() {
    smol::block_on(async {
        let chunked = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\
                       \r\n\r\n3|\r\nabc\r|\n2;x=y\r\nde\r\n0\r\n|\r\n";
        scripted(&[&[chunked, OK]], async |client, url| {
            assert_eq!(get(&client, &url).await.unwrap(), b"abcde");
            assert_eq!(client.idle(), 1);
            assert_eq!(get(&client, &url).await.unwrap(), b"ok");
        })
        .await;
        let until_end = "HTTP/1.0 520 Odd\r\n\r\nall |of it";
        scripted(&[&[until_end]], async |client, url| {
            let response = client.send(request(Method::Get, &url)).await.unwrap();
            assert_eq!((response.status, response.body.len()), (520, None));
            assert_eq!(response.body.bytes(100).await.unwrap(), b"all of it");
            assert_eq!(client.idle(), 0);
        })
        .await;
    });
}

#[test]
fn broken_responses_are_retried_by_whoever_asked() {
    let cases: [(&str, &str); 7] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "body ended at byte 3 of 9"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
            "body ended at byte 3, before its end",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "malformed chunk"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "contradictory"),
        ("HTTP/1.1 200 OK\r\nContent-", "response ended in its head"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "expected a status line"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "expected transfer-encoding"),
    ];
    smol::block_on(async {
        for (text, expected) in cases {
            scripted(&[&[text]], async |client, url| {
                let error = get(&client, &url).await.unwrap_err();
                assert_eq!(error.kind(), Kind::Retry);
                assert!(error.to_string().contains(expected), "{error}");
                assert_eq!(client.idle(), 0);
            })
            .await;
        }
        let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(70_000));
        scripted(&[&[&huge]], async |client, url| {
            let error = get(&client, &url).await.unwrap_err();
            assert!(error.to_string().contains("over 64 KiB"), "{error}");
        })
        .await;
    });
}

#[test]
fn silent_servers_are_left() {
    smol::block_on(async {
        let stall = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
        // The server waits for a second request that never comes.
        scripted(&[&[stall, ""]], async |client, url| {
            let error = get(&client, &url).await.unwrap_err();
            assert!(error.to_string().contains("no byte after byte 3 within"), "{error}");
            assert_eq!(error.kind(), Kind::Retry);
        })
        .await;
        scripted(&[], async |client, url| {
            let error = get(&client, &url).await.unwrap_err();
            assert!(error.to_string().contains("no response within"), "{error}");
        })
        .await;
    });
}
