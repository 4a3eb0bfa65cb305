use super::super::document::{Group, GroupMeta, Resource, Version};
use super::*;

const WIDGETS: &str = "widgets.events.k8s.io";

/// `group/version/resource` of each.
fn serving(resources: &[&str]) -> Served {
    let mut groups: Vec<Group> = Vec::new();
    for text in resources {
        let [group, version, resource] = text.split('/').collect::<Vec<_>>()[..] else { panic!("{text}") };
        let resource = Resource { resource: resource.to_owned(), ..Resource::default() };
        let place = groups.iter().position(|one| one.metadata.name == group).unwrap_or_else(|| {
            groups.push(Group { metadata: GroupMeta { name: group.to_owned() }, versions: Vec::new() });
            groups.len() - 1
        });
        let versions = &mut groups[place].versions;
        match versions.iter_mut().find(|one| one.version == version) {
            Some(version) => version.resources.push(resource),
            None => versions.push(Version {
                version: version.to_owned(),
                resources: vec![resource],
                ..Version::default()
            }),
        }
    }
    let groups = Part { list: GroupList::of(groups), etag: None };
    Served { groups, ..Served::default() }
}

fn seen(apis: &SharedApis, served: &Served, asked: Instant) -> Vec<String> {
    let visible = apis.visible(served, asked);
    let resources = visible.groups.list.resources();
    resources.map(|(group, version, resource)| format!("{group}/{version}/{resource}")).collect()
}

fn apis(names: &[&str], now: Instant) -> SharedApis {
    let mut apis = SharedApis::remembered(Duration::from_mins(10), []);
    apis.begin(0);
    for name in names {
        apis.put(definition(name), 1, now);
    }
    assert!(!apis.complete(0, now), "what was there before anybody looked is no news");
    apis
}

fn definition(name: &str) -> SharedApi {
    SharedApi::of_definition(name).expect("a name")
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn names_of_objects_say_what_they_bring_about() {
    let resource = SharedApi::Resource { group: "events.k8s.io".to_owned(), resource: "widgets".to_owned() };
    assert_eq!(SharedApi::of_definition(WIDGETS), Some(resource));
    let version =
        SharedApi::GroupVersion { group: "metrics.k8s.io".to_owned(), version: "v1beta1".to_owned() };
    assert_eq!(SharedApi::of_service("v1beta1.metrics.k8s.io"), Some(version));
    let core = SharedApi::GroupVersion { group: String::new(), version: "v1".to_owned() };
    assert_eq!(SharedApi::of_service("v1."), Some(core));
    assert_eq!(SharedApi::of_definition("widgets"), None);
}

#[test]
fn a_deleted_resource_is_hidden_from_older_answers_and_what_is_built_in_beside_it_is_not() {
    let now = Instant::now();
    let mut apis = apis(&[WIDGETS], now);
    let served = serving(&["events.k8s.io/v1/events", "events.k8s.io/v1/widgets", "other.io/v1/widgets"]);
    let all = ["events.k8s.io/v1/events", "events.k8s.io/v1/widgets", "other.io/v1/widgets"];
    assert_eq!(seen(&apis, &served, now - seconds(60)), all);
    assert!(matches!(apis.visible(&served, now), Cow::Borrowed(_)), "nothing is copied");

    assert!(apis.remove(&definition(WIDGETS), now));
    assert!(!apis.remove(&definition(WIDGETS), now), "once");
    for asked in [now - seconds(500), now - seconds(1), now + seconds(59)] {
        assert_eq!(seen(&apis, &served, asked), ["events.k8s.io/v1/events", "other.io/v1/widgets"]);
    }
    // Whoever still says so after that really serves it: it may be built into a newer server.
    assert_eq!(seen(&apis, &served, now + seconds(61)), all);
    let only = serving(&["events.k8s.io/v1/widgets"]);
    assert!(seen(&apis, &only, now).is_empty());
    assert!(apis.visible(&only, now).groups.list.items.is_empty(), "no empty group stays behind");
}

#[test]
fn a_resource_that_is_defined_again_or_changed_counts_from_answers_after_that() {
    let now = Instant::now();
    let mut apis = apis(&[WIDGETS], now);
    let served = serving(&["events.k8s.io/v1/widgets"]);
    apis.remove(&definition(WIDGETS), now);
    assert!(apis.put(definition(WIDGETS), 1, now + seconds(5)));
    assert!(seen(&apis, &served, now + seconds(4)).is_empty());
    assert_eq!(seen(&apis, &served, now + seconds(6)).len(), 1, "no grace for what exists");
    assert!(!apis.put(definition(WIDGETS), 1, now + seconds(7)), "another write of the status");
    assert!(apis.put(definition(WIDGETS), 2, now + seconds(9)), "perhaps a version less");
    assert!(seen(&apis, &served, now + seconds(8)).is_empty());
    assert_eq!(seen(&apis, &served, now + seconds(10)).len(), 1);
}

#[test]
fn what_a_new_list_no_longer_has_was_deleted_meanwhile() {
    let now = Instant::now();
    let mut apis = apis(&[WIDGETS, "gadgets.events.k8s.io"], now);
    let later = now + seconds(100);
    apis.begin(0);
    apis.put(definition("gadgets.events.k8s.io"), 1, later);
    assert!(apis.live().count() == 2, "not before the list is complete");
    assert!(apis.complete(0, later));
    let served = serving(&["events.k8s.io/v1/widgets", "events.k8s.io/v1/gadgets"]);
    assert_eq!(seen(&apis, &served, now), ["events.k8s.io/v1/gadgets"]);

    let mut remembered = SharedApis::remembered(seconds(600), [(definition(WIDGETS), 3)]);
    remembered.begin(0);
    assert!(remembered.complete(0, now), "deleted while nobody looked");
    assert_eq!(seen(&remembered, &served, now - seconds(1)), ["events.k8s.io/v1/gadgets"]);
}

/// A version of it may have been taken away while nobody looked, and a peer that is down be remembered with it.
#[test]
fn what_changed_since_it_was_remembered_counts_from_answers_after_that() {
    let now = Instant::now();
    let served = serving(&["events.k8s.io/v1/widgets", "events.k8s.io/v1/gadgets"]);
    let same = "gadgets.events.k8s.io";
    let mut remembered =
        SharedApis::remembered(seconds(600), [(definition(WIDGETS), 3), (definition(same), 3)]);
    remembered.begin(0);
    remembered.put(definition(WIDGETS), 4, now);
    remembered.put(definition(same), 3, now);
    assert!(remembered.complete(0, now));
    assert_eq!(seen(&remembered, &served, now - seconds(1)), ["events.k8s.io/v1/gadgets"]);
    assert_eq!(seen(&remembered, &served, now).len(), 2);
}

#[test]
fn a_deleted_aggregated_api_hides_its_group_version() {
    let now = Instant::now();
    let mut apis = SharedApis::remembered(seconds(600), []);
    let service = SharedApi::of_service("v1beta1.metrics.k8s.io").expect("a name");
    apis.put(service.clone(), 1, now - seconds(10));
    apis.remove(&service, now);
    let served = serving(&["metrics.k8s.io/v1beta1/pods", "metrics.k8s.io/v1/pods"]);
    assert_eq!(seen(&apis, &served, now), ["metrics.k8s.io/v1/pods"]);
}

#[test]
fn deletions_are_forgotten_when_no_answer_is_old_enough_for_them() {
    let now = Instant::now();
    let mut apis = SharedApis::remembered(seconds(600), []);
    for number in 0..100 {
        let api = definition(&format!("a{number}.example.com"));
        let then = now + seconds(number * 100);
        apis.put(api.clone(), 1, then);
        apis.remove(&api, then);
    }
    assert!(apis.entries.len() < 10, "{}", apis.entries.len());
}
