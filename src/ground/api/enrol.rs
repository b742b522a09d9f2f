//! What satellites ask: enrolment, reports, new credentials.
//!
//! Go spends an enrolment token when it answers. If the answer is lost, or the satellite loses
//! power before it wrote it down, the satellite is lost too. Here the token is spent by the first
//! use of the credentials it issued: until then, and within its life, it can be asked again.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::{FromRequest as _, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::batches::{device_hash, satellite_of};
use super::extract::{Body, Robot};
use crate::fleet::enrol::{self, Actions, Answer, Credentials, DEVICE, Refreshed};
use crate::fleet::report::Report;
use crate::fleet::shown;
use crate::fleet::state::{GroupState, config_repository, satellite_repository};
use crate::ground::app::App;
use crate::ground::assess::Assessment;
use crate::ground::fault::Fault;
use crate::ground::labels::{self, Labels};
use crate::ground::model::Lifecycle;
use crate::ground::secret::ROBOT_PREFIX;
use crate::ground::store::{Rows, Satellite};
use crate::ground::tls::Certified;
use crate::ground::{assess, clock, history, journal, publish, resolve, secret};

/// Go 0.0.4: the token is in the path.
pub async fn by_path(
    State(app): State<Arc<App>>,
    Path(token): Path<String>,
) -> Result<Json<Answer>, Fault> {
    enrol(&app, &token, &Labels::new()).await
}

/// The later dialect: the token is in the body, where no proxy logs it.
pub async fn by_body(
    State(app): State<Arc<App>>,
    certified: Option<Extension<Certified>>,
    Body(body): Body<enrol::Request>,
) -> Result<Json<Answer>, Fault> {
    body.check()?;
    if let (true, Some(Extension(certified))) = (body.token.is_empty(), certified) {
        return enrol_certified(&app, &certified, body.facts).await;
    }
    enrol(&app, &body.token, &body.facts).await
}

/// As Go's satellites with an SVID ask: the certificate is in the place of a token.
pub async fn by_certificate(
    State(app): State<Arc<App>>,
    certified: Option<Extension<Certified>>,
) -> Result<Json<Answer>, Fault> {
    let Some(Extension(certified)) = certified else {
        let message = "a certificate that names a satellite is expected";
        return Err(Fault::new(StatusCode::UNAUTHORIZED, message));
    };
    enrol_certified(&app, &certified, Labels::new()).await
}

/// Go makes a satellite of any name that a certificate has. Here it must have been added: an
/// authority that vouches for more than this fleet adds nothing to it.
async fn enrol_certified(
    app: &App,
    certified: &Certified,
    mut facts: Labels,
) -> Result<Json<Answer>, Fault> {
    let Certified { name, region } = certified;
    if !app.limits.enrolments.take(("certificate", name)) {
        return Err(Fault::too_many());
    }
    let refused = |why: &str| {
        let name = shown(name);
        Fault::new(StatusCode::FORBIDDEN, format!("Error: satellite {name} {why}"))
    };
    let satellite = app.store.read().await?.rows().satellite(name).await?;
    let mut satellite =
        satellite.ok_or_else(|| refused("is not known: expected one that was added"))?;
    let secret = new_secret(app)?;
    let moves = satellite.home != app.home();
    let mut write = if moves { app.store.change().await? } else { app.store.write().await? };
    let mut rows = write.rows();
    if !rows.offer_secret_certified(satellite.id, &secret::hash(&secret)).await? {
        return Err(refused("was revoked, or waits for approval"));
    }
    facts.extend(region.clone().map(|region| ("region".to_owned(), region)));
    rows.set_facts(satellite.id, &labels::from_facts(&facts)).await?;
    if moves {
        move_home(app, &mut rows, &mut satellite).await?;
    }
    write.commit().await?;
    enrolled(app, &satellite, secret).await
}

async fn enrol(app: &App, token: &str, facts: &Labels) -> Result<Json<Answer>, Fault> {
    let mut hash = secret::hash(token);
    // The devices of a batch have a token in common, and do not wait for each other.
    if !app.limits.enrolments.take((&hash, facts.get(DEVICE))) {
        return Err(Fault::too_many());
    }
    // A caller without a token is refused before anything is written.
    let satellite = app.store.read().await?.rows().satellite_by_enrolment(&hash).await?;
    let mut satellite = match satellite {
        Some(satellite) => satellite,
        None => {
            let satellite = satellite_of(app, token, facts).await?;
            hash = device_hash(token, satellite.device.as_deref().unwrap_or_default());
            satellite
        }
    };
    match satellite.lifecycle() {
        // Not an error of the token: a client that asks again later is answered. Go's satellites
        // and Moonlet's do.
        Lifecycle::Waiting => {
            let device = satellite.device.as_deref().map(shown).unwrap_or_default();
            let message = format!("Error: device {device} waits for approval");
            return Err(Fault::new(StatusCode::CONFLICT, message));
        }
        Lifecycle::Revoked if satellite.enrolment_expires_at == 0 => {
            return Err(Fault::new(StatusCode::FORBIDDEN, "Error: this device was refused"));
        }
        _ if satellite.enrolment_expires_at == 0 => {
            let message = "Error: Invalid Token: this device has enrolled with it";
            return Err(Fault::bad(message));
        }
        _ => {}
    }
    if satellite.enrolment_expires_at <= clock::now() {
        return Err(Fault::new(StatusCode::UNAUTHORIZED, "Error: Token Expired"));
    }
    let secret = new_secret(app)?;
    let moves = satellite.home != app.home();
    let mut write = if moves { app.store.change().await? } else { app.store.write().await? };
    let mut rows = write.rows();
    if !rows.offer_secret_for(&hash, &secret::hash(&secret)).await? {
        return Err(Fault::bad("Error: Invalid Token"));
    }
    rows.set_facts(satellite.id, &labels::from_facts(facts)).await?;
    if moves {
        move_home(app, &mut rows, &mut satellite).await?;
    }
    write.commit().await?;
    enrolled(app, &satellite, secret).await
}

/// What a device is to authenticate with: Harbor has rules of its own for the secrets of robots.
fn new_secret(app: &App) -> Result<String, Fault> {
    let secret = secret::random(32)?;
    Ok(match &app.publisher {
        Some(publisher) => publisher.secret(secret),
        None => secret,
    })
}

/// Where a device is to read its state may have changed since its satellite was added.
async fn move_home(app: &App, rows: &mut Rows<'_>, satellite: &mut Satellite) -> Result<(), Fault> {
    app.home().clone_into(&mut satellite.home);
    rows.set_home(satellite.id, app.home()).await?;
    publish::satellite(rows, &app.url, satellite).await
}

/// Answers an enrolment that is in the database.
async fn enrolled(app: &App, satellite: &Satellite, secret: String) -> Result<Json<Answer>, Fault> {
    if let Some(publisher) = &app.publisher {
        publisher.enable_secret(&app.store, satellite, &secret).await?;
    }
    app.metrics.enrolments.add_one();
    tracing::info!("satellite {} enrols", satellite.name);
    let base = satellite.base(&app.url);
    Ok(Json(Answer {
        auth: Credentials {
            url: base.to_owned(),
            username: format!("{ROBOT_PREFIX}{}", satellite.name),
            password: secret,
        },
        state: publish::artifact_url(base, &satellite_repository(&satellite.name)),
    }))
}

/// Takes a report. It counts for the satellite of the credentials, whatever name it states.
pub async fn report(
    State(app): State<Arc<App>>,
    Robot(satellite): Robot,
    request: Request,
) -> Result<Response, Fault> {
    if !app.limits.reports.take(satellite.id) {
        return Err(Fault::too_many());
    }
    let Body(report) = Body::<Report>::from_request(request, &app).await?;
    let every = report.check()?;
    let reported_at = match report.request_created_time.as_str() {
        "" => None,
        text => Some(clock::parse(text).ok_or_else(|| {
            let text = shown(text);
            Fault::bad(format!("request_created_time {text}: expected a time of RFC 3339"))
        })?),
    };
    let now = clock::now();
    let mut write = app.store.report().await?;
    let mut rows = write.rows();
    // First, so that a report and a change lock the satellite's rows in the same order.
    rows.set_seen(satellite.id, every, now).await?;
    let base = satellite.base(&app.url);
    let assessment = assess_report(&mut rows, base, &satellite, &report).await?;
    let before = rows.status(satellite.id).await?;
    let (hour, over) = history::observe(&satellite, before.as_ref(), (&report, &assessment), now);
    for sample in over {
        rows.put_sample(satellite.id, &sample.placed(now)).await?;
    }
    let before = before.map(|status| status.report);
    journal::of_report(&mut rows, &satellite, before.as_ref(), &report).await?;
    let times = (reported_at, now);
    rows.put_status(satellite.id, &report, &assessment, &hour, times).await?;
    rows.set_held(satellite.id, &assess::held(&report), now).await?;
    for (rollout, group) in rows.releases_of(satellite.id).await? {
        let (outcome, reason) = assess::outcome(&assessment, &group);
        rows.set_outcome(rollout, satellite.id, (outcome, &reason), now).await?;
    }
    let is_behind = match &app.publisher {
        Some(publisher) => publisher.is_behind(&mut rows, &satellite).await?,
        None => false,
    };
    write.commit().await?;
    app.metrics.reports.add_one();
    let is_old = now - satellite.secret_at > REFRESH_AFTER_SECONDS * clock::SECOND;
    if is_old || is_behind {
        // Go 0.0.4 does not read the body; what it has stays good.
        let actions = Actions { actions: vec![enrol::REFRESH_CREDENTIALS.to_owned()] };
        return Ok(Json(actions).into_response());
    }
    Ok(StatusCode::OK.into_response())
}

/// Holds a report against what is desired of the satellite.
async fn assess_report(
    rows: &mut Rows<'_>,
    url: &str,
    satellite: &Satellite,
    report: &Report,
) -> Result<Assessment, Fault> {
    let versions = rows.satellite_versions(satellite.id).await?;
    let config = rows.satellite_config(satellite.id).await?;
    let mut published = assess::Published {
        state: rows.published_digest(&satellite_repository(&satellite.name)).await?,
        config: rows.published_digest(&config_repository(&config)).await?,
        earlier: Vec::new(),
    };
    let mut groups: Vec<GroupState> = Vec::new();
    for group in &versions {
        groups.push(resolve::resolved(rows, group).await?);
    }
    if assess::surplus(url, &groups, report).next().is_some() {
        for group in &versions {
            let contents = rows.published_contents(&publish::repository(group)).await?;
            let states = contents.iter().flat_map(|content| serde_json::from_str(content));
            published.earlier.extend(states);
            let name = &group.state.group;
            published.earlier.extend(rows.rollout_states(name).await?);
            published.earlier.extend(rows.group(name).await?.map(|group| group.state));
        }
    }
    Ok(assess::assess(url, &groups, &published, report))
}

/// Issues a new secret to a satellite. The old one is good until the new one was used. While an
/// enrolment token is good there is none: the device may be the one that is to be replaced.
pub async fn refresh(
    State(app): State<Arc<App>>,
    Robot(satellite): Robot,
) -> Result<Json<Refreshed>, Fault> {
    if !app.limits.reports.take(satellite.id) {
        return Err(Fault::too_many());
    }
    let publisher = app.publisher.as_ref().filter(|publisher| satellite.home == publisher.url);
    let secret = match publisher {
        Some(publisher) => publisher.secret(secret::random(32)?),
        None => secret::random(32)?,
    };
    let mut write = app.store.write().await?;
    let used = satellite.secret_hash.as_deref().unwrap_or_default();
    let hash = secret::hash(&secret);
    if !write.rows().offer_secret(satellite.id, used, &hash, clock::now()).await? {
        let message = "an enrolment of this satellite is expected, or its credentials have changed";
        return Err(Fault::new(StatusCode::CONFLICT, message));
    }
    write.commit().await?;
    if let Some(publisher) = publisher {
        publisher.enable_secret(&app.store, &satellite, &secret).await?;
    }
    Ok(Json(Refreshed { secret }))
}

/// The age at which a satellite is asked to fetch a new secret. Nothing ends by itself: a satellite
/// that cannot refresh, such as Go 0.0.4, goes on with the one it has.
const REFRESH_AFTER_SECONDS: i64 = 20 * 24 * 3600;
