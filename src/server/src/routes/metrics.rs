//! `/metrics` in the OpenMetrics text format.

use std::sync::atomic::AtomicU64;

use axum::extract::State;
use http::header::CONTENT_TYPE;
use lodge_api::privilege::Privilege;
use lodge_api::vm::VmState;
use lodge_api::{ErrorCode, Problem};
use lodge_manager::{DatastoreMetrics, MetricsSnapshot, VmMetrics};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use crate::app::App;
use crate::route::{Access, Route, get};
use crate::wire::reply::{self, Answer};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub fn routes() -> Vec<Route> {
    let access = Access::Needs(Privilege::SystemRead);
    let text = ObjectBuilder::new().schema_type(Type::String).into();
    vec![
        get("/metrics", access, "metrics_view", metrics_view)
            .summary("Numbers for monitoring, as OpenMetrics text")
            .answers_other(200, "The numbers.", Some((OPEN_METRICS, text))),
    ]
}

async fn metrics_view(State(app): State<App>) -> Answer {
    let text = render(&app.manager().metrics())
        .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
    Ok(reply::with(
        axum::response::IntoResponse::into_response(text),
        CONTENT_TYPE,
        OPEN_METRICS,
    ))
}

fn render(now: &MetricsSnapshot) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("lodge");
    host(&mut registry, now);
    datastores(&mut registry, &now.datastores);
    guests(&mut registry, &now.vms);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn host(registry: &mut Registry, now: &MetricsSnapshot) {
    let mut gauge = |name: &str, help: &str, value: f64| {
        registry.register(name, help, ConstGauge::new(value));
    };
    gauge(
        "cpu_used_ratio",
        "CPU time in use, 0 to 1 of all threads",
        now.cpu_percent / 100.0,
    );
    gauge("load_1m", "Load average over one minute", now.load[0]);
    gauge("load_5m", "Load average over five minutes", now.load[1]);
    gauge("load_15m", "Load average over fifteen minutes", now.load[2]);
    gauge(
        "memory_bytes",
        "Memory of the host",
        exact(now.memory_total),
    );
    gauge("memory_used_bytes", "Memory in use", exact(now.memory_used));
    gauge(
        "storage_bytes",
        "Capacity of the data filesystem",
        exact(now.storage_total),
    );
    gauge(
        "storage_free_bytes",
        "Free on the data filesystem",
        exact(now.storage_free),
    );
    gauge(
        "uptime_seconds",
        "Time since the host started",
        now.uptime_seconds,
    );
    gauge(
        "operations_running",
        "Operations under way",
        exact(now.operations_running),
    );
    let mut counter = |name: &str, help: &str, value: u64| {
        registry.register(name, help, ConstCounter::new(value));
    };
    counter(
        "events",
        "Events since the host started",
        now.event_sequence,
    );
    counter("store_changes", "Changes made durable", now.store_revision);
    counter(
        "logins_refused",
        "Logins refused since the manager started",
        now.logins_refused,
    );
}

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, prometheus_client::metrics::counter::Counter<f64, AtomicU64>>;

fn datastores(registry: &mut Registry, all: &[DatastoreMetrics]) {
    let mut gauge = |name: &str, help: &str, value: fn(&DatastoreMetrics) -> f64| {
        let family = Gauges::default();
        for datastore in all {
            let labels = vec![("datastore", datastore.name.to_string())];
            family.get_or_create(&labels).set(value(datastore));
        }
        registry.register(name, help, family);
    };
    gauge(
        "datastore_usable",
        "Whether disks on the datastore can be written",
        |datastore| f64::from(u8::from(datastore.usable)),
    );
    gauge(
        "datastore_bytes",
        "Capacity of the datastore",
        |datastore| exact(datastore.size),
    );
    gauge(
        "datastore_free_bytes",
        "Free on the datastore",
        |datastore| exact(datastore.free),
    );
    gauge(
        "datastore_provisioned_bytes",
        "What the datastore's disks would take if they were full",
        |datastore| exact(datastore.provisioned),
    );
}

fn guests(registry: &mut Registry, vms: &[VmMetrics]) {
    let mut gauge = |name: &str, help: &str, value: fn(&VmMetrics) -> f64| {
        let family = Gauges::default();
        for vm in vms {
            family.get_or_create(&labels(vm)).set(value(vm));
        }
        registry.register(name, help, family);
    };
    let up = |vm: &VmMetrics| f64::from(u8::from(vm.state.is_active()));
    gauge("vm_up", "Whether the guest has a monitor", up);
    gauge("vm_crashed", "Whether the guest crashed", |vm| {
        f64::from(u8::from(vm.state == VmState::Crashed))
    });
    gauge("vm_vcpus", "Virtual CPUs configured", |vm| {
        f64::from(vm.vcpus)
    });
    gauge("vm_memory_bytes", "Memory configured", |vm| {
        exact(vm.memory_configured)
    });
    gauge(
        "vm_memory_used_bytes",
        "Memory held by the monitor, guest memory included",
        |vm| exact(vm.memory_used),
    );
    let mut counter = |name: &str, help: &str, value: fn(&VmMetrics) -> f64| {
        let family = Counters::default();
        for vm in vms {
            family.get_or_create(&labels(vm)).inc_by(value(vm));
        }
        registry.register(name, help, family);
    };
    counter("vm_cpu_seconds", "CPU time used since the start", |vm| {
        vm.cpu_seconds
    });
    counter(
        "vm_cpu_throttled_seconds",
        "Time in which the guest was held back by its limit of CPU time, since the start",
        |vm| vm.cpu_throttled_seconds,
    );
    counter(
        "vm_disk_read_bytes",
        "Read from disks since the start",
        |vm| exact(vm.disk_read_bytes),
    );
    counter(
        "vm_disk_written_bytes",
        "Written to disks since the start",
        |vm| exact(vm.disk_written_bytes),
    );
    counter(
        "vm_disk_throttled_seconds",
        "Time for which requests to disks were held back by limits, all queues together, since the start",
        |vm| vm.disk_throttled_seconds,
    );
    counter("vm_resets", "Resets since the start", |vm| exact(vm.resets));
    guest_memory(registry, vms);
}

/// What guests say about their memory. Those that say nothing have no line, rather than a zero.
fn guest_memory(registry: &mut Registry, vms: &[VmMetrics]) {
    let mut gauge = |name: &str, help: &str, value: fn(&VmMetrics) -> Option<u64>| {
        let family = Gauges::default();
        for (vm, value) in vms.iter().filter_map(|vm| Some((vm, value(vm)?))) {
            family.get_or_create(&labels(vm)).set(exact(value));
        }
        registry.register(name, help, family);
    };
    gauge(
        "vm_guest_memory_target_bytes",
        "Memory the guest should keep",
        |vm| Some(vm.balloon?.target.bytes()),
    );
    gauge(
        "vm_guest_memory_kept_bytes",
        "Memory the guest keeps",
        |vm| Some(vm.balloon?.actual.bytes()),
    );
    gauge(
        "vm_guest_memory_bytes",
        "Memory the guest's kernel manages",
        |vm| Some(vm.guest_memory?.total?.bytes()),
    );
    gauge(
        "vm_guest_memory_free_bytes",
        "Memory the guest uses for nothing",
        |vm| Some(vm.guest_memory?.free?.bytes()),
    );
    gauge(
        "vm_guest_memory_available_bytes",
        "Memory the guest's programs could get without swapping",
        |vm| Some(vm.guest_memory?.available?.bytes()),
    );
    gauge(
        "vm_guest_memory_caches_bytes",
        "Memory of the guest with copies of what is on disks",
        |vm| Some(vm.guest_memory?.caches?.bytes()),
    );
    let mut counter = |name: &str, help: &str, value: fn(&VmMetrics) -> Option<u64>| {
        let family = Counters::default();
        for (vm, value) in vms.iter().filter_map(|vm| Some((vm, value(vm)?))) {
            family.get_or_create(&labels(vm)).inc_by(exact(value));
        }
        registry.register(name, help, family);
    };
    counter(
        "vm_guest_memory_swap_in_bytes",
        "Read from swap since the guest booted",
        |vm| Some(vm.guest_memory?.swap_in?.bytes()),
    );
    counter(
        "vm_guest_memory_swap_out_bytes",
        "Written to swap since the guest booted",
        |vm| Some(vm.guest_memory?.swap_out?.bytes()),
    );
    counter(
        "vm_guest_memory_major_faults",
        "Page faults that waited for a disk, since the guest booted",
        |vm| vm.guest_memory?.major_faults,
    );
}

fn labels(vm: &VmMetrics) -> Labels {
    vec![("vm", vm.name.to_string()), ("id", vm.id.to_string())]
}

/// OpenMetrics numbers are floating point; above 2^53 the last bits are lost, which no graph shows.
#[allow(clippy::cast_precision_loss)]
fn exact(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use lodge_api::Size;
    use lodge_api::vm::{VmBalloon, VmGuestMemory};

    use super::*;

    #[test]
    fn the_text_is_openmetrics() {
        let now = MetricsSnapshot {
            cpu_percent: 50.0,
            memory_total: 4096,
            logins_refused: 3,
            vms: vec![VmMetrics {
                id: uuid::Uuid::nil(),
                name: "web-1".parse().unwrap(),
                state: VmState::Running,
                cpu_seconds: 1.5,
                cpu_throttled_seconds: 0.25,
                memory_used: 10,
                memory_configured: 20,
                vcpus: 2,
                resets: 1,
                disk_read_bytes: 7,
                disk_written_bytes: 8,
                disk_throttled_seconds: 0.5,
                balloon: Some(VmBalloon {
                    target: Size(4096),
                    actual: Size(8192),
                }),
                guest_memory: Some(VmGuestMemory {
                    free: Some(Size(512)),
                    major_faults: Some(9),
                    ..VmGuestMemory::default()
                }),
            }],
            ..MetricsSnapshot::default()
        };
        let text = render(&now).unwrap();
        for line in [
            "lodge_cpu_used_ratio 0.5",
            "lodge_memory_bytes 4096.0",
            "lodge_logins_refused_total 3",
            "lodge_vm_up{vm=\"web-1\",id=\"00000000-0000-0000-0000-000000000000\"} 1.0",
            "lodge_vm_guest_memory_target_bytes{vm=\"web-1\",id=\"00000000-0000-0000-0000-000000000000\"} 4096.0",
            "lodge_vm_guest_memory_kept_bytes{vm=\"web-1\",id=\"00000000-0000-0000-0000-000000000000\"} 8192.0",
            "lodge_vm_guest_memory_free_bytes{vm=\"web-1\",id=\"00000000-0000-0000-0000-000000000000\"} 512.0",
            "lodge_vm_guest_memory_major_faults_total{vm=\"web-1\",id=\"00000000-0000-0000-0000-000000000000\"} 9.0",
            "lodge_vm_cpu_seconds_total{vm=\"web-1\",id=\"00000000-0000-0000-0000-000000000000\"} 1.5",
            "lodge_vm_disk_throttled_seconds_total{vm=\"web-1\",id=\"00000000-0000-0000-0000-000000000000\"} 0.5",
            "lodge_vm_cpu_throttled_seconds_total{vm=\"web-1\",id=\"00000000-0000-0000-0000-000000000000\"} 0.25",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let untold = |line: &str| line.starts_with("lodge_vm_guest_memory_available_bytes{");
        assert!(!text.lines().any(untold), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
