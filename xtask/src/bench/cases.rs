//! Lists what is measured.

use anyhow::{Context as _, Result};

/// One case.
#[derive(Debug)]
pub(crate) struct Case {
    /// As on the command line.
    pub(crate) name: &'static str,
    /// What it is, for people.
    pub(crate) about: &'static str,
    /// What the clients do.
    pub(crate) load: Load,
    /// Who takes part.
    pub(crate) field: Field,
}

/// Who takes part in a case; the first one is what the others are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// mvproxy twice, haproxy with both protocols upstream, nginx.
    Proxies,
    /// mvproxy serving locally, and rerouting over one proxy and over two.
    Hops,
}

/// What the clients of a case do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Requests by h2load.
    Requests(Requests),
    /// Requests at a rate.
    Paced { path: &'static str, connections: usize, rate: usize, count: usize },
    /// Watches that wait, and then get an event.
    Watches { connections: usize, streams: usize },
    /// New connections at a rate.
    Connections { rate: usize, count: usize, resume: bool },
}

/// Requests by h2load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requests {
    /// Path and query.
    pub(crate) path: &'static str,
    /// HTTP/1.1 instead of HTTP/2.
    pub(crate) http1: bool,
    /// Bytes to POST.
    pub(crate) upload: Option<usize>,
    /// Connections, and requests that each has open at once.
    pub(crate) clients: (usize, usize),
    /// In all.
    pub(crate) count: usize,
}

const GET_1K: Requests = Requests {
    path: "/api/v1/namespaces/default/configmaps/1000",
    http1: false,
    upload: None,
    clients: (16, 10),
    count: 40_000,
};

/// All cases, in the order in which they run.
static CASES: &[Case] = &[
    Case {
        name: "get-1k",
        about: "GET of 1,000 bytes over HTTP/2, saturated: 16 connections with 10 requests each",
        load: Load::Requests(GET_1K),
        field: Field::Proxies,
    },
    Case {
        name: "get-1k-h1",
        about: "GET of 1,000 bytes over HTTP/1.1, saturated: 32 connections",
        load: Load::Requests(Requests { http1: true, clients: (32, 1), count: 20_000, ..GET_1K }),
        field: Field::Proxies,
    },
    Case {
        name: "post-10k",
        about: "POST of 10,000 bytes over HTTP/2, saturated: 16 connections with 10 requests each",
        load: Load::Requests(Requests {
            path: "/api/v1/namespaces/default/configmaps",
            upload: Some(10_000),
            count: 15_000,
            ..GET_1K
        }),
        field: Field::Proxies,
    },
    Case {
        name: "list-1m",
        about: "LIST of 1 MiB over HTTP/2, saturated: 16 connections with 10 requests each",
        load: Load::Requests(Requests { path: "/api/v1/namespaces/1048576/pods", count: 800, ..GET_1K }),
        field: Field::Proxies,
    },
    Case {
        name: "list-50m",
        about: "LIST of 50 MiB over HTTP/2: 2 connections with 2 requests each",
        load: Load::Requests(Requests {
            path: "/api/v1/namespaces/52428800/pods",
            clients: (2, 2),
            count: 16,
            ..GET_1K
        }),
        field: Field::Proxies,
    },
    Case {
        name: "latency",
        about: "GET of 1,000 bytes over HTTP/2, 2,000 a second over 16 connections, independently of each other",
        load: Load::Paced { path: GET_1K.path, connections: 16, rate: 2_000, count: 8_000 },
        field: Field::Proxies,
    },
    Case {
        name: "watches",
        about: "10,000 idle watches over 100 HTTP/2 connections, then one event of 512 bytes to all of them",
        load: Load::Watches { connections: 100, streams: 100 },
        field: Field::Proxies,
    },
    Case {
        name: "handshakes",
        about: "100 new TLS 1.3 connections a second with one GET each, without resumption",
        load: Load::Connections { rate: 100, count: 300, resume: false },
        field: Field::Proxies,
    },
    Case {
        name: "resumption",
        about: "the same with session resumption",
        load: Load::Connections { rate: 100, count: 300, resume: true },
        field: Field::Proxies,
    },
    Case {
        name: "rerouted",
        about: "GET of 1,000 bytes over HTTP/2, saturated: local, rerouted past the peer's proxy, rerouted through it; \
                CPU of all proxies",
        load: Load::Requests(Requests { count: 30_000, ..GET_1K }),
        field: Field::Hops,
    },
];

/// Path of the rerouted request: an API that 1.36 serves and 1.34 does not.
pub(crate) const REROUTED_PATH: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies/1000";

/// The cases with these names; all of them without names.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<&'static Case>> {
    if names.is_empty() {
        return Ok(CASES.iter().collect());
    }
    let find = |name: &String| {
        let case = CASES.iter().find(|case| case.name == name);
        case.with_context(|| format!("no case is called {name}; --list shows them"))
    };
    names.iter().map(find).collect()
}

impl Requests {
    /// A smaller number of the same requests.
    pub(crate) fn quick(self) -> Self {
        Self { count: (self.count / 10).max(self.clients.0 * self.clients.1), ..self }
    }

    /// Requests before the ones that are measured: they open upstream connections and fill pools.
    pub(crate) fn warm_up(self) -> Self {
        Self { count: (self.count / 10).max(self.clients.0 * self.clients.1), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_found_by_their_names() {
        for case in CASES {
            let found = chosen(&[case.name.to_owned()]).unwrap();
            assert_eq!(found.iter().map(|case| case.name).collect::<Vec<_>>(), [case.name]);
        }
        assert!(chosen(&["no-such".to_owned()]).is_err());
        assert_eq!(chosen(&[]).unwrap().len(), CASES.len());
    }
}
