//! Manifests, indexes and lists of referrers as JSON has them: what is acted on, each with its limit.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::marker::PhantomData;

use serde::de::MapAccess;

use super::{
    ANNOTATIONS_BYTES_MAX, CHILDREN_MAX, Child, Descriptor, LAYERS_MAX, LISTED_MAX, Listed,
};
use crate::oci::json::{DigestText, List, Members, Number, Object, Text, Texts, skip};
use crate::oci::{Digest, Platform, media_type};

impl Members for Listed {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name != "manifests" {
            return skip(map);
        }
        *self = Self::default();
        map.next_value_seed(List::new(|raw: RawDescriptor| {
            self.count += 1;
            self.digests.extend(raw.digest.filter(|_| self.count <= LISTED_MAX));
            Ok(())
        }))?;
        Ok(())
    }
}

/// A manifest as it is read.
#[derive(Default)]
pub struct Raw {
    pub schema_version: Option<u64>,
    pub media_type: Option<String>,
    pub artifact_type: Option<String>,
    pub subject: Option<Digest>,
    pub manifests: Option<Vec<Child>>,
    pub config: Option<RawDescriptor>,
    pub layers: Option<Vec<Descriptor>>,
}

impl Members for Raw {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "schemaversion" => self.schema_version = map.next_value_seed(Number)?,
            "mediatype" => self.media_type = map.next_value_seed(Text(TYPE_BYTES_MAX))?,
            "artifacttype" => self.artifact_type = map.next_value_seed(Text(TYPE_BYTES_MAX))?,
            "config" => self.config = map.next_value_seed(Object(PhantomData))?,
            "subject" => {
                let subject = map.next_value_seed(Object::<RawDescriptor>(PhantomData))?;
                self.subject = subject.and_then(|subject| subject.digest);
            }
            "manifests" => {
                let mut children = Vec::new();
                let list = List::new(|raw: RawDescriptor| {
                    // Content that is named in a way nothing here knows is no choice.
                    children.extend(raw.child());
                    at_most(children.len(), CHILDREN_MAX, "manifests in one index")
                });
                self.manifests = map.next_value_seed(list)?.then_some(children);
            }
            "layers" => {
                let mut layers = Vec::new();
                let list = List::new(|raw: RawDescriptor| {
                    layers.push(raw.descriptor()?);
                    at_most(layers.len(), LAYERS_MAX, "layers in one image")
                });
                self.layers = map.next_value_seed(list)?.then_some(layers);
            }
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// A descriptor as it is read.
#[derive(Default)]
pub struct RawDescriptor {
    pub media_type: Option<String>,
    pub digest: Option<Digest>,
    pub size: Option<u64>,
    pub platform: Option<RawPlatform>,
    pub attested: Attested,
}

impl RawDescriptor {
    pub fn descriptor(&self) -> Result<Descriptor, String> {
        let named = self.digest.zip(self.size);
        let Some((digest, size)) = named else {
            return Err("a descriptor without digest or size, expected both".to_owned());
        };
        if size > CONTENT_BYTES_MAX {
            return Err(format!(
                "{digest} is of {size} bytes, expected at most {CONTENT_BYTES_MAX}"
            ));
        }
        let is_foreign = self.media_type.as_deref().is_some_and(media_type::is_foreign);
        Ok(Descriptor { digest, size, is_foreign })
    }

    pub fn child(self) -> Option<Child> {
        let RawDescriptor { digest, size, platform, attested, .. } = self;
        Some(Child {
            digest: digest?,
            size: size.unwrap_or(0),
            platform: platform.map(|raw| {
                let RawPlatform([os, architecture, variant]) = &raw;
                Platform::normalised(os, architecture, variant)
            }),
            attests: attested.0,
        })
    }
}

impl Members for RawDescriptor {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "mediatype" => self.media_type = map.next_value_seed(Text(TYPE_BYTES_MAX))?,
            "digest" => self.digest = map.next_value_seed(DigestText)?,
            "size" => self.size = map.next_value_seed(Number)?,
            "platform" => self.platform = map.next_value_seed(Object(PhantomData))?,
            "annotations" => {
                let annotations = map.next_value_seed(Object(PhantomData))?;
                self.attested = annotations.unwrap_or_default();
            }
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// Operating system, architecture and variant, empty where they are left out.
#[derive(Default)]
pub struct RawPlatform([String; 3]);

impl Members for RawPlatform {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let [os, architecture, variant] = &mut self.0;
        let place = match name {
            "os" => os,
            "architecture" => architecture,
            "variant" => variant,
            _ => return skip(map),
        };
        *place = map.next_value_seed(Text(PLATFORM_BYTES_MAX))?.unwrap_or_default();
        Ok(())
    }
}

/// What the annotations of a child say that it is an attestation of.
#[derive(Default)]
pub struct Attested(Option<Digest>);

impl Members for Attested {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "vnd.docker.reference.digest" => self.0 = map.next_value_seed(DigestText)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// The annotations of a manifest.
#[derive(Default)]
pub struct Annotated(pub BTreeMap<String, String>);

impl Members for Annotated {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "annotations" => self.0 = map.next_value_seed(Texts(ANNOTATIONS_BYTES_MAX))?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// Bytes that are read on, the first of which are kept for an error to show.
pub struct Opening<'a> {
    pub source: &'a mut dyn Read,
    pub bytes: Vec<u8>,
}

impl Read for Opening<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        let room = OPENING_BYTES.saturating_sub(self.bytes.len()).min(length);
        self.bytes.extend_from_slice(buffer.get(..room).unwrap_or_default());
        Ok(length)
    }
}

fn at_most(count: usize, max: usize, what: &str) -> Result<(), String> {
    if count > max { Err(format!("more than {max} {what}")) } else { Ok(()) }
}

pub fn printable(letter: char) -> char {
    if letter.is_control() { ' ' } else { letter }
}

/// The largest content that a manifest may name, in bytes: no device holds more, and all sums of
/// what manifests name stay far from overflowing.
const CONTENT_BYTES_MAX: u64 = 1 << 40;
/// Two names of RFC 6838 and a slash; what is longer is no media type.
const TYPE_BYTES_MAX: usize = 255;
/// A longer word names no platform.
const PLATFORM_BYTES_MAX: usize = 32;
/// What of it an error shows.
pub const OPENING_BYTES: usize = 40;
