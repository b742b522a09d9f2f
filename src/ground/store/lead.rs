//! What only one of several servers does at a time. The right ends with the process that has it,
//! however that ends, and with its connection to the database.

use std::path::PathBuf;

use sqlx::{AnyConnection, Row as _};

use super::Store;
use crate::ground::lock;

/// What one server does for all.
#[derive(Clone, Copy)]
pub enum Duty {
    Publishing,
    Tags,
}

impl Duty {
    /// A number for PostgreSQL, beside that of changes, and a file beside SQLite's.
    fn keys(self) -> (i64, &'static str) {
        match self {
            Self::Publishing => (super::CHANGE_LOCK + 1, "publishing.lock"),
            Self::Tags => (super::CHANGE_LOCK + 2, "tags.lock"),
        }
    }
}

/// The right to do it.
pub enum Lead {
    /// The lock is the open file.
    File(#[expect(dead_code, reason = "held until dropped")] lock::Held),
    /// It is the session's.
    Connection(Box<AnyConnection>),
}

impl Lead {
    /// Whether this server still has it.
    pub async fn holds(&mut self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Connection(connection) => {
                sqlx::query("SELECT 1").execute(&mut **connection).await.is_ok()
            }
        }
    }
}

impl Store {
    /// The right to do something, unless another server has it.
    pub async fn lead(&self, duty: Duty) -> Result<Option<Lead>, String> {
        let (number, name) = duty.keys();
        if let Some(directory) = &self.directory {
            let path: PathBuf = directory.join(name);
            return Ok(lock::sole(&path)?.map(Lead::File));
        }
        let failed = |error: sqlx::Error| error.to_string();
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        let query = sqlx::query("SELECT CASE WHEN pg_try_advisory_lock($1) THEN 1 ELSE 0 END AS n");
        let row = query.bind(number).fetch_one(&mut *connection).await.map_err(failed)?;
        if row.try_get::<i32, _>("n").map_err(failed)? == 0 {
            return Ok(None);
        }
        // Not the pool's any more: given back, it would keep the lock.
        Ok(Some(Lead::Connection(Box::new(connection.detach()))))
    }
}
