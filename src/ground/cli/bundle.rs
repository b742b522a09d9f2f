//! `bundle`: what a satellite lacks by its last report, as a signed file that goes there on a disk.
//!
//! Of images nothing is done here. `moonlet`, the satellite's own program, replicates them into a
//! store of this machine and exports them, by the rules that hold on every device: digests, platforms,
//! signatures, downloads that go on. What this adds is what the server knows: which images, from
//! where, for which platforms, and what is there already.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Value, json};

use super::Failure;
use super::http::{Connection, Method, Request, Server};
use super::output::{elements, say, text, texts};

pub const HELP: &str = "Example: ground-control bundle --for gateway-17 --sign bundle.key \
--cache /var/cache/bundles /media/usb/gateway-17.tar

There: moonlet image import /media/usb/gateway-17.tar, with the public key as [import] key_file.
Images come from their registries to this machine, and stay in --cache for the next bundle; it needs the
program moonlet. A bundle has the images that the satellite did not hold as desired when it reported last,
without the layers that it holds of others.";

#[derive(Args)]
pub struct Bundle {
    #[command(flatten)]
    connection: Connection,
    /// The satellite that it is for
    #[arg(long = "for", value_name = "SATELLITE")]
    satellite: String,
    /// The private key that signs it, PEM: Ed25519 or ECDSA P-256
    #[arg(long, value_name = "KEY")]
    sign: PathBuf,
    /// Higher than that of every bundle before: the time in seconds unless given
    #[arg(long, value_name = "NUMBER")]
    sequence: Option<u64>,
    /// All that the satellite is to hold, whatever it has
    #[arg(long)]
    whole: bool,
    /// A platform to take, such as linux/arm/v7, in place of the group's or the device's; may be
    /// repeated
    #[arg(long, value_name = "PLATFORM")]
    platform: Vec<String>,
    /// Where images are kept between bundles
    #[arg(long, value_name = "DIRECTORY")]
    cache: PathBuf,
    /// The size of that
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    cache_size: String,
    /// A file with [[upstream]] sections, for registries that want credentials or a ca_file
    #[arg(long, value_name = "FILE")]
    upstreams: Option<PathBuf>,
    /// The program moonlet
    #[arg(long, value_name = "PROGRAM", default_value = "moonlet")]
    moonlet: PathBuf,
    /// The new file: a tar where the name ends with .tar, else a directory
    file: PathBuf,
}

/// An image of the satellite's desired state.
struct Wanted {
    /// `registry/repository:tag@digest`, as far as it is known.
    reference: String,
    platforms: Vec<String>,
    /// What the satellite holds under that name.
    held: Option<String>,
    is_in_sync: bool,
}

/// Registries: the name of each, and its address.
type Upstreams = Vec<(String, String)>;

pub fn run(order: &Bundle) -> Result<ExitCode, Failure> {
    let server = order.connection.open()?;
    let (images, upstreams) = order.images(&server)?;
    let name = &order.satellite;
    let names: Vec<&str> = images
        .iter()
        .filter(|image| order.whole || !image.is_in_sync)
        .map(|image| image.reference.as_str())
        .collect();
    if names.is_empty() {
        say(&format!("satellite/{name} held all that it is to hold when it reported last"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let failed = |path: &Path, error| format!("{}: {error}", path.display());
    let mut directory = fs::DirBuilder::new();
    directory.recursive(true).mode(0o700);
    directory.create(&order.cache).map_err(|error| failed(&order.cache, error))?;
    let put = |file: &str, text: &str| {
        let path = order.cache.join(file);
        fs::write(&path, text).map_err(|error| failed(&path, error)).map(|()| path)
    };
    let config = put("moonlet.toml", &order.config(&images, &upstreams)?)?;
    // What the registry does not have any more is found out by the export, which names it.
    order.moonlet(&config, &["sync", "--once"], EXIT_NOT_CONVERGED)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let sequence = order.sequence.unwrap_or(now).to_string();
    let (file, key) = (order.file.display().to_string(), order.sign.display().to_string());
    let mut words = vec!["image", "export"];
    words.extend(&names);
    words.extend([&*file, "--sign", &key, "--sequence", &sequence, "--for", name]);
    let held = put("held.json", &held(&images).to_string())?.display().to_string();
    if !order.whole {
        words.extend(["--lacking", &held]);
    }
    order.moonlet(&config, &words, 0)?;
    say(&format!("{file}: a bundle for satellite/{name} of sequence {sequence}"))?;
    Ok(ExitCode::SUCCESS)
}

impl Bundle {
    /// What the satellite is to hold and holds, and where that comes from: name and address.
    fn images(&self, server: &Server) -> Result<(Vec<Wanted>, Upstreams), Failure> {
        let name = &self.satellite;
        let request = Request::new(Method::Get, &["api", "satellites", name, "state"], None);
        let state =
            server.ask_of("satellite", name, || server.names("satellites", "Name"), &request)?;
        let device = text(&state, "platform");
        let (mut images, mut upstreams) = (Vec::new(), Upstreams::new());
        for image in elements(state.get("images").cloned().unwrap_or_default()) {
            let group = server.get(&["api", "groups", &text(&image, "group")])?;
            let reference = text(&image, "reference");
            let registry = reference.split('/').next().unwrap_or_default().to_owned();
            let address = text(&group, "Registry");
            if !address.is_empty() && upstreams.iter().all(|(known, _)| *known != registry) {
                upstreams.push((registry, address));
            }
            let mut platforms = self.platform.clone();
            if platforms.is_empty() {
                platforms = texts(&group, "Platforms");
            }
            if platforms.is_empty() {
                platforms =
                    Some(device.clone()).filter(|text| !text.is_empty()).into_iter().collect();
            }
            if platforms.is_empty() {
                let expected = "expected a report, or --platform linux/arm/v7 and the like";
                return Err(format!("satellite/{name} said no platform: {expected}").into());
            }
            let plain = reference.split('@').next().unwrap_or_default();
            let digest = text(&image, "desired_digest");
            let reference = match digest.as_str() {
                "" => reference,
                digest => format!("{plain}@{digest}"),
            };
            let held = Some(text(&image, "digest")).filter(|text| !text.is_empty());
            let is_in_sync = image.get("in_sync") == Some(&Value::Bool(true));
            images.push(Wanted { reference, platforms, held, is_in_sync });
        }
        Ok((images, upstreams))
    }

    /// The configuration of a satellite that holds both what is wanted and what is there.
    fn config(&self, images: &[Wanted], upstreams: &[(String, String)]) -> Result<String, Failure> {
        let store = self.cache.join("store");
        let size = &self.cache_size;
        let mut text =
            format!("name = \"bundle\"\n[store]\npath = {store:?}\nsize_max = {size:?}\n");
        let given = match &self.upstreams {
            None => String::new(),
            Some(path) => fs::read_to_string(path)
                .map_err(|error| format!("upstreams {}: {error}", path.display()))?,
        };
        for (registry, url) in upstreams {
            // What the file says of a registry counts.
            if !given.contains(&format!("registry = {registry:?}")) {
                // Writing to a String cannot fail.
                let _ = write!(text, "[[upstream]]\nregistry = {registry:?}\nurl = {url:?}\n");
            }
        }
        text += &given;
        text.push('\n');
        let mut add = |reference: &str, platforms: &[String]| {
            let _ =
                write!(text, "[[image]]\nreference = {reference:?}\nplatforms = {platforms:?}\n");
        };
        for image in images {
            add(&image.reference, &image.platforms);
        }
        if !self.whole {
            for image in images.iter().filter(|image| !image.is_in_sync) {
                // By its digest alone: the tag is the other's.
                let Some(digest) = &image.held else { continue };
                let plain = image.reference.split('@').next().unwrap_or_default();
                let (path, last) = plain.rsplit_once('/').unwrap_or(("", plain));
                let last = last.split(':').next().unwrap_or_default();
                add(&format!("{path}/{last}@{digest}"), &image.platforms);
            }
        }
        Ok(text)
    }

    /// Runs the program, whose words go to the terminal; `most` is the highest exit code that is
    /// no failure.
    fn moonlet(&self, config: &Path, words: &[&str], most: i32) -> Result<(), Failure> {
        let program = self.moonlet.display();
        let status = Command::new(&self.moonlet).arg("--config").arg(config).args(words).status();
        let status = status.map_err(|error| format!("{program}: {error}; expected moonlet"))?;
        match status.code() {
            Some(code) if code <= most => Ok(()),
            _ => Err(format!("{program} {}: {status}", words.join(" ")).into()),
        }
    }
}

/// What is held there, as `moonlet image ls --json` says it.
fn held(images: &[Wanted]) -> Value {
    let held = images.iter().filter_map(|image| {
        Some(json!({
            "reference": image.reference,
            "state": "held",
            "digest": image.held.as_ref()?,
            "held_bytes": 0,
            "total_bytes": 0,
            "rate_bytes_per_second": 0,
            "eta_seconds": null,
            "error": null,
            "missing": [],
        }))
    });
    held.collect()
}

/// Of `moonlet sync`: something is not held.
const EXIT_NOT_CONVERGED: i32 = 1;
