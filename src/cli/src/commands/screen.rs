//! A guest's screen, keyboard and pointer, from here.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use http::Method;
use lodge_api::keyboard::VmKeys;
use lodge_api::pointer::{PointerButton, VmPointer};
use lodge_client::ClientError;

use super::path;
use crate::context::Context;
use crate::output;
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Screenshot {
    /// [REMOTE:]NAME
    name: Target,
    /// Where the PNG goes; - for standard output [NAME.png]
    file: Option<PathBuf>,
    /// Overwrite the file
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Type {
    /// [REMOTE:]NAME
    name: Target,
    /// A text in ASCII, on a US keyboard; a line feed is Enter
    #[arg(
        required_unless_present = "keys",
        conflicts_with = "keys",
        allow_hyphen_values = true
    )]
    text: Option<String>,
    /// Keys by name, like ctrl-alt-delete,f2,enter
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    keys: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Point {
    /// [REMOTE:]NAME
    name: Target,
    /// Pixels from the left edge, as a screenshot has them
    x: u32,
    /// Pixels from the upper edge
    y: u32,
    /// Press and release a button there: left, middle or right
    #[arg(long, value_name = "BUTTON", num_args = 0..=1, default_missing_value = "left")]
    click: Option<PointerButton>,
}

/// Saves what is on the screen.
pub(crate) async fn screenshot(context: &Context, options: Screenshot) -> Result<(), ClientError> {
    let target = &options.name;
    let file = match &options.file {
        Some(file) => file.clone(),
        None => default_file(&target.name),
    };
    let shown = file.display().to_string();
    let failed = |source: io::Error| {
        if source.kind() == io::ErrorKind::AlreadyExists {
            let text = format!("{shown} exists: choose another file, or overwrite it with --force");
            return ClientError::Usage(text);
        }
        let path = shown.clone();
        ClientError::File { path, source }
    };
    let to_stdout = file == Path::new("-");
    if !to_stdout && !options.force && file.exists() {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    let client = context.client(target.remote.as_deref())?;
    let url = format!("{}/screenshot", path("vms", &target.name));
    // Nothing is made here before there is something to write.
    let png = client.raw(Method::GET, &url, None, None).await?.body;
    if to_stdout {
        let mut out = io::stdout();
        return out
            .write_all(&png)
            .and_then(|()| out.flush())
            .map_err(failed);
    }
    create(&file, options.force)
        .and_then(|mut made| made.write_all(&png))
        .map_err(failed)?;
    output::done(context.format, &format!("Screen saved as {shown}"));
    Ok(())
}

/// Names and ids hold nothing that is special in file names; what else a person typed stays in this directory.
fn default_file(name: &str) -> PathBuf {
    PathBuf::from(format!("{}.png", name.replace('/', "_")))
}

fn create(file: &Path, overwrite: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    if overwrite {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(file)
}

/// Types.
pub(crate) async fn type_in(context: &Context, options: Type) -> Result<(), ClientError> {
    let Type { name, text, keys } = options;
    let client = context.client(name.remote.as_deref())?;
    let url = format!("{}:type", path("vms", &name.name));
    let keys = serde_json::to_vec(&VmKeys { text, keys })
        .map_err(|error| ClientError::Usage(error.to_string()))?;
    client
        .raw(Method::POST, &url, Some(keys.into()), None)
        .await?;
    output::done(context.format, &format!("Typed on VM {}", name.name));
    Ok(())
}

/// Points.
pub(crate) async fn point(context: &Context, options: Point) -> Result<(), ClientError> {
    let Point { name, x, y, click } = options;
    let client = context.client(name.remote.as_deref())?;
    let url = format!("{}:pointer", path("vms", &name.name));
    let body = serde_json::to_vec(&VmPointer { x, y, click })
        .map_err(|error| ClientError::Usage(error.to_string()))?;
    client
        .raw(Method::POST, &url, Some(body.into()), None)
        .await?;
    output::done(
        context.format,
        &format!("Pointer of VM {} is at {x}, {y}", name.name),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    fn parse<A: Args + FromArgMatches>(arguments: &[&str]) -> Result<A, clap::Error> {
        let command = A::augment_args(Command::new("test").no_binary_name(true));
        A::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    #[test]
    fn keys_or_a_text_are_typed() {
        let keys: Type = parse(&["lab:web", "--keys", "ctrl-alt-delete,enter"]).unwrap();
        assert_eq!(keys.keys, ["ctrl-alt-delete", "enter"]);
        assert_eq!((keys.name.name.as_str(), keys.text), ("web", None));
        let text: Type = parse(&["web", "-la\n"]).unwrap();
        assert_eq!(text.text.as_deref(), Some("-la\n"));
        assert!(parse::<Type>(&["web"]).is_err());
        assert!(parse::<Type>(&["web", "a", "--keys", "b"]).is_err());
    }

    #[test]
    fn a_click_is_one_of_the_left_button_unless_told() {
        let click = |arguments: &[&str]| parse::<Point>(arguments).map(|point| point.click);
        assert_eq!(click(&["web", "1", "2"]).unwrap(), None);
        let left = Some(PointerButton::Left);
        assert_eq!(click(&["web", "1", "2", "--click"]).unwrap(), left);
        let right = Some(PointerButton::Right);
        assert_eq!(
            click(&["web", "1", "2", "--click", "right"]).unwrap(),
            right
        );
        for wrong in [
            &["web", "1"][..],
            &["web", "1", "-2"],
            &["web", "1", "2", "--click", "4"],
        ] {
            assert!(click(wrong).is_err());
        }
    }

    #[test]
    fn a_picture_is_saved_under_the_name_of_the_guest() {
        assert_eq!(default_file("web"), Path::new("web.png"));
        assert_eq!(default_file("../web"), Path::new(".._web.png"));
    }

    #[test]
    fn a_file_is_overwritten_only_when_told() {
        let name = format!("lodge-cli-test-{}.png", std::process::id());
        let file = std::env::temp_dir().join(name);
        create(&file, false).unwrap();
        let error = create(&file, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        create(&file, true).unwrap();
        std::fs::remove_file(&file).unwrap();
    }
}
