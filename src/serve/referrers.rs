//! The list of what refers to a manifest.
//!
//! A referrer is listed with its annotations, of which there may be many KiB, and the client may
//! not read the answer. So it is made twice, entry by entry: once for its length, and once while it
//! is sent. What changed in between ends the answer short, as a blob that cannot be read does.

use std::future::Future;
use std::io;
use std::pin::Pin;

use super::lists::link;
use super::{Api, content, head, query, reply};
use crate::catalog::{ANNOTATED_BYTES_MAX, Catalog};
use crate::net::http::{ResponseBody, ServerRequest, ServerResponse, Source};
use crate::oci::{Digest, Hasher, media_type};

impl Api {
    /// What refers to a manifest, held or not.
    pub(super) async fn referrers(
        &self,
        request: &ServerRequest,
        subject: &Digest,
    ) -> ServerResponse {
        let artifact_type = query(request, "artifactType");
        let after = query(request, "last").and_then(|last| last.parse().ok());
        let list = List::new(&self.catalog, *subject, artifact_type, after);
        let (mut response, last) = self.listed(list, None).await;
        if artifact_type.is_some() {
            response.headers.append("oci-filters-applied", "artifactType");
        }
        if let Some(last) = last {
            let last = last.to_string();
            let mut pairs = vec![("last", last.as_str())];
            pairs.extend(artifact_type.map(|asked| ("artifactType", asked)));
            response.headers.append("link", link(request, &request.path, &pairs));
        }
        response
    }

    /// The list as a manifest, if anything refers to `subject`.
    pub(super) async fn fallback_tag(&self, subject: &Digest) -> Option<ServerResponse> {
        self.catalog.referrer_after(subject, None, None)?;
        let list = List::new(&self.catalog, *subject, None, None);
        let hash = Hasher::new(subject.algorithm());
        Some(self.listed(list, Some(hash)).await.0)
    }

    /// Makes the answer, with the digest of its body if `hash` is there for that; and returns the
    /// last entry of the page if it is not that of the list.
    async fn listed(
        &self,
        list: List,
        mut hash: Option<Hasher>,
    ) -> (ServerResponse, Option<Digest>) {
        let (mut trial, mut len, mut text) = (list.clone(), 0_u64, Vec::new());
        while let Some(piece) = trial.piece() {
            len += piece.len() as u64;
            if let Some(hash) = &mut hash {
                hash.update(piece.as_bytes());
            }
            if len <= TEXT_BYTES_MAX {
                text.extend_from_slice(piece.as_bytes());
            }
            smol::future::yield_now().await;
        }
        let mut response = if len <= TEXT_BYTES_MAX {
            reply(200, media_type::OCI_INDEX, text.into())
        } else {
            let source = Box::new(Listed { list, piece: Vec::new(), at: 0 });
            let (headers, body) =
                (head(media_type::OCI_INDEX), ResponseBody::Stream { len, source });
            ServerResponse { status: 200, headers, body }
        };
        if let Some(hash) = hash {
            content(&mut response.headers, &hash.finish());
        }
        (response, trial.last.filter(|_| trial.is_cut))
    }
}

/// A list that is being made.
#[derive(Clone)]
struct List {
    catalog: Catalog,
    subject: Digest,
    artifact_type: Option<String>,
    /// The entry before the next one.
    last: Option<Digest>,
    stage: Stage,
    count: usize,
    /// Bytes of the manifests that were read for it.
    read_bytes: u64,
    /// Whether there are more than one page takes.
    is_cut: bool,
}

#[derive(Clone, Copy)]
enum Stage {
    Head,
    Entries,
    Done,
}

impl List {
    fn new(
        catalog: &Catalog,
        subject: Digest,
        artifact_type: Option<&str>,
        last: Option<Digest>,
    ) -> Self {
        let artifact_type = artifact_type.map(str::to_owned);
        let (catalog, stage) = (catalog.clone(), Stage::Head);
        Self {
            catalog,
            subject,
            artifact_type,
            last,
            stage,
            count: 0,
            read_bytes: 0,
            is_cut: false,
        }
    }

    /// The next piece of the document.
    fn piece(&mut self) -> Option<String> {
        match self.stage {
            Stage::Head => {
                self.stage = Stage::Entries;
                let media_type = media_type::OCI_INDEX;
                Some(format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":["#))
            }
            Stage::Entries => Some(self.entry().unwrap_or_else(|| {
                self.stage = Stage::Done;
                "]}".to_owned()
            })),
            Stage::Done => None,
        }
    }

    fn entry(&mut self) -> Option<String> {
        let artifact_type = self.artifact_type.as_deref();
        let next = self.catalog.referrer_after(&self.subject, artifact_type, self.last.as_ref());
        let (digest, bytes) = next?;
        if self.count >= PAGE_MAX || self.read_bytes >= READ_BYTES_MAX {
            self.is_cut = true;
            return None;
        }
        let referrer = self.catalog.referrer(&digest)?;
        let text = serde_json::to_string(&referrer).ok()?;
        self.last = Some(digest);
        self.read_bytes += bytes.min(ANNOTATED_BYTES_MAX);
        self.count += 1;
        Some(if self.count == 1 { text } else { format!(",{text}") })
    }
}

/// A list that is being sent.
struct Listed {
    list: List,
    /// The piece of which the bytes from `at` on are to come.
    piece: Vec<u8>,
    at: usize,
}

impl Source for Listed {
    fn read<'a>(
        &'a mut self,
        buffer: &'a mut [u8],
    ) -> Pin<Box<dyn Future<Output = io::Result<usize>> + 'a>> {
        Box::pin(async move {
            if self.at >= self.piece.len() {
                smol::future::yield_now().await;
                self.piece = self.list.piece().unwrap_or_default().into_bytes();
                self.at = 0;
            }
            let rest = self.piece.get(self.at..).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            for (to, from) in buffer.iter_mut().zip(rest) {
                *to = *from;
            }
            self.at += length;
            Ok(length)
        })
    }
}

/// Entries of one page.
const PAGE_MAX: usize = 1000;
/// Bytes of manifests that are read for the annotations of one page.
const READ_BYTES_MAX: u64 = 4 << 20;
/// Lists up to this length leave in one piece.
const TEXT_BYTES_MAX: u64 = 16 << 10;
