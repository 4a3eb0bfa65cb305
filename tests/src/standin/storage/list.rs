//! Lists objects, in pages where the client asks for them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Storage;
use super::read::unavailable;
use crate::standin::query::Query;
use crate::standin::respond::{self, Outcome};
use crate::standin::selector::{FieldSelector, LabelSelector, Selectors};
use crate::standin::status::Status;
use crate::store::{Entry, Key};

/// Where the next page begins and which revision the first one showed.
#[derive(Serialize, Deserialize)]
struct Continue {
    revision: u64,
    after: Key,
}

impl Storage<'_> {
    pub(super) async fn list(&self) -> Outcome {
        let view = self.view()?;
        let selectors = selectors(&self.call.query)?;
        let limit = self
            .call
            .query
            .get("limit")
            .and_then(|limit| limit.parse::<usize>().ok())
            .filter(|limit| *limit > 0);
        let resumed = self.call.query.non_empty("continue").map(decode).transpose()?;
        let listing = self.shared.store.list(&self.target.range()).await.map_err(unavailable)?;
        let revision = resumed.as_ref().map_or(listing.revision, |token| token.revision);
        let mut entries: Vec<Entry> = listing
            .entries
            .into_iter()
            .filter(|entry| resumed.as_ref().is_none_or(|token| entry.key > token.after))
            .filter(|entry| selectors.matches(&entry.value))
            .collect();
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if let Some(limit) = limit.filter(|limit| *limit < entries.len()) {
            metadata["remainingItemCount"] = (entries.len() - limit).into();
            entries.truncate(limit);
            let last = entries.last().expect("a limit above zero leaves an entry");
            metadata["continue"] = encode(&Continue { revision, after: last.key.clone() }).into();
        }
        Ok(respond::json(self.call.style, StatusCode::OK, &view.list(self.target, &entries, metadata)))
    }
}

/// The selectors of a list, watch or collection.
pub(in crate::standin) fn selectors(query: &Query) -> Result<Selectors, Box<Status>> {
    let bad = |error: &dyn std::fmt::Display| Status::bad_request(error.to_string());
    Ok(Selectors {
        fields: FieldSelector::parse(query.get("fieldSelector").unwrap_or_default())
            .map_err(|error| bad(&error))?,
        labels: LabelSelector::parse(query.get("labelSelector").unwrap_or_default())
            .map_err(|error| bad(&error))?,
    })
}

fn encode(token: &Continue) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(token).expect("numbers and text always serialise"))
}

fn decode(token: &str) -> Result<Continue, Box<Status>> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| Status::bad_request("continue key is not valid"))
}
