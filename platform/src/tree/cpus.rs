//! CPUs, how they are started, and how firmware is called.

use super::walk::{Cells, Node};
use super::{Board, Oddity, Region};

/// The affinity fields of MPIDR_EL1: Aff3 in bits 39–32, Aff2 to Aff0 in bits 23–0.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// One CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The affinity fields of its MPIDR_EL1, nothing else.
    pub mpidr: u64,
    /// How it is started.
    pub enable: EnableMethod,
    /// Its NUMA node.
    pub node: u8,
}

/// How a secondary CPU is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnableMethod {
    /// The tree names no method that Quire supports. A tree with one CPU need not name any.
    None,
    /// PSCI CPU_ON.
    Psci,
    /// It spins until the double word at this physical address, which is memory, is its entry point.
    SpinTable(u64),
}

/// The instruction that calls firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// `hvc #0`
    Hvc,
    /// `smc #0`
    Smc,
}

/// Firmware that speaks PSCI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Psci {
    /// How it is called.
    pub conduit: Conduit,
    /// CPU_ON. The number is fixed since version 0.2; before that it comes from the tree.
    pub cpu_on: Option<u32>,
    /// SYSTEM_OFF; there is none before 0.2.
    pub system_off: Option<u32>,
    /// SYSTEM_RESET; there is none before 0.2.
    pub system_reset: Option<u32>,
    /// PSCI_VERSION; there is none before 0.2.
    pub version: Option<u32>,
}

impl Board {
    /// `/cpus`, after the banks are settled.
    pub(super) fn read_cpus(&mut self, cpus: &Node<'_>) {
        let nodes = cpus.children();
        for node in nodes.filter(|node| node.okay && is_cpu(node)) {
            let mpidr = node.property("reg").and_then(|reg| Cells(reg).take(cpus.cells.address));
            let known = |mpidr: &u64| self.cpus.iter().any(|cpu| cpu.mpidr == *mpidr);
            let Some(mpidr) = mpidr.filter(|mpidr| mpidr & !AFFINITY == 0 && !known(mpidr)) else {
                self.warn(Oddity::BadCpu, node.name, mpidr.unwrap_or(0), 0);
                continue;
            };
            let enable = self.enable_method(cpus, &node);
            let numa = self.numa_node(&node);
            if self.cpus.push(Cpu { mpidr, enable, node: numa }).is_err() {
                self.warn(Oddity::TooMany, node.name, mpidr, 0);
            }
        }
    }

    fn enable_method(&mut self, cpus: &Node<'_>, node: &Node<'_>) -> EnableMethod {
        match node.text("enable-method").or_else(|| cpus.text("enable-method")) {
            Some("psci") => EnableMethod::Psci,
            Some("spin-table") => {
                let address = node.number("cpu-release-addr");
                let writable = |address: &u64| {
                    address.is_multiple_of(8) && Region::new(*address, 8).is_some_and(|word| self.is_memory(&word))
                };
                if let Some(address) = address.filter(writable) {
                    return EnableMethod::SpinTable(address);
                }
                self.warn(Oddity::BadRelease, node.name, address.unwrap_or(0), 0);
                EnableMethod::None
            }
            _ => EnableMethod::None,
        }
    }

    /// A node compatible with one of the PSCI versions.
    pub(super) fn read_psci(&mut self, node: &Node<'_>) {
        let conduit = match node.text("method") {
            Some("hvc") => Conduit::Hvc,
            Some("smc") => Conduit::Smc,
            _ => return self.warn(Oddity::BadPsci, node.name, 0, 0),
        };
        self.psci = Some(if node.is_compatible(&["arm,psci-0.2", "arm,psci-1.0"]) {
            Psci {
                conduit,
                cpu_on: Some(0xc400_0003),
                system_off: Some(0x8400_0008),
                system_reset: Some(0x8400_0009),
                version: Some(0x8400_0000),
            }
        } else {
            Psci { conduit, cpu_on: node.word("cpu_on"), system_off: None, system_reset: None, version: None }
        });
    }
}

/// The specification requires `device_type` but has deprecated it.
fn is_cpu(node: &Node<'_>) -> bool {
    node.device_type.map_or(node.name == "cpu", |kind| kind == "cpu")
}
