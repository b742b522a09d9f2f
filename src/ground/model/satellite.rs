//! What a satellite is judged on: its connection, its lifecycle, whether it is up to date and
//! whether it is well. None of them hides another.

/// How a satellite is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It reports.
    Online,
    /// Three reports in a row are missing.
    Stale,
    /// Ten are.
    Offline,
    /// It never reported.
    Unknown,
}

impl Connection {
    pub const ALL: [Self; 4] = [Self::Online, Self::Stale, Self::Offline, Self::Unknown];

    /// How a satellite is connected that is stale and offline from these times on.
    pub fn at(stale_at: Option<i64>, offline_at: Option<i64>, now: i64) -> Self {
        match (stale_at, offline_at) {
            (Some(_), Some(offline_at)) if now > offline_at => Self::Offline,
            (Some(stale_at), _) if now > stale_at => Self::Stale,
            (Some(_), _) => Self::Online,
            (None, _) => Self::Unknown,
        }
    }

    /// Its name in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Online => "Online",
            Self::Stale => "Stale",
            Self::Offline => "Offline",
            Self::Unknown => "Unknown",
        }
    }
}

/// Where a satellite is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// No device enrolled as it.
    Registered,
    /// One asked, and a person is to let it in.
    Waiting,
    Enrolled,
    /// Its credentials were ended.
    Revoked,
}

impl Lifecycle {
    /// Its name in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Registered => "Registered",
            Self::Waiting => "Waiting",
            Self::Enrolled => "Enrolled",
            Self::Revoked => "Revoked",
        }
    }
}

/// Whether a satellite holds what it is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    UpToDate,
    /// Something is missing that it is about to fetch.
    Updating,
    OutOfDate,
    /// It never reported.
    Unknown,
}

impl Updated {
    /// Its name in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::Updating => "Updating",
            Self::OutOfDate => "OutOfDate",
            Self::Unknown => "Unknown",
        }
    }
}

/// Whether a satellite is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Healthy,
    /// It works, and needs attention.
    Degraded,
    /// An image cannot be had.
    Error,
    /// It never reported.
    Unknown,
}

impl Health {
    /// Its name in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Degraded => "Degraded",
            Self::Error => "Error",
            Self::Unknown => "Unknown",
        }
    }
}
