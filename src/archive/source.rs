//! A directory, a tar or a compressed tar, as files by name.
//!
//! Of a tar the heads are read once, when it is opened: after that a file is where it was seen. What
//! is compressed can only be read forward: short files are kept from the first reading, and it is
//! begun anew for what lies behind. Links are not followed, but within a tar for those who ask.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::Error;
use crate::kind::Kind;
use crate::tar::{Entry, EntryKind, Gunzip, is_gzip, next_entry};
use crate::units::ByteCount;

/// Where files are read from.
pub struct Source {
    path: PathBuf,
    form: Form,
    /// Of a tar, what it holds.
    entries: BTreeMap<String, Place>,
}

enum Form {
    Directory,
    Tar(File),
    Gzip {
        /// Where reading is.
        stream: Stream,
        /// Short files, of [`KEPT_BYTES_MAX`] in all.
        kept: BTreeMap<String, Vec<u8>>,
    },
}

struct Place {
    offset: u64,
    size: u64,
    kind: EntryKind,
    is_gzip: bool,
}

/// What is inflated, and how far that is.
struct Stream {
    reader: Gunzip<File>,
    at: u64,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.at += length as u64;
        Ok(length)
    }
}

impl Source {
    /// Opens what is at `path`, and reads the heads of a tar.
    ///
    /// # Errors
    /// [`Kind::Missing`] where there is nothing; [`Kind::Invalid`] for what is neither, for a tar
    /// that is cut short, and for one with names that lead out of it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::io(path, error);
        let metadata = fs::metadata(path).map_err(failed)?;
        let (path, entries) = (path.to_owned(), BTreeMap::new());
        if metadata.is_dir() {
            return Ok(Self { path, form: Form::Directory, entries });
        }
        if !metadata.is_file() {
            let what = format!("{}: neither a file nor a directory", path.display());
            return Err(Error::invalid(what));
        }
        let mut file = File::open(&path).map_err(failed)?;
        let mut magic = Vec::new();
        file.by_ref().take(2).read_to_end(&mut magic).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let form = if is_gzip(&magic) {
            let stream = Stream { reader: Gunzip::new(file), at: 0 };
            Form::Gzip { stream, kept: BTreeMap::new() }
        } else {
            Form::Tar(file)
        };
        let mut source = Self { path, form, entries };
        match source.read_heads(metadata.len()) {
            Err(error)
                if source.entries.is_empty() && error.kind() == io::ErrorKind::InvalidData =>
            {
                let expected = "expected a directory, a tar or a tar.gz";
                Err(source.wrong(&format!("{error}; {expected}")))
            }
            Err(error) => Err(source.failed(error)),
            Ok(()) => Ok(source),
        }
    }

    /// As it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the regular file `name`; none where there is no such thing. Nothing of `name` may
    /// lead out of the source.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when it is a link or anything else.
    pub fn size(&self, name: &str) -> Result<Option<u64>, Error> {
        if let Form::Directory = self.form {
            return Ok(self.look(name)?.map(|metadata| metadata.len()));
        }
        match self.entries.get(name) {
            None => Ok(None),
            Some(Place { kind: EntryKind::File, size, .. }) => Ok(Some(*size)),
            Some(_) => Err(self.wrong(&format!("{name} is no regular file, expected one"))),
        }
    }

    /// Of a tar, the name of the file that the link `name` stands for, or `name` itself.
    pub fn resolved(&self, name: &str) -> String {
        let Some(Place { kind: EntryKind::Link(link), .. }) = self.entries.get(name) else {
            return name.to_owned();
        };
        // A symbolic link begins where it stands, a hard link at the top.
        let beside = name.rsplit_once('/').map_or("", |(directory, _)| directory);
        let mut parts: Vec<&str> = beside.split('/').filter(|part| !part.is_empty()).collect();
        for part in link.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let symbolic = parts.join("/");
        if self.entries.contains_key(&symbolic) { symbolic } else { link.clone() }
    }

    /// Whether a file of a tar is compressed with gzip.
    pub fn is_gzip(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|place| place.is_gzip)
    }

    /// Where a file is, for those who read several in order; zero in a directory.
    pub fn offset(&self, name: &str) -> u64 {
        self.entries.get(name).map_or(0, |place| place.offset)
    }

    /// All bytes of a file, of which there may be `max`; none where there is no such file.
    pub fn read(&mut self, name: &str, max: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some(size) = self.size(name)? else { return Ok(None) };
        if size > max {
            let what = format!("{name} has {size} bytes, expected at most {max}");
            return Err(self.wrong(&what));
        }
        let mut bytes = Vec::new();
        let read = self.reader(name, 0)?.read_to_end(&mut bytes);
        read.map_err(|error| self.failed(error))?;
        if bytes.len() as u64 != size {
            return Err(self.wrong(&format!("{name} has {} bytes, not {size}", bytes.len())));
        }
        Ok(Some(bytes))
    }

    /// Reads a file from byte `from`.
    ///
    /// # Errors
    /// [`Kind::Missing`] when there is none.
    pub fn reader(&mut self, name: &str, from: u64) -> Result<Box<dyn Read + '_>, Error> {
        let path = self.path.clone();
        let failed = |error: io::Error| Error::io(&path, error);
        let missing = || Error::new(Kind::Missing, format!("{}: no {name}", path.display()));
        if let Form::Directory = self.form {
            self.look(name)?.ok_or_else(missing)?;
            let mut file = File::open(self.path.join(name)).map_err(failed)?;
            file.seek(SeekFrom::Start(from)).map_err(failed)?;
            return Ok(Box::new(file));
        }
        let place = self.entries.get(name).ok_or_else(missing)?;
        let (start, left) = (place.offset.saturating_add(from), place.size.saturating_sub(from));
        match &mut self.form {
            Form::Directory => Err(missing()),
            Form::Tar(file) => {
                file.seek(SeekFrom::Start(start)).map_err(failed)?;
                Ok(Box::new(file.take(left)))
            }
            Form::Gzip { stream, kept } => {
                if let Some(bytes) = kept.get(name) {
                    let from = usize::try_from(from).unwrap_or(usize::MAX);
                    return Ok(Box::new(bytes.get(from..).unwrap_or_default()));
                }
                if stream.at > start {
                    let file = File::open(&self.path).map_err(failed)?;
                    *stream = Stream { reader: Gunzip::new(file), at: 0 };
                }
                let gap = start - stream.at;
                pass(stream, gap).map_err(failed)?;
                Ok(Box::new(stream.take(left)))
            }
        }
    }

    /// Reads all heads of a tar whose file has `length` bytes.
    fn read_heads(&mut self, length: u64) -> io::Result<()> {
        let Self { form, entries, .. } = self;
        match form {
            Form::Directory => Ok(()),
            Form::Tar(file) => {
                while let Some(entry) = next_entry(file)? {
                    let offset = file.stream_position()?;
                    if offset.saturating_add(entry.size) > length {
                        return Err(cut_short(&entry));
                    }
                    let mut start = Vec::new();
                    file.by_ref().take(entry.size.min(2)).read_to_end(&mut start)?;
                    file.seek(SeekFrom::Start(offset + entry.padded_size()))?;
                    insert(entries, entry, offset, is_gzip(&start))?;
                }
                Ok(())
            }
            Form::Gzip { stream, kept } => {
                let mut room = KEPT_BYTES_MAX;
                while let Some(entry) = next_entry(stream)? {
                    let offset = stream.at;
                    if offset.saturating_add(entry.size) > INFLATED_BYTES_MAX {
                        let max = ByteCount(INFLATED_BYTES_MAX);
                        let what = format!("inflates to more than {max}, expected a plain tar");
                        return Err(invalid(&what));
                    }
                    let is_kept = entry.size <= KEPT_FILE_BYTES_MAX && entry.size <= room;
                    let length = if is_kept { entry.size } else { 2 };
                    let mut start = Vec::new();
                    stream.by_ref().take(length).read_to_end(&mut start)?;
                    let is_gzip = is_gzip(&start);
                    if is_kept {
                        room -= entry.size;
                        kept.insert(entry.name.clone(), start);
                    }
                    let end = offset + entry.padded_size();
                    pass(stream, end - stream.at).map_err(|error| match error.kind() {
                        io::ErrorKind::UnexpectedEof => cut_short(&entry),
                        _ => error,
                    })?;
                    insert(entries, entry, offset, is_gzip)?;
                }
                Ok(())
            }
        }
    }

    /// Of a directory, the regular file `name`.
    fn look(&self, name: &str) -> Result<Option<fs::Metadata>, Error> {
        let mut path = self.path.clone();
        let mut found = None;
        for part in Path::new(name).components() {
            let Component::Normal(part) = part else {
                return Err(self.wrong(&format!("{name:?} leads out of it")));
            };
            path.push(part);
            found = match fs::symlink_metadata(&path) {
                Ok(metadata) => Some(metadata),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(Error::io(&path, error)),
            };
            if found.as_ref().is_some_and(fs::Metadata::is_symlink) {
                return Err(self.wrong(&format!("{name} is a symbolic link, expected a file")));
            }
        }
        match found {
            Some(metadata) if !metadata.is_file() => {
                Err(self.wrong(&format!("{name} is no regular file, expected one")))
            }
            found => Ok(found),
        }
    }

    /// Something is wrong with it.
    pub fn wrong(&self, what: &str) -> Error {
        Error::invalid(format!("{}: {what}", self.path.display()))
    }

    /// It could not be read.
    pub fn failed(&self, error: io::Error) -> Error {
        Error::io(&self.path, error)
    }
}

fn insert(
    entries: &mut BTreeMap<String, Place>,
    entry: Entry,
    offset: u64,
    is_gzip: bool,
) -> io::Result<()> {
    let Entry { name, size, kind } = entry;
    // Nothing is ever written by these names; but who makes such a tar means no good.
    if name.starts_with('/') || name.split('/').any(|part| part == "..") {
        return Err(invalid(&format!("{name:?} leads out of the tar")));
    }
    if entries.len() >= ENTRIES_MAX {
        return Err(invalid(&format!("more than {ENTRIES_MAX} entries")));
    }
    let is_long = |text: &str| text.len() > NAME_BYTES_MAX;
    // None of an image has such a name.
    if !is_long(&name) && !matches!(&kind, EntryKind::Link(to) if is_long(to)) {
        entries.insert(name, Place { offset, size, kind, is_gzip });
    }
    Ok(())
}

/// Reads on over bytes that are not wanted.
fn pass(stream: &mut Stream, bytes: u64) -> io::Result<()> {
    let passed = io::copy(&mut stream.take(bytes), &mut io::sink())?;
    if passed == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn cut_short(entry: &Entry) -> io::Error {
    let what = format!("cut short within {:?} of {} bytes", entry.name, entry.size);
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Entries of a tar: the heads of that many are read, and their names are held.
const ENTRIES_MAX: usize = 8192;
/// Bytes of one of those.
const NAME_BYTES_MAX: usize = 255;
/// Files that are kept while what is compressed is read: indexes, manifests and configurations.
const KEPT_BYTES_MAX: u64 = 1 << 20;
/// One of those.
const KEPT_FILE_BYTES_MAX: u64 = 64 << 10;
/// What a compressed tar may inflate to: it is read twice at least, and a thousandth of that may
/// stand for it.
const INFLATED_BYTES_MAX: u64 = 64 << 30;
