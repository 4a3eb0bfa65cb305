//! Reads single objects.

use http::StatusCode;

use super::Storage;
use super::view::View;
use crate::standin::discovery;
use crate::standin::respond::{self, Outcome};
use crate::standin::status::Status;
use crate::store::{Entry, StoreError};

impl Storage<'_> {
    pub(super) async fn get(&self) -> Outcome {
        let view = self.view()?;
        let entry = self.require(&self.target.name).await?;
        Ok(self.shown(StatusCode::OK, view, &entry))
    }

    /// The stored object `name`, or a 404.
    pub(super) async fn require(&self, name: &str) -> Result<Entry, Box<Status>> {
        let found = self.shared.store.get(&self.target.key(name)).await.map_err(unavailable)?;
        found.ok_or_else(|| Status::not_found(self.target.details(name)))
    }

    pub(super) fn view(&self) -> Result<View, Box<Status>> {
        View::choose(&discovery::accept_header(&self.call.headers), self.call.query.get("includeObject"))
    }

    pub(super) fn shown(&self, code: StatusCode, view: View, entry: &Entry) -> http::Response<respond::Body> {
        respond::json(self.call.style, code, &view.one(self.target, entry))
    }
}

/// A store that fails is an internal error, as an etcd that fails is.
pub(in crate::standin) fn unavailable(error: StoreError) -> Box<Status> {
    Status::internal(error)
}
