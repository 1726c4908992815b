//! Making an image of a file or of what a host fetches, and watching what the host does with it.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::Method;
use indicatif::ProgressBar;
use lodge_api::image::Image;
use lodge_api::operation::Operation;
use lodge_api::page::Page;
use lodge_client::{Client, ClientError, UploadBody, encode_segment};
use serde::de::DeserializeOwned;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::image::{DiskFormat, Kind};
use super::path;
use crate::content::Content;
use crate::context::Context;
use crate::target::Target;
use crate::{output, progress};

/// How much is read and sent at a time.
const CHUNK: usize = 256 << 10;

/// What a bar says while the file is sent.
const UPLOADING: &str = "uploading";

/// What an image is made of.
#[derive(Debug, Args)]
pub(crate) struct Upload {
    /// The file, or the https:// or http:// address of what the host is to fetch by itself
    #[arg(value_name = "FILE|URL", value_parser = Content::parser())]
    content: Content,
    /// [REMOTE:]NAME it gets
    name: Target,
    /// What it is
    #[arg(long, value_enum)]
    kind: Kind,
    /// Format of a disk; detected if not given
    #[arg(long, value_enum)]
    format: Option<DiskFormat>,
    /// SHA-256 that the content must have, in hexadecimal; a file that is sent is checksummed anyway
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// Print the operation of a URL and return at once
    #[arg(long)]
    background: bool,
}

pub(super) async fn upload(context: &Context, arguments: Upload) -> Result<(), ClientError> {
    match &arguments.content {
        Content::Url(url) => fetch(context, url, &arguments).await,
        Content::File(_) if arguments.background => Err(ClientError::Usage(
            "--background is for URLs: this program sends the file itself".to_owned(),
        )),
        Content::File(file) => upload_file(context, file, &arguments).await,
    }
}

/// Has the host fetch it.
async fn fetch(context: &Context, url: &str, arguments: &Upload) -> Result<(), ClientError> {
    let name = &arguments.name;
    let client = context.client(name.remote.as_deref())?;
    let body = json!({
        "url": url,
        "name": name.name,
        "kind": arguments.kind.as_str(),
        "format": arguments.format.map(DiskFormat::as_str),
        "sha256": arguments.sha256,
    });
    let operation: Operation = client
        .send(Method::POST, "/v1/images:fetch", &body, None)
        .await?;
    if arguments.background {
        return context.finish(&client, operation, true, "").await;
    }
    progress::follow(&client, operation).await?;
    let image: Image = client.get(&path("images", &name.name)).await?;
    show(context, "fetched", &image)
}

async fn upload_file(
    context: &Context,
    file: &Path,
    arguments: &Upload,
) -> Result<(), ClientError> {
    let target = &arguments.name;
    let mut url = format!(
        "/v1/images?name={}&kind={}",
        encode_segment(&target.name),
        arguments.kind.as_str(),
    );
    if let Some(format) = arguments.format {
        url = format!("{url}&format={}", format.as_str());
    }
    if let Some(sha256) = &arguments.sha256 {
        url = format!("{url}&sha256={}", encode_segment(sha256));
    }
    let object = path("images", &target.name);
    let sent: Sent<Image> = send(context, file, target, &url, &object).await?;
    let image = sent.answer;
    if sent.sha256 != image.sha256 {
        let client = context.client(target.remote.as_deref())?;
        client
            .delete(&path("images", &image.id.to_string()))
            .await?;
        let text = format!(
            "{} did not arrive as it is: its checksum is {} and that of the image was {}. The image was deleted; upload it again",
            file.display(),
            sent.sha256,
            image.sha256
        );
        return Err(ClientError::Usage(text));
    }
    show(context, "uploaded", &image)
}

fn show(context: &Context, done: &str, image: &Image) -> Result<(), ClientError> {
    match context.format {
        output::Format::Table => {
            println!("{}", told(done, image));
            Ok(())
        }
        format => output::structured(format, image),
    }
}

/// What the host says of a file that was sent.
pub(super) struct Sent<T> {
    pub(super) answer: T,
    /// SHA-256 of what was read from the file, in lower-case hexadecimal.
    sha256: String,
}

/// Sends a file, which is read once, and shows what the host does with it, which is an operation of `object`.
pub(super) async fn send<T: DeserializeOwned>(
    context: &Context,
    file: &Path,
    target: &Target,
    url: &str,
    object: &str,
) -> Result<Sent<T>, ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let failed = |source| ClientError::File {
        path: file.display().to_string(),
        source,
    };
    let length = tokio::fs::metadata(file).await.map_err(failed)?.len();
    let bar = progress::bytes(length, UPLOADING);
    let sha256 = Arc::new(OnceLock::new());
    let source = Source {
        file: File::open(file).await.map_err(failed)?,
        left: length,
        hash: Sha256::new(),
        sha256: Arc::clone(&sha256),
        bar: bar.clone(),
    };
    let body = UploadBody {
        chunks: Box::pin(futures_util::stream::try_unfold(source, Source::next)),
        length,
    };
    let response = tokio::select! {
        response = client.upload(url, body) => response,
        never = show_conversion(&client, object, &bar) => match never {},
    };
    bar.finish_and_clear();
    let answer = serde_json::from_slice(&response?.body)
        .map_err(|error| ClientError::Usage(format!("unreadable answer: {error}")))?;
    Ok(Sent {
        answer,
        // Nobody asks for the content of an empty file.
        sha256: sha256.get().cloned().unwrap_or_else(|| hex(Sha256::new())),
    })
}

/// What became of it.
fn told(done: &str, image: &Image) -> String {
    let text = format!(
        "Image {} {done}: {}, {}",
        image.name, image.format, image.size
    );
    match &image.origin {
        Some(origin) => format!("{text}, made from {} of {}", origin.format, origin.size),
        None => text,
    }
}

/// Shows what the host does with the upload when it has it all; it is the answer to the upload that ends it.
async fn show_conversion(client: &Client, object: &str, bar: &ProgressBar) -> Infallible {
    const LOOK_EVERY: Duration = Duration::from_millis(500);
    let filter = encode_segment(&format!("target eq {object} and status eq running"));
    let url = format!("/v1/operations?limit=1&filter={filter}");
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let length = bar.length().unwrap_or(0);
        let sending = bar.message() == UPLOADING && bar.position() < length;
        if bar.is_hidden() || sending {
            continue;
        }
        // Who may not see operations sees the upload end, sooner or later.
        let page = client.get::<Page<Operation>>(&url).await;
        let newest = page.ok().and_then(|page| page.items.into_iter().next());
        let Some(now) = newest.and_then(|operation| operation.progress) else {
            continue;
        };
        if bar.message() != now.phase {
            bar.reset();
            bar.set_message(now.phase);
        }
        bar.set_length(now.total);
        bar.set_position(now.done);
    }
}

/// A file on its way.
struct Source {
    file: File,
    /// Bytes not yet read.
    left: u64,
    hash: Sha256,
    /// Told when all was read: nobody asks for what comes after the last byte.
    sha256: Arc<OnceLock<String>>,
    bar: ProgressBar,
}

impl Source {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        let mut buffer = vec![0; CHUNK];
        let count = self.file.read(&mut buffer).await?;
        buffer.truncate(count);
        self.hash.update(&buffer);
        self.left = self.left.saturating_sub(count as u64);
        if self.left == 0 {
            // A file that has grown is read further, and refused for its length.
            let _ = self.sha256.set(hex(self.hash.clone()));
        }
        if count == 0 {
            return Ok(None);
        }
        self.bar.inc(count as u64);
        Ok(Some((Bytes::from(buffer), self)))
    }
}

fn hex(hash: Sha256) -> String {
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;

    /// What is sent of a file that was said to have `length` bytes, and the checksum of it.
    async fn sent(content: &[u8], length: u64) -> (Vec<u8>, Option<String>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, content).unwrap();
        let sha256 = Arc::new(OnceLock::new());
        let source = Source {
            file: File::open(&path).await.unwrap(),
            left: length,
            hash: Sha256::new(),
            sha256: Arc::clone(&sha256),
            bar: ProgressBar::hidden(),
        };
        let pieces = futures_util::stream::try_unfold(source, Source::next);
        let pieces: Vec<Bytes> = pieces.try_collect().await.unwrap();
        (pieces.concat(), sha256.get().cloned())
    }

    #[tokio::test]
    async fn what_is_sent_is_what_the_checksum_is_of() {
        let content: Vec<u8> = (0..3 * CHUNK + 17).map(|at| (at % 251) as u8).collect();
        let (pieces, sha256) = sent(&content, content.len() as u64).await;
        assert!(pieces == content);
        assert_eq!(sha256, Some(hex(Sha256::new_with_prefix(&content))));
    }

    #[tokio::test]
    async fn a_file_that_has_shrunk_has_no_checksum() {
        let (pieces, sha256) = sent(b"short", 6).await;
        assert_eq!(pieces, b"short");
        assert_eq!(sha256, None);
    }
}
