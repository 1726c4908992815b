//! Uploading an image, and watching what the host does with it.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use indicatif::ProgressBar;
use lodge_api::image::Image;
use lodge_api::operation::Operation;
use lodge_api::page::Page;
use lodge_client::{Client, ClientError, UploadBody, encode_segment};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::image::{DiskFormat, Kind};
use super::path;
use crate::context::Context;
use crate::target::Target;
use crate::{output, progress};

/// How much is read and sent at a time.
const CHUNK: usize = 256 << 10;

/// What a bar says while the file is sent.
const UPLOADING: &str = "uploading";

pub(super) async fn upload(
    context: &Context,
    file: &Path,
    target: &Target,
    kind: Kind,
    format: Option<DiskFormat>,
) -> Result<(), ClientError> {
    let mut url = format!(
        "/v1/images?name={}&kind={}",
        encode_segment(&target.name),
        kind.as_str(),
    );
    if let Some(format) = format {
        url = format!("{url}&format={}", format.as_str());
    }
    let object = path("images", &target.name);
    let image: Image = send(context, file, target, &url, &object).await?;
    match context.format {
        output::Format::Table => {
            println!("{}", told(&image));
            Ok(())
        }
        format => output::structured(format, &image),
    }
}

/// Sends a file, with its checksum, and shows what the host does with it, which is an operation of `object`.
pub(super) async fn send<T: DeserializeOwned>(
    context: &Context,
    file: &Path,
    target: &Target,
    url: &str,
    object: &str,
) -> Result<T, ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let failed = |source| ClientError::File {
        path: file.display().to_string(),
        source,
    };
    let length = tokio::fs::metadata(file).await.map_err(failed)?.len();
    let sha256 = checksum(file, length).await.map_err(failed)?;
    let bar = progress::bytes(length, UPLOADING);
    let chunks = chunks(File::open(file).await.map_err(failed)?, bar.clone());
    let url = format!("{url}&sha256={sha256}");
    let body = UploadBody {
        chunks: Box::pin(chunks),
        length,
    };
    let response = tokio::select! {
        response = client.upload(&url, body) => response,
        never = show_conversion(&client, object, &bar) => match never {},
    };
    bar.finish_and_clear();
    serde_json::from_slice(&response?.body)
        .map_err(|error| ClientError::Usage(format!("unreadable answer: {error}")))
}

/// What became of the upload.
fn told(image: &Image) -> String {
    let text = format!(
        "Image {} uploaded: {}, {}",
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

async fn checksum(file: &Path, length: u64) -> std::io::Result<String> {
    let bar = progress::bytes(length, "reading  ");
    let mut file = File::open(file).await?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = file.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        bar.inc(count as u64);
    }
    bar.finish_and_clear();
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn chunks(
    file: File,
    bar: ProgressBar,
) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + Sync {
    futures_util::stream::try_unfold((file, bar), async |(mut file, bar)| {
        let mut buffer = vec![0; CHUNK];
        let count = file.read(&mut buffer).await?;
        if count == 0 {
            return Ok(None);
        }
        buffer.truncate(count);
        bar.inc(count as u64);
        Ok(Some((Bytes::from(buffer), (file, bar))))
    })
}
