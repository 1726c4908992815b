//! The command line of `lodge tui`.

use std::ffi::OsString;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Full-screen console of a host

Usage: lodge tui [REMOTE:]
       lodge tui --local [--wait]

Arguments:
  [REMOTE:]  The host; the default remote without it (see `lodge remote`)

Options:
      --local  This machine's own console; needs root on a Lodge host
      --wait   With --local: print a summary and begin when Enter is pressed
  -h, --help   Print help
";

/// What is to be shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arguments {
    /// The text above.
    Help,
    /// This machine.
    Local {
        /// Print a banner first, for serial lines that are logged.
        wait: bool,
    },
    /// A remote; `None`: the default one.
    Remote(Option<String>),
}

impl Arguments {
    /// Reads the arguments after `tui`.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let (mut local, mut wait, mut remote) = (false, false, None);
        for arg in args {
            match arg.to_str() {
                Some("-h" | "--help") => return Ok(Self::Help),
                Some("--local") => local = true,
                Some("--wait") => wait = true,
                Some(text) if !text.starts_with('-') && remote.is_none() => {
                    remote = Some(text.strip_suffix(':').unwrap_or(text).to_owned());
                }
                _ => return Err(format!("unexpected argument {}", arg.display())),
            }
        }
        match (local, wait, remote) {
            (true, wait, None) => Ok(Self::Local { wait }),
            (true, _, Some(_)) => Err("--local takes no remote".to_owned()),
            (false, true, _) => Err("--wait goes with --local".to_owned()),
            (false, false, remote) => Ok(Self::Remote(remote)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Arguments, String> {
        Arguments::parse(args.iter().map(OsString::from))
    }

    #[test]
    fn every_form() {
        assert_eq!(parse(&[]), Ok(Arguments::Remote(None)));
        assert_eq!(
            parse(&["lab:"]),
            Ok(Arguments::Remote(Some("lab".to_owned())))
        );
        assert_eq!(parse(&["--local"]), Ok(Arguments::Local { wait: false }));
        assert_eq!(
            parse(&["--local", "--wait"]),
            Ok(Arguments::Local { wait: true })
        );
        assert_eq!(parse(&["x", "-h"]), Ok(Arguments::Help));
        for bad in [
            &["--wait"][..],
            &["--local", "lab:"],
            &["a", "b"],
            &["--tty"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
