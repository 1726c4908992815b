//! The first administrator, and its password until somebody has chosen another.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use lodge_api::Problem;
use lodge_api::privilege::Role;
use lodge_host::boot::BootReport;
use lodge_host::seed::AdminSecret;
use lodge_store::{Batch, Versioned};
use uuid::Uuid;

use crate::core::{Core, internal};
use crate::users::{Initial, UserRecord};
use crate::{catalogue, password};

/// Name of the first administrator.
const ADMIN: &str = "admin";

/// The random administrator's password of the first boot, while it is in force: in memory, and in a
/// file of the run directory for a restarted manager.
#[derive(Debug)]
pub(crate) struct InitialPassword {
    path: PathBuf,
    text: Mutex<Option<String>>,
}

impl InitialPassword {
    pub(crate) fn new(run_dir: &Path) -> Self {
        Self {
            path: run_dir.join("initial-password"),
            text: Mutex::new(None),
        }
    }

    pub(crate) fn get(&self) -> Option<String> {
        self.text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, text: Option<String>) {
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    fn read_back(&self) -> bool {
        let text = fs::read_to_string(&self.path).ok();
        let found = text.is_some();
        self.set(text);
        found
    }

    fn keep(&self, text: String) -> std::io::Result<()> {
        let mut file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)?;
        file.write_all(text.as_bytes())?;
        self.set(Some(text));
        Ok(())
    }

    /// It is in force no more.
    pub(crate) fn forget(&self) {
        // That it is not there is what is wanted.
        let _ = fs::remove_file(&self.path);
        self.set(None);
    }
}

impl Core {
    /// Makes the first administrator, and a new random password where nobody has seen the last one.
    pub(crate) async fn prepare_administrator(&self) -> Result<(), Problem> {
        let snapshot = self.snapshot();
        if snapshot.count::<UserRecord>() == 0 {
            return self.make_administrator().await;
        }
        let unused = snapshot
            .list::<UserRecord>()
            .into_iter()
            .find(|(_, user)| user.value.initial != Initial::No);
        let Some((_, user)) = unused else {
            self.initial_password.forget();
            return Ok(());
        };
        if self.initial_password.read_back() || user.value.initial == Initial::Used {
            return Ok(());
        }
        let mut changed = user.value.clone();
        let text = password::random()?;
        changed.password_hash = password::hash(text.clone()).await?;
        let mut batch = Batch::new();
        catalogue::replace(&mut batch, &user, &changed)?;
        self.commit(batch).await?;
        self.show_initial(text)
    }

    async fn make_administrator(&self) -> Result<(), Problem> {
        let secret = seed_secret(self.boot.as_ref());
        let (password_hash, random) = match secret {
            Some(AdminSecret::PasswordHash(hash)) if password::is_hash(&hash) => (hash, None),
            Some(AdminSecret::Password(text)) => (password::hash(text).await?, None),
            other => {
                if other.is_some() {
                    tracing::warn!(
                        "the seed's password hash is not an argon2id hash; a random password is used"
                    );
                }
                let text = password::random()?;
                (password::hash(text.clone()).await?, Some(text))
            }
        };
        let record = UserRecord {
            id: Uuid::now_v7(),
            name: ADMIN
                .parse()
                .map_err(|_| internal("the administrator's name"))?,
            role: Role::Administrator,
            disabled: false,
            created_at: Timestamp::now(),
            password_hash,
            initial: if random.is_some() {
                Initial::Unused
            } else {
                Initial::No
            },
        };
        let mut batch = Batch::new();
        catalogue::insert(&mut batch, &record)?;
        self.commit(batch).await?;
        tracing::info!("created the administrator \"{ADMIN}\"");
        random.map_or(Ok(()), |text| self.show_initial(text))
    }

    fn show_initial(&self, text: String) -> Result<(), Problem> {
        self.initial_password
            .keep(text)
            .map_err(|error| internal(format!("the initial password cannot be kept: {error}")))
    }

    /// Notes that somebody knows the random password.
    pub(crate) async fn initial_was_used(&self, user: &Versioned<UserRecord>) {
        let mut changed = user.value.clone();
        changed.initial = Initial::Used;
        let mut batch = Batch::new();
        batch.may_use_reserve();
        let result = match catalogue::replace(&mut batch, user, &changed) {
            Ok(()) => self.commit(batch).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "the use of the initial password could not be noted");
        }
    }
}

fn seed_secret(boot: Option<&BootReport>) -> Option<AdminSecret> {
    let admin = boot?.seed.as_ref()?.seed.admin.as_ref()?;
    Some(admin.secret.clone())
}
