//! Images from files and to files, from the command line.

use std::future::Future;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use async_signal::{Signal, Signals};
use smol::future::or;

use super::args::ExportOrder;
use super::run::Satellite;
use super::{Failure, show};
use crate::archive::{self, Archive, Export, Import, Signer, Terms, Wish};
use crate::clock::date::rfc3339;
use crate::config::Config;
use crate::oci::Digest;
use crate::pull::signed_digest;
use crate::status::ImageReport;
use crate::units::ByteCount;

/// Takes images from `file`.
pub async fn import(config: Config, file: &Path, wish: &Wish) -> Result<ExitCode, Failure> {
    let keys = config.import.key_file.as_deref().map(archive::read_keys).transpose()?;
    let mut archive = Archive::open(file)?;
    let satellite = Satellite::open(config)?;
    // A member of a fleet is meant by the name that Ground Control has for it.
    let name = satellite.control.name().unwrap_or_else(|| satellite.config().name.clone());
    let terms = keys.map(|keys| Terms::read(&mut archive, &keys, &name)).transpose()?;
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

/// Writes images to a file.
pub async fn export(config: Config, order: &ExportOrder) -> Result<ExitCode, Failure> {
    let ExportOrder { names, file, lacking, signed } = order;
    let signed = match signed {
        Some((key, sequence, satellite)) => {
            Some((Signer::read(key)?, *sequence, satellite.clone()))
        }
        None => None,
    };
    let held = lacking.as_deref().map(held).transpose()?.unwrap_or_default();
    let satellite = Satellite::inspect(config).await?;
    let mut names = names.clone();
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
        held,
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

/// What is held by the report of another satellite, as `image ls --json` prints it.
fn held(path: &Path) -> Result<Vec<Digest>, Failure> {
    let wrong = |what: String| Failure(format!("{}: {what}", path.display()));
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let read = file.take(REPORT_BYTES_MAX + 1).read_to_end(&mut text);
    if read.map_err(|error| wrong(error.to_string()))? as u64 > REPORT_BYTES_MAX {
        return Err(wrong(format!("expected at most {REPORT_BYTES_MAX} bytes")));
    }
    let images: Vec<ImageReport> = serde_json::from_slice(&text)
        .map_err(|error| wrong(format!("{error}; expected what moonlet image ls --json prints")))?;
    let held = images.into_iter().filter(|image| image.state.starts_with("held"));
    Ok(held.filter_map(|image| image.digest?.parse().ok()).collect())
}

/// Does `work`, which ends by itself when a signal asks to stop.
async fn until_stopped<T>(
    satellite: &Satellite,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut signals = Signals::new([Signal::Term, Signal::Int])?;
    or(work, satellite.wait_for_stop(&mut signals, async || {})).await
}

/// A report of some thousand images.
const REPORT_BYTES_MAX: u64 = 1 << 20;
