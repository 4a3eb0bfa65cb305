//! Finds what a resource request is about in the discovery documents.

use crate::standin::discovery;
use crate::standin::documents::Documents;
use crate::standin::request_info::RequestInfo;
use crate::standin::status::{Details, Status};
use crate::store::{Key, Range};

/// A served resource and what of it a request names.
#[derive(Clone, Debug)]
pub(in crate::standin) struct Target {
    pub(in crate::standin) group: String,
    pub(in crate::standin) version: String,
    pub(in crate::standin) resource: String,
    pub(in crate::standin) kind: String,
    pub(in crate::standin) subresource: String,
    /// Empty for cluster-scoped resources and for requests across namespaces.
    pub(in crate::standin) namespace: String,
    pub(in crate::standin) name: String,
    /// Whether the resource has a status subresource, which keeps spec and status apart.
    pub(in crate::standin) has_status: bool,
    stored: bool,
    verbs: Vec<String>,
    subresource_kind: String,
}

impl Target {
    /// The target of `info`; `None` where kube-apiserver has no route at all and says `404 page not found`.
    pub(in crate::standin) fn find(
        documents: &Documents,
        info: &RequestInfo,
    ) -> Result<Option<Self>, Box<Status>> {
        let Some(found) = documents.resource(&info.group, &info.version, &info.resource) else {
            return Ok(None);
        };
        let subresource = match info.subresource.as_str() {
            "" => None,
            name => Some(found.subresource(name).ok_or_else(Status::no_such_resource)?),
        };
        let namespaced = found.is_namespaced();
        let scope_fits = match (namespaced, info.namespace.is_empty()) {
            (true, true) => info.name.is_empty() || matches!(info.verb.as_str(), "list" | "watch"),
            (false, false) => info.resource == "namespaces",
            _ => true,
        };
        if !scope_fits {
            return Err(Status::no_such_resource());
        }
        Ok(Some(Self {
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            kind: found.response_kind.kind.clone(),
            subresource: info.subresource.clone(),
            namespace: if namespaced { info.namespace.clone() } else { String::new() },
            name: info.name.clone(),
            has_status: found.subresource("status").is_some(),
            stored: found.is_stored(),
            verbs: subresource.map_or(&found.verbs, |one| &one.verbs).clone(),
            subresource_kind: subresource.map(|one| one.response_kind.kind.clone()).unwrap_or_default(),
        }))
    }

    pub(in crate::standin) fn allows(&self, verb: &str) -> bool {
        self.verbs.iter().any(|one| one == verb)
    }

    /// Whether `verb` has a route here: objects are created in collections and changed by name.
    pub(in crate::standin) fn fits(&self, verb: &str) -> bool {
        match verb {
            "create" => self.name.is_empty() || !self.subresource.is_empty(),
            "get" | "update" | "patch" | "delete" => !self.name.is_empty(),
            _ => true,
        }
    }

    /// exec, attach and port-forward.
    pub(in crate::standin) fn is_streaming(&self) -> bool {
        matches!(self.subresource.as_str(), "exec" | "attach" | "portforward")
    }

    /// Whether requests read and write the object itself, possibly through a writable subresource of the same kind.
    pub(in crate::standin) fn is_stored(&self) -> bool {
        let same_object = || self.subresource_kind == self.kind && self.allows("update");
        self.stored && (self.subresource.is_empty() || same_object())
    }

    /// Whether the resource is a question that is answered and forgotten.
    pub(in crate::standin) fn is_review(&self) -> bool {
        !self.stored && self.subresource.is_empty()
    }

    pub(in crate::standin) fn api_version(&self) -> String {
        discovery::group_version(&self.group, &self.version)
    }

    pub(in crate::standin) fn key(&self, name: &str) -> Key {
        Key::new(&self.group, &self.resource, &self.namespace, name)
    }

    /// Everything a list or watch of this target sees.
    pub(in crate::standin) fn range(&self) -> Range {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        Range {
            resource: Some((self.group.clone(), self.resource.clone())),
            namespace: some(&self.namespace),
            name: some(&self.name),
        }
    }

    pub(in crate::standin) fn details(&self, name: &str) -> Details {
        Details::of(&self.group, &self.resource, name)
    }
}
