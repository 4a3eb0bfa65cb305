//! Puts the parts together; the only file that knows all of them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::accept::listen;
use crate::account::Accounts;
use crate::admin::{self, Admin};
use crate::asker::Asker;
use crate::authentication;
use crate::config::{Config, SteeringMode};
use crate::credentials::Credentials;
use crate::discovery::Snapshot;
use crate::discovery::fetch::Fetcher;
use crate::discovery::openapi::merger::Merger;
use crate::discovery::sync::{self, SyncOptions};
use crate::dismissal::Dismissal;
use crate::explain::Explainer;
use crate::forward::{Budget, Dialer, Pool};
use crate::identity::IdentityHeaders;
use crate::limits::Sources;
use crate::metrics::{Live, Metrics};
use crate::prober::Prober;
use crate::readiness::Readiness;
use crate::reload::Reloader;
use crate::serve::{Shared, Worker};
use crate::skew::SkewFollower;
use crate::steering::{Attachment, Steering};
use crate::upstream::{Role, Upstream};
use crate::worker;

mod error;
mod followed;
mod steer;

pub use error::AppError;

/// A proxy that listens and has everything it needs, but does not serve yet.
#[derive(Debug)]
pub struct App {
    config: Config,
    shared: Arc<Shared>,
    steering: Arc<Steering>,
    listeners: Vec<Arc<TcpListener>>,
    /// `None` while the proxy that this one replaces has the address.
    admin: Option<TcpListener>,
    dialer: Dialer,
    reloader: Reloader,
    /// Taken by the one writer of the snapshot.
    changed: watch::Sender<()>,
    /// Asks the process to end; the workers drain only once the kernel's slots are empty.
    stop: CancellationToken,
}

/// What runs beside the path of requests.
struct Background {
    /// Keeps the snapshot true.
    tasks: JoinSet<()>,
    /// Switches steering with it; ends first when the process drains.
    switch: Option<tokio::task::JoinHandle<()>>,
    /// Ends by itself when the process drains.
    lease: Option<tokio::task::JoinHandle<()>>,
}

impl App {
    /// Opens sockets and kernel objects.
    ///
    /// # Errors
    /// See [`AppError`]; each names the flag.
    pub fn bind(config: Config, credentials: &Credentials) -> Result<Self, AppError> {
        let reloader = Reloader::new(&config, credentials.clone())?;
        let tls = reloader.tls();
        let workers = config.workers.get();
        let share_port = config.listen.port() != 0;
        let listen = |_| listen(config.listen, share_port).map(Arc::new);
        let listeners = (0..workers).map(listen).collect::<Result<Vec<_>, _>>()?;
        let admin = admin::listen(config.admin_address)
            .map_err(|source| AppError::Admin { address: config.admin_address, source })?;

        let steering = Arc::new(steer::open(&config)?);
        let slot = steering.counters().slot(config.local_apiserver);
        let local = Upstream { address: config.local_apiserver, role: Role::Local, slot };

        let snapshot = Arc::new(ArcSwap::from_pointee(if config.mixed_version {
            Snapshot::unsynced(local)
        } else {
            Snapshot::disabled(local)
        }));
        let dialer = Dialer::new(tls, config.local_source_ip).with_lane(config.peer_lane_ports);
        let changed = watch::Sender::new(());
        let names = IdentityHeaders::new(&config.request_header)?;
        let shared = Arc::new(share(&config, names, local, &reloader, &steering, snapshot, &changed));
        Ok(Self {
            config,
            shared,
            steering,
            listeners,
            admin,
            dialer,
            reloader,
            changed,
            stop: CancellationToken::new(),
        })
    }

    /// Addresses of the workers' listeners.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Address of /metrics and /readyz, as soon as it is free.
    ///
    /// # Errors
    /// Never for a bound socket.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.as_ref().map_or(Ok(self.config.admin_address), TcpListener::local_addr)
    }

    /// Cancelling it drains the proxy.
    pub fn drain_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Serves until drained.
    ///
    /// # Errors
    /// When threads cannot be started or the proxy's own credentials are unusable.
    pub async fn serve(self) -> Result<(), AppError> {
        for address in self.addresses() {
            info!(%address, "serving");
        }
        let listeners = self.listeners.iter().map(Arc::downgrade).collect();
        let Background { mut tasks, switch, lease } = self.start_discovery(listeners)?;
        tasks.spawn(self.reloader.run());
        let admin = Admin {
            metrics: Arc::clone(&self.shared.metrics),
            readiness: self.shared.readiness.clone(),
            explainer: Explainer {
                snapshot: Arc::clone(&self.shared.snapshot),
                vitals: Arc::clone(&self.shared.vitals),
                local_failover: self.config.local_failover,
            },
        };
        let admin = tokio::spawn(Arc::new(admin).serve(self.admin, self.config.admin_address));

        let limit = connection_limit(&self.config).div_ceil(self.config.workers.get());
        let mut threads = Vec::new();
        for (number, listener) in self.listeners.into_iter().enumerate() {
            let worker = Worker {
                shared: Arc::clone(&self.shared),
                pool: Pool::new(self.dialer.clone()),
                accounts: Accounts::new(self.steering.counters(), Arc::clone(&self.shared.vitals), number),
                budget: Budget::default(),
                turn: AtomicUsize::new(number),
                drain: self.shared.drain.child_token(),
            };
            threads.push(worker::start(number, limit, listener, self.steering.heartbeat(number), worker)?);
        }

        tokio::select! {
            () = self.stop.cancelled() => {}
            // A worker ended.
            () = self.shared.drain.cancelled() => {}
        }
        info!("draining: new connections go to the API server");
        if let Some(switch) = switch {
            switch.abort();
            // It must not take slots again that are given up below.
            let _ = switch.await;
        }
        self.steering.release();
        self.shared.drain.cancel();
        let ended = tokio::task::spawn_blocking(move || threads.into_iter().try_for_each(join)).await;
        admin.abort();
        drop(tasks);
        if let Some(lease) = lease {
            // It has a limit of its own.
            self.stop.cancel();
            let _ = lease.await;
        }
        ended.map_err(io::Error::other)?.map_err(AppError::from)
    }

    /// Starts what keeps the snapshot true and what follows it.
    fn start_discovery(&self, listeners: Vec<Weak<TcpListener>>) -> Result<Background, AppError> {
        let mut tasks = JoinSet::new();
        if !self.config.mixed_version {
            warn!(
                "--feature-gates: UnknownVersionInteroperabilityProxy=false: nothing is rerouted, merged or steered"
            );
            return Ok(Background { tasks, switch: None, lease: None });
        }
        let followed = followed::start(&self.config, &self.shared.metrics, &mut tasks)?;
        let identity = Asker::own_identity(&self.shared.names)?;
        let asker = Arc::new(Asker::new(Pool::new(self.dialer.clone()), identity));
        let prober = Prober::new(
            Arc::clone(&asker),
            Arc::clone(&self.shared.vitals),
            Arc::clone(&self.steering),
            Arc::clone(&self.shared.snapshot),
            Arc::clone(&self.shared.refresh),
        );
        tasks.spawn(prober.run());
        let merger = Merger::new(
            Arc::clone(&asker),
            Arc::clone(&self.shared.snapshot),
            Arc::clone(&self.shared.metrics),
            Arc::clone(&self.shared.openapi),
        );
        tasks.spawn(merger.run(self.shared.changes.clone()));
        let options = SyncOptions {
            snapshot: Arc::clone(&self.shared.snapshot),
            fetcher: Arc::new(Fetcher::new(asker)),
            metrics: Arc::clone(&self.shared.metrics),
            counters: self.steering.counters(),
            local: self.shared.local,
            interval: self.config.discovery_interval,
            stale_after: self.config.peer_stale_after,
            changed: self.changed.clone(),
            refresh: Arc::clone(&self.shared.refresh),
            shared: followed.shared,
            remembered: followed.remembered,
            memory: followed.memory,
        };
        if self.steering.xdp().is_some() {
            tasks.spawn(steer::follow_wire(Arc::clone(&self.steering), followed.list.clone()));
        }
        tasks.spawn(sync::run(options, followed.list));
        let lease = followed.lease.map(|lease| tokio::spawn(lease.run(self.stop.clone())));
        let is_attached = self.steering.state().attachment == Attachment::Attached;
        let switch = is_attached.then(|| SkewFollower {
            mode: self.config.steering,
            steering: Arc::clone(&self.steering),
            snapshot: Arc::clone(&self.shared.snapshot),
            listeners,
            local: self.config.local_failover.then_some(self.shared.local),
            vitals: Arc::clone(&self.shared.vitals),
            cutter: self.shared.readiness.cutter.clone(),
            dismissal: Arc::clone(&self.shared.dismissal),
            begun: std::time::Instant::now(),
        });
        let switch = switch.map(|switch| tokio::spawn(switch.run(self.shared.changes.clone())));
        Ok(Background { tasks, switch, lease })
    }
}

/// Runs the proxy until SIGTERM or SIGINT.
///
/// # Errors
/// See [`AppError`].
pub fn run(config: Config, credentials: &Credentials) -> Result<(), AppError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        // Until then the kernel is told nothing, and clients reach the API server.
        let config = tokio::select! {
            config = authentication::complete(config) => config,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        let app = App::bind(config, credentials)?;
        let drain = app.drain_token();
        tokio::spawn(async move {
            for _ in 0..2 {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if drain.is_cancelled() {
                    warn!("second signal: leaving without waiting for open requests");
                    std::process::exit(1);
                }
                drain.cancel();
            }
        });
        app.serve().await
    })
}

/// Puts together what all workers share.
fn share(
    config: &Config,
    names: IdentityHeaders,
    local: Upstream,
    reloader: &Reloader,
    steering: &Arc<Steering>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    changed: &watch::Sender<()>,
) -> Shared {
    let workers = config.workers.get();
    let sources = Arc::new(Sources::new(config.max_connections_per_source));
    let cutter = steer::cutter(config);
    Shared {
        tls: reloader.tls(),
        names,
        metrics: Arc::new(Metrics::new(Live {
            steering: Arc::clone(steering),
            snapshot: Arc::clone(&snapshot),
            freshness: Arc::default(),
            credentials: reloader.state(),
            sources: Arc::clone(&sources),
            cutter: cutter.clone(),
            workers,
        })),
        readiness: Readiness {
            steering: Arc::clone(steering),
            snapshot: Arc::clone(&snapshot),
            credentials: reloader.state(),
            steering_is_wanted: config.mixed_version && config.steering != SteeringMode::Off,
            cutter,
            workers,
        },
        snapshot,
        local,
        vitals: Arc::default(),
        local_failover: config.local_failover,
        watch_continuation: config.watch_continuation,
        trusted_proxies: config.trusted_proxies.clone(),
        sources,
        time_limits: config.time_limits,
        refresh: Arc::default(),
        openapi: Arc::default(),
        changes: changed.subscribe(),
        dismissal: Arc::new(Dismissal::new(config.secure_port)),
        drain: CancellationToken::new(),
    }
}

fn join(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().map_err(|_| io::Error::other("a worker thread panicked"))?
}

/// Connections that can be served at once: what is configured, or what the limit on open files leaves room for. A request
/// can need a descriptor on each side.
fn connection_limit(config: &Config) -> usize {
    let wanted = config.max_connections.get() as usize;
    let files = match raise_file_limit() {
        Ok(files) => usize::try_from(files).unwrap_or(usize::MAX),
        Err(error) => {
            warn!(%error, "the limit on open files is not readable");
            return wanted;
        }
    };
    let possible = (files.saturating_sub(RESERVED_FILES) / 2).max(1);
    if possible < wanted {
        warn!(
            wanted,
            possible, files, "--max-connections: the limit on open files (RLIMIT_NOFILE) allows fewer"
        );
    }
    wanted.min(possible)
}

/// Descriptors for maps, listeners, logs and the proxy's own requests.
const RESERVED_FILES: usize = 256;

/// Raises the soft limit on open files to the hard one, and says what it is.
fn raise_file_limit() -> nix::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}
