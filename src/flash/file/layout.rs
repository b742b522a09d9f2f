//! The file `layout` of a store's directory, and the log that is made to it.
//!
//! A store exists, or has another size, once its layout says so. A layout that is lost is written anew
//! from the headers in the log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::flash::Error;
use crate::flash::shape::{self, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::kind::Kind;
use crate::units::ByteCount;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    pub segment_bytes: u32,
    pub segment_count: u32,
}

impl Layout {
    /// Of a new store of `size_max` bytes.
    pub fn for_size(size_max: u64) -> Self {
        let segment_bytes = shape::segment_bytes(size_max);
        Self { segment_bytes, segment_count: 0 }.with_size(size_max)
    }

    /// The same, for another size, or as much of it as a device may have.
    pub fn with_size(self, size_max: u64) -> Self {
        Self { segment_count: shape::segment_count(size_max, self.segment_bytes), ..self }
    }

    /// What stands in a store's directory.
    ///
    /// # Errors
    /// [`Kind::Missing`] where there is no store; [`Kind::Invalid`] for one of a newer version.
    pub fn read(directory: &Path) -> Result<Self, Error> {
        let at = |what: &str| format!("store {}: {what}", directory.display());
        let text = std::fs::read_to_string(directory.join("layout"));
        let text = text.map_err(|error| Error::io(at("layout"), error))?;
        Self::parse(&text).map_err(|(kind, what)| Error::new(kind, at(&what)))
    }

    /// What the headers in the log of a store say (FORMAT.md section 3); none where there are none.
    pub fn of_log(directory: &Path) -> Option<Self> {
        let log = File::open(directory.join("log")).ok()?;
        let length = log.metadata().ok()?.len();
        let sizes =
            (SEGMENT_BYTES_MIN.ilog2()..=SEGMENT_BYTES_MAX.ilog2()).map(|bits| 1_u32 << bits);
        let places = sizes.flat_map(|bytes| (0..WRITTEN_SEGMENTS).map(move |slot| (bytes, slot)));
        let says = |(segment_bytes, slot): &(u32, u32)| {
            let mut header = [0; HEADER_BYTES];
            let position = u64::from(*segment_bytes) * u64::from(*slot);
            log.read_exact_at(&mut header, position).is_ok()
                && header.starts_with(b"MOONLET\0")
                && header.get(22..26) == Some(segment_bytes.to_le_bytes().as_slice())
                && header.split_last_chunk::<4>().is_some_and(|(fields, checksum)| {
                    *checksum == crc32c::crc32c(fields).to_le_bytes()
                })
        };
        let (segment_bytes, _) = places.into_iter().find(says)?;
        let segment_count = shape::segment_count(length, segment_bytes);
        Some(Self { segment_bytes, segment_count })
    }

    /// Replaces the layout, durably, at once.
    pub fn write(self, directory: &Path) -> io::Result<()> {
        let draft = directory.join("layout.new");
        let mut file = File::create(&draft)?;
        file.write_all(self.render().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, directory.join("layout"))?;
        File::open(directory)?.sync_all()
    }

    /// Bytes of all segments.
    pub fn bytes(self) -> u64 {
        u64::from(self.segment_bytes) * u64::from(self.segment_count)
    }

    fn render(self) -> String {
        let Self { segment_bytes, segment_count } = self;
        format!(
            "{LAYOUT_NAME} {LAYOUT_VERSION}\nsegment_bytes {segment_bytes}\n\
             segment_count {segment_count}\n"
        )
    }

    fn parse(text: &str) -> Result<Self, (Kind, String)> {
        let mut lines = text.lines();
        let mut field = |name: &str| {
            let line = lines.next().unwrap_or("");
            let value = line.strip_prefix(name).and_then(|rest| rest.trim().parse::<u32>().ok());
            value.ok_or_else(|| (Kind::Corrupt, format!("layout: expected {name}, found {line:?}")))
        };
        let version = field(LAYOUT_NAME)?;
        if version != LAYOUT_VERSION {
            let what = format!(
                "layout version {version}, expected {LAYOUT_VERSION}: it was made by a newer \
                 moonlet; nothing was changed"
            );
            return Err((Kind::Invalid, what));
        }
        let segment_bytes = field("segment_bytes")?;
        let segment_count = field("segment_count")?;
        let sound = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes)
            && segment_bytes.is_power_of_two();
        if !sound {
            let what = format!("layout: segment_bytes {segment_bytes} is no segment size");
            return Err((Kind::Corrupt, what));
        }
        Ok(Self { segment_bytes, segment_count })
    }
}

/// Whether the log is as long as its layout says.
pub fn is_whole(directory: &Path, layout: Layout) -> bool {
    let metadata = std::fs::metadata(directory.join("log"));
    metadata.is_ok_and(|metadata| metadata.len() >= layout.bytes())
}

/// Makes the log, or a longer one of it, then its layout: a store exists, or has grown, once its
/// layout says so.
pub fn allocate(directory: &Path, layout: Layout) -> Result<(), Error> {
    let bytes = layout.bytes();
    let failed = |error: io::Error| {
        let size = ByteCount(bytes);
        let advice = "expected that much room there: free some or change size_max";
        let what = format!("store {}: allocating {size} (size_max), {advice}", directory.display());
        Error::io(what, error)
    };
    let path = directory.join("log");
    let options = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let log = options.map_err(failed)?;
    let before = log.metadata().map_err(failed)?.len();
    let enlarge = || {
        match rustix::fs::fallocate(&log, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            // A file system that cannot promise blocks in advance: as good as it gets.
            Err(rustix::io::Errno::OPNOTSUPP) => log.set_len(bytes)?,
            Err(error) => return Err(error.into()),
        }
        if before == 0 {
            write_beginning(&log, layout)?;
        }
        log.sync_all()?;
        layout.write(directory)
    };
    enlarge().map_err(|error: io::Error| {
        // What was allocated in vain is given back; it holds nothing.
        let _ = log.set_len(before);
        failed(error)
    })
}

/// Writes the zeros that the first segments of a new log read as. What is only allocated costs a
/// commit of the file system's journal when it is first written, several times what a record of
/// the log has; and records, one unit at a time, are what comes here.
fn write_beginning(log: &File, layout: Layout) -> io::Result<()> {
    let segment_bytes = u64::from(layout.segment_bytes);
    let segments = u64::from(layout.segment_count.min(WRITTEN_SEGMENTS));
    // No segment is smaller.
    let zeros = vec![0; SEGMENT_BYTES_MIN as usize];
    for position in (0..segments * segment_bytes).step_by(zeros.len()) {
        log.write_all_at(&zeros, position)?;
    }
    Ok(())
}

/// Those of the META ring: FORMAT.md section 2.
const WRITTEN_SEGMENTS: u32 = 4;
/// Of a segment of META: FORMAT.md section 3.
const HEADER_BYTES: usize = 34;
const LAYOUT_NAME: &str = "moonlet-store";
const LAYOUT_VERSION: u32 = 1;
