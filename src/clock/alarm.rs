//! What a clock wakes its tasks with.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use smol::Timer;

/// Ends when its moment has come. It borrows nothing, and begins when it is made.
pub struct Alarm(Source);

enum Source {
    Kernel(Timer),
    #[cfg(feature = "sim")]
    Simulated(Pin<Box<dyn Future<Output = ()>>>),
}

impl Alarm {
    /// Never ends: what waits is woken by something else.
    pub fn never() -> Self {
        Self(Source::Kernel(Timer::never()))
    }

    /// Ends after `duration` by the kernel's clock.
    pub(super) fn after(duration: Duration) -> Self {
        Self(Source::Kernel(Timer::after(duration)))
    }

    #[cfg(feature = "sim")]
    pub(super) fn simulated(alarm: impl Future<Output = ()> + 'static) -> Self {
        Self(Source::Simulated(Box::pin(alarm)))
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Source::Kernel(timer) => Pin::new(timer).poll(cx).map(drop),
            #[cfg(feature = "sim")]
            Source::Simulated(alarm) => alarm.as_mut().poll(cx),
        }
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alarm")
    }
}
