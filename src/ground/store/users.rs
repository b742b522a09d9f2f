//! People who may change the fleet, and their sessions.

use sqlx::any::AnyRow;
use sqlx::{Result, Row as _};

use super::Rows;

/// A person.
#[derive(Clone)]
pub struct User {
    pub id: i64,
    pub username: String,
    pub password_hash: String,
    pub role: Role,
    pub locked_until: i64,
    pub created_at: i64,
}

/// What a person may do, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads.
    Viewer,
    /// May do all but manage users and delete groups.
    Admin,
    /// May do all.
    SystemAdmin,
}

impl Role {
    /// Its name in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Admin => "admin",
            Self::SystemAdmin => "system_admin",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        [Self::Viewer, Self::Admin, Self::SystemAdmin].into_iter().find(|role| role.word() == word)
    }
}

/// A log-in.
pub struct Session {
    pub token_hash: String,
    pub user_id: i64,
    pub created_at: i64,
    pub expires_at: i64,
}

impl Rows<'_> {
    pub async fn users(&mut self) -> Result<Vec<User>> {
        let rows = sqlx::query("SELECT * FROM users ORDER BY username").fetch_all(&mut *self.0);
        rows.await?.iter().map(user).collect()
    }

    pub async fn user(&mut self, username: &str) -> Result<Option<User>> {
        let query = sqlx::query("SELECT * FROM users WHERE username = $1").bind(username);
        query.fetch_optional(&mut *self.0).await?.as_ref().map(user).transpose()
    }

    pub async fn add_user(
        &mut self,
        username: &str,
        password_hash: &str,
        role: Role,
        now: i64,
    ) -> Result<()> {
        sqlx::query(
            "INSERT INTO users (username, password_hash, role, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $4)",
        )
        .bind(username)
        .bind(password_hash)
        .bind(role.word())
        .bind(now)
        .execute(&mut *self.0)
        .await
        .map(drop)
    }

    pub async fn delete_user(&mut self, id: i64) -> Result<()> {
        let query = sqlx::query("DELETE FROM users WHERE id = $1").bind(id);
        query.execute(&mut *self.0).await.map(drop)
    }

    /// Sets a password, lifts a lock, and ends the user's sessions and tokens: who knew the old one
    /// may have made them.
    pub async fn set_password(&mut self, id: i64, password_hash: &str, now: i64) -> Result<()> {
        sqlx::query(
            "UPDATE users SET password_hash = $2, failures = 0, locked_until = 0, \
             updated_at = $3 WHERE id = $1",
        )
        .bind(id)
        .bind(password_hash)
        .bind(now)
        .execute(&mut *self.0)
        .await?;
        let query = sqlx::query("DELETE FROM tokens WHERE user_id = $1").bind(id);
        query.execute(&mut *self.0).await?;
        let query = sqlx::query("DELETE FROM sessions WHERE user_id = $1").bind(id);
        query.execute(&mut *self.0).await.map(drop)
    }

    /// Counts a wrong password; the `failures_max`th in a row locks the user until `until`.
    pub async fn count_failure(&mut self, id: i64, failures_max: i64, until: i64) -> Result<()> {
        sqlx::query(
            "UPDATE users SET \
             locked_until = CASE WHEN failures + 1 >= $2 THEN $3 ELSE locked_until END, \
             failures = CASE WHEN failures + 1 >= $2 THEN 0 ELSE failures + 1 END \
             WHERE id = $1",
        )
        .bind(id)
        .bind(failures_max)
        .bind(until)
        .execute(&mut *self.0)
        .await
        .map(drop)
    }

    /// Forgets the wrong passwords of a user who entered the right one, whose hash this is. False
    /// when the user was locked meanwhile, or has another password.
    pub async fn confirm_password(&mut self, id: i64, hash: &str, now: i64) -> Result<bool> {
        let query = sqlx::query(
            "SELECT failures FROM users WHERE id = $1 AND password_hash = $2 AND locked_until <= $3",
        );
        let row = query.bind(id).bind(hash).bind(now).fetch_optional(&mut *self.0).await?;
        let Some(row) = row else { return Ok(false) };
        if row.try_get::<i64, _>("failures")? == 0 {
            return Ok(true);
        }
        let query = sqlx::query(
            "UPDATE users SET failures = 0 \
             WHERE id = $1 AND password_hash = $2 AND locked_until <= $3",
        );
        let done = query.bind(id).bind(hash).bind(now).execute(&mut *self.0).await?;
        Ok(done.rows_affected() > 0)
    }

    /// Adds a session, and removes those that have ended.
    pub async fn add_session(&mut self, session: &Session) -> Result<()> {
        let query = sqlx::query("DELETE FROM sessions WHERE expires_at <= $1");
        query.bind(session.created_at).execute(&mut *self.0).await?;
        sqlx::query(
            "INSERT INTO sessions (token_hash, user_id, created_at, expires_at) \
             VALUES ($1, $2, $3, $4)",
        )
        .bind(&session.token_hash)
        .bind(session.user_id)
        .bind(session.created_at)
        .bind(session.expires_at)
        .execute(&mut *self.0)
        .await
        .map(drop)
    }

    /// The user of a session that has not ended.
    pub async fn session_user(&mut self, token_hash: &str, now: i64) -> Result<Option<User>> {
        let query = sqlx::query(
            "SELECT users.* FROM sessions JOIN users ON users.id = sessions.user_id \
             WHERE sessions.token_hash = $1 AND sessions.expires_at > $2",
        );
        let query = query.bind(token_hash).bind(now);
        query.fetch_optional(&mut *self.0).await?.as_ref().map(user).transpose()
    }

    pub async fn end_session(&mut self, token_hash: &str) -> Result<()> {
        let query = sqlx::query("DELETE FROM sessions WHERE token_hash = $1").bind(token_hash);
        query.execute(&mut *self.0).await.map(drop)
    }
}

pub fn user(row: &AnyRow) -> Result<User> {
    Ok(User {
        id: row.try_get("id")?,
        username: row.try_get("username")?,
        password_hash: row.try_get("password_hash")?,
        role: role(row, "role")?,
        locked_until: row.try_get("locked_until")?,
        created_at: row.try_get("created_at")?,
    })
}

/// The role in a column.
pub fn role(row: &AnyRow, column: &str) -> Result<Role> {
    let word: String = row.try_get(column)?;
    Role::parse(&word).ok_or_else(|| sqlx::Error::Decode(format!("role {word:?}").into()))
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;
    use crate::ground::settings::Database;

    /// What may happen while a right password is verified.
    #[test]
    fn a_password_is_confirmed_by_what_the_database_has_now() {
        let directory = std::env::temp_dir().join(format!("ground_users_{}", std::process::id()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::open(&Database::Directory(directory.clone())).await.unwrap();
            let mut write = store.write().await.unwrap();
            let mut rows = write.rows();
            rows.add_user("eve", "hash", Role::Admin, 0).await.unwrap();
            let id = rows.user("eve").await.unwrap().unwrap().id;
            assert!(rows.confirm_password(id, "hash", 1).await.unwrap());
            rows.count_failure(id, 2, 10).await.unwrap();
            assert!(rows.confirm_password(id, "hash", 1).await.unwrap());
            rows.count_failure(id, 2, 10).await.unwrap();
            assert!(rows.confirm_password(id, "hash", 1).await.unwrap(), "the first is forgotten");
            rows.count_failure(id, 2, 10).await.unwrap();
            rows.count_failure(id, 2, 10).await.unwrap();
            assert!(!rows.confirm_password(id, "hash", 9).await.unwrap(), "locked");
            assert!(rows.confirm_password(id, "hash", 10).await.unwrap(), "not any more");
            rows.set_password(id, "other", 1).await.unwrap();
            assert!(!rows.confirm_password(id, "hash", 11).await.unwrap(), "another password");
            write.commit().await.unwrap();
            store.close().await;
        });
        std::fs::remove_dir_all(directory).unwrap();
    }
}
