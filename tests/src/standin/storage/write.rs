//! Creates, changes and deletes objects by compare-and-swap.

use http::StatusCode;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::patch::{Flavour, merge};
use super::read::unavailable;
use super::view::{View, whole};
use super::{Storage, body, list, object};
use crate::standin::clock;
use crate::standin::respond::{self, Outcome};
use crate::standin::status::Status;
use crate::store::{Entry, Expected, Key, Range, StoreError};

const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

impl Storage<'_> {
    pub(super) async fn create(&self, body: Incoming) -> Outcome {
        let view = self.view()?;
        let object = body::read_object(&self.call.headers, body).await?;
        let entry = self.insert(object).await?;
        Ok(self.shown(StatusCode::CREATED, view, &entry))
    }

    pub(super) async fn update(&self, body: Incoming) -> Outcome {
        let view = self.view()?;
        let object = body::read_object(&self.call.headers, body).await?;
        let entry = self.replace(|_| Ok(object.clone())).await?;
        Ok(self.shown(StatusCode::OK, view, &entry))
    }

    pub(super) async fn patch(&self, body: Incoming) -> Outcome {
        let view = self.view()?;
        let (flavour, apply) = match body::media_type(&self.call.headers).as_str() {
            "application/merge-patch+json" => (Flavour::Merge, false),
            "application/strategic-merge-patch+json" => (Flavour::Strategic, false),
            "application/apply-patch+yaml" => (Flavour::Strategic, true),
            _ => {
                return Err(Status::unsupported_media_type(
                    "application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
                ));
            }
        };
        let bytes = body::read(body).await?;
        let patch = if apply { body::parse_yaml(&bytes)? } else { body::parse_json(&bytes)? };
        if apply && self.call.query.non_empty("fieldManager").is_none() {
            return Err(Status::bad_request("fieldManager is required for apply patch"));
        }
        if apply
            && self
                .shared
                .store
                .get(&self.target.key(&self.target.name))
                .await
                .map_err(unavailable)?
                .is_none()
        {
            let entry = self.insert(patch).await?;
            return Ok(self.shown(StatusCode::CREATED, view, &entry));
        }
        let entry = self
            .replace(|old| {
                let mut new = old.clone();
                // Only a resourceVersion in the patch itself is a precondition.
                if let Some(metadata) = object::metadata(&mut new) {
                    metadata.remove("resourceVersion");
                }
                merge(&mut new, patch.clone(), flavour);
                Ok(new)
            })
            .await?;
        Ok(self.shown(StatusCode::OK, view, &entry))
    }

    pub(super) async fn delete(&self, body: Incoming) -> Outcome {
        let options = body::read_options(&self.call.headers, body).await?;
        loop {
            let entry = self.require(&self.target.name).await?;
            self.check_preconditions(&options, &entry)?;
            if self.is_dry_run(&options) {
                return Ok(self.deleted(&entry));
            }
            match self.remove(&entry).await {
                Ok(Removed::Gone(entry)) => return Ok(self.deleted(&entry)),
                Ok(Removed::Waiting(entry)) => return Ok(self.shown(StatusCode::OK, View::Whole, &entry)),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
    }

    pub(super) async fn delete_collection(&self, body: Incoming) -> Outcome {
        let options = body::read_options(&self.call.headers, body).await?;
        let selectors = list::selectors(&self.call.query)?;
        let listing = self.shared.store.list(&self.target.range()).await.map_err(unavailable)?;
        let mut matching = listing.entries;
        matching.retain(|entry| selectors.matches(&entry.value));
        if !self.is_dry_run(&options) {
            for entry in &matching {
                match self.remove(entry).await {
                    // Somebody else changed or deleted it meanwhile; a collection is not a transaction.
                    Ok(_) | Err(StoreError::Conflict { .. }) => {}
                    Err(error) => return Err(unavailable(error)),
                }
            }
        }
        let metadata = json!({"resourceVersion": listing.revision.to_string()});
        Ok(respond::json(
            self.call.style,
            StatusCode::OK,
            &View::Whole.list(self.target, &matching, metadata),
        ))
    }

    /// Stores a new object, under a generated name where it asks for one.
    async fn insert(&self, mut object: Value) -> Result<Entry, Box<Status>> {
        self.check_type(&object)?;
        let prefix = object::text(&object, "generateName").to_owned();
        let wanted = match self.target.name.as_str() {
            "" => object::text(&object, "name").to_owned(),
            name => name.to_owned(),
        };
        if wanted.is_empty() && prefix.is_empty() {
            let why = "metadata.name: Required value: name or generateName is required";
            return Err(Status::invalid(self.target.details(""), why));
        }
        self.check_namespace(&mut object).await?;
        object::stamp_new(&mut object, self.target.has_status);
        if self.target.group.is_empty() && self.target.resource == "namespaces" {
            object["status"] = json!({"phase": "Active"});
        }
        drop_type(&mut object);
        loop {
            let name = if wanted.is_empty() { generated(&prefix) } else { wanted.clone() };
            object["metadata"]["name"] = name.as_str().into();
            if self.is_dry_run(&Value::Null) {
                return Ok(Entry { key: self.target.key(&name), value: object.into(), revision: 0 });
            }
            match self.shared.store.put(&self.target.key(&name), object.clone(), Expected::Absent).await {
                Ok(entry) => return Ok(entry),
                Err(StoreError::Conflict { .. }) if wanted.is_empty() => {}
                Err(StoreError::Conflict { .. }) => {
                    return Err(Status::already_exists(self.target.details(&name)));
                }
                Err(error) => return Err(unavailable(error)),
            }
        }
    }

    /// Stores what `change` makes of the present object; a resourceVersion in its result is a precondition.
    async fn replace(
        &self,
        change: impl Fn(&Value) -> Result<Value, Box<Status>>,
    ) -> Result<Entry, Box<Status>> {
        let target = self.target;
        loop {
            let entry = self.require(&target.name).await?;
            let mut new = change(&whole(target, &entry))?;
            self.check_type(&new)?;
            self.check_same_object(&new, &entry)?;
            object::stamp_changed(&entry.value, &mut new, &target.subresource, target.has_status);
            drop_type(&mut new);
            let mut old = entry.value.as_ref().clone();
            drop_type(&mut old);
            // kube-apiserver does not write what does not change.
            if old == new || self.is_dry_run(&Value::Null) {
                return Ok(Entry { value: new.into(), ..entry });
            }
            let finished = object::is_being_deleted(&new) && !object::has_finalizers(&new);
            let written = self.shared.store.put(&entry.key, new, Expected::Revision(entry.revision)).await;
            let written = match written {
                Ok(written) if finished => self.shared.store.delete(&entry.key, written.revision).await,
                other => other,
            };
            match written {
                Ok(written) => return Ok(written),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
    }

    /// Deletes an object, or marks it when finalizers must go first. A namespace takes its contents with it at once:
    /// no namespace controller runs here.
    async fn remove(&self, entry: &Entry) -> Result<Removed, StoreError> {
        let store = &self.shared.store;
        if object::has_finalizers(&entry.value) {
            if object::is_being_deleted(&entry.value) {
                return Ok(Removed::Waiting(entry.clone()));
            }
            let mut marked = entry.value.as_ref().clone();
            object::mark_deleted(&mut marked);
            let entry = store.put(&entry.key, marked, Expected::Revision(entry.revision)).await?;
            return Ok(Removed::Waiting(entry));
        }
        let gone = store.delete(&entry.key, entry.revision).await?;
        if self.target.group.is_empty() && self.target.resource == "namespaces" {
            let contents = Range { namespace: Some(entry.key.name.clone()), ..Range::default() };
            for inner in store.list(&contents).await?.entries {
                store.delete(&inner.key, inner.revision).await?;
            }
        }
        Ok(Removed::Gone(gone))
    }

    fn deleted(&self, entry: &Entry) -> http::Response<respond::Body> {
        let mut details = self.target.details(&entry.key.name);
        object::text(&entry.value, "uid").clone_into(&mut details.uid);
        respond::json(self.call.style, StatusCode::OK, &Status::deleted(details))
    }

    fn is_dry_run(&self, options: &Value) -> bool {
        self.call.query.all("dryRun").any(|value| value == "All")
            || options
                .get("dryRun")
                .and_then(Value::as_array)
                .is_some_and(|list| list.iter().any(|one| one == "All"))
    }

    fn check_preconditions(&self, options: &Value, entry: &Entry) -> Result<(), Box<Status>> {
        let present = [
            ("uid", object::text(&entry.value, "uid").to_owned()),
            ("resourceVersion", entry.revision.to_string()),
        ];
        for (field, present) in present {
            let wanted = options.get("preconditions").and_then(|one| one.get(field)?.as_str());
            if wanted.is_some_and(|wanted| wanted != present) {
                let why = format!(
                    "Precondition failed: {field} in precondition: {}, in object: {present}",
                    wanted.unwrap_or_default()
                );
                return Err(Status::conflict(self.target.details(&entry.key.name), &why));
            }
        }
        Ok(())
    }

    /// The object must be of the kind and version it is sent to.
    fn check_type(&self, object: &Value) -> Result<(), Box<Status>> {
        let field = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
        let (kind, version) = (field("kind"), field("apiVersion"));
        let wanted = (self.target.kind.as_str(), self.target.api_version());
        if (kind.is_empty() || kind == wanted.0) && (version.is_empty() || version == wanted.1) {
            return Ok(());
        }
        let message = format!(
            "{kind} in version {version:?} cannot be handled as a {}: no kind {kind:?} is registered for version {:?}",
            wanted.0, wanted.1
        );
        Err(Status::bad_request(message))
    }

    /// Puts the request's namespace into the object and requires that the namespace exists.
    async fn check_namespace(&self, object: &mut Value) -> Result<(), Box<Status>> {
        let named = object::text(object, "namespace").to_owned();
        let wanted = &self.target.namespace;
        if !named.is_empty() && named != *wanted {
            let message =
                "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Status::bad_request(message));
        }
        let Some(metadata) = object::metadata(object) else {
            return Err(Status::bad_request("the object's metadata is not an object"));
        };
        if wanted.is_empty() {
            return Ok(());
        }
        metadata.insert("namespace".to_owned(), wanted.as_str().into());
        match self.shared.store.get(&Key::new("", "namespaces", "", wanted)).await.map_err(unavailable)? {
            Some(_) => Ok(()),
            None => Err(Status::not_found(crate::standin::status::Details::of("", "namespaces", wanted))),
        }
    }

    fn check_same_object(&self, new: &Value, entry: &Entry) -> Result<(), Box<Status>> {
        let name = object::text(new, "name");
        if !name.is_empty() && name != entry.key.name {
            let message = format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                entry.key.name
            );
            return Err(Status::bad_request(message));
        }
        let wanted = object::text(new, "resourceVersion");
        if !wanted.is_empty() && wanted != entry.revision.to_string() {
            return Err(Status::conflict(self.target.details(&entry.key.name), MODIFIED));
        }
        let uid = object::text(new, "uid");
        if !uid.is_empty() && uid != object::text(&entry.value, "uid") {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                object::text(&entry.value, "uid")
            );
            return Err(Status::conflict(self.target.details(&entry.key.name), &why));
        }
        Ok(())
    }
}

/// What a deletion came to.
enum Removed {
    Gone(Entry),
    /// Finalizers must go first.
    Waiting(Entry),
}

/// Kind and version are the request's, not the object's.
fn drop_type(object: &mut Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
}

/// A name in the form of kube-apiserver's `SimpleNameGenerator`: the prefix, at most 58 bytes of it, and five letters.
fn generated(prefix: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let start: String = prefix.chars().take(58).collect();
    let digits = clock::uuid().replace('-', "");
    let letters = (0..5).map(|index| {
        let byte = u8::from_str_radix(&digits[index * 2..index * 2 + 2], 16).unwrap_or_default();
        char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])
    });
    start.chars().chain(letters).collect()
}
