//! A directory of disks and images, held by descriptor.
//!
//! Nothing here follows a symbolic link or leaves the directory (`openat2` with
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`), whatever somebody planted in it.
//! Files appear complete or not at all: they are made under a hidden temporary
//! name, flushed, renamed without replacing, and the directory is flushed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::Mode;

use crate::copy::{self, CopyError, Progress};
use crate::name::{FileName, NameError};
use crate::new_file::{self, NewFile};
use crate::{SECTOR, raw};

/// A directory that holds disks or images.
#[derive(Debug)]
pub struct Datastore {
    directory: OwnedFd,
    /// Whether clones share extents, once that was tried.
    shares: OnceLock<bool>,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Access {
    /// For reading and writing instead of reading only.
    pub write: bool,
    /// Past the page cache (`O_DIRECT`) where the filesystem can; else as usual.
    pub direct: bool,
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// Length in bytes: of a disk, what the guest sees.
    pub size: u64,
    /// Bytes it takes on the datastore. Extents shared with clones count in each.
    pub allocated: u64,
    /// Last change of the content.
    pub modified: SystemTime,
}

/// Room on the filesystem below a datastore, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of the filesystem.
    pub total: u64,
    /// Unused, including what is reserved for root.
    pub free: u64,
    /// Unused and free to take.
    pub available: u64,
    /// Nothing can be written there.
    pub read_only: bool,
}

/// How a clone came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloneMethod {
    /// The filesystem shares the extents (`FICLONE`): instant, no space taken.
    Shared,
    /// Allocated ranges were copied.
    Copied,
}

/// A call on a datastore that failed. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum DatastoreError {
    /// Not a plain file name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is no such file.
    #[error("{name} does not exist")]
    NotFound {
        /// Its name.
        name: String,
    },
    /// The name is taken.
    #[error("{name} exists already")]
    Exists {
        /// The name.
        name: String,
    },
    /// Something else than a regular file or directory, e.g. a symbolic link, has that name.
    #[error("{name} is not a regular file or directory of this datastore")]
    Foreign {
        /// The name.
        name: String,
    },
    /// A directory cannot be removed because it has content.
    #[error("{name} is not empty")]
    NotEmpty {
        /// The name.
        name: String,
    },
    /// A disk size nobody can have.
    #[error("size {size} bytes: {problem}")]
    Size {
        /// The size asked for.
        size: u64,
        /// What is wrong and what to do.
        problem: &'static str,
    },
    /// The datastore is full.
    #[error("no space left on the datastore while {what}")]
    NoSpace {
        /// What was tried.
        what: &'static str,
    },
    /// The caller's progress callback said stop.
    #[error("cancelled")]
    Cancelled,
    /// Anything else the host refused.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The host's error.
        #[source]
        source: io::Error,
    },
}

impl DatastoreError {
    pub(crate) fn host(what: &'static str, error: impl Into<io::Error>) -> Self {
        let source = error.into();
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace { what },
            _ => Self::Host { what, source },
        }
    }

    pub(crate) fn named(what: &'static str, name: &str, errno: Errno) -> Self {
        let name = name.to_owned();
        match errno {
            Errno::ENOENT => Self::NotFound { name },
            Errno::EEXIST => Self::Exists { name },
            Errno::ENOTEMPTY => Self::NotEmpty { name },
            // A symbolic link, a way out of the directory, a socket, a directory instead of a file.
            Errno::ELOOP | Errno::EXDEV | Errno::ENXIO | Errno::EISDIR | Errno::ENOTDIR => {
                Self::Foreign { name }
            }
            _ => Self::host(what, errno),
        }
    }
}

impl From<CopyError> for DatastoreError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Cancelled => Self::Cancelled,
            CopyError::NoSpace => Self::NoSpace { what: "copying" },
            CopyError::Host { what, source } => Self::Host { what, source },
        }
    }
}

impl Datastore {
    fn at(directory: OwnedFd) -> Self {
        Self {
            directory,
            shares: OnceLock::new(),
        }
    }

    /// Opens the directory at `path`, which the caller trusts.
    ///
    /// # Errors
    /// When it is not there or not a directory.
    pub fn open(path: &Path) -> Result<Self, DatastoreError> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = nix::fcntl::open(path, flags, Mode::empty())
            .map_err(|errno| DatastoreError::named("opening", &path.to_string_lossy(), errno))?;
        Ok(Self::at(directory))
    }

    /// Opens a directory inside this one.
    ///
    /// # Errors
    /// [`DatastoreError::NotFound`], or [`DatastoreError::Foreign`] for anything but a directory.
    pub fn open_directory(&self, name: &FileName) -> Result<Self, DatastoreError> {
        let directory = self.open_at(name.as_str(), OFlag::O_DIRECTORY, Mode::empty())?;
        Ok(Self::at(directory))
    }

    /// Makes a directory inside this one and opens it. Durable on return.
    ///
    /// # Errors
    /// [`DatastoreError::Exists`] when the name is taken.
    pub fn create_directory(&self, name: &FileName) -> Result<Self, DatastoreError> {
        nix::sys::stat::mkdirat(&self.directory, name.as_str(), Mode::S_IRWXU)
            .map_err(|errno| DatastoreError::named("making a directory", name.as_str(), errno))?;
        self.sync()?;
        self.open_directory(name)
    }

    /// Removes an empty directory. Durable on return.
    ///
    /// # Errors
    /// [`DatastoreError::NotEmpty`], [`DatastoreError::NotFound`].
    pub fn remove_directory(&self, name: &FileName) -> Result<(), DatastoreError> {
        self.unlink(name.as_str(), nix::unistd::UnlinkatFlags::RemoveDir)
    }

    /// Opens a regular file.
    ///
    /// # Errors
    /// [`DatastoreError::NotFound`], or [`DatastoreError::Foreign`] for anything but a regular file.
    pub fn open_file(&self, name: &FileName, access: Access) -> Result<File, DatastoreError> {
        let mode = if access.write {
            OFlag::O_RDWR
        } else {
            OFlag::O_RDONLY
        };
        // Non-blocking, so that a planted FIFO or device node does not hang the open.
        let file = File::from(self.open_at(
            name.as_str(),
            mode | OFlag::O_NONBLOCK | OFlag::O_NOCTTY,
            Mode::empty(),
        )?);
        if !metadata(&file)?.is_file() {
            return Err(DatastoreError::Foreign {
                name: name.as_str().to_owned(),
            });
        }
        let set = |flags| nix::fcntl::fcntl(&file, FcntlArg::F_SETFL(flags));
        let direct = access.direct && set(OFlag::O_DIRECT).is_ok();
        if !direct {
            set(OFlag::empty())
                .map_err(|errno| DatastoreError::named("opening", name.as_str(), errno))?;
        }
        Ok(file)
    }

    /// Starts a file that appears under its name only when it is complete: an
    /// upload, an import. Dropped before [`NewFile::commit`] it leaves nothing.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn new_file(&self) -> Result<NewFile, DatastoreError> {
        NewFile::create(&self.directory)
    }

    /// Makes an empty disk of `size` bytes that takes no space. Durable on return.
    ///
    /// # Errors
    /// [`DatastoreError::Size`] unless `size` is a positive multiple of 512 that
    /// the filesystem takes; [`DatastoreError::Exists`].
    pub fn create_disk(&self, name: &FileName, size: u64) -> Result<(), DatastoreError> {
        self.require_free(name)?;
        let new = self.new_file()?;
        set_size(new.file(), size)?;
        new.commit(name)
    }

    /// Copies the content of `source` (opened anywhere) to a new file here,
    /// sharing extents where the filesystem can. Durable on return.
    ///
    /// A shared clone is a consistent point in time even while a guest writes to
    /// `source`; a copied one is not. `progress` is called between chunks and may stop the copy.
    ///
    /// # Errors
    /// [`DatastoreError::Exists`], [`DatastoreError::Cancelled`], [`DatastoreError::NoSpace`].
    pub fn clone_file(
        &self,
        source: &File,
        name: &FileName,
        progress: Progress<'_>,
    ) -> Result<CloneMethod, DatastoreError> {
        self.require_free(name)?;
        let (new, method) = self.copy_of(source, progress)?;
        new.commit(name)?;
        Ok(method)
    }

    /// As [`Datastore::clone_file`], in place of the file that has the name, if there is one. At any moment the name
    /// stands for the old or the new one.
    ///
    /// # Errors
    /// [`DatastoreError::Cancelled`], [`DatastoreError::NoSpace`]; the old file stays then.
    pub fn replace_file(
        &self,
        source: &File,
        name: &FileName,
        progress: Progress<'_>,
    ) -> Result<(), DatastoreError> {
        let (new, _) = self.copy_of(source, progress)?;
        new.replace(name)
    }

    /// As [`Datastore::clone_file`], to a file that has no name yet.
    ///
    /// # Errors
    /// [`DatastoreError::Cancelled`], [`DatastoreError::NoSpace`].
    pub fn copy_of(
        &self,
        source: &File,
        progress: Progress<'_>,
    ) -> Result<(NewFile, CloneMethod), DatastoreError> {
        let new = self.new_file()?;
        if copy::share_extents(source, new.file())? {
            return Ok((new, CloneMethod::Shared));
        }
        copy::sparse(source, new.file(), progress)?;
        Ok((new, CloneMethod::Copied))
    }

    /// Makes a disk larger; the new part reads as zeroes. Durable on return.
    ///
    /// # Errors
    /// [`DatastoreError::Size`] for a smaller or impossible size.
    pub fn grow_disk(&self, name: &FileName, size: u64) -> Result<(), DatastoreError> {
        let access = Access {
            write: true,
            direct: false,
        };
        let file = self.open_file(name, access)?;
        if size < metadata(&file)?.len() {
            return Err(DatastoreError::Size {
                size,
                problem: "is smaller than the disk; a disk can only grow",
            });
        }
        set_size(&file, size)?;
        file.sync_all()
            .map_err(|error| DatastoreError::host("flushing", error))
    }

    /// Removes a file. Durable on return.
    ///
    /// # Errors
    /// [`DatastoreError::NotFound`].
    pub fn remove_file(&self, name: &FileName) -> Result<(), DatastoreError> {
        self.unlink(name.as_str(), nix::unistd::UnlinkatFlags::NoRemoveDir)
    }

    /// Size, space taken and age of a file.
    ///
    /// # Errors
    /// As [`Datastore::open_file`].
    pub fn info(&self, name: &FileName) -> Result<FileInfo, DatastoreError> {
        file_info(&self.open_file(name, Access::default())?)
    }

    /// The regular files here, by name. Temporary and foreign files are left out.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn files(&self) -> Result<Vec<FileName>, DatastoreError> {
        let mut names = Vec::new();
        for name in self.entries()? {
            let Ok(name) = FileName::new(&name) else {
                continue;
            };
            match self.info(&name) {
                Ok(_) => names.push(name),
                // Not ours, or removed meanwhile.
                Err(DatastoreError::Foreign { .. } | DatastoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        names.sort();
        Ok(names)
    }

    /// The directories here, by name. Those with names that are no [`FileName`] are left out.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn directories(&self) -> Result<Vec<FileName>, DatastoreError> {
        let mut names = Vec::new();
        for name in self.entries()? {
            let Ok(name) = FileName::new(&name) else {
                continue;
            };
            match self.open_directory(&name) {
                Ok(_) => names.push(name),
                // A file, or removed meanwhile.
                Err(DatastoreError::Foreign { .. } | DatastoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        names.sort();
        Ok(names)
    }

    /// Removes what uploads that died with an earlier process left, and returns
    /// how many. To be called once at start, when no [`NewFile`] is open.
    ///
    /// # Errors
    /// When the directory cannot be read or changed.
    pub fn remove_leftovers(&self) -> Result<usize, DatastoreError> {
        let mut removed = 0;
        for name in self.entries()? {
            if new_file::is_temporary(&name) {
                self.unlink(&name, nix::unistd::UnlinkatFlags::NoRemoveDir)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Room on the filesystem.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn space(&self) -> Result<Space, DatastoreError> {
        let stat = nix::sys::statvfs::fstatvfs(&self.directory)
            .map_err(|errno| DatastoreError::host("asking for free space", errno))?;
        let block = stat.fragment_size();
        Ok(Space {
            total: stat.blocks().saturating_mul(block),
            free: stat.blocks_free().saturating_mul(block),
            available: stat.blocks_available().saturating_mul(block),
            read_only: stat.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY),
        })
    }

    /// A file without a name, which is gone when it is closed.
    ///
    /// # Errors
    /// When the host refuses, or the filesystem knows no such files.
    pub fn unnamed_file(&self) -> Result<File, DatastoreError> {
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR;
        Ok(self
            .open_at(".", flags, Mode::S_IRUSR | Mode::S_IWUSR)?
            .into())
    }

    /// Whether clones share extents here, found by trying the first time.
    ///
    /// # Errors
    /// When the trial files cannot be made.
    pub fn shares_extents(&self) -> Result<bool, DatastoreError> {
        if let Some(shares) = self.shares.get() {
            return Ok(*shares);
        }
        let (from, to) = (self.new_file()?, self.new_file()?);
        set_size(from.file(), SECTOR * 8)?;
        let shares = copy::share_extents(from.file(), to.file())?;
        Ok(*self.shares.get_or_init(|| shares))
    }

    fn open_at(&self, name: &str, flags: OFlag, mode: Mode) -> Result<OwnedFd, DatastoreError> {
        open_beneath(&self.directory, name, flags, mode)
    }

    /// Fails early, before a long copy; the final rename is what really decides.
    fn require_free(&self, name: &FileName) -> Result<(), DatastoreError> {
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        match nix::sys::stat::fstatat(&self.directory, name.as_str(), flags) {
            Ok(_) => Err(DatastoreError::Exists {
                name: name.as_str().to_owned(),
            }),
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(DatastoreError::host("looking up the name", errno)),
        }
    }

    fn entries(&self) -> Result<Vec<String>, DatastoreError> {
        let failed = |errno| DatastoreError::host("listing the datastore", errno);
        // A descriptor of its own: the reading position belongs to the open description.
        let again = open_beneath(&self.directory, ".", OFlag::O_DIRECTORY, Mode::empty())?;
        let mut directory = Dir::from_fd(again).map_err(failed)?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            if let Ok(name) = entry.map_err(failed)?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn unlink(&self, name: &str, what: nix::unistd::UnlinkatFlags) -> Result<(), DatastoreError> {
        nix::unistd::unlinkat(&self.directory, name, what)
            .map_err(|errno| DatastoreError::named("removing", name, errno))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), DatastoreError> {
        nix::unistd::fsync(&self.directory)
            .map_err(|errno| DatastoreError::host("flushing the directory", errno))
    }
}

/// Size, space taken and age of an open file.
///
/// # Errors
/// When the host refuses.
pub fn file_info(file: &File) -> Result<FileInfo, DatastoreError> {
    let metadata = metadata(file)?;
    Ok(FileInfo {
        size: metadata.len(),
        // Always in units of 512 bytes (stat(2)), whatever the filesystem's block is.
        allocated: metadata.blocks().saturating_mul(SECTOR),
        modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
    })
}

/// Makes a file a disk of `size` bytes; what is added reads as zeroes and takes no space.
///
/// # Errors
/// [`DatastoreError::Size`] unless `size` is a positive multiple of 512 that the filesystem takes.
pub fn set_disk_size(file: &File, size: u64) -> Result<(), DatastoreError> {
    set_size(file, size)
}

/// Sets a disk's length, as a hole.
pub(crate) fn set_size(file: &File, size: u64) -> Result<(), DatastoreError> {
    let problem = |problem| Err(DatastoreError::Size { size, problem });
    if size == 0 || !size.is_multiple_of(SECTOR) {
        return problem("must be a positive multiple of 512");
    }
    if size > raw::MAX_SIZE {
        return problem("is more than any Linux file can have");
    }
    match file.set_len(size) {
        Err(error) if error.raw_os_error() == Some(libc::EFBIG) => {
            problem("is more than this filesystem takes for one file")
        }
        result => result.map_err(|error| DatastoreError::host("setting the size", error)),
    }
}

pub(crate) fn open_beneath(
    directory: &impl AsFd,
    name: &str,
    flags: OFlag,
    mode: Mode,
) -> Result<OwnedFd, DatastoreError> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .mode(mode)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
    nix::fcntl::openat2(directory, name, how)
        .map_err(|errno| DatastoreError::named("opening", name, errno))
}

fn metadata(file: &File) -> Result<std::fs::Metadata, DatastoreError> {
    file.metadata()
        .map_err(|error| DatastoreError::host("reading the file's status", error))
}

#[cfg(test)]
mod tests;
