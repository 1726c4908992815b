//! The command line of `lodge serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use lodge_manager::ManagerConfig;

/// Serve the Lodge API over HTTPS and manage this host's guests.
#[derive(Debug, Clone, Parser)]
#[command(name = "lodge serve", version, about)]
pub struct Args {
    /// Run as the manager of a Lodge appliance, under `lodge init`: the host's network and power are ours
    #[arg(long)]
    pub appliance: bool,
    /// Where data is kept [default: /var/lib/lodge; appliance: /data/lodge]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where sockets of running guests are; must be empty after a restart of the host [default: /run/lodge]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Address and port of the API [default: [::]:8443; appliance: [::]:443]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
}

impl Args {
    /// Address and port to listen on.
    pub fn listen(&self) -> SocketAddr {
        let port = if self.appliance { 443 } else { 8443 };
        self.listen
            .unwrap_or_else(|| SocketAddr::from(([0u16; 8], port)))
    }

    /// The manager's configuration.
    pub fn manager(&self) -> ManagerConfig {
        let mut config = if self.appliance {
            ManagerConfig::appliance()
        } else {
            ManagerConfig::hosted("/var/lib/lodge", "/run/lodge")
        };
        if let Some(dir) = &self.data_dir {
            config.data_dir.clone_from(dir);
        }
        if let Some(dir) = &self.run_dir {
            config.run_dir.clone_from(dir);
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Args {
        Args::try_parse_from([&["lodge serve"], args].concat()).unwrap()
    }

    #[test]
    fn defaults_are_those_of_the_documents() {
        let hosted = parse(&[]);
        assert_eq!(hosted.listen().to_string(), "[::]:8443");
        assert_eq!(hosted.manager().data_dir, PathBuf::from("/var/lib/lodge"));
        let appliance = parse(&["--appliance"]);
        assert_eq!(appliance.listen().to_string(), "[::]:443");
        assert_eq!(appliance.manager().data_dir, PathBuf::from("/data/lodge"));
        assert_eq!(appliance.manager().run_dir, PathBuf::from("/run/lodge"));
    }

    #[test]
    fn everything_can_be_said() {
        let args = parse(&[
            "--data-dir",
            "/a",
            "--run-dir",
            "/b",
            "--listen",
            "127.0.0.1:1",
        ]);
        assert_eq!(args.listen().to_string(), "127.0.0.1:1");
        assert_eq!(args.manager().data_dir, PathBuf::from("/a"));
        assert_eq!(args.manager().run_dir, PathBuf::from("/b"));
        assert!(Args::try_parse_from(["lodge serve", "--listen", "host:1"]).is_err());
    }
}
