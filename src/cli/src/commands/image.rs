//! `lodge image`: kernels, initial RAM disks and disk images.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Subcommand, ValueEnum};
use indicatif::ProgressBar;
use lodge_api::image::Image;
use lodge_client::{ClientError, UploadBody, age, encode_segment};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::{all, path};
use crate::context::Context;
use crate::target::{RemoteName, Target};
use crate::{output, progress};

/// How much is read and sent at a time.
const CHUNK: usize = 256 << 10;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Upload a file; it is checksummed on both sides
    Upload {
        /// The file
        file: PathBuf,
        /// [REMOTE:]NAME it gets
        name: Target,
        /// What it is
        #[arg(long, value_enum)]
        kind: Kind,
    },
    /// List images
    #[command(visible_alias = "ls")]
    List {
        /// REMOTE:
        remote: Option<RemoteName>,
    },
    /// Show one in full
    Show {
        /// [REMOTE:]NAME
        name: Target,
    },
    /// Delete
    #[command(visible_alias = "rm")]
    Delete {
        /// [REMOTE:]NAME, one or several
        #[arg(required = true)]
        names: Vec<Target>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    /// bzImage or ELF vmlinux
    Kernel,
    /// Initial RAM disk
    Initrd,
    /// Raw disk image
    Disk,
    /// Image of a CD or DVD
    Iso,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Disk => "disk",
            Self::Iso => "iso",
        }
    }
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), ClientError> {
    match verb {
        Verb::Upload { file, name, kind } => upload(context, &file, &name, kind).await,
        Verb::List { remote } => {
            let client = context.client(remote.as_ref().map(|name| name.0.as_str()))?;
            let images: Vec<Image> = all(&client, "images", None).await?;
            output::list(
                context.format,
                &images,
                &["NAME", "KIND", "SIZE", "FORMAT", "AGE"],
                |image| {
                    vec![
                        image.name.to_string(),
                        kind_name(image),
                        image.size.to_string(),
                        image.format.clone(),
                        age(image.created_at),
                    ]
                },
            )
        }
        Verb::Show { name } => {
            let client = context.client(name.remote.as_deref())?;
            let image: Image = client.get(&path("images", &name.name)).await?;
            output::object(context.format, &image, |image| {
                vec![
                    ("Name", image.name.to_string()),
                    ("Id", image.id.to_string()),
                    ("Kind", kind_name(image)),
                    ("Size", image.size.to_string()),
                    ("Format", image.format.clone()),
                    ("SHA-256", image.sha256.clone()),
                    ("Uploaded", image.created_at.to_string()),
                ]
            })
        }
        Verb::Delete { names } => {
            for name in &names {
                let client = context.client(name.remote.as_deref())?;
                client.delete(&path("images", &name.name)).await?;
                output::done(context.format, &format!("Image {} deleted", name.name));
            }
            Ok(())
        }
    }
}

fn kind_name(image: &Image) -> String {
    format!("{:?}", image.kind).to_lowercase()
}

async fn upload(
    context: &Context,
    file: &Path,
    target: &Target,
    kind: Kind,
) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let failed = |source| ClientError::File {
        path: file.display().to_string(),
        source,
    };
    let length = tokio::fs::metadata(file).await.map_err(failed)?.len();
    let sha256 = checksum(file, length).await.map_err(failed)?;
    let bar = progress::bytes(length, "uploading");
    let chunks = chunks(File::open(file).await.map_err(failed)?, bar.clone());
    let url = format!(
        "/v1/images?name={}&kind={}&sha256={sha256}",
        encode_segment(&target.name),
        kind.as_str(),
    );
    let body = UploadBody {
        chunks: Box::pin(chunks),
        length,
    };
    let response = client.upload(&url, body).await;
    bar.finish_and_clear();
    let image: Image = serde_json::from_slice(&response?.body)
        .map_err(|error| ClientError::Usage(format!("unreadable answer: {error}")))?;
    match context.format {
        output::Format::Table => {
            println!(
                "Image {} uploaded: {}, {}",
                image.name, image.format, image.size
            );
            Ok(())
        }
        format => output::structured(format, &image),
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
