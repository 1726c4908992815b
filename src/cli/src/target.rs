//! `[remote:]NAME`, as people type it.

use std::convert::Infallible;
use std::str::FromStr;

/// An object, perhaps on a named remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The remote; `None`: the default one.
    pub(crate) remote: Option<String>,
    /// Name or id of the object; empty where only the remote matters.
    pub(crate) name: String,
}

impl FromStr for Target {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once(':') {
            Some((remote, name)) => Self {
                remote: Some(remote.to_owned()),
                name: name.to_owned(),
            },
            None => Self {
                remote: None,
                name: text.to_owned(),
            },
        })
    }
}

/// `[remote:]`: a remote alone. A missing colon is forgiven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteName(pub(crate) String);

impl FromStr for RemoteName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_suffix(':').unwrap_or(text);
        if name.is_empty() || name.contains(':') {
            return Err(format!(
                "\"{text}\" is not a remote; write its name and a colon, like lab:"
            ));
        }
        Ok(Self(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_colon_parts_remote_and_name() {
        let parse = |text: &str| text.parse::<Target>().unwrap();
        assert_eq!(
            parse("web"),
            Target {
                remote: None,
                name: "web".to_owned()
            }
        );
        assert_eq!(
            parse("lab:web"),
            Target {
                remote: Some("lab".to_owned()),
                name: "web".to_owned()
            }
        );
        assert_eq!("lab:".parse::<RemoteName>().unwrap().0, "lab");
        assert!("lab:web".parse::<RemoteName>().is_err());
    }
}
