//! A running proxy says what API servers serve differently and where a request would go.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use mvproxy::ask::{AskError, ask};
use mvproxy::config::{Ask, Output, Question};
use mvproxy::explain::{RouteReport, SkewReport};
use mvproxy_tests::standin::Documents;
use support::{Caller, Cluster, both_serve, bounded, only_new_serves};

/// Asks as the command line does, off the test's own runtime.
async fn printed(question: Ask) -> Result<String, AskError> {
    tokio::task::spawn_blocking(move || ask(&question)).await.unwrap()
}

fn about(cluster: &Cluster, question: Question, output: Output) -> Ask {
    Ask { admin_address: cluster.old.proxy.admin, output, question }
}

#[test]
fn skew_names_every_difference_and_nothing_else() {
    bounded(async {
        let cluster = Cluster::start().await;
        let text = printed(about(&cluster, Question::Skew, Output::Json)).await.unwrap();
        let report: SkewReport = serde_json::from_str(&text).unwrap();
        let admin = Caller::admin(&cluster.pki);
        let old = support::served_by(&admin, cluster.old.standin.addr).await.unwrap();
        let new = support::served_by(&admin, cluster.new.standin.addr).await.unwrap();
        let [local, peer] = &report.servers[..] else { panic!("{:?}", report.servers) };
        assert_eq!((&*local.role, &*peer.role), ("local", "peer"));
        assert!(local.healthy && peer.healthy);
        let missing: Vec<_> = new.keys().filter(|key| !old.contains_key(*key)).collect();
        assert!(!missing.is_empty());
        for (group, version, resource) in missing {
            let found = report.differences.iter().find(|it| {
                (&it.group, &it.version, &it.resource, &*it.subresource) == (group, version, resource, "")
            });
            let found = found.unwrap_or_else(|| panic!("{group}/{version} {resource} is not listed"));
            assert_eq!(
                (&found.served_by, &found.missing_on),
                (&vec![peer.address.clone()], &vec![local.address.clone()])
            );
        }
        for difference in report.differences.iter().filter(|it| it.subresource.is_empty()) {
            let key = (difference.group.clone(), difference.version.clone(), difference.resource.clone());
            let same = old.get(&key).zip(new.get(&key)).is_some_and(|(old, new)| old.verbs == new.verbs);
            assert!(!same, "{key:?} is the same on both");
        }
        let table = printed(about(&cluster, Question::Skew, Output::Table)).await.unwrap();
        assert!(table.starts_with("SERVER") && table.contains(&only_new_serves().resource), "{table}");
        let yaml = printed(about(&cluster, Question::Skew, Output::Yaml)).await.unwrap();
        assert!(yaml.contains("differences:") && yaml.contains(&only_new_serves().resource));
    });
}

#[test]
fn servers_that_serve_the_same_differ_in_nothing() {
    bounded(async {
        let load = || Documents::load("v1.36").unwrap();
        let cluster = Cluster::start_with(load(), load(), &[]).await;
        let table = printed(about(&cluster, Question::Skew, Output::Table)).await.unwrap();
        assert!(table.contains("All of them serve the same "), "{table}");
    });
}

#[test]
fn a_route_is_told_before_it_is_taken() {
    bounded(async {
        let cluster = Cluster::start().await;
        let (old, new) = (cluster.old.standin.addr.to_string(), cluster.new.standin.addr.to_string());
        for (path, outcome, first) in [
            (both_serve().path(), "local", Some(&old)),
            (only_new_serves().path(), "peer", Some(&new)),
            ("/apis".to_owned(), "discovery", Some(&old)),
            ("/version".to_owned(), "local", Some(&old)),
            ("/readyz?verbose".to_owned(), "local", Some(&old)),
            ("/apis/nobody.example.net/v1/things".to_owned(), "local", Some(&old)),
        ] {
            let question = Question::Route { method: http::Method::GET, path: path.clone() };
            let text = printed(about(&cluster, question, Output::Json)).await.unwrap();
            let report: RouteReport = serde_json::from_str(&text).unwrap();
            assert_eq!((&*report.outcome, report.servers.first()), (outcome, first), "{path}: {text}");
            assert_eq!(report.path, path);
        }
        assert!(cluster.new.requests_for(&only_new_serves().path()).is_empty(), "nothing was sent");
    });
}

#[test]
fn a_proxy_that_is_not_there_is_named() {
    bounded(async {
        let nowhere = Ask {
            admin_address: "127.0.0.1:1".parse().unwrap(),
            output: Output::Table,
            question: Question::Skew,
        };
        let error = printed(nowhere).await.unwrap_err().to_string();
        assert!(error.contains("127.0.0.1:1") && error.contains("--admin-address"), "{error}");
    });
}
