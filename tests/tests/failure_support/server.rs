//! Runs one API server that can die, be restarted, and be cut off from the others.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use mvproxy_tests::pki::{Identity, Pki};
use mvproxy_tests::standin::{
    Documents, Fault, RecordedRequest, Records, Standin, StandinOptions, TurnedAway,
};
use mvproxy_tests::store::Store;
use tokio::net::TcpStream;

use super::super::support::{ensure, eventually};
use super::place::Place;

/// An API server with its address, which it keeps over restarts.
pub struct Server {
    pub place: Place,
    pub address: SocketAddr,
    pub serving: Identity,
    options: StandinOptions,
    life: Mutex<Life>,
}

/// The running process, if it runs, and what it and earlier ones saw.
struct Life {
    standin: Option<Standin>,
    records: Vec<Records>,
}

impl Server {
    /// Starts one that serves the recorded `documents`.
    pub async fn start(place: Place, pki: &Pki, store: &Store, name: &str, documents: &str) -> Self {
        let mut options = StandinOptions::from_pki(pki, name, documents, store).unwrap();
        // As in kube-apiserver; the default is there for what only a stand-in can show.
        options.close_unauthenticated_http1 = false;
        // On loopback the kernel chooses a port the first time.
        let port = if place.bind().is_unspecified() { 6443 } else { 0 };
        options.bind = SocketAddr::new(place.bind(), port);
        let standin = start(&place, options.clone()).await.unwrap();
        options.bind.set_port(standin.addr.port());
        let address = SocketAddr::new(place.ip, standin.addr.port());
        let serving = options.serving.clone();
        let life = Mutex::new(Life { records: vec![standin.records()], standin: Some(standin) });
        Self { place, address, serving, options, life }
    }

    /// Where it is found on its own node.
    pub fn local_address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.address.port())
    }

    /// Kills it: open connections end, and the kernel refuses new ones.
    pub async fn kill(&self) {
        drop(self.take());
        self.is_refused().await;
    }

    /// Stops it as the kubelet does.
    pub async fn stop(&self) {
        self.take().stop().await.unwrap();
    }

    /// Starts it again where it was.
    pub async fn start_again(&self) {
        self.start_as(self.options.serving.clone()).await;
    }

    /// Starts it again where it was, with another certificate.
    pub async fn start_as(&self, serving: Identity) {
        let options = StandinOptions { serving, ..self.options.clone() };
        let standin = eventually("the port is free", async || {
            start(&self.place, options.clone()).await.map_err(|error| format!("{error:#}"))
        })
        .await;
        let mut life = self.life();
        life.records.push(standin.records());
        life.standin = Some(standin);
    }

    /// The requests that arrived in all its lives, oldest first.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.life().records.iter().flat_map(Records::requests).collect()
    }

    /// How often a request arrived.
    pub fn saw(&self, method: &str, target: &str) -> usize {
        self.requests().iter().filter(|seen| seen.method == method && seen.target == target).count()
    }

    /// The next `times` requests whose path contains `path_part` suffer `fault`.
    pub fn inject(&self, fault: Fault, path_part: &str, times: usize) {
        self.with(|standin| standin.faults().inject(fault, path_part, times));
    }

    /// What it is asked for what it serves fails.
    pub fn fail_discovery(&self) {
        self.with(|standin| standin.faults().inject_at(Fault::InternalError, "/api", usize::MAX));
    }

    /// Nothing fails any more.
    pub fn clear_faults(&self) {
        self.with(|standin| standin.faults().clear());
    }

    /// One more request on a new connection is not processed, and a GOAWAY says so.
    pub fn turn_away_one(&self) {
        self.with(|standin| {
            // More than one at a time could meet all tries of one request.
            if !standin.faults().turns_away() {
                standin.faults().inject(Fault::TurnAway { until_body: false }, "", 1);
            }
        });
    }

    /// A write on a new connection is not processed, and a GOAWAY says so.
    pub fn turn_away_write(&self) {
        self.inject(Fault::TurnAway { until_body: true }, "", 1);
    }

    pub fn turned_away(&self) -> TurnedAway {
        self.with(|standin| standin.faults().turned_away())
    }

    pub fn set_documents(&self, name: &str) {
        self.with(|standin| standin.set_documents(Documents::load(name).unwrap()));
    }

    /// Resets all open connections; new ones are served.
    pub async fn reset_connections(&self) {
        self.with(Standin::reset_connections).await;
    }

    /// Restarts it while it is isolated, so that nobody hears of it.
    pub async fn restart_unheard(&self) {
        self.place.isolate();
        // Resets are not sent again, as the end of a connection would be.
        self.reset_connections().await;
        drop(self.take());
        self.start_again().await;
        self.place.rejoin();
    }

    /// Waits until the kernel refuses connections, because nobody listens.
    async fn is_refused(&self) {
        eventually("nobody listens", async || {
            let error = TcpStream::connect(self.address).await.err().map(|error| error.kind());
            ensure(error == Some(std::io::ErrorKind::ConnectionRefused), || format!("{error:?}"))
        })
        .await;
    }

    fn take(&self) -> Standin {
        self.life().standin.take().expect("it runs")
    }

    fn with<T>(&self, look: impl FnOnce(&Standin) -> T) -> T {
        look(self.life().standin.as_ref().expect("it runs"))
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap()
    }
}

async fn start(place: &Place, options: StandinOptions) -> anyhow::Result<Standin> {
    place.run(Standin::start(options)).await
}
