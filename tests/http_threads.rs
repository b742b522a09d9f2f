//! No request may start a thread. Alone in its file: the threads of other tests would be counted.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::TcpStream;
use std::rc::Rc;

use moonlet::clock::SystemClock;
use moonlet::metrics::Metrics;
use moonlet::net::http::{
    Handler, Headers, Listener, ResponseBody, ServerLimits, ServerRequest, ServerResponse,
};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct Plain;

impl Handler for Plain {
    async fn handle(&self, _: ServerRequest) -> ServerResponse {
        let body = ResponseBody::Bytes(b"answer".as_slice().into());
        ServerResponse { status: 200, headers: Headers::new(), body }
    }
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

async fn ask(address: std::net::SocketAddr, lines: &str, body: &str) -> String {
    let mut socket = smol::Async::<TcpStream>::connect(address).await.unwrap();
    let head = format!("PUT /v2/a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{lines}\r\n{body}");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn expect_100_continue_starts_no_thread() {
    let executor = smol::LocalExecutor::new();
    smol::block_on(executor.run(async {
        let any = "127.0.0.1:0".parse().unwrap();
        let metrics = Rc::new(Metrics::default());
        let listener = Listener::bind(
            any,
            None,
            ServerLimits::default(),
            metrics,
            Rc::new(SystemClock::new()),
        )
        .await
        .unwrap();
        let address = listener.local_addr();
        let serving = executor.spawn(async move {
            loop {
                let connection = listener.accept().await.unwrap();
                connection.serve(&Plain).await.unwrap();
            }
        });
        ask(address, "", "").await;
        let before = threads();
        for _ in 0..5 {
            let answer = ask(address, "Expect: 100-continue\r\nContent-Length: 3\r\n", "abc").await;
            assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"));
            ask(address, "Expect: 100-continue\r\n", "").await;
        }
        assert_eq!(threads(), before, "a request started a thread");
        serving.cancel().await;
    }));
}
