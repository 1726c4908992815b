//! What is shown, and what keys and answers do to it.

use std::collections::HashMap;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::Timestamp;
use lodge_api::datastore::Datastore;
use lodge_api::install::{HostDisk, Install};
use lodge_api::local::LocalConsole;
use lodge_api::log::LogEntry;
use lodge_api::operation::Operation;
use lodge_api::system::{System, SystemAction};
use lodge_api::vm::{Vm, VmAction, VmState};

use crate::guest_console::GuestConsole;
use crate::installer::{Installer, Outcome};
use crate::keys;

/// Log lines kept for scrolling.
const LOG_LINES: usize = 1000;

/// The three lists below the host's summary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Tab {
    #[default]
    Guests,
    Operations,
    Log,
}

/// What lies on top of the lists.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Dialog {
    Help,
    Confirm {
        question: String,
        effect: Effect,
    },
    Login {
        user: String,
        password: String,
        editing: Field,
        error: Option<String>,
    },
    Power,
    Install(Installer),
}

/// Field of the log-in dialog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    User,
    Password,
}

/// What the runtime is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    Quit,
    Redraw,
    Vm { name: String, action: VmAction },
    System(SystemAction),
    ListDisks,
    Install(Install),
    LogIn { user: String, password: String },
    OpenConsole(String),
    ConsoleInput(Vec<u8>),
    CloseConsole,
}

/// What the runtime reports.
pub(crate) enum Message {
    Local(Option<Box<LocalConsole>>),
    Snapshot(Box<Snapshot>),
    Disconnected(String),
    Notice(String),
    LoggedIn(String),
    LogInFailed(String),
    Disks(Result<Vec<HostDisk>, String>),
    ConsoleOutput(Vec<u8>),
    ConsoleClosed(String),
}

/// The host at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) system: System,
    pub(crate) datastores: Vec<Datastore>,
    pub(crate) vms: Vec<Vm>,
    pub(crate) operations: Vec<Operation>,
    /// Lines since the last snapshot.
    pub(crate) log: Vec<LogEntry>,
}

/// Everything that is shown.
#[derive(Default)]
pub(crate) struct Model {
    /// The remote's name; `None` on the host itself.
    pub(crate) remote: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) local: Option<LocalConsole>,
    pub(crate) snapshot: Option<Snapshot>,
    /// Why the host is not reached at present.
    pub(crate) disconnected: Option<String>,
    pub(crate) log: Vec<LogEntry>,
    pub(crate) tab: Tab,
    pub(crate) selected: usize,
    pub(crate) dialog: Option<Dialog>,
    pub(crate) console: Option<GuestConsole>,
    pub(crate) notice: Option<String>,
    cpu: HashMap<String, CpuSample>,
}

#[derive(Debug, Clone, Copy)]
struct CpuSample {
    time: Timestamp,
    used_us: u64,
    percent: f64,
}

impl Model {
    /// The guest under the bar.
    pub(crate) fn selected_vm(&self) -> Option<&Vm> {
        match self.tab {
            Tab::Guests => self.snapshot.as_ref()?.vms.get(self.selected),
            Tab::Operations | Tab::Log => None,
        }
    }

    /// CPU use of a guest between the last two snapshots, in percent of one CPU.
    pub(crate) fn cpu_percent(&self, vm: &Vm) -> Option<f64> {
        vm.status.state.is_active().then_some(())?;
        self.cpu
            .get(&vm.id.to_string())
            .map(|sample| sample.percent)
    }

    /// Rows of the present list.
    pub(crate) fn rows(&self) -> usize {
        let Some(snapshot) = &self.snapshot else {
            return 0;
        };
        match self.tab {
            Tab::Guests => snapshot.vms.len(),
            Tab::Operations => snapshot.operations.len(),
            Tab::Log => self.log.len(),
        }
    }

    /// Takes in what the runtime reports.
    pub(crate) fn receive(&mut self, message: Message) {
        match message {
            Message::Local(local) => self.local = local.map(|local| *local),
            Message::Snapshot(snapshot) => self.take_snapshot(*snapshot),
            Message::Disconnected(reason) => self.disconnected = Some(reason),
            Message::Notice(text) => self.notice = Some(text),
            Message::LoggedIn(user) => {
                self.notice = Some(format!("Logged in as {user}"));
                self.user = Some(user);
                self.dialog = None;
            }
            Message::LogInFailed(reason) => {
                if let Some(Dialog::Login {
                    error, password, ..
                }) = &mut self.dialog
                {
                    *error = Some(reason);
                    password.clear();
                }
            }
            Message::Disks(disks) => {
                if let Some(Dialog::Install(installer)) = &mut self.dialog {
                    installer.take_disks(disks);
                }
            }
            Message::ConsoleOutput(bytes) => {
                if let Some(console) = &mut self.console {
                    console.output(&bytes);
                }
            }
            Message::ConsoleClosed(reason) => {
                self.console = None;
                let reason = if reason.is_empty() {
                    "The console was closed".to_owned()
                } else {
                    reason
                };
                self.notice = Some(reason);
            }
        }
    }

    fn take_snapshot(&mut self, mut snapshot: Snapshot) {
        self.disconnected = None;
        self.sample_cpu(&snapshot);
        let following = self.tab == Tab::Log && self.selected + 1 >= self.log.len();
        self.log.append(&mut snapshot.log);
        let surplus = self.log.len().saturating_sub(LOG_LINES);
        self.log.drain(..surplus);
        self.snapshot = Some(snapshot);
        if following {
            self.selected = self.log.len().saturating_sub(1);
        }
        self.selected = self.selected.min(self.rows().saturating_sub(1));
    }

    fn sample_cpu(&mut self, snapshot: &Snapshot) {
        let time = snapshot.system.now;
        let samples = snapshot.vms.iter().map(|vm| {
            let key = vm.id.to_string();
            let used_us = vm.status.cpu_time_us;
            let percent = self.cpu.get(&key).map_or(0.0, |last| {
                let wall = time.duration_since(last.time).as_micros();
                match used_us.checked_sub(last.used_us) {
                    Some(used) if wall > 0 => used as f64 * 100.0 / wall as f64,
                    _ => 0.0,
                }
            });
            (
                key,
                CpuSample {
                    time,
                    used_us,
                    percent,
                },
            )
        });
        self.cpu = samples.collect();
    }

    /// Takes in a key.
    pub(crate) fn press(&mut self, key: KeyEvent) -> Option<Effect> {
        self.notice = None;
        if self.console.is_some() {
            return Some(if keys::is_escape(key) {
                self.console = None;
                Effect::CloseConsole
            } else {
                Effect::ConsoleInput(keys::encode(key))
            });
        }
        if let Some(dialog) = self.dialog.take() {
            return self.press_in_dialog(dialog, key);
        }
        self.press_in_list(key)
    }

    fn press_in_list(&mut self, key: KeyEvent) -> Option<Effect> {
        match key.code {
            KeyCode::Char('l') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Some(Effect::Redraw);
            }
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Some(Effect::Quit);
            }
            KeyCode::Char('q') => return Some(Effect::Quit),
            KeyCode::Char('h' | '?') | KeyCode::F(1) => self.dialog = Some(Dialog::Help),
            KeyCode::Char('L') | KeyCode::F(2) => self.dialog = Some(login(None)),
            KeyCode::Char('P') | KeyCode::F(12) => self.dialog = Some(Dialog::Power),
            KeyCode::Char('I') | KeyCode::F(3) => {
                let effect = self.allowed(Effect::ListDisks)?;
                self.dialog = Some(Dialog::Install(Installer::default()));
                return Some(effect);
            }
            KeyCode::Tab | KeyCode::Right => self.show(match self.tab {
                Tab::Guests => Tab::Operations,
                Tab::Operations => Tab::Log,
                Tab::Log => Tab::Guests,
            }),
            KeyCode::BackTab | KeyCode::Left => self.show(match self.tab {
                Tab::Guests => Tab::Log,
                Tab::Operations => Tab::Guests,
                Tab::Log => Tab::Operations,
            }),
            KeyCode::Up => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down => self.go(self.selected + 1),
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(10),
            KeyCode::PageDown => self.go(self.selected + 10),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.go(usize::MAX),
            code => return self.press_on_guest(code),
        }
        None
    }

    fn go(&mut self, row: usize) {
        self.selected = row.min(self.rows().saturating_sub(1));
    }

    fn show(&mut self, tab: Tab) {
        self.tab = tab;
        self.selected = 0;
        if tab == Tab::Log {
            self.go(usize::MAX);
        }
    }

    fn press_on_guest(&mut self, code: KeyCode) -> Option<Effect> {
        let vm = self.selected_vm()?;
        let name = vm.spec.name.to_string();
        let state = vm.status.state;
        let act = |action| Effect::Vm {
            name: name.clone(),
            action,
        };
        let (question, effect) = match code {
            KeyCode::Enter | KeyCode::Char('c') => {
                if state.is_active() {
                    return self.allowed(Effect::OpenConsole(name));
                }
                self.notice = Some(format!("{name} is {}; press s to start it", state.as_str()));
                return None;
            }
            KeyCode::Char('s') => return self.allowed(act(VmAction::Start)),
            KeyCode::Char('p') if state == VmState::Paused => {
                return self.allowed(act(VmAction::Resume));
            }
            KeyCode::Char('p') => return self.allowed(act(VmAction::Pause)),
            KeyCode::Char('x') => (format!("Power off {name}?"), act(VmAction::Stop)),
            KeyCode::Char('k') => (
                format!("End {name} at once, as if the power was cut?"),
                act(VmAction::Kill),
            ),
            KeyCode::Char('r') => (
                format!("Press the reset button of {name}?"),
                act(VmAction::Reset),
            ),
            _ => return None,
        };
        let effect = self.allowed(effect)?;
        self.dialog = Some(Dialog::Confirm { question, effect });
        None
    }

    /// On the host's own console changes need a log-in first.
    fn allowed(&mut self, effect: Effect) -> Option<Effect> {
        if self.remote.is_none() && self.user.is_none() {
            self.dialog = Some(login(Some("Log in to do this")));
            return None;
        }
        Some(effect)
    }

    fn press_in_dialog(&mut self, dialog: Dialog, key: KeyEvent) -> Option<Effect> {
        match dialog {
            _ if key.code == KeyCode::Esc => None,
            Dialog::Help => None,
            Dialog::Confirm { question, effect } => match key.code {
                KeyCode::Char('y' | 'Y') | KeyCode::Enter => Some(effect),
                KeyCode::Char('n' | 'N') => None,
                _ => {
                    self.dialog = Some(Dialog::Confirm { question, effect });
                    None
                }
            },
            Dialog::Power => {
                let (question, action) = match key.code {
                    KeyCode::Char('s' | 'S') => {
                        ("Power off all guests and the host?", SystemAction::Shutdown)
                    }
                    KeyCode::Char('r' | 'R') => (
                        "Power off all guests and restart the host?",
                        SystemAction::Reboot,
                    ),
                    _ => return None,
                };
                let effect = self.allowed(Effect::System(action))?;
                self.dialog = Some(Dialog::Confirm {
                    question: question.to_owned(),
                    effect,
                });
                None
            }
            Dialog::Install(mut installer) => match installer.press(key) {
                Outcome::Install(request) => Some(Effect::Install(request)),
                Outcome::Stay => {
                    self.dialog = Some(Dialog::Install(installer));
                    None
                }
            },
            Dialog::Login {
                user,
                password,
                editing,
                error,
            } => self.press_in_login(user, password, editing, error, key),
        }
    }

    fn press_in_login(
        &mut self,
        mut user: String,
        mut password: String,
        mut editing: Field,
        mut error: Option<String>,
        key: KeyEvent,
    ) -> Option<Effect> {
        let text = match editing {
            Field::User => &mut user,
            Field::Password => &mut password,
        };
        let mut effect = None;
        match key.code {
            KeyCode::Char(c) if text.len() < 256 => text.push(c),
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::Tab | KeyCode::BackTab | KeyCode::Up | KeyCode::Down => {
                editing = match editing {
                    Field::User => Field::Password,
                    Field::Password => Field::User,
                };
            }
            KeyCode::Enter if editing == Field::User => editing = Field::Password,
            KeyCode::Enter => {
                error = Some("Logging in…".to_owned());
                effect = Some(Effect::LogIn {
                    user: user.clone(),
                    password: password.clone(),
                });
            }
            _ => {}
        }
        self.dialog = Some(Dialog::Login {
            user,
            password,
            editing,
            error,
        });
        effect
    }
}

fn login(why: Option<&str>) -> Dialog {
    Dialog::Login {
        user: "admin".to_owned(),
        password: String::new(),
        editing: Field::Password,
        error: why.map(str::to_owned),
    }
}
