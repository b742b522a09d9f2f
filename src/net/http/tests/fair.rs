//! More clients than there are slots. The deadlines are too long to help within a test, so that
//! only those who give way make room.

use super::*;

fn limits(connections_max: u32) -> ServerLimits {
    let patient = Duration::from_hours(1);
    ServerLimits {
        connections_max,
        head_deadline: patient,
        idle_deadline: patient,
        body_deadline: patient,
        stall_deadline: patient,
    }
}

async fn ask(socket: &mut Raw) -> String {
    say(socket, "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    rest(socket).await
}

/// Connections that carry no request give way to one that does.
fn gives_way(first: &'static str, answered: bool) {
    with_server(limits(2), None, Echo::default(), async |fixture| {
        let mut open = [raw(&fixture).await, raw(&fixture).await];
        for socket in &mut open {
            say(socket, first).await;
            if answered {
                assert!(socket.read(&mut [0; 1]).await.unwrap() > 0);
            }
        }
        for _ in 0..3 {
            assert!(ask(&mut raw(&fixture).await).await.ends_with("GET /x []"), "{first:?}");
        }
        assert!(fixture.metrics.http_refused.value() >= 1, "{first:?}");
        let [oldest, _] = &mut open;
        let _ = oldest.read_to_end(&mut Vec::new()).await;
    });
}

#[test]
fn whoever_is_silent_or_idle_or_slow_to_ask_gives_way() {
    gives_way("", false);
    gives_way("GET /x HTTP/1.1\r\nHost: h\r\n", false);
    gives_way("GET /x HTTP/1.1\r\nHost: h\r\n\r\n", true);
    gives_way("PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc", false);
    gives_way("PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1", false);
}

#[test]
fn whoever_is_being_answered_keeps_its_slot() {
    let (release, gate) = smol::channel::unbounded();
    let handler = Echo { gate: Some(gate), ..Echo::default() };
    with_server(limits(2), None, handler, async |fixture| {
        let mut busy = [raw(&fixture).await, raw(&fixture).await];
        for socket in &mut busy {
            say(socket, "GET /held HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
        }
        while fixture.handler.held.get() < 2 {
            smol::future::yield_now().await;
        }
        let mut newcomer = raw(&fixture).await;
        say(&mut newcomer, "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
        let mut byte = [0; 1];
        let early = smol::future::or(async { newcomer.read(&mut byte).await.is_ok() }, async {
            smol::Timer::after(Duration::from_millis(600)).await;
            false
        });
        assert!(!early.await, "there was no slot for it");
        assert_eq!(fixture.metrics.http_connections.value(), 2);
        release.send(()).await.unwrap();
        release.send(()).await.unwrap();
        assert!(rest(&mut newcomer).await.ends_with("GET /x []"));
        for socket in &mut busy {
            assert!(rest(socket).await.ends_with("GET /held []"));
        }
    });
}

#[test]
fn listeners_share_their_slots() {
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        let (slots, metrics) = (Slots::new(1, clock()), Rc::new(Metrics::default()));
        let bind = async || {
            let any = "127.0.0.1:0".parse().unwrap();
            let listener = Listener::bind(any, None, limits(9), Rc::clone(&metrics), clock()).await;
            listener.unwrap().sharing(&slots)
        };
        let (one, two) = (bind().await, bind().await);
        let (release, gate) = smol::channel::unbounded();
        let handler = Rc::new(Echo { gate: Some(gate), ..Echo::default() });
        for listener in [&one, &two] {
            let client = Raw::connect(listener.local_addr()).await.unwrap();
            let (connection, handler) = (listener.accept().await.unwrap(), Rc::clone(&handler));
            executor
                .spawn(async move {
                    let mut client = client;
                    say(&mut client, "GET /held HTTP/1.0\r\n\r\n").await;
                    smol::future::zip(connection.serve(handler.as_ref()), rest(&mut client)).await
                })
                .detach();
        }
        for served in 1..=2 {
            while handler.held.get() < served {
                smol::Timer::after(Duration::from_millis(1)).await;
            }
            assert_eq!((handler.held.get(), metrics.http_connections.value()), (served, 1));
            release.send(()).await.unwrap();
        }
    }));
}
