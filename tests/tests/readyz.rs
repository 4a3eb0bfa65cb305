//! Health through the proxy is the API server's own, with one line more where somebody asks for details.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use mvproxy_tests::client::Answer;
use support::{BOTH, Caller, Cluster, Upstream, bounded, ensure, eventually, request, whole};

const LINE: &str = "[+]mixed-version-proxy ok\n";

#[test]
fn readyz_verbose_has_the_proxys_line_before_the_last_and_is_else_the_servers_text() {
    bounded(async {
        let cluster = Cluster::start().await;
        for caller in [Caller::alice(&cluster.pki), Caller::bob(&cluster.pki), Caller::nobody(&cluster.pki)] {
            for http in BOTH {
                for target in ["/readyz?verbose", "/readyz?verbose=1", "/readyz?exclude=ping&verbose"] {
                    let straight = caller.get(cluster.old.standin.addr, http, target).await;
                    let through = caller.get(cluster.old.proxy.address, http, target).await;
                    let (checks, last) = straight
                        .body
                        .split_at(straight.text().trim_end().rfind('\n').expect("several lines") + 1);
                    let wanted = [checks, LINE.as_bytes(), last].concat();
                    assert_eq!(through.text(), String::from_utf8(wanted).unwrap(), "{target}");
                    assert_eq!(through.header("content-length"), through.body.len().to_string());
                    assert_same_head(&straight, &through, target);
                }
            }
        }
    });
}

#[test]
fn every_other_health_answer_is_untouched() {
    bounded(async {
        let cluster = Cluster::start().await;
        for caller in [Caller::alice(&cluster.pki), Caller::nobody(&cluster.pki)] {
            for http in BOTH {
                for target in [
                    "/readyz",
                    "/readyz?",
                    "/readyz?quiet=verbose",
                    "/readyz/ping?verbose",
                    "/livez?verbose",
                    "/healthz",
                ] {
                    let straight = caller.get(cluster.old.standin.addr, http, target).await;
                    let through = caller.get(cluster.old.proxy.address, http, target).await;
                    assert_eq!(straight.text(), through.text(), "{target}");
                    assert_same_head(&straight, &through, target);
                }
            }
        }
    });
}

#[test]
fn readyz_tells_the_truth_about_the_local_server_when_it_is_not_ready() {
    bounded(async {
        let cluster = Cluster::start().await;
        let (old, alice) = (cluster.old, Caller::alice(&cluster.pki));
        old.standin.faults().inject(mvproxy_tests::standin::Fault::InternalError, "/readyz", 2);
        let straight = alice.get(old.standin.addr, BOTH[0], "/readyz?verbose").await;
        let through = alice.get(old.proxy.address, BOTH[0], "/readyz?verbose").await;
        assert_eq!((straight.status.as_u16(), straight.text()), (through.status.as_u16(), through.text()));
        assert_eq!(through.status, 500);
        drop(old.standin);
        eventually("health shows that the server is gone", async || {
            let answer = alice.get(old.proxy.address, BOTH[0], "/readyz").await;
            ensure(answer.status == 503, || format!("{} {}", answer.status, answer.text()))
        })
        .await;
    });
}

#[test]
fn head_of_readyz_verbose_does_not_claim_to_be_empty() {
    bounded(async {
        let pki = mvproxy_tests::pki::Pki::generate().unwrap();
        let serving = pki.serving("lone", [127, 0, 0, 1].into()).unwrap();
        let text = "[+]ping ok\nreadyz check passed\n";
        let upstream =
            Upstream::start(&serving, move |request: http::Request<hyper::body::Incoming>| async move {
                let body = if request.method() == "HEAD" { whole("") } else { whole(text) };
                let answer = http::Response::builder().header("content-type", "text/plain; charset=utf-8");
                answer.header("content-length", text.len()).body(body).unwrap()
            })
            .await;
        let options = support::ProxyOptions {
            pki: &pki,
            serving: &serving,
            local: upstream.address,
            peers: &[],
            flags: &[],
        };
        let proxy = support::Proxy::start(&options);
        let alice = Caller::alice(&pki);
        for http in BOTH {
            let answer = alice.ask(proxy.address, http, request("HEAD", "/readyz?verbose")).await;
            assert_eq!(answer.status, 200);
            assert_ne!(answer.header("content-length"), "0", "{http:?}");
        }
    });
}

#[track_caller]
fn assert_same_head(straight: &Answer, through: &Answer, what: &str) {
    let names = |answer: &Answer| {
        let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
        names.sort();
        names
    };
    assert_eq!(straight.status, through.status, "{what}");
    assert_eq!(straight.header("content-type"), through.header("content-type"), "{what}");
    let unlike: Vec<_> = names(straight).into_iter().filter(|name| name != "connection").collect();
    assert_eq!(unlike, names(through), "{what}");
}
