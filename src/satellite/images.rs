//! Images that are held and not desired, from the command line.

use std::process::ExitCode;

use super::run::Satellite;
use super::{Failure, show};
use crate::catalog::Imports;
use crate::config::Config;
use crate::oci::Reference;
use crate::pull::tag_key;

/// Keeps an image that is held and not desired, as one that was imported is.
pub async fn pin(config: Config, name: &Reference) -> Result<ExitCode, Failure> {
    let satellite = Satellite::open(config)?;
    if satellite.store.tag(&tag_key(name)).is_none() {
        let what = format!("{name}: is not held, expected a name of moonlet image ls --cached");
        return Err(Failure(what));
    }
    let mut imports = Imports::of(&satellite.store);
    imports.add(name)?;
    imports.record(&satellite.store).await?;
    show::print(&format!("{name}: held until moonlet image rm {name}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Removes an image that is not desired.
pub async fn remove(config: Config, name: &Reference) -> Result<ExitCode, Failure> {
    let satellite = Satellite::open(config)?;
    if satellite.config().images.iter().any(|image| image.reference.is_same_tag(name)) {
        let what = format!("{name}: is desired, expected it to be taken out of the configuration");
        return Err(Failure(what));
    }
    let mut imports = Imports::of(&satellite.store);
    let key = tag_key(name);
    let was_kept = imports.remove(name);
    if !was_kept && satellite.store.tag(&key).is_none() {
        let what = format!("{name}: is not held, expected a name of moonlet image ls [--cached]");
        return Err(Failure(what));
    }
    satellite.store.remove_tag(&key).await?;
    if was_kept {
        imports.record(&satellite.store).await?;
    }
    show::print(&format!("{name}: removed; the next pass of moonlet run frees its room\n"))?;
    Ok(ExitCode::SUCCESS)
}
