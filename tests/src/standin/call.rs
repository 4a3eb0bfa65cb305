//! Holds what is known of a request once its user is known.

use std::sync::Arc;

use http::{HeaderMap, Method, Version};

use super::documents::Documents;
use super::query::Query;
use super::request_info::RequestInfo;
use super::respond::Style;
use super::user::User;

/// A request by a known user.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) version: Version,
    pub(super) query: Query,
    pub(super) info: RequestInfo,
    pub(super) style: Style,
    pub(super) user: User,
    /// What this server serves, the same throughout one request.
    pub(super) documents: Arc<Documents>,
}
