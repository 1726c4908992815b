//! A manager in a process of its own, to be killed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use lodge_api::page::ListParams;
use lodge_api::vm::{VmAction, VmStopOptions};
use lodge_manager::IfMatch;
use serde_json::json;

use crate::runtime;
use crate::support::{self, Host, admin, spec, wait};

/// Opens the manager, does what it is told, says so, and waits for its end.
pub fn run(directory: &Path, verb: &str) -> ExitCode {
    let config = support::config(directory);
    runtime().block_on(async {
        let manager = support::open(&config).await;
        println!("open");
        let vms = manager.vm_list(&ListParams::default()).unwrap().items;
        for vm in vms.iter().filter(|_| verb == "start") {
            let name = vm.spec.name.as_str();
            // A guest that runs already is fine.
            let options = VmStopOptions::default();
            if let Ok(operation) = manager
                .vm_action(&admin(), name, VmAction::Start, options)
                .await
            {
                println!("accepted {name}");
                let operation = wait(&manager, &operation).await;
                println!("{} {name}", operation.status.as_str());
            }
        }
        if verb == "churn" {
            churn(&manager).await;
        }
        if verb == "plug" {
            plug(&manager).await;
        }
        println!("done");
        std::io::stdout().flush().unwrap();
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

/// Creates, changes and deletes guests, four at a time, and says what was acknowledged.
async fn churn(manager: &lodge_manager::Manager) {
    let round = std::process::id();
    let work = (0..4).map(|worker| async move {
        for number in 0.. {
            let name = format!("vm-{round}-{worker}-{number}");
            manager.vm_create(&admin(), spec(&name)).await.unwrap();
            println!("acknowledged created {name}");
            let patch = json!({"vcpus": 7});
            manager
                .vm_merge(&admin(), &name, patch, IfMatch::Any)
                .await
                .unwrap();
            println!("acknowledged changed {name}");
            if number % 3 == 0 {
                manager
                    .vm_delete(&admin(), &name, IfMatch::Any)
                    .await
                    .unwrap();
                println!("acknowledged deleted {name}");
            }
        }
    });
    futures_util::future::join_all(work).await;
}

/// Adds a disk to a guest and takes it out again, and says when it begins and when it is done.
async fn plug(manager: &lodge_manager::Manager) {
    loop {
        let attach = serde_json::from_value(json!({"disk": {"disk": "data"}})).unwrap();
        println!("attaching");
        manager.vm_attach(&admin(), "web", attach).await.unwrap();
        println!("attached");
        let detach = serde_json::from_value(json!({"disk": "data", "force": true})).unwrap();
        println!("detaching");
        let operation = manager.vm_detach(&admin(), "web", detach).await.unwrap();
        wait(manager, &operation).await;
        println!("detached");
    }
}

pub struct ManagerProcess {
    pub child: Child,
    pub lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl ManagerProcess {
    pub fn start(host: &Host, verb: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("manager")
            .arg(host.directory.path())
            .arg(verb)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    pub fn wait_for(&mut self, wanted: &str) {
        let found = self.lines.any(|line| line.unwrap() == wanted);
        assert!(found, "the manager never said \"{wanted}\"");
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
