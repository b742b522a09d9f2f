//! Images from files and to files, from the command line.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use async_signal::{Signal, Signals};
use smol::future::or;

use super::run::Satellite;
use super::{Failure, show};
use crate::archive::{self, Archive, Export, Import, Keys, Signer, Terms, Wish};
use crate::catalog::Imports;
use crate::clock::date::rfc3339;
use crate::config::Config;
use crate::oci::Reference;
use crate::pull::{signed_digest, tag_key};
use crate::units::ByteCount;

/// Takes images from `file`.
pub async fn import(config: Config, file: &Path, wish: &Wish) -> Result<ExitCode, Failure> {
    let keys = config.import.key_file.as_deref().map(Keys::read).transpose()?;
    let mut archive = Archive::open(file)?;
    let terms = keys.map(|keys| Terms::read(&mut archive, &keys, &config.name)).transpose()?;
    let satellite = Satellite::open(config)?;
    let desired = satellite.config();
    let import = Import {
        store: &satellite.store,
        catalog: &satellite.catalog,
        stop: satellite.stop(),
        desired: &desired.images,
        each: &show::share,
    };
    let work = async { Ok(import.run(&mut archive, wish, terms.as_ref()).await?) };
    let imported = until_stopped(&satellite, work).await;
    show::share_end();
    for image in imported? {
        let (name, digest, bytes) = (image.name, image.digest, ByteCount(image.bytes));
        let mut line = format!("{name}: {digest}, {bytes}\n");
        if archive.is_made() {
            line += "  made of a docker-archive: a registry has it under another digest\n";
        }
        if !image.is_desired {
            line += &format!("  no [[image]] names it: held until moonlet image rm {name}\n");
        }
        show::print(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes images to `file`: those named, or all that are held. `signed` has the key, the sequence
/// and the satellite of a bundle.
pub async fn export(
    config: Config,
    names: &[Reference],
    file: &Path,
    signed: Option<&(PathBuf, u64, Option<String>)>,
) -> Result<ExitCode, Failure> {
    let signed = match signed {
        Some((key, sequence, satellite)) => {
            Some((Signer::read(key)?, *sequence, satellite.clone()))
        }
        None => None,
    };
    let satellite = Satellite::inspect(config).await?;
    let mut names = names.to_vec();
    if names.is_empty() {
        // Signatures come with what they sign.
        let tags = satellite.store.tags().into_iter().map(|(key, _)| key);
        let images = tags.filter(|key| signed_digest(&key.tag).is_none());
        names.extend(images.filter_map(|key| key.to_string().parse().ok()));
    }
    let export = Export {
        store: &satellite.store,
        catalog: &satellite.catalog,
        stop: satellite.stop(),
        names: &names,
        signed,
        created: rfc3339(satellite.clock.unix_seconds()),
        each: &show::share,
    };
    let work = async { Ok(archive::export(&export, file).await?) };
    let bytes = until_stopped(&satellite, work).await;
    show::share_end();
    let (count, bytes, file) = (names.len(), ByteCount(bytes?), file.display());
    show::print(&format!("{file}: {count} images, {bytes}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Gives up an image that was imported and that is not desired.
pub async fn remove(config: Config, name: &Reference) -> Result<ExitCode, Failure> {
    let satellite = Satellite::open(config)?;
    if satellite.config().images.iter().any(|image| image.reference.is_same_tag(name)) {
        let what = format!("{name}: is desired, expected it to be taken out of the configuration");
        return Err(Failure(what));
    }
    let mut imports = Imports::of(&satellite.store);
    if !imports.remove(name) {
        let what = format!("{name}: was not imported, expected a name of moonlet image ls");
        return Err(Failure(what));
    }
    satellite.store.remove_tag(&tag_key(name)).await?;
    imports.record(&satellite.store).await?;
    show::print(&format!("{name}: removed; the next pass of moonlet run frees its room\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Does `work`, which ends by itself when a signal asks to stop.
async fn until_stopped<T>(
    satellite: &Satellite,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut signals = Signals::new([Signal::Term, Signal::Int])?;
    or(work, satellite.wait_for_stop(&mut signals, async || {})).await
}
