//! The life of `lodge serve`.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use clap::Parser;
use lodge_manager::{Endpoint, LogRing, Manager, OpenError};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::app::Server;
use crate::args::Args;
use crate::limits::Limits;
use crate::local_console::{self, Fixed};
use crate::tls::{self, IdentityError};
use crate::{listen, logging, power, trial};

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("no runtime: {0}")]
    Runtime(io::Error),
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the manager could not start: {0}")]
    Manager(#[from] OpenError),
    #[error("the TLS identity: {0}")]
    Identity(#[from] IdentityError),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the API's description: {0}")]
    Document(#[from] serde_json::Error),
    #[error("signals: {0}")]
    Signals(io::Error),
}

/// Runs `lodge serve` with the arguments that follow the word `serve`. Guests run on when it returns.
pub fn serve_main(args: Vec<OsString>) -> ExitCode {
    let name = OsString::from("lodge serve");
    let args = match Args::try_parse_from(std::iter::once(name).chain(args)) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let ring = LogRing::new();
    logging::install(&ring, args.appliance);
    // Whatever else in this process speaks TLS takes the same provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    raise_descriptor_limit();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)
        .and_then(|runtime| runtime.block_on(serve(&args, ring)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Connections, guests and their disks all need descriptors; the customary soft limit of 1024 is for
/// programs that use select(2).
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard.min(1 << 20), hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

async fn serve(args: &Args, ring: LogRing) -> Result<(), ServeError> {
    let address = args.listen();
    // First of all, so that a second server fails before it touches anything, and clients that
    // come while the store is opened wait instead of being refused.
    let listener =
        listen::bind(address).map_err(|source| ServeError::Listen { address, source })?;
    let config = args.manager();
    let (tls_dir, run_dir) = (config.data_dir.join("tls"), config.run_dir.clone());
    let manager = Manager::open(config, ring).await?;
    let identity = tls::load_or_generate(&tls_dir, &manager.hostname(), &addresses(&manager))?;
    let fixed = Fixed {
        listen: listener.local_addr().unwrap_or(address),
        fingerprint: identity.identity.fingerprint(),
        warnings: identity
            .replaced
            .as_deref()
            .map(replaced)
            .into_iter()
            .collect(),
    };
    for warning in &fixed.warnings {
        tracing::warn!("{warning}");
    }
    tell_manager(&manager, &fixed);
    let stop = CancellationToken::new();
    let server = Server::new(
        manager.clone(),
        Limits::default(),
        stop.clone(),
        &fixed.warnings,
    )?;
    let acceptor = tls::acceptor(&identity.identity)?;
    stop_on_signals(stop.clone()).map_err(ServeError::Signals)?;
    let (leaving, leave) = (manager.clone(), stop.clone());
    tokio::spawn(async move {
        leaving.wants_to_leave().await;
        leave.cancel();
    });
    if args.appliance {
        let socket = run_dir.join("init.sock");
        tokio::spawn(trial::follow(manager.clone(), fixed.clone(), socket));
    }
    tokio::spawn(local_console::keep(
        manager.clone(),
        run_dir.join("local.json"),
        fixed,
    ));
    if args.appliance {
        tokio::spawn(power::follow(manager.clone(), run_dir.join("init.sock")));
    }
    run(listener, server, acceptor, stop).await;
    manager.close().await;
    tracing::info!("stopped; guests run on");
    Ok(())
}

async fn run(listener: TcpListener, server: Server, tls: TlsAcceptor, stop: CancellationToken) {
    if let Ok(address) = listener.local_addr() {
        tracing::info!("the API listens on {address}");
    }
    listen::run(listener, server, tls, Limits::default(), stop).await;
}

fn replaced(damage: &str) -> String {
    format!(
        "the TLS key or certificate was damaged ({damage}) and has been replaced: the fingerprint has \
         changed, so remove and add this host again where it was pinned"
    )
}

/// The host's own addresses, for the certificate of the first boot.
fn addresses(manager: &Manager) -> Vec<IpAddr> {
    manager
        .system()
        .links
        .iter()
        .flat_map(|link| &link.addresses)
        .filter_map(|cidr| cidr.split('/').next()?.parse().ok())
        .filter(|address| !link_local(*address))
        .collect()
}

/// Of no use in a certificate: nobody reaches them without naming an interface of their own.
fn link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn tell_manager(manager: &Manager, fixed: &Fixed) {
    let ip = fixed.listen.ip();
    manager.set_endpoint(Endpoint {
        port: fixed.listen.port(),
        address: (!ip.is_unspecified()).then_some(ip),
        certificate_fingerprint: fixed.fingerprint.clone(),
    });
}

/// SIGTERM and SIGINT end the server and nothing else.
fn stop_on_signals(stop: CancellationToken) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
