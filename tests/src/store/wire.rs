//! Defines what is asked of a store and how it travels over a socket: one JSON document a line.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Entry, Events, Expected, Key, Listing, Range, StoreError};

/// One operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Question {
    List(Range),
    Put {
        key: Key,
        #[serde(with = "shared")]
        value: Arc<Value>,
        expected: Expected,
    },
    Delete {
        key: Key,
        revision: u64,
    },
    /// `patience` is in milliseconds.
    Events {
        range: Range,
        after: u64,
        patience: u64,
    },
}

/// The result of one operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Listing(Listing),
    Entry(Entry),
    Events(Events),
}

/// A question with the number its answer carries.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) id: u64,
    pub(super) question: Question,
}

/// The answer to the call of the same number.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) id: u64,
    pub(super) answer: Result<Answer, StoreError>,
}

/// One frame: compact JSON never contains a raw newline.
pub(super) fn line<T: Serialize>(message: &T) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Serialises an `Arc<Value>` as the value itself.
pub(super) mod shared {
    use super::{Arc, Value};
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(in crate::store) fn serialize<S: Serializer>(value: &Arc<Value>, to: S) -> Result<S::Ok, S::Error> {
        value.as_ref().serialize(to)
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Value>, D::Error> {
        Value::deserialize(from).map(Arc::new)
    }
}

/// The same for an optional one.
pub(super) mod shared_option {
    use super::{Arc, Value};
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
    pub(in crate::store) fn serialize<S: Serializer>(
        value: &Option<Arc<Value>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_deref().serialize(to)
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Arc<Value>>, D::Error> {
        Ok(Option::<Value>::deserialize(from)?.map(Arc::new))
    }
}
