//! `lodge image`: kernels, initial RAM disks and disk images.

use clap::{Subcommand, ValueEnum};
use lodge_api::image::Image;
use lodge_client::{ClientError, age};

use super::export::{Export, export};
use super::image_upload::{Upload, upload};
use super::{all, path};
use crate::context::Context;
use crate::output;
use crate::target::{RemoteName, Target};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Upload a file, or have the host fetch one. Disks may be raw, qcow2, VMDK, VHD or VHDX; the host makes them raw
    Upload(Upload),
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
    /// Download; a disk as raw, qcow2 or VMDK
    Export(Export),
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
    /// Disk image
    Disk,
    /// Image of a CD or DVD
    Iso,
}

/// How a file makes a disk.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum DiskFormat {
    /// As it is
    Raw,
    /// QEMU's, versions 2 and 3
    Qcow2,
    /// VMware's in one file
    Vmdk,
    /// Virtual PC's and the first of Hyper-V
    Vhd,
    /// Hyper-V's
    Vhdx,
}

impl DiskFormat {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
        }
    }
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
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
        Verb::Upload(arguments) => upload(context, arguments).await,
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
            output::object(context.format, &image, rows)
        }
        Verb::Export(arguments) => export(context, "images", arguments).await,
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

fn rows(image: &Image) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("Name", image.name.to_string()),
        ("Id", image.id.to_string()),
        ("Kind", kind_name(image)),
        ("Size", image.size.to_string()),
        ("Format", image.format.clone()),
        ("SHA-256", image.sha256.clone()),
        ("Uploaded", image.created_at.to_string()),
    ];
    let origin = image.origin.as_ref();
    rows.extend(origin.map(|origin| ("Made from", format!("{}, {}", origin.format, origin.size))));
    rows
}

fn kind_name(image: &Image) -> String {
    format!("{:?}", image.kind).to_lowercase()
}
