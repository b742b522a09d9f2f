//! One look at all images: several at a time, none waiting for another's trouble.
//!
//! Registries are independent of each other; each has a lane of [`IN_HAND_MAX`] images in hand, in
//! the order of the configuration. A registry that does not answer is found out by the first image
//! of its lane, and the others report that they wait for it instead of waiting themselves.
//!
//! Room is given out in the order of the configuration too: an image is admitted when those before
//! it are decided. Theirs may be registries that hang, so that is waited for only for
//! [`TURN_PATIENCE`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use log::{debug, error, info, warn};
use smol::future::or;

use super::join::{Work, join};
use super::memory::{End, Memory, Need};
use super::{Outcome, Reconciler, standing};
use crate::clock::SharedClock;
use crate::config::Image;
use crate::fetch::Latch;
use crate::kind::Kind;
use crate::pull;
use crate::pull::progress::State;
use crate::units::format_duration;

/// What the images of one pass share.
pub(super) struct Pass {
    /// Whether each image was admitted, refused, or needs nothing, in their order.
    decided: Vec<Latch>,
    lanes: Vec<Lane>,
    /// Opened when no download is to be waited for any more: another pass is due.
    pub leave: Latch,
    /// Images in hand of which it is not known yet what is to be downloaded.
    looking: Cell<usize>,
}

/// How long a pass waits for downloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Until they end.
    Endless,
    /// Until images are due: then the pass ends, the downloads go on, and the next pass waits for
    /// them again.
    UntilDue,
}

/// The images of one registry that are to be looked at.
pub(super) struct Lane {
    registry: String,
    queue: RefCell<VecDeque<usize>>,
    /// Opened when the registry has answered something, or is known not to.
    pub answered: Latch,
    /// Why it does not.
    silence: RefCell<Option<String>>,
}

impl Pass {
    /// Waits for the images before number `index`, but not for ever.
    pub async fn turn(&self, index: usize, clock: &SharedClock) {
        let before = async {
            for decided in self.decided.iter().take(index) {
                decided.opened().await;
            }
        };
        clock.timeout(TURN_PATIENCE, before).await;
    }

    /// Does `download`, which may be left at any time.
    pub async fn download<T>(&self, download: impl Future<Output = T>) -> T {
        self.looking.update(|looking| looking - 1);
        let value = download.await;
        self.looking.update(|looking| looking + 1);
        value
    }

    /// What becomes of image number `index` is known: those behind need not wait for it.
    pub fn decide(&self, index: usize) {
        self.decided.get(index).into_iter().for_each(Latch::open);
    }
}

impl Reconciler {
    /// One pass over the images whose time has come; then what is not desired any more loses its
    /// place. A stop ends it early.
    ///
    /// All images are due again `interval` after this pass begins to look at them.
    pub async fn run(&self, interval: Duration, patience: Patience) -> Outcome {
        self.parts.metrics.sync_runs.add(1);
        self.take_next_images();
        // Before anything waits for the link.
        if let Err(error) = self.switch().await {
            error!("activating what was staged: {error}; tried again in the next pass");
        }
        let pass = self.begin_pass(interval);
        let mut works: Vec<Work<'_>> = vec![Box::pin(self.repair(&pass.leave))];
        for lane in &pass.lanes {
            for number in 0..IN_HAND_MAX {
                works.push(Box::pin(self.work(&pass, lane, number == 0)));
            }
        }
        match patience {
            Patience::Endless => join(works).await,
            Patience::UntilDue => or(join(works), self.leave_when_due(&pass)).await,
        }
        let outcome = self.outcome();
        // What takes the place of what is not desired any more may be on its way.
        if !self.parts.puller.stop().is_open() && self.next_images.borrow().is_none() {
            self.end_pass(outcome).await;
        }
        self.export_gauges();
        outcome
    }

    /// How all images stand, whether or not their time had come.
    fn outcome(&self) -> Outcome {
        let memories = self.memories.borrow();
        let held = memories.iter().filter(|memory| memory.end.is_held()).count();
        let waiting = memories.iter().filter(|memory| memory.is_held_back).count();
        Outcome { held, failed: memories.len() - held, waiting, is_obeyed: true }
    }

    /// Opens [`Pass::leave`] when images are due, but not at once; never ends.
    async fn leave_when_due(&self, pass: &Pass) {
        loop {
            self.parts.clock.sleep(PASS_MIN).await;
            let now = self.parts.clock.monotonic();
            let is_due = |memory: &Memory| memory.not_before.is_some_and(|due| due <= now);
            let is_due = self.poll_at.get() <= now || self.memories.borrow().iter().any(is_due);
            // To leave a download while the pass cannot end would only keep its image from its tag.
            if is_due && pass.looking.get() == 0 {
                pass.leave.open();
            }
        }
    }

    fn begin_pass(&self, interval: Duration) -> Pass {
        self.call_off();
        self.parts.puller.resize_slots();
        let leave = Latch::default();
        self.leave.replace(leave.clone());
        let now = self.parts.clock.monotonic();
        let is_poll = self.poll_at.get() <= now;
        if is_poll {
            self.poll_at.set(now + interval);
        }
        let mut lanes: Vec<Lane> = Vec::new();
        let images = self.images();
        let decided: Vec<Latch> = images.iter().map(|_| Latch::default()).collect();
        let mut memories = self.memories.borrow_mut();
        let images = images.iter().zip(memories.iter_mut()).zip(&decided);
        let mut images: Vec<_> = images.enumerate().collect();
        // It may be that image only: let another find out whether the registry answers.
        images.sort_by_key(|(_, ((_, memory), _))| memory.was_unanswered);
        for (index, ((image, memory), decided)) in images {
            let may = match memory.not_before {
                Some(not_before) => not_before <= now || memory.is_held_back && is_poll,
                None => is_poll,
            };
            if !may {
                decided.open();
                continue;
            }
            memory.not_before = None;
            let registry = &image.reference.registry;
            match lanes.iter().find(|lane| lane.registry == *registry) {
                Some(lane) => lane.queue.borrow_mut().push_back(index),
                None => lanes.push(Lane {
                    registry: registry.clone(),
                    queue: RefCell::new(VecDeque::from([index])),
                    answered: Latch::default(),
                    silence: RefCell::default(),
                }),
            }
        }
        Pass { decided, lanes, leave, looking: Cell::new(0) }
    }

    async fn end_pass(&self, outcome: Outcome) {
        if self.parts.puller.is_held_back() {
            self.idle.borrow_mut().rest(self.parts.clock.monotonic());
        }
        let swept = match self.collect().await {
            Ok(()) => self.drop_downloads().await,
            Err(error) => Err(error),
        };
        if let Err(error) = swept {
            error!("giving up what is not desired any more: {error}");
        }
        if outcome.is_converged() {
            self.parts.metrics.sync_last_success_seconds.set(self.parts.clock.unix_seconds());
        } else {
            self.parts.metrics.sync_failures.add(1);
        }
    }

    /// Takes image after image of a lane.
    async fn work(&self, pass: &Pass, lane: &Lane, is_first: bool) {
        let stop = self.parts.puller.stop();
        if !is_first {
            stop.unless_opened(lane.answered.opened()).await;
        }
        while !stop.is_open() && self.next_images.borrow().is_none() {
            let Some(index) = lane.queue.borrow_mut().pop_front() else { break };
            pass.looking.update(|looking| looking + 1);
            let silence = lane.silence.borrow().clone();
            let outcome = match silence {
                Some(why) => Err(self.waiting(index, &lane.registry, &why)),
                None => self.image(index, pass, lane).await,
            };
            pass.looking.update(|looking| looking - 1);
            pass.decide(index);
            if outcome.as_ref().is_err_and(pull::Error::is_left) {
                self.leave(index);
                lane.answered.open();
                continue;
            }
            let is_unanswered = outcome.as_ref().is_err_and(pull::Error::is_unanswered);
            self.remember(index, |memory| memory.was_unanswered = is_unanswered);
            if let Err(error) = &outcome
                && is_unanswered
                && !stop.is_open()
            {
                let others = lane.queue.borrow().len();
                if lane.silence.borrow_mut().replace(error.to_string()).is_none() && others > 0 {
                    warn!("{}: does not answer, {others} other images wait for it", lane.registry);
                }
            }
            // In whatever way the first one ended.
            lane.answered.open();
            if !stop.is_open() {
                self.conclude(index, outcome);
            }
        }
        // Also when there is no first one any more.
        lane.answered.open();
    }

    /// Notes that an image was left: it is waited for again in the next pass.
    fn leave(&self, index: usize) {
        let images = self.images();
        let Some(image) = images.get(index) else { return };
        self.remember(index, |memory| {
            memory.not_before = Some(Duration::ZERO);
            let is_held = self.is_held_as(image, memory.current);
            memory.end = if is_held { End::Held } else { End::Failed };
        });
    }

    fn waiting(&self, index: usize, registry: &str, why: &str) -> pull::Error {
        let what = format!("waits for {registry}, which does not answer: {why}");
        pull::Error::new(Kind::Retry, self.name(index), what)
    }

    /// Notes and reports how one image ended.
    fn conclude(&self, index: usize, outcome: Result<End, pull::Error>) {
        let images = self.images();
        let Some(image) = images.get(index) else { return };
        let mut memories = self.memories.borrow_mut();
        let Some(memory) = memories.get_mut(index) else { return };
        let now = self.parts.clock.monotonic();
        memory.is_held_back = false;
        memory.left = None;
        // What a pass left and this one did not come to wait for is promised no room any more.
        if let Need::Admitted(planned) = &mut memory.need {
            planned.is_under_way = false;
        }
        let (end, problem) = match outcome {
            Ok(End::Gone(why)) => {
                let text = format!("gone upstream, what is held stays served: {why}");
                if memory.is_news(&text) {
                    warn!("{}: {text}", image.reference);
                }
                (End::Gone(why), Some(text))
            }
            Ok(end) => {
                if let End::Held = end {
                    memory.reported = None;
                }
                (end, None)
            }
            Err(error) => {
                // One that wants no pause, or a time that has passed, must not be asked for ever.
                let pause = match error.is_unsigned() {
                    true => Some(UNSIGNED_PAUSE),
                    false => error.retry_after().filter(|_| error.kind() == Kind::Retry),
                };
                memory.not_before = pause.map(|pause| now + pause.max(PAUSE_MIN));
                memory.is_unsigned = error.is_unsigned();
                let held_back = error.held_back();
                memory.is_held_back = held_back.is_some();
                if let Some(reason) = held_back {
                    if memory.is_news(&reason) {
                        info!("{}: {reason}", image.reference);
                    }
                    // What its registry has was not found to be another.
                    let is_held = self.is_held_as(image, memory.current);
                    let end = if is_held { End::Held } else { End::Failed };
                    self.post_end(image, memory, end, State::Waiting, Some(reason));
                    return;
                }
                let is_held = self.held(image).is_some();
                let text = failure(&error, pause, is_held, memory);
                // Nothing but a change of the figures is worth a line at each poll.
                if memory.is_news(&text) || error.kind() != Kind::Full {
                    error!("{text}");
                } else {
                    debug!("{text}");
                }
                let is_unchecked =
                    error.kind() == Kind::Retry && self.is_held_as(image, memory.current);
                let problem = Some(error.to_string());
                if is_unchecked {
                    let (state, problem) = match image.is_staged() {
                        true => standing(image),
                        false => (State::Unchecked, problem),
                    };
                    self.post_end(image, memory, End::Failed, state, problem);
                    return;
                }
                (End::Failed, problem)
            }
        };
        let (state, problem) = match &end {
            End::Held => standing(image),
            End::Gone(_) if image.is_staged() => standing(image),
            End::Gone(_) => (State::Gone, problem),
            End::Failed => (State::Failed, problem),
        };
        self.post_end(image, memory, end, state, problem);
    }

    fn post_end(
        &self,
        image: &Image,
        memory: &mut Memory,
        end: End,
        state: State,
        problem: Option<String>,
    ) {
        memory.end = end;
        self.parts.progress.update(&image.reference.to_string(), |notice| {
            notice.state = state;
            notice.error = problem;
        });
    }
}

/// The line that says why an image is not held, and what happens next.
fn failure(error: &pull::Error, pause: Option<Duration>, is_held: bool, memory: &Memory) -> String {
    let next = if is_held { "what is held stays served" } else { "not held yet" };
    let when = match pause.or_else(|| error.retry_after()) {
        Some(pause) => format!("tried again in {}", format_duration(pause)),
        None if memory.is_refused() => {
            "nothing is fetched for it until there is room or its registry has another".to_owned()
        }
        None => "tried again at the next poll".to_owned(),
    };
    format!("{error}; {next}; {when}")
}

/// Images of one registry that are looked at or fetched at the same time.
const IN_HAND_MAX: usize = 3;
/// The least time that a pass waits for downloads: all images are looked at in between.
const PASS_MIN: Duration = Duration::from_secs(10);
/// The least that an image waits whose registry asked for a pause.
const PAUSE_MIN: Duration = Duration::from_secs(10);
/// How long an image waits that is not signed as it must be: asking again costs its manifests.
const UNSIGNED_PAUSE: Duration = Duration::from_mins(10);
/// How long an image that is ready to be admitted waits for those before it.
const TURN_PATIENCE: Duration = Duration::from_secs(10);
