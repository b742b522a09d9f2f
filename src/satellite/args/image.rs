//! The words of `moonlet image`.

use std::path::PathBuf;

use argh::FromArgs;

use super::Command;
use crate::archive::Wish;
use crate::oci::{Platform, Reference, ReferenceError};

/// ls, pin, rm, import, export: list and keep images, take them from files and put them into files.
#[derive(FromArgs)]
#[argh(subcommand, name = "image")]
pub struct Image {
    /// which of them
    #[argh(subcommand)]
    pub verb: ImageVerb,
}

/// The commands below `image`.
#[derive(FromArgs)]
#[argh(subcommand)]
pub enum ImageVerb {
    /// `ls`
    Ls(ImageLs),
    /// `pin`
    Pin(ImagePin),
    /// `import`
    Import(ImageImport),
    /// `export`
    Export(ImageExport),
    /// `rm`
    Rm(ImageRm),
}

/// List the images.
#[derive(FromArgs)]
#[argh(subcommand, name = "ls")]
pub struct ImageLs {
    /// those that are held and not desired, which are evicted when room is needed
    #[argh(switch)]
    cached: bool,
    /// as JSON
    #[argh(switch)]
    json: bool,
}

/// Take images from an OCI layout (a directory, a tar or a tar.gz) or a docker-archive. It needs no
/// network; nothing else may have the store. What was begun goes on where it was.
#[derive(FromArgs)]
#[argh(subcommand, name = "import")]
pub struct ImageImport {
    /// the layout or archive
    #[argh(positional)]
    file: PathBuf,
    /// take one image, and call it this
    #[argh(option, arg_name = "reference")]
    name: Option<Reference>,
    /// for which platform; may be given several times, all: all that the file has (default: as
    /// [[image]] has it, else this device's)
    #[argh(option)]
    platform: Vec<Platform>,
}

/// Write held images as an OCI layout: a tar where the name ends with .tar, else a directory.
#[derive(FromArgs)]
#[argh(subcommand, name = "export")]
pub struct ImageExport {
    /// references of images, and the name of the new file or directory behind them
    #[argh(positional, arg_name = "reference... file")]
    words: Vec<String>,
    /// all images that are held
    #[argh(switch)]
    all: bool,
    /// leave out the layers of what is held by this report of another satellite: moonlet image ls
    /// --json
    #[argh(option, arg_name = "report")]
    lacking: Option<PathBuf>,
    /// make a signed bundle with this private key, PEM: Ed25519 or ECDSA P-256
    #[argh(option, arg_name = "key")]
    sign: Option<PathBuf>,
    /// of which sequence the bundle is: more than all before
    #[argh(option)]
    sequence: Option<u64>,
    /// the only satellite that the bundle is for
    #[argh(option, long = "for", arg_name = "satellite")]
    satellite: Option<String>,
}

/// Keep an image that is held and that no [[image]] names: it is not evicted until it is
/// removed.
#[derive(FromArgs)]
#[argh(subcommand, name = "pin")]
pub struct ImagePin {
    /// its reference, as moonlet image ls --cached has it
    #[argh(positional)]
    reference: Reference,
}

/// Remove an image that was imported, pinned or cached, and that no [[image]] names.
#[derive(FromArgs)]
#[argh(subcommand, name = "rm")]
pub struct ImageRm {
    /// its reference
    #[argh(positional)]
    reference: Reference,
}

/// What to write to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportOrder {
    /// Which images; all that are held, if none is named.
    pub names: Vec<Reference>,
    /// The new file or directory.
    pub file: PathBuf,
    /// The report of the satellite that it goes to.
    pub lacking: Option<PathBuf>,
    /// The key, the sequence and the satellite of a signed bundle.
    pub signed: Option<(PathBuf, u64, Option<String>)>,
}

impl ImageVerb {
    /// What is to be done.
    ///
    /// # Errors
    /// What is wrong with the words, for a person.
    pub fn command(self) -> Result<Command, String> {
        match self {
            Self::Ls(ImageLs { cached, json }) => Ok(Command::ImageLs { cached, json }),
            Self::Pin(ImagePin { reference }) => Ok(Command::ImagePin { name: reference }),
            Self::Import(ImageImport { file, name, platform }) => {
                Ok(Command::ImageImport { file, wish: Wish { name, platforms: platform } })
            }
            Self::Export(export) => export.command(),
            Self::Rm(ImageRm { reference }) => Ok(Command::ImageRm { name: reference }),
        }
    }
}

impl ImageExport {
    fn command(self) -> Result<Command, String> {
        let Self { words, all, lacking, sign, sequence, satellite } = self;
        let (file, names) = words.split_last().ok_or("expected the name of a new file")?;
        if all != names.is_empty() {
            return Err("expected references and a file, or --all and a file".to_owned());
        }
        let names = names.iter().map(|name| name.parse()).collect::<Result<_, ReferenceError>>();
        let names = names.map_err(|error| error.to_string())?;
        let signed = match (sign, sequence) {
            (Some(key), Some(sequence)) => Some((key, sequence, satellite)),
            (None, None) if satellite.is_none() => None,
            _ => return Err("--sign and --sequence: expected both for a signed bundle".to_owned()),
        };
        let file = PathBuf::from(file);
        Ok(Command::ImageExport(ExportOrder { names, file, lacking, signed }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_of_images_or_of_all_and_signed_or_not() {
        let export = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            Image::from_args(&["image"], &words).unwrap().verb.command()
        };
        let names = |text: &str| match export(text) {
            Ok(Command::ImageExport(ExportOrder { names, file, signed, .. })) => (
                names.len(),
                file.to_str().unwrap().to_owned(),
                signed.map(|(_, sequence, _)| sequence),
            ),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(names("export app:1 x.tar"), (1, "x.tar".to_owned(), None));
        assert_eq!(names("export --all x"), (0, "x".to_owned(), None));
        let signed = names("export a b x.tar --sign k --sequence 7 --for gw");
        assert_eq!(signed, (2, "x.tar".to_owned(), Some(7)));
        for (text, expected) in [
            ("export", "the name of a new file"),
            ("export x.tar", "references and a file"),
            ("export app:1 x.tar --all", "references and a file"),
            ("export a/B x.tar", "image reference"),
            ("export app:1 x.tar --sign k", "expected both"),
            ("export app:1 x.tar --for gw", "expected both"),
        ] {
            assert!(export(text).unwrap_err().contains(expected), "{text}");
        }
    }
}
