//! Unmodified systems start by stock firmware.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lodge_tests::artifacts;
use lodge_tests::host::Host;
use lodge_tests::machine::Builder;
use lodge_tests::picture::Picture;
use lodge_tests::serial::SILENCE;
use lodge_tests::shared::Shared;
use lodge_tests::terminal::GuestConsole;
use lodge_tests::vnc::{Vnc, ensure_alike};

fn upload_debian(host: &Host) -> Result<()> {
    host.upload(&artifacts::guest_debian(), "debian-12", "disk")
}

/// Uploads discs under their own names.
fn upload_discs(host: &Host, discs: &[&str]) -> Result<()> {
    for &disc in discs {
        host.upload(&artifacts::disc(disc), disc, "iso")?;
    }
    Ok(())
}

/// Makes a guest with a copy of the Debian disk, and starts it.
fn start_debian(host: &Host, name: &str, options: &[&str]) -> Result<GuestConsole> {
    let disk = format!("{name}-root");
    host.cli
        .ok(&["disk", "create", &disk, "--image", "debian-12"])?;
    let arguments = [
        "vm", "create", name, "--memory", "512MiB", "--disk", &disk, "--nic", "default", "--start",
    ];
    host.cli.ok(&[&arguments, options].concat())?;
    GuestConsole::open(&host.cli, name)
}

fn log_in(console: &mut GuestConsole) -> Result<()> {
    console.wait("login: ")?;
    console.write("root\n")?;
    console.wait("Password: ")?;
    console.write("lodge\n")?;
    console.wait("# ")?;
    Ok(())
}

fn power_off(host: &Host, name: &str, mut console: GuestConsole) -> Result<()> {
    console.write("systemctl poweroff\n")?;
    host.wait_state(name, "stopped")?;
    Ok(())
}

/// What the firmware's tables say has reached the kernel: configuration space in memory, the power button, the machine's name.
fn finds_its_machine(console: &mut GuestConsole) -> Result<()> {
    console.write(
        "ls /sys/firmware/acpi/tables | sed s/^/TABLE-/; cat /sys/class/dmi/id/product_name\n",
    )?;
    console.wait("TABLE-APIC")?;
    console.wait("TABLE-DSDT")?;
    console.wait("TABLE-FACP")?;
    console.wait("TABLE-MCFG")?;
    console.wait("Lodge Virtual Machine")?;
    console.write("until ip -4 -o addr show scope global | grep inet; do sleep 1; done\n")?;
    console.wait("inet 10.0.2.")?;
    Ok(())
}

/// The kernel has a driver for the tablet, and hears what is done with it. Its events are types, codes and values of Linux.
fn hears_of_its_pointer(host: &Host, name: &str, console: &mut GuestConsole) -> Result<()> {
    console.write(
        "until D=$(sed -n '/Lodge Tablet/,/^$/s/.*\\(event[0-9]*\\).*/\\1/p' /proc/bus/input/devices) && [ -c /dev/input/$D ]; \
         do sleep 1; done\n",
    )?;
    // The last three of twelve words. Whoever has opened the device hears of all that comes.
    console.write(
        "exec 3</dev/input/$D; echo LIST\"ENS\"; head -c 168 <&3 | od -An -v -tu2 -w24 | awk '{print \"EVENT\", $9, $10, $11}'\n",
    )?;
    console.wait("LISTENS")?;
    let screen = screenshot(host, name)?;
    let [x, y] = [screen.width - 1, screen.height - 1].map(|last| last.to_string());
    host.cli.ok(&["vm", "pointer", name, &x, &y, "--click"])?;
    for event in ["3 0 32767", "3 1 32767", "1 272 1", "1 272 0"] {
        console.wait(&format!("EVENT {event}"))?;
    }
    Ok(())
}

fn screenshot(host: &Host, vm: &str) -> Result<Picture> {
    let file = host.machine.directory().join(format!("{vm}.png"));
    let path = file.to_string_lossy();
    host.cli.ok(&["vm", "screenshot", vm, &path, "--force"])?;
    Picture::read(&file)
}

/// Waits for text on the console of a guest whose BIOS draws it on the screen as well, and clears the screen before.
fn wait_drawn(host: &Host, vm: &str, console: &GuestConsole, pattern: &str) -> Result<()> {
    host.while_it_works(vm, || console.wait_drawn(pattern))
}

/// Presses the reset button, and waits for text as [`wait_drawn`] does. Now and then a guest stands still on an emulated processor,
/// QEMU's guests as well: then it is reset once more, and what it was doing is told.
fn reset_and_wait(host: &Host, vm: &str, console: &GuestConsole, pattern: &str) -> Result<()> {
    host.cli.ok(&["vm", "reset", vm])?;
    let Err(silent) = console.wait_drawn(pattern) else {
        return Ok(());
    };
    eprintln!("{silent:#}\n{}", host.condition(vm));
    host.cli.ok(&["vm", "reset", vm])?;
    wait_drawn(host, vm, console, pattern)
}

fn discs_start_by_bios(host: &Host) -> Result<()> {
    upload_discs(host, &["grub-rescue", "ipxe"])?;
    let arguments = [
        "vm",
        "create",
        "rescue",
        "--firmware",
        "bios",
        "--memory",
        "128MiB",
        "--nic",
        "default,e1000e",
    ];
    let drive = ["--cdrom", "ipxe", "--start"];
    host.cli.ok(&[&arguments[..], &drive].concat())?;
    let mut console = GuestConsole::open(&host.cli, "rescue")?;
    // A key that comes before the disc's program does is remembered for it. The BIOS has iPXE of its own, which takes it, too.
    wait_drawn(host, "rescue", &console, "Booting from DVD/CD")?;
    host.cli.ok(&["vm", "type", "rescue", "--keys", "ctrl-b"])?;
    wait_drawn(host, "rescue", &console, "iPXE initialising devices...ok")?;
    wait_drawn(host, "rescue", &console, "iPXE> ")?;
    let before = screenshot(host, "rescue")?;
    // It has an Intel card's driver, an address by it, and a file to begin with.
    host.cli.ok(&["vm", "type", "rescue", "ifstat\n"])?;
    wait_drawn(host, "rescue", &console, "82574l")?;
    console.write("autoboot\r")?;
    wait_drawn(host, "rescue", &console, "boot.ipxe")?;
    host.cli.ok(&["vm", "pause", "rescue"])?;
    let after = screenshot(host, "rescue")?;
    assert!(before.colours().len() > 1, "nothing is on the screen");
    assert!(before.pixels != after.pixels, "both show the same");
    let seen = Vnc::open(&host.cli, "rescue")?.picture(host.machine.directory())?;
    ensure_alike(&seen, &after)?;
    host.cli.ok(&["vm", "resume", "rescue"])?;
    // Another disc, and the reset button. Drawing the menu of this one takes minutes.
    host.cli.ok(&["vm", "insert", "rescue", "grub-rescue"])?;
    let vm = host.cli.json(&["vm", "show", "rescue"])?;
    assert_eq!(vm["cdroms"][0]["image"], "grub-rescue", "{vm}");
    assert_eq!(vm["status"]["restart_pending"], false, "{vm}");
    reset_and_wait(host, "rescue", &console, "Welcome to GRUB!")?;
    host.cli.ok(&["vm", "eject", "rescue", "--force"])?;
    host.cli.ok(&["vm", "kill", "rescue"])?;
    host.wait_state("rescue", "stopped")?;
    Ok(())
}

/// Memtest86+ writes to the screen and nowhere else: most of it is blue.
fn memtest_shows_itself_by_uefi(host: &Host) -> Result<()> {
    const BLUE: [u8; 3] = [0, 0, 0xaa];
    upload_discs(host, &["memtest"])?;
    let arguments = [
        "vm", "create", "memtest", "--memory", "96MiB", "--cdrom", "memtest",
    ];
    host.cli.ok(&[&arguments[..], &["--start"]].concat())?;
    let console = GuestConsole::open(&host.cli, "memtest")?;
    console.wait("BdsDxe: starting")?;
    let begin = Instant::now();
    loop {
        let picture = screenshot(host, "memtest")?;
        let blue = picture.colours().get(&BLUE).copied().unwrap_or(0);
        if blue * 2 > picture.pixels.len() {
            break;
        }
        ensure!(
            begin.elapsed() < 2 * SILENCE,
            "{blue} of {} by {} pixels are blue",
            picture.width,
            picture.height
        );
        // Nobody tells when a screen changes.
        std::thread::park_timeout(Duration::from_secs(1));
    }
    host.cli.ok(&["vm", "kill", "memtest"])?;
    host.wait_state("memtest", "stopped")?;
    Ok(())
}

/// By the BIOS's iPXE: an address, the script, kernel and initrd, and the installer asks its first question.
fn the_installer_starts(host: &Host) -> Result<()> {
    let arguments = [
        "vm",
        "create",
        "installer",
        "--firmware",
        "bios",
        "--memory",
        "1GiB",
        "--nic",
        "default",
        "--start",
    ];
    host.cli.ok(&arguments)?;
    let mut console = GuestConsole::open(&host.cli, "installer")?;
    wait_drawn(host, "installer", &console, "boot.ipxe")?;
    wait_drawn(host, "installer", &console, "Select a language")?;
    // English, and it takes keys.
    console.write("\r")?;
    wait_drawn(host, "installer", &console, "Select your location")?;
    host.cli.ok(&["vm", "kill", "installer"])?;
    host.wait_state("installer", "stopped")?;
    Ok(())
}

/// Its processor shows Hyper-V, whose clock counts tenths of a microsecond.
fn finds_hyperv(console: &mut GuestConsole) -> Result<()> {
    console.write(
        "modprobe -a cpuid msr; dd if=/dev/cpu/0/cpuid bs=16 count=1 iflag=skip_bytes skip=$((0x40000000)) 2>/dev/null | tail -c 12; echo\n",
    )?;
    console.wait("Microsoft Hv")?;
    console.write(
        "hv() { dd if=/dev/cpu/0/msr bs=8 count=1 iflag=skip_bytes skip=$((0x40000020)) 2>/dev/null | od -An -tu8; }; \
         A=$(hv); sleep 1; B=$(hv); [ $((B - A)) -ge 10000000 ] && echo HYPERV-\"COUNTS\"\n",
    )?;
    console.wait("HYPERV-COUNTS")?;
    Ok(())
}

fn debian_starts_by_bios(host: &Host) -> Result<()> {
    let mut console = start_debian(host, "old", &["--firmware", "bios", "--hyperv"])?;
    console.wait("SeaBIOS")?;
    console.wait("Booting from Hard Disk")?;
    // GRUB reads the kernel by the BIOS, and says nothing meanwhile.
    wait_drawn(host, "old", &console, "login: ")?;
    log_in(&mut console)?;
    finds_its_machine(&mut console)?;
    console.write("[ -d /sys/firmware/efi ] || echo NO-\"UEFI\"\n")?;
    console.wait("NO-UEFI")?;
    finds_hyperv(&mut console)?;
    hears_of_its_pointer(host, "old", &mut console)?;
    power_off(host, "old", console)
}

/// A variable of its own.
const VARIABLE: &str = "Lodge-6c6f6467-6500-4000-8000-000000000001";

/// The firmware's shell starts where there is nothing else. What is set there is still there when the guest is started with a
/// disk, on NVMe.
fn debian_starts_by_uefi_which_remembers(host: &Host) -> Result<()> {
    // UEFI is what a guest gets that asks for nothing.
    let arguments = ["vm", "create", "new", "--memory", "512MiB"];
    host.cli.ok(&[&arguments[..], &["--start"]].concat())?;
    let mut console = GuestConsole::open(&host.cli, "new")?;
    // Its countdown of five seconds takes an emulated processor much longer. Any key but Escape, of which a terminal cannot
    // know for a while whether more of it comes.
    console.wait_drawn("to skip startup.nsh")?;
    console.write("\r")?;
    console.wait("Shell> ")?;
    let (name, guid) = VARIABLE.split_once('-').context("a name and a GUID")?;
    console.write(&format!(
        "setvar {name} -guid {guid} -nv -bs -rt =0x64657370\r"
    ))?;
    console.wait_count("Shell> ", 2)?;
    console.write("reset -s\r")?;
    host.wait_state("new", "stopped")?;

    host.cli
        .ok(&["disk", "create", "new-root", "--image", "debian-12"])?;
    let hardware = ["--disk", "new-root:nvme", "--nic", "default"];
    host.cli
        .ok(&[&["vm", "set", "new"][..], &hardware].concat())?;
    host.cli.ok(&["vm", "start", "new"])?;
    let mut console = GuestConsole::open(&host.cli, "new")?;
    console.wait("BdsDxe: starting")?;
    console.wait("/NVMe")?;
    log_in(&mut console)?;
    finds_its_machine(&mut console)?;
    console.write("mount -t efivarfs e /sys/firmware/efi/efivars\n")?;
    console.write(&format!("cat /sys/firmware/efi/efivars/{VARIABLE}; echo\n"))?;
    // Little-endian.
    console.wait("psed")?;
    power_off(host, "new", console)
}

#[test]
fn unmodified_systems_start_by_bios() {
    let host = Shared::take().unwrap();
    discs_start_by_bios(&host).unwrap();
    upload_debian(&host).unwrap();
    debian_starts_by_bios(&host).unwrap();
}

#[test]
#[ignore = "afterwards the emulated host stands still in khugepaged now and then, until its watchdog resets it"]
fn the_debian_installer_starts_from_the_network() {
    let builder = Builder::new()
        .memory_mib(4096)
        .network_boot(artifacts::network_installer(), "boot.ipxe");
    let host = Host::boot(builder).unwrap();
    the_installer_starts(&host).unwrap();
    host.shut_down().unwrap();
}

/// The host's processor counts instructions: without, QEMU 7.2 fails an assertion whenever a nested guest writes its
/// task priority register, as UEFI firmware does.
#[test]
fn unmodified_systems_start_by_uefi() {
    let builder = Builder::new().memory_mib(4096).data_disk(6 << 30);
    let host = Host::boot(builder.instruction_clock()).unwrap();
    memtest_shows_itself_by_uefi(&host).unwrap();
    upload_debian(&host).unwrap();
    debian_starts_by_uefi_which_remembers(&host).unwrap();
    host.shut_down().unwrap();
}
