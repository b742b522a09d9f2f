//! API tokens: what a program is given in the place of a person's password.

use sqlx::any::AnyRow;
use sqlx::{Result, Row as _};

use super::Rows;
use super::users::{self, Role, User};

/// A token; what opens the API is not in it.
pub struct Token {
    pub name: String,
    pub role: Role,
    /// Whose it is, and with whom it ends.
    pub username: String,
    pub created_at: i64,
    pub expires_at: i64,
    /// To the hour.
    pub used_at: Option<i64>,
}

impl Rows<'_> {
    /// Adds a token of a user, and removes those that have ended.
    pub async fn add_token(&mut self, token: &Token, hash: &str, user_id: i64) -> Result<()> {
        let query = sqlx::query("DELETE FROM tokens WHERE expires_at <= $1");
        query.bind(token.created_at).execute(&mut *self.0).await?;
        sqlx::query(
            "INSERT INTO tokens (name, token_hash, token_role, user_id, token_created_at, \
             expires_at) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&token.name)
        .bind(hash)
        .bind(token.role.word())
        .bind(user_id)
        .bind(token.created_at)
        .bind(token.expires_at)
        .execute(&mut *self.0)
        .await
        .map(drop)
    }

    /// The tokens that have not ended, in order of their names.
    pub async fn tokens(&mut self, now: i64) -> Result<Vec<Token>> {
        let query = sqlx::query(
            "SELECT tokens.*, users.username FROM tokens JOIN users ON users.id = user_id \
             WHERE expires_at > $1 ORDER BY name",
        );
        query.bind(now).fetch_all(&mut *self.0).await?.iter().map(token).collect()
    }

    /// The token of a hash that has not ended, and its user.
    pub async fn token_by_hash(&mut self, hash: &str, now: i64) -> Result<Option<(Token, User)>> {
        let query = sqlx::query(
            "SELECT tokens.*, users.* FROM tokens JOIN users ON users.id = user_id \
             WHERE token_hash = $1 AND expires_at > $2",
        );
        let row = query.bind(hash).bind(now).fetch_optional(&mut *self.0).await?;
        row.map(|row| Ok((token(&row)?, users::user(&row)?))).transpose()
    }

    pub async fn set_token_used(&mut self, name: &str, now: i64) -> Result<()> {
        let query = sqlx::query("UPDATE tokens SET used_at = $2 WHERE name = $1");
        query.bind(name).bind(now).execute(&mut *self.0).await.map(drop)
    }

    pub async fn delete_token(&mut self, name: &str) -> Result<()> {
        let query = sqlx::query("DELETE FROM tokens WHERE name = $1").bind(name);
        query.execute(&mut *self.0).await.map(drop)
    }
}

fn token(row: &AnyRow) -> Result<Token> {
    Ok(Token {
        name: row.try_get("name")?,
        role: users::role(row, "token_role")?,
        username: row.try_get("username")?,
        created_at: row.try_get("token_created_at")?,
        expires_at: row.try_get("expires_at")?,
        used_at: row.try_get("used_at")?,
    })
}
