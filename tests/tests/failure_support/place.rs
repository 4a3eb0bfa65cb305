//! Gives every server of a scenario a place to run: a thread of its own, on loopback or in a network namespace.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, mpsc};

use mvproxy_tests::network::{Host, Network};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::support::bounded;

/// What a scenario takes place in.
#[derive(Clone)]
pub enum World {
    /// Everything on loopback: quick, and needs no privileges.
    Loopback,
    /// Every node in a network namespace of its own, and the client in another.
    Namespaces(Arc<Network>),
}

/// A thread with a runtime of its own; what is started there stays there.
pub struct Place {
    /// Where others find it.
    pub ip: IpAddr,
    host: Option<Arc<Host>>,
    runtime: Handle,
    /// Lets the thread go on while it hangs.
    hanging: Mutex<Option<mpsc::Sender<()>>>,
    _ends_with_this: DropGuard,
}

/// Runs a scenario on loopback.
pub fn on_loopback(scenario: impl AsyncFnOnce(World)) {
    bounded(scenario(World::Loopback));
}

/// Runs a scenario in network namespaces.
pub fn in_namespaces(scenario: impl AsyncFnOnce(World) + Send) {
    let network = Arc::new(Network::new().unwrap());
    let client = network.join("client").unwrap();
    client.netns.run(|| bounded(scenario(World::Namespaces(network))));
}

impl World {
    /// A node of its own.
    pub async fn place(&self, label: &str) -> Place {
        match self {
            World::Loopback => Place::new(None).await,
            World::Namespaces(network) => Place::new(Some(Arc::new(network.join(label).unwrap()))).await,
        }
    }
}

impl Place {
    async fn new(host: Option<Arc<Host>>) -> Self {
        let ip = host.as_ref().map_or(Ipv4Addr::LOCALHOST, |host| host.address).into();
        let (tell, told) = oneshot::channel();
        let end = CancellationToken::new();
        let ended = end.clone().cancelled_owned();
        let thread = move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tell.send(Handle::current()).unwrap();
                ended.await;
            });
            // A proxy that still drains is not waited for.
            runtime.shutdown_background();
        };
        match &host {
            Some(host) => drop(host.netns.spawn(thread)),
            None => drop(std::thread::spawn(thread)),
        }
        let runtime = told.await.unwrap();
        Self { ip, host, runtime, hanging: Mutex::default(), _ends_with_this: end.drop_guard() }
    }

    /// Another thread on the same node.
    pub async fn beside(&self) -> Self {
        Self::new(self.host.clone()).await
    }

    /// Where servers of this place listen: in a namespace everywhere, as kube-apiserver does.
    pub fn bind(&self) -> IpAddr {
        if self.host.is_some() { Ipv4Addr::UNSPECIFIED.into() } else { self.ip }
    }

    /// Does something here.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.spawn(work).await.unwrap()
    }

    /// Nothing that is sent here gets an answer any more, not even a reset: the cable is pulled out. Where there is none
    /// the thread hangs, and only the kernel still answers.
    pub async fn cut_off(&self) {
        if let Some(host) = &self.host {
            return host.set_link(false).unwrap();
        }
        let (release, released) = mpsc::channel();
        let (tell, told) = oneshot::channel();
        self.runtime.spawn(async move {
            tell.send(()).unwrap();
            let _ = released.recv();
        });
        told.await.unwrap();
        *self.hanging.lock().unwrap() = Some(release);
    }

    /// Undoes [`Place::cut_off`].
    pub fn reconnect(&self) {
        if let Some(host) = &self.host {
            host.set_link(true).unwrap();
        }
        self.hanging.lock().unwrap().take();
    }

    /// The same, but without a cable that could be noticed to be out: everything that is sent from here is lost too.
    pub fn isolate(&self) {
        self.on_a_network().set_joined(false).unwrap();
    }

    /// Undoes [`Place::isolate`].
    pub fn rejoin(&self) {
        self.on_a_network().set_joined(true).unwrap();
    }

    fn on_a_network(&self) -> &Host {
        self.host.as_ref().expect("loopback cannot be left")
    }
}
