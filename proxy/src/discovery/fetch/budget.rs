//! Bounds what one server may say in one round, in however many documents.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::super::bounds::{Counts, Excess};
use super::super::document::DocumentError;
use super::FetchError;

/// What a server has said so far. Documents that are being read together share it.
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<Spent>);

#[derive(Debug, Default)]
struct Spent {
    bytes: usize,
    counts: Counts,
}

/// A cluster with 10,000 resources has documents of about 10 MB.
pub(super) const MOST_BYTES: usize = 16 * 1024 * 1024;

impl Budget {
    /// Reads a body and looks it through. What is too large by its own account is not even begun.
    pub(super) async fn read(&self, mut body: Incoming, path: &str) -> Result<Bytes, FetchError> {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > MOST_BYTES - self.spent().bytes {
            return Err(too_large(path));
        }
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let broken = |source| FetchError::Broken { path: path.to_owned(), source: Box::new(source) };
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            self.take(data.len()).ok_or_else(|| too_large(path))?;
            all.extend_from_slice(&data);
        }
        self.spent().counts.add(&all).map_err(|excess| match excess {
            Excess::Objects | Excess::Strings => too_large(path),
            Excess::Depth | Excess::LongString => {
                FetchError::Document { path: path.to_owned(), source: DocumentError::from(excess) }
            }
        })?;
        Ok(all.freeze())
    }

    /// `None` when there are not as many bytes left.
    fn take(&self, bytes: usize) -> Option<()> {
        let mut spent = self.spent();
        spent.bytes = spent.bytes.checked_add(bytes).filter(|all| *all <= MOST_BYTES)?;
        Some(())
    }

    /// Locks numbers that are right at every moment.
    fn spent(&self) -> MutexGuard<'_, Spent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_large(path: &str) -> FetchError {
    FetchError::TooLarge { path: path.to_owned() }
}
