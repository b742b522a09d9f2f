//! What stands in place of a capability that a build leaves out: its commands say so, and nothing of
//! it runs. The configuration is refused before (`config::features`).

#[cfg(not(feature = "airgap"))]
pub mod archives {
    //! `moonlet image import` and `export`.

    use std::path::Path;
    use std::process::ExitCode;

    use super::super::Failure;
    use super::super::args::ExportOrder;
    use crate::archive::Wish;
    use crate::config::{Config, lacking};

    pub async fn import(_: Config, _: &Path, _: &Wish) -> Result<ExitCode, Failure> {
        Err(Failure(lacking("moonlet image import", "airgap")))
    }

    pub async fn export(_: Config, _: &ExportOrder) -> Result<ExitCode, Failure> {
        Err(Failure(lacking("moonlet image export", "airgap")))
    }
}

#[cfg(not(feature = "boards"))]
pub mod board {
    //! `moonlet board`.

    use std::process::ExitCode;

    use super::super::Failure;
    use crate::config::lacking;

    pub fn list() -> Result<ExitCode, Failure> {
        Err(Failure(lacking("moonlet board", "boards")))
    }

    pub fn show(_: &str, _: bool) -> Result<ExitCode, Failure> {
        list()
    }

    pub fn config(_: &str) -> Result<ExitCode, Failure> {
        list()
    }
}

#[cfg(not(feature = "doctor"))]
pub mod doctor {
    //! `moonlet doctor`.

    use std::path::Path;
    use std::process::ExitCode;
    use std::rc::Rc;

    use smol::LocalExecutor;

    use super::super::Failure;
    use crate::config::lacking;

    pub async fn doctor(
        _: &Path,
        _: bool,
        _: &Rc<LocalExecutor<'static>>,
    ) -> Result<ExitCode, Failure> {
        Err(Failure(lacking("moonlet doctor", "doctor")))
    }
}

#[cfg(not(feature = "status"))]
pub mod look {
    //! `moonlet status`, `image ls`, `store stat` and `store scrub`.

    use std::process::ExitCode;

    use super::super::Failure;
    use crate::config::{Config, lacking};

    pub async fn status(_: Config, _: bool) -> Result<ExitCode, Failure> {
        refuse("moonlet status")
    }

    pub async fn images(_: Config, _: bool) -> Result<ExitCode, Failure> {
        refuse("moonlet image ls")
    }

    pub async fn cached(_: Config, _: bool) -> Result<ExitCode, Failure> {
        refuse("moonlet image ls")
    }

    pub async fn store(_: Config, _: bool) -> Result<ExitCode, Failure> {
        refuse("moonlet store stat")
    }

    pub async fn scrub(_: Config, _: bool) -> Result<ExitCode, Failure> {
        refuse("moonlet store scrub")
    }

    fn refuse(what: &str) -> Result<ExitCode, Failure> {
        Err(Failure(lacking(what, "status")))
    }
}

#[cfg(not(feature = "proxy"))]
pub mod proxy {
    //! The forward proxy, and `moonlet proxy`.

    use std::process::ExitCode;
    use std::rc::Rc;

    use smol::LocalExecutor;

    use super::super::Failure;
    use super::super::run::Satellite;
    use super::super::service::Place;
    use crate::config::{Config, lacking};
    use crate::serve::Api;

    pub struct Forward;

    pub fn forward(_: &Satellite, _: &Rc<Api>, _: &Rc<LocalExecutor<'static>>) -> Forward {
        Forward
    }

    impl Forward {
        pub async fn leave(&self, _: &Place) {}

        pub fn listen(&self, _: &Place) {}
    }

    pub async fn configure(_: &Satellite, _: &Forward) {}

    pub async fn print_authority(_: Config) -> Result<ExitCode, Failure> {
        Err(Failure(lacking("moonlet proxy", "proxy")))
    }

    pub async fn renew_authority(_: Config) -> Result<ExitCode, Failure> {
        Err(Failure(lacking("moonlet proxy", "proxy")))
    }
}
