//! Network namespaces with cables between them.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lodge_host::net::state::Dhcp4Phase;
use lodge_host::net::{HostNetwork, HostNetworkConfig, LinkConfig, NetworkState};
use lodge_host::seed::MacAddress;
use nix::sched::{CloneFlags, unshare};

/// Time that anything here may take.
const LIMIT: Duration = Duration::from_secs(90);

/// Runs a test in a fresh network namespace, on a thread of its own.
pub fn in_namespace<F, T>(test: F)
where
    F: FnOnce(Lab) -> T + Send + 'static,
    T: Future<Output = ()>,
{
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: making network namespaces needs root");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async { test(Lab::new()).await });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The namespace of a test, and the machines around it.
pub struct Lab {
    directory: tempfile::TempDir,
}

/// A machine at the other end of a cable, in a namespace of its own.
pub struct Peer {
    namespace: String,
    directory: PathBuf,
    servers: Vec<Child>,
}

/// A program that writes down every change of addresses and links.
pub struct Recorder {
    child: Child,
    path: PathBuf,
}

/// The MAC address of the link number `number` in the test's namespace.
pub fn mac(number: u8) -> MacAddress {
    MacAddress([0x52, 0x54, 0, 0, 0, number])
}

impl Lab {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    /// What the appliance is configured with.
    pub fn appliance(&self, links: Vec<LinkConfig>) -> HostNetworkConfig {
        let mut config = HostNetworkConfig::appliance(Some("alpha".to_owned()), links);
        config.run_dir = self.directory.path().join("run");
        config.resolv_conf = Some(self.resolv_conf());
        config
    }

    /// What an ordinary host is configured with.
    pub fn hosted(&self) -> HostNetworkConfig {
        HostNetworkConfig::hosted(self.directory.path().join("run"))
    }

    pub fn resolv_conf(&self) -> PathBuf {
        self.directory.path().join("resolv.conf")
    }

    /// A new machine whose link `far` is cabled to our link `eth<number>`, which has the address [`mac`].
    pub fn peer(&self, number: u8) -> Peer {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!(
            "lodge-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        ip(&["netns", "add", &namespace]);
        let directory = self.directory.path().join(&namespace);
        fs::create_dir(&directory).expect("a directory");
        let peer = Peer {
            namespace,
            directory,
            servers: Vec::new(),
        };
        let (near, address) = (format!("eth{number}"), mac(number).to_string());
        ip(&[
            "link",
            "add",
            &near,
            "address",
            &address,
            "type",
            "veth",
            "peer",
            "name",
            "far",
            "netns",
            &peer.namespace,
        ]);
        peer.ip(&["link", "set", "lo", "up"]);
        peer.ip(&["link", "set", "far", "up"]);
        peer
    }

    /// Starts to write down changes in our namespace.
    pub fn record(&self) -> Recorder {
        let path = self.directory.path().join("changes");
        let file = fs::File::create(&path).expect("a file");
        let child = Command::new("ip")
            .args(["-o", "monitor", "address", "link"])
            .stdout(file)
            .spawn();
        let recorder = Recorder {
            child: child.expect("ip (apt-get install iproute2)"),
            path,
        };
        // The recorder is there when it has written down a change of ours.
        ip(&["link", "add", "mark", "type", "bridge"]);
        let began = std::time::Instant::now();
        while !recorder.text().contains("mark") {
            assert!(began.elapsed() < LIMIT, "ip monitor says nothing");
            ip(&["link", "set", "mark", "up"]);
            ip(&["link", "set", "mark", "down"]);
        }
        ip(&["link", "del", "mark"]);
        recorder
    }
}

impl Peer {
    /// Runs `ip` on the peer.
    pub fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", self.namespace.as_str()], arguments].concat());
    }

    /// What `ip` says on the peer.
    pub fn ip_output(&self, arguments: &[&str]) -> String {
        ip(&[&["-n", self.namespace.as_str()], arguments].concat())
    }

    /// Starts a DHCP server that has these addresses to give, on the peer's link, whose address is `own`.
    pub fn serve(&mut self, own: &str, range: &str, options: &[&str]) {
        self.ip(&["address", "flush", "dev", "far"]);
        self.ip(&["address", "add", own, "dev", "far"]);
        let range = format!("--dhcp-range={range}");
        self.serve_with(&[&[range.as_str()], options].concat());
    }

    /// Starts dnsmasq with these options.
    pub fn serve_with(&mut self, options: &[&str]) {
        let file = |name: &str| self.directory.join(name).display().to_string();
        let log = fs::File::create(self.directory.join("log")).expect("a file");
        let child = Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.namespace,
                "dnsmasq",
                "--no-daemon",
                "--conf-file=/dev/null",
                "--port=0",
            ])
            .args([
                "--interface=far",
                "--bind-interfaces",
                "--leasefile-ro",
                "--no-ping",
                "--log-dhcp",
                "--user=root",
            ])
            .arg(format!("--pid-file={}", file("pid")))
            .args(options)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("ip (apt-get install iproute2)");
        self.servers.push(child);
        let began = std::time::Instant::now();
        while !self.log().contains("started") {
            let stopped = self
                .servers
                .last_mut()
                .and_then(|child| child.try_wait().expect("a status"));
            assert!(
                stopped.is_none(),
                "dnsmasq (apt-get install dnsmasq-base) does not run: {}",
                self.log()
            );
            assert!(
                began.elapsed() < LIMIT,
                "dnsmasq does not start: {}",
                self.log()
            );
            std::thread::yield_now();
        }
    }

    /// What the server wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Stops the servers.
    pub fn stop(&mut self) {
        for mut server in self.servers.drain(..) {
            // It may have ended by itself.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            println!("the server of {} wrote:\n{}", self.namespace, self.log());
        }
        let _ = Command::new("ip")
            .args(["netns", "del", &self.namespace])
            .status();
    }
}

impl Recorder {
    /// What was written down so far.
    pub fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap_or_default()
    }

    /// Ends, and gives the lines about things that went away or links that lost their signal.
    pub fn losses(self) -> Vec<String> {
        // A last mark, so that everything before it has been written.
        ip(&["link", "add", "end", "type", "bridge"]);
        let began = std::time::Instant::now();
        while !self.text().contains("end:") {
            assert!(began.elapsed() < LIMIT, "ip monitor says nothing");
            std::thread::yield_now();
        }
        ip(&["link", "del", "end"]);
        let text = self.text();
        let lost = |line: &&str| {
            (line.contains("Deleted") || line.contains("NO-CARRIER"))
                && !line.contains("mark")
                && !line.contains("end:")
        };
        text.lines().filter(lost).map(str::to_owned).collect()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `ip`, which must succeed.
pub fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .expect("ip (apt-get install iproute2)");
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Takes the network over.
pub async fn start(config: HostNetworkConfig) -> HostNetwork {
    HostNetwork::start(config).await.expect("started")
}

/// Waits for a lease on the default network.
pub async fn has_lease(network: &HostNetwork) -> NetworkState {
    wait_for(network, "a lease", |state| is_bound(state, "default")).await
}

/// Waits until the network is in a state.
pub async fn wait_for(
    network: &HostNetwork,
    what: &str,
    is_so: impl Fn(&NetworkState) -> bool,
) -> NetworkState {
    let mut watch = network.watch();
    let waited = tokio::time::timeout(LIMIT, watch.wait_for(|state| is_so(state))).await;
    match waited {
        Ok(state) => state.expect("the network runs").clone(),
        Err(_) => panic!("{what}: not within {LIMIT:?}; {:#?}", network.state()),
    }
}

/// The IPv4 addresses of a network of that name, as text.
pub fn ipv4_of(state: &NetworkState, network: &str) -> Vec<String> {
    let addresses = state
        .network(network)
        .map(|network| &network.ip.addresses[..])
        .unwrap_or_default();
    let addresses = addresses.iter().map(|address| address.address);
    addresses
        .filter(|address| address.address().is_ipv4())
        .map(|address| address.to_string())
        .collect()
}

/// Whether the DHCP client of a network has a lease and its address.
pub fn is_bound(state: &NetworkState, network: &str) -> bool {
    let dhcp = state
        .network(network)
        .and_then(|network| network.ip.dhcp4.as_ref());
    dhcp.is_some_and(|dhcp| dhcp.phase == Dhcp4Phase::Bound) && !ipv4_of(state, network).is_empty()
}
