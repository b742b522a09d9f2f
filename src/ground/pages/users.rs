//! The people who may log in.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::response::Redirect;
use maud::{Markup, html};

use super::view::{at, page, token, version};
use super::{Visitor, forms};
use crate::ground::api::{
    Expected, NewUser, Version, add_user, confirm_password, remove_user, set_password,
};
use crate::ground::app::App;
use crate::ground::fault::Fault;
use crate::ground::limit::Peer;
use crate::ground::store::{Role, User};

pub async fn list(State(app): State<Arc<App>>, visitor: Visitor) -> Result<Markup, Fault> {
    let users = app.store.read().await?.rows().users().await?;
    let manages = visitor.user.role == Role::SystemAdmin;
    let own = users.iter().find(|user| user.id == visitor.user.id);
    let content = html! {
        h1 { "Users" }
        div.scroll { table {
            thead { tr { th { "User" } th { "Role" } th.wide { "Since" } @if manages { th {} } } }
            tbody { @for user in &users { tr {
                td { (user.username) }
                td.word { (user.role.word()) }
                td.wide { (at(user.created_at)) }
                @if manages { td { @if user.role != Role::SystemAdmin { (manage(&app, &visitor, user)) } } }
            } } }
        } }
        @if manages { (add_form(&visitor)) }
        @if let Some(own) = own {
            h2 { "Your password" }
            form method="post" action="/console/password" {
                (token(&visitor)) (version(&Version::of_user(&app, own).tag()))
                label { "The one you have" input name="current" type="password" required
                    autocomplete="current-password"; }
                label { "The new one" input name="password" type="password" required
                    autocomplete="new-password"; }
                button { "Change it" }
            }
            p.muted { "It ends all your sessions and your API tokens: you log in again." }
        }
    };
    Ok(page(Some(&visitor), "Users", &content))
}

/// What may be done to another user.
fn manage(app: &App, visitor: &Visitor, user: &User) -> Markup {
    let (name, shown) = (&user.username, Version::of_user(app, user).tag());
    html! {
        details {
            summary { "Change" }
            form.row method="post" action={ "/console/users/" (name) "/password" } {
                (token(visitor)) (version(&shown))
                label { "New password of " (name) input name="password" type="password" required
                    autocomplete="new-password"; }
                button.plain { "Set it" }
            }
            form method="post" action={ "/console/users/" (name) "/remove" } {
                (token(visitor)) (version(&shown))
                button.plain { "Remove " (name) }
            }
        }
    }
}

fn add_form(visitor: &Visitor) -> Markup {
    html! {
        h2 { "Add a user" }
        form.row method="post" action="/console/users" {
            (token(visitor))
            label { "User" input name="username" required pattern="[a-z0-9][a-z0-9._\\-]*"; }
            label { "Password" input name="password" type="password" required
                autocomplete="new-password"; }
            label {
                "Role"
                select name="role" {
                    option value=(Role::Viewer.word()) { "viewer: reads" }
                    option value=(Role::Admin.word()) { "admin: changes the fleet" }
                }
            }
            button { "Add" }
        }
    }
}

pub async fn add(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Form(form): Form<forms::User>,
) -> Result<Redirect, Fault> {
    visitor.check_system_admin(&form.form_token)?;
    let new = NewUser { username: form.username, password: form.password, role: form.role };
    add_user(&app, visitor.actor(), new).await?;
    Ok(Redirect::to("/console/users"))
}

pub async fn set(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(form): Form<forms::Password>,
) -> Result<Redirect, Fault> {
    visitor.check_system_admin(&form.form_token)?;
    let expected = Expected::shown(&form.version);
    set_password(&app, visitor.actor(), &expected, &name, form.password).await?;
    Ok(Redirect::to("/console/users"))
}

pub async fn remove(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(form): Form<forms::Act>,
) -> Result<Redirect, Fault> {
    visitor.check_system_admin(&form.form_token)?;
    let expected = Expected::shown(&form.version);
    remove_user(&app, visitor.actor(), &expected, &name).await?;
    Ok(Redirect::to("/console/users"))
}

/// One's own password, whatever the role.
pub async fn set_own(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Extension(peer): Extension<Peer>,
    Form(form): Form<forms::Password>,
) -> Result<Redirect, Fault> {
    visitor.check(&form.form_token)?;
    confirm_password(&app, peer, visitor.actor(), form.current).await?;
    let expected = Expected::shown(&form.version);
    set_password(&app, visitor.actor(), &expected, visitor.actor(), form.password).await?;
    Ok(Redirect::to("/console/login"))
}
