//! Pages that change while they are looked at: server-sent events (HTML standard, section 9.2), each
//! with the page's whole content, sent when it is another than before.
//!
//! Every stream reads the database for itself, so that it does not matter which replica it is at, or
//! which one runs the rollout. It ends with the session, with what it shows, and when the server
//! stops; a browser comes back by itself, to another replica or after a restart.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use maud::Markup;
use smol::stream::unfold;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::Visitor;
use crate::ground::app::App;
use crate::ground::fault::Fault;

/// A page that is watched.
struct Watched<F> {
    app: Arc<App>,
    visitor: Visitor,
    /// Makes the content; true with it where it changes no more.
    content: F,
    sent: Option<String>,
    state: State,
    looks: Interval,
    _place: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Watching,
    /// What was sent stays; only the end is yet to be said.
    Ending,
    Ended,
}

/// Sends the content that `content` makes as often as it changes.
pub async fn events<F, C>(app: Arc<App>, visitor: Visitor, content: F) -> Result<Response, Fault>
where
    F: Fn(Arc<App>, Visitor) -> C + Send + 'static,
    C: Future<Output = Result<(Markup, bool), Fault>> + Send + 'static,
{
    let Ok(place) = Arc::clone(&app.streams).try_acquire_owned() else {
        let message = "too many pages are watched now, try again later";
        let mut answer = Fault::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response();
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        return Ok(answer);
    };
    // What is not there is answered as such, and not by a stream.
    content(Arc::clone(&app), visitor.clone()).await?;
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let state = State::Watching;
    let watched = Watched { app, visitor, content, sent: None, state, looks, _place: place };
    Ok(Sse::new(unfold(watched, next)).keep_alive(KeepAlive::default()).into_response())
}

async fn next<F, C>(mut watched: Watched<F>) -> Option<(Result<Event, Infallible>, Watched<F>)>
where
    F: Fn(Arc<App>, Visitor) -> C + Send + 'static,
    C: Future<Output = Result<(Markup, bool), Fault>> + Send + 'static,
{
    if watched.state == State::Ended {
        return None;
    }
    while watched.state == State::Watching {
        let mut stopping = watched.app.stopping.subscribe();
        tokio::select! {
            _ = watched.looks.tick() => {}
            _ = stopping.wait_for(|is_stopping| *is_stopping) => return None,
        }
        // A database that is away may come back; the browser asks again.
        let Some(visitor) = watched.visitor.again(&watched.app).await.ok()? else {
            // The page itself leads to the login.
            watched.state = State::Ended;
            return Some((event("reload", ""), watched));
        };
        let made = (watched.content)(Arc::clone(&watched.app), visitor).await;
        let (content, is_last) = made.ok()?;
        if is_last {
            watched.state = State::Ending;
        }
        // A line of an event ends at either; what a satellite reports may have both.
        let content = content.into_string().replace('\r', " ");
        if watched.sent.as_ref() != Some(&content) {
            let changed = event("content", &content);
            watched.sent = Some(content);
            return Some((changed, watched));
        }
    }
    watched.state = State::Ended;
    Some((event("end", ""), watched))
}

fn event(name: &str, data: &str) -> Result<Event, Infallible> {
    Ok(Event::default().event(name).data(data))
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
