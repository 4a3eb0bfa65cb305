//! Watches the objects that APIs are made of, by their metadata alone.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, watcher};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{SharedApi, SharedApis};
use crate::peers::follow::{Follower, Seen, Subject};

/// Follows `CustomResourceDefinitions` until the task is dropped.
pub async fn follow_definitions(follower: Follower, apis: watch::Sender<SharedApis>) {
    let subject =
        Subject { name: "CustomResourceDefinitions", meanwhile: MEANWHILE, error_type: "shared_api_list" };
    let start =
        |client| watcher(Api::<PartialObjectMeta<CustomResourceDefinition>>::all(client), Config::default());
    let sink = |seen: Seen<PartialObjectMeta<CustomResourceDefinition>>| {
        take(&apis, 0, &seen, |object| SharedApi::of_definition(object.metadata.name.as_deref()?));
    };
    follower.follow(subject, start, sink).await;
}

/// Follows `APIServices` until the task is dropped.
pub async fn follow_services(follower: Follower, apis: watch::Sender<SharedApis>) {
    let subject = Subject { name: "APIServices", meanwhile: MEANWHILE, error_type: "shared_api_list" };
    let start = |client| watcher(Api::<PartialObjectMeta<APIService>>::all(client), Config::default());
    let sink = |seen: Seen<PartialObjectMeta<APIService>>| {
        take(&apis, 1, &seen, |object| {
            // Each server makes and deletes those of what is built into itself, and of CustomResourceDefinitions.
            let labels = object.metadata.labels.as_ref();
            let is_aggregated = labels.is_none_or(|labels| !labels.contains_key(AUTOMANAGED));
            is_aggregated.then(|| SharedApi::of_service(object.metadata.name.as_deref()?)).flatten()
        });
    };
    follower.follow(subject, start, sink).await;
}

const MEANWHILE: &str = "not readable; that an API was deleted is noticed when servers are asked next, and not of one that is away";
/// Label of `APIServices` that API servers keep by themselves (kube-aggregator's autoregister controller).
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

fn take<K>(
    apis: &watch::Sender<SharedApis>,
    kind: usize,
    seen: &Seen<PartialObjectMeta<K>>,
    api: impl Fn(&PartialObjectMeta<K>) -> Option<SharedApi>,
) {
    let now = Instant::now();
    apis.send_if_modified(|apis| match seen {
        Seen::Begin => {
            apis.begin(kind);
            false
        }
        Seen::Object(object) => match api(object) {
            Some(api) => apis.put(api, object.metadata.generation.unwrap_or_default(), now),
            None => false,
        },
        Seen::Gone(object) => api(object).is_some_and(|api| apis.remove(&api, now)),
        Seen::Complete => apis.complete(kind, now),
        // What was known last stays.
        Seen::Failed => false,
    });
}
