//! A thread of the store's own, for work on what is held.
//!
//! Syncs and name look-ups may take seconds, and share few threads: a chunk that is to be
//! checked must not wait for those as well. The thread is begun when it is first needed, and ends
//! with the store.

use std::cell::OnceCell;
use std::sync::Arc;

use smol::Executor;
use smol::channel::{Sender, bounded};

/// The thread, once it is there.
#[derive(Default)]
pub struct Lane(OnceCell<Option<Running>>);

struct Running {
    executor: Arc<Executor<'static>>,
    /// Dropped, it ends the thread.
    _life: Sender<()>,
}

impl Lane {
    /// Does what may take long; a caller that stops waiting before it was begun takes it back.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self.0.get_or_init(begin) {
            Some(running) => running.executor.spawn(async move { work() }).await,
            None => smol::unblock(work).await,
        }
    }
}

/// Begins the thread; none where no further one can be had.
fn begin() -> Option<Running> {
    let executor = Arc::new(Executor::new());
    let (life, end) = bounded(1);
    let runner = Arc::clone(&executor);
    let run = move || _ = smol::future::block_on(runner.run(end.recv()));
    std::thread::Builder::new().name("check".to_owned()).spawn(run).ok()?;
    Some(Running { executor, _life: life })
}
