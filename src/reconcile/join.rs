//! Several futures in one task: only `satellite` spawns.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// One of several.
pub type Work<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Runs all of `works` until the last has ended.
pub async fn join(mut works: Vec<Work<'_>>) {
    poll_fn(|context| {
        works.retain_mut(|work| work.as_mut().poll(context).is_pending());
        if works.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn all_run_and_all_end() {
        let turns = Cell::new(0);
        let work = |count: u32| -> Work<'_> {
            let turns = &turns;
            Box::pin(async move {
                for _ in 0..count {
                    turns.set(turns.get() + 1);
                    smol::future::yield_now().await;
                }
            })
        };
        smol::block_on(join(vec![work(3), work(1), work(5)]));
        assert_eq!(turns.get(), 9);
        smol::block_on(join(Vec::new()));
    }
}
